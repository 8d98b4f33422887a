"""Kill the daemon before and after every call it makes to a port, start it again, and look at the promises.

The calls are numbered as they come: a run is killed at the first, the next at the second …, until one passes whole.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from rotator.core.grants import Grant, Kind, Outcome, OutcomeClass
from rotator.core.policy import Budget, Reuse, Rules
from rotator.core.ports import TokenRequest
from rotator.core.publication import Publication, Settled
from rotator.engine.timing import Timing
from rotator.lab.memory import MemoryStore
from rotator.lab.world import MemoryPublisher
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, granted, play

# Few sweeps: what is told here does not hang on them, and there are hundreds of stories.
QUIET = Timing(sweep_every=10 * MINUTE, verify_every=10 * MINUTE)
# Longer than any token lives, so that every recovery must have come in time.
LONG = 70 * MINUTE


class Doom:
    """Numbers every call, and lets the one of number ``at`` never come back; from then on none does."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.count = 0
        self.struck = asyncio.Event()
        self.where = ""

    async def pass_by(self, where: str) -> None:
        self.count += 1
        if self.count == self.at:
            self.where = where
            self.struck.set()
        if self.struck.is_set():
            await asyncio.Event().wait()
        # A real port takes its time, in which everybody else goes on.
        await asyncio.sleep(0.001)


class Mortal:
    """A port whose every call may be the last, before it has an effect or after it."""

    def __init__(self, inner: Any, doom: Doom) -> None:
        self._inner = inner
        self._doom = doom

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*given: Any, **named: Any) -> Any:
            await self._doom.pass_by(f"before {name}")
            answer = await found(*given, **named)
            await self._doom.pass_by(f"after {name}")
            return answer

        return call


class StrictProvider:
    """Rotates at every refresh. A spent refresh token is refused, costs the family at some providers, and is forgiven
    for a while at others. Knows which access tokens a reader may really use."""

    def __init__(self, reuse: Reuse, grace: timedelta, now: Callable[[], datetime]) -> None:
        self.reuse, self.grace, self.now = reuse, grace, now
        self.count = 0
        self.live: str | None = None
        self.spent: dict[str, datetime] = {}
        self.usable: dict[str, datetime] = {}

    def __call__(self, request: TokenRequest) -> Outcome:
        if request.kind is Kind.REFRESH:
            assert request.refresh is not None
            token = request.refresh.reveal()
            forgiven = token in self.spent and self.now() - self.spent[token] < self.grace
            if token != self.live and not forgiven:
                if self.reuse is Reuse.KILLS_FAMILY:
                    self.live = None
                    self.usable.clear()
                return Outcome(cls=OutcomeClass.REFRESH_DEAD, message="HTTP 400 invalid_grant")
            self.spent.setdefault(token, self.now())
        self.count += 1
        self.live = f"refresh-{self.count}"
        self.usable[f"access-{self.count}"] = self.now() + HOUR
        return granted(self.count)

    def serves(self, held: object) -> bool:
        return isinstance(held, Publication) and self.now() < self.usable.get(held.value.reveal(), self.now())


