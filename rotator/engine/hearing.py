"""Beside other daemons at the same register: what they entered, struck and rotated is served here too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from itertools import islice

from rotator.core import events
from rotator.core.errors import Misconfigured, Overtaken, RotatorError
from rotator.core.grants import Grant
from rotator.core.ports import Enrolment, Register, Roster
from rotator.engine import reading, scribe, turns
from rotator.engine.crew import Crew
from rotator.engine.desks import Desks
from rotator.engine.following import Following
from rotator.engine.tools import Tools
from rotator.engine.visits import Visits

TOGETHER = 128
"""So many are brought to their desks together."""
CROWD = 2048
"""With so many guests nobody more is brought before some have left: what waits is names, not desks."""
STRUCK = 32
"""So many are cleared away together."""


class Hearing:
    """Asks the register what others did. ``clear_away`` deletes what was published for a grant."""

    def __init__(
        self, tools: Tools, crew: Crew, desks: Desks, visits: Visits, following: Following,
        clear_away: Callable[[str], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._tools = tools
        self._crew = crew
        self._desks = desks
        self._visits = visits
        self._following = following
        self._clear_away = clear_away
        self._unheard = 0
        # What is told once and could not be done yet, in the order in which it was heard.
        self._entered: dict[str, None] = {}
        self._granted: dict[str, None] = {}
        self._struck: dict[str, None] = {}
        self._lost: dict[str, None] = {}

    async def hear(self) -> None:
        """Serve what others did. Never raises for the store."""
        register, tools = self._tools.store.register, self._tools
        if register is None:
            return
        try:
            heard = await register.heard()
            for kept, fresh in (
                (self._entered, heard.entered), (self._granted, heard.granted), (self._struck, heard.struck),
                (self._lost, heard.lost),
            ):  # fmt: skip
                kept.update(dict.fromkeys(sorted(fresh)))
            if self._struck:
                # What is in flight for them may take as long as an exchange: nobody else waits for that.
                self._crew.start(("strike",), self._clear)
            if self._lost:
                await self._put_right()
            if self._entered:
                names = list(self._entered)
                await self._visits.renew(frozenset(names))
                _drop(self._entered, names)
            if self._granted:
                await self._publish()
        except RotatorError as error:
            self._unheard += 1
            if scribe.is_told(self._unheard):
                doing = "what other daemons did to the register is not known"
                tools.bus.tell(events.StoreTroubled(at=tools.clock.now(), reason=str(error), doing=doing))
            return
        self._unheard = 0

    async def _put_right(self) -> None:
        """The store has lost what was saved: what is known of it is saved again."""
        names = list(self._lost)
        for first in range(0, len(names), TOGETHER):
            some = names[first : first + TOGETHER]
            stored = [grant for grant in await asyncio.gather(*map(self._record, some)) if grant is not None]
            known = [(ours, theirs) for theirs in stored if (ours := self._desks.recall(theirs)) is not None]
            await asyncio.gather(*(self._following.put_right(ours, theirs) for ours, theirs in known))
            _drop(self._lost, some)

    async def confirm(self, enrolment: Enrolment, roster: Roster) -> None:
        """Raises Overtaken where a guest is entered otherwise by now, or not at all, and another daemon did that of
        whom we have not heard yet: what it says is served at once then. Raises what the store raises."""
        register, name = self._tools.store.register, enrolment.name
        if register is None or not self._tools.store.follows or self._desks.is_resident(name):
            return
        entries, _ = await reading.entries(register, [name])
        with suppress(Misconfigured):
            made = [roster.enrolment_of(entry) for entry in entries]
            if any((one.identity, one.fingerprint) == (enrolment.identity, enrolment.fingerprint) for one in made):
                return
        await self._visits.renew([name])
        # Who was struck is let go when that is heard, and needs no look before.
        left = timedelta(0) if entries else None
        raise Overtaken(f"{name} was entered otherwise by another daemon, or struck", mend="try again", left=left)

    async def _publish(self) -> None:
        """What others rotated: at the desks of those who are there, by bringing all others to one."""
        # What is at work on one looks itself, under its lease; it is looked at again after that.
        busy = self._crew.names(turns.is_rotation)
        waiting = [name for name in self._granted if name not in busy]
        for first in range(0, len(waiting), TOGETHER):
            names = waiting[first : first + TOGETHER]
            present = [name for name in names if self._desks.get(name) is not None]
            records = await asyncio.gather(*map(self._record, present))
            for name, grant in zip(present, records, strict=True):
                # One that is gone was retired: nobody puts that right from memory, as he would for the configuration.
                if grant is not None:
                    await self._following.take(name, grant)
            # After that: whoever has left meanwhile comes once more.
            await self._visits.admit([name for name in names if self._desks.get(name) is None])
            _drop(self._granted, names)
            if sum(1 for _ in islice(self._desks.guests(), CROWD)) == CROWD:
                break
        self._visits.release()

    async def _record(self, name: str) -> Grant | None:
        try:
            return await self._tools.store.grant(name)
        except Misconfigured:
            # Told by whoever needs it.
            return None

    async def _clear(self) -> None:
        """What others struck leaves its desk, and what was published for it is deleted here too."""
        register = self._tools.store.register
        assert register is not None  # noqa: S101 (somebody told of it)
        with suppress(RotatorError):
            await self._clear_all(register)

    async def _clear_all(self, register: Register) -> None:
        while names := list(islice(self._struck, STRUCK)):
            # Entered once more meanwhile: then it stays.
            back = await reading.standing(register, names)
            # Before the work, not after it: who is struck again during it is struck again.
            _drop(self._struck, names)
            gone = [name for name in names if name not in back]
            done = await asyncio.gather(*map(self._let_go, gone), return_exceptions=True)
            failed = {name: error for name, error in zip(gone, done, strict=True) if error is not None}
            if failed:
                # The next look tries them once more.
                self._struck.update(dict.fromkeys(failed))
                raise next(iter(failed.values()))

    async def _let_go(self, name: str) -> None:
        self._granted.pop(name, None)
        await self._visits.struck(name)
        if self._desks.is_resident(name) or await self._is_back(name):
            return
        await self._clear_away(name)
        await self._is_back(name)

    async def _is_back(self, name: str) -> bool:
        """Whether it was entered again while it was let go; then what stands there is looked at once more."""
        register = self._tools.store.register
        assert register is not None  # noqa: S101 (as above)
        if not await reading.standing(register, [name]):
            return False
        self._granted[name] = None
        return True


def _drop(kept: dict[str, None], names: list[str]) -> None:
    for name in names:
        kept.pop(name, None)