@dataclass
class Story:
    """One grant over several lives of the daemon."""

    stage: Stage
    provider: StrictProvider
    saved: set[tuple[int, str]]
    hasty: list[int] = field(default_factory=list)
    published: bool = False
    generation: int = 0
    _place: MemoryPublisher | None = None

    @classmethod
    def begin(cls, reuse: Reuse, grace: timedelta) -> Story:
        rules = Rules(password=True, reuse=reuse, grace=grace, budget=Budget(limit=3))
        stage = Stage(rules=rules, timing=QUIET, latency=SECOND)
        provider = StrictProvider(reuse, grace, stage.clock.now)
        stage.endpoint.script = provider
        return cls(stage, provider, set())

    def enter(self, doom: Doom) -> None:
        """A process of its own at the same shelf."""
        stage = self.stage
        store = MemoryStore(stage.store.shelf, clock=stage.clock, dice=stage.dice)
        save = store.save

        async def noting(grant: Grant, **rest: Any) -> None:
            # Slower than any publisher, so that whoever does not wait for it is seen.
            await asyncio.sleep(0.1)
            await save(grant, **rest)
            if grant.access is not None:
                self.saved.add((grant.access.generation, grant.access.value.reveal()))

        store.save = noting  # type: ignore[method-assign,assignment]
        stage.store = Mortal(store, doom)  # type: ignore[assignment]
        enrolment = stage.enrolment("billing")
        if self._place is None:
            self._place = self._watched(stage.place())
        stage.roster.by_name["billing"] = replace(
            enrolment,
            endpoint=Mortal(stage.endpoint, doom),
            credentials=Mortal(stage.credentials, doom),
            targets={"app": Mortal(self._place, doom)},
        )

    def _watched(self, place: MemoryPublisher) -> MemoryPublisher:
        settle = place.settle

        async def watching(publication: Publication, now: datetime) -> Settled:
            if (publication.generation, publication.value.reveal()) not in self.saved:
                self.hasty.append(publication.generation)
            return await settle(publication, now)

        place.settle = watching  # type: ignore[method-assign]
        return place

    async def live(self, span: timedelta, doom: Doom | None = None) -> Doom:
        """Let the daemon serve for ``span``, or until the doom strikes; a reader looks all the while."""
        doom = doom or Doom()
        self.enter(doom)
        before = asyncio.all_tasks()
        daemon = self.stage.raise_daemon()
        serving = asyncio.create_task(daemon.serve())
        end = self.stage.clock.now() + span
        striking = asyncio.create_task(doom.struck.wait())
        try:
            while self.stage.clock.now() < end and not doom.struck.is_set():
                await asyncio.wait([striking], timeout=20)
                self.look()
            daemon.stop()
            await asyncio.wait([striking, serving], return_when=asyncio.FIRST_COMPLETED)
            if not doom.struck.is_set():
                await serving
        finally:
            # Also where a look failed: nothing of this life may outlive it.
            doom.struck.set()
            self.stage.store.shelf.free()
            while left := asyncio.all_tasks() - before:
                for task in left:
                    task.cancel()
                await asyncio.wait(left, timeout=1)
            self.stage.clock.stop()
        self.look()
        return doom

    def look(self) -> None:
        assert self._place is not None
        held = self._place.holds
        grant = self.stage.store.shelf.grants.get("billing")
        if grant is not None:
            assert grant.generation >= self.generation, "a generation fell"
            self.generation = grant.generation
        if isinstance(held, Publication):
            self.published = True
        assert not self.published or self.provider.serves(held), "a reader stands before a dead token"

    def passwords(self) -> int:
        return sum(kind is Kind.PASSWORD for _, kind in self.stage.exchanges())

    def judge(self, crashes: int) -> None:
        assert self.published and self._place is not None
        assert not self.hasty, "published before it was saved"
        history = [one.generation for one in self._place.history]
        assert history == sorted(history)
        # The first login, and at most one more for each crash.
        assert self.passwords() <= 1 + crashes


POLICIES = [
    pytest.param(Reuse.HARMLESS, timedelta(0), id="harmless"),
    pytest.param(Reuse.KILLS_FAMILY, timedelta(0), id="kills_family"),
    pytest.param(Reuse.KILLS_FAMILY, MINUTE, id="kills_family_but_forgives_a_minute"),
]


def through_every_point(tell: Callable[[int], Any]) -> dict[int, str]:
    """Tell the story with a kill at 1, 2, 3 … until nothing was left to kill; where each of them struck."""
    struck: dict[int, str] = {}
    for at in range(1, 500):
        where: list[str] = []

        async def story(at: int = at, where: list[str] = where) -> None:
            where.append(await tell(at))

        play(story)
        if not where[0]:
            return struck
        struck[at] = where[0]
    raise AssertionError("the daemon never comes to rest")


@pytest.mark.crowd
@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize(("reuse", "grace"), POLICIES)
def test_killed_anywhere_between_nothing_and_the_first_token(reuse: Reuse, grace: timedelta, reboot: bool) -> None:
    async def tell(at: int) -> str:
        story = Story.begin(reuse, grace)
        doom = await story.live(MINUTE / 2, Doom(at))
        if reboot:
            story.stage.clock.reboot()
        await story.live(LONG)
        story.judge(crashes=1)
        return doom.where

    struck = set(through_every_point(tell).values())
    assert {
        f"{when} {call}" for when in ("before", "after") for call in ("lease", "save", "exchange", "settle")
    } <= struck


@pytest.mark.crowd
@pytest.mark.parametrize("lives", [1, 2])
@pytest.mark.parametrize(("reuse", "grace"), POLICIES)
def test_killed_anywhere_in_a_rotation(reuse: Reuse, grace: timedelta, lives: int) -> None:
    async def tell(at: int) -> str:
        story = Story.begin(reuse, grace)
        await story.live(MINUTE)
        due = story.stage.stored()[0].due_at
        assert due is not None
        await story.stage.clock.wait_until(due - SECOND)
        first = await story.live(MINUTE / 2, Doom(at))
        for _ in range(lives - 1):
            await story.live(MINUTE / 2, Doom(at))
        await story.live(LONG)
        story.judge(crashes=lives)
        return first.where

    struck = set(through_every_point(tell).values())
    for call in ("lease", "resolve", "save", "exchange", "release", "settle", "delivered"):
        assert {f"before {call}", f"after {call}"} <= struck


def test_without_a_crash_the_password_is_asked_for_once() -> None:
    async def story() -> None:
        quiet = Story.begin(Reuse.KILLS_FAMILY, timedelta(0))
        await quiet.live(6 * HOUR)
        quiet.judge(crashes=0)

    play(story)
