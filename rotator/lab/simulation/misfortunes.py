"""Everything that can go wrong in a story: how it begins, and how it ends. One method for each `script.What`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from rotator.core.errors import Overtaken, Transient
from rotator.lab.faults import Fault, Mishap
from rotator.lab.memory import Shelf
from rotator.lab.registry import User
from rotator.lab.simulation.machine import ENDLESS, ZERO
from rotator.lab.simulation.readers import Cause
from rotator.lab.simulation.script import Misfortune, Plan
from rotator.lab.simulation.timeline import Timeline

HOUR = timedelta(hours=1)


class Misfortunes(Timeline):
    """Makes things go wrong, and tells the judge what now stands in the way of whom."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.total_step = ZERO

    def befall(self, one: Misfortune) -> object:
        """Let one thing go wrong, and plan its end."""
        doing: Callable[[Misfortune], object] = getattr(self, f"_{one.what.value}")
        return doing(one)

    def _lasting(self, one: Misfortune, cause: Cause, end: Callable[[], object], grant: str = "") -> None:
        hindrance = self.judge.hindrances.begin(cause, grant)

        def over() -> None:
            end()
            self.judge.hindrances.end(hindrance)

        self._after(one.span, f"over: {one.words}", over)

    def _outage(self, one: Misfortune) -> None:
        self.weather.cut += 1
        self._lasting(one, Cause.PROVIDER_AWAY, self._line_is_back)

    def _line_is_back(self) -> None:
        self.weather.cut -= 1

    def _slow(self, one: Misfortune) -> None:
        usual = self.weather.slowest
        self.weather.slowest = one.number

        def over() -> None:
            self.weather.slowest = min(usual, 0.2)

        self._lasting(one, Cause.PROVIDER_AWAY, over)

    def _storm(self, one: Misfortune) -> None:
        status = int(one.number)
        retry_after = "90" if status in (429, 503) else None
        fault = Fault(Mishap.BUSY, ENDLESS, status, retry_after)
        self.provider.faults.queue.insert(0, fault)

        def over() -> None:
            self.provider.faults.queue[:] = [one for one in self.provider.faults.queue if one.status != status]

        self._lasting(one, Cause.PROVIDER_AWAY, over)

    def _mishap(self, one: Misfortune) -> None:
        if self._mishap_at_work is None:
            self._mishap_at_work = self.judge.hindrances.begin(Cause.PROVIDER_AWAY)
        self.provider.faults.plan(Mishap(one.detail), int(one.number))

    def _crash(self, one: Misfortune) -> None:
        self.down_for = one.span
        self.fuse.arm(int(one.number))

    async def _reboot(self, one: Misfortune) -> None:
        await self.kill()
        if self._down is None:
            self._down = self.judge.hindrances.begin(Cause.NOT_RUNNING)
        self.clock.reboot()
        self._after(one.span, "the machine is back", self.start_once)

    def _store_away(self, one: Misfortune) -> None:
        self.weather.store_away = one.detail

        def over() -> None:
            self.weather.store_away = ""

        self._lasting(one, Cause.STORE_AWAY, over)

    def _save_fails(self, one: Misfortune) -> None:
        def begin() -> None:
            self.tell("the store takes no write from this save on")
            self.weather.store_away = "full"
            self._lasting(one, Cause.STORE_AWAY, over)

        def over() -> None:
            self.weather.store_away = ""

        self.weather.saves_left, self.weather.on_save = int(one.number), begin

    def _clock(self, one: Misfortune) -> None:
        span = timedelta(seconds=one.number)
        self.total_step += span
        self.clock.step(span)
        self.is_odd_time()

    def is_odd_time(self) -> None:
        # A wall clock that was set forward has let the budget's window pass, and every token looks expired.
        self.judge.more_logins += self.plan.budget.limit
        self.judge.hurry_until = max(self.judge.hurry_until, self.clock.passed() + HOUR)

    def _suspend(self, one: Misfortune) -> None:
        began = self.clock.passed()
        self.clock.suspend(one.span)
        asleep = self.judge.hindrances.begin(Cause.ASLEEP, began=began)
        self.judge.hindrances.end(asleep)
        self.readers.look_all(self.names)

    def _target_away(self, one: Misfortune) -> None:
        place = self.places[one.grant]
        place.away += 1

        def over() -> None:
            place.away -= 1

        self._lasting(one, Cause.TARGET_AWAY, over, one.grant)

    def _vandal(self, one: Misfortune) -> None:
        self.places[one.grant].holds = "rubbish" if one.number else None
        self.judge.hindrances.end(self.judge.hindrances.begin(Cause.TOUCHED, one.grant))
        self.readers.look(one.grant)

    async def _second(self, one: Misfortune) -> None:
        if not self.processes:
            return
        second = self._process(self.shelf, 1)
        await asyncio.wait([second.serving], timeout=None)
        error = second.serving.exception()
        second.clock.stop()
        if not isinstance(error, Overtaken):
            self.judge.breaks(f"a second daemon on the same state was not refused: {error!r}")

    async def _copy(self, one: Misfortune) -> None:
        if self.copied is not None or not self.processes:
            return
        mine = self.shelf
        self.copied = Shelf(mine.key, mine.high_water, mine.tombstone_at, dict(mine.grants), dict(mine.deliveries))
        self.judge.more_logins += self.plan.budget.limit
        self.judge.hurry_until = timedelta.max
        self.processes.append(self._process(self.copied, 1))
        self._lasting(one, Cause.TWO_DAEMONS, lambda: None)
        self._after(one.span, "the one on the copy is gone", self._end_copy)

    async def _end_copy(self) -> None:
        was_up = bool(self.processes)
        self.judge.hurry_until = self.clock.passed() + 2 * HOUR
        await self.kill()
        self.copied = None
        if was_up:
            self.start()

    def _changed_password(self, one: Misfortune) -> None:
        self.provider.users[one.grant] = User(one.grant, f"pw{self.clock.passed().total_seconds():.0f}")

        def over() -> None:
            self.secrets[one.grant].values["password"] = self.provider.users[one.grant].password

        self.judge.more_logins += 1
        self._lasting(one, Cause.CREDENTIALS, over, one.grant)

    def _wrong_secret(self, one: Misfortune) -> None:
        values = self.secrets[one.grant].values
        values["password"] = "wrong"  # noqa: S105 (it is)

        def over() -> None:
            values["password"] = self.provider.users[one.grant].password

        self._lasting(one, Cause.CREDENTIALS, over, one.grant)

    def _unreadable(self, one: Misfortune) -> None:
        secrets = self.secrets[one.grant]
        secrets.error = Transient("the secrets cannot be read", mend="mend the mount")

        def over() -> None:
            secrets.error = None

        self._lasting(one, Cause.CREDENTIALS, over, one.grant)

    def _revoked(self, one: Misfortune) -> None:
        families = {row.family for row in self.provider.ledger.refresh.values() if row.user == one.grant}
        for family in families:
            self.provider.ledger.revoke_family(family)
        # Nobody tells a client that its tokens are revoked: it learns it when it refreshes.
        self._hinder(Cause.REVOKED, one.grant)
        self.readers.look(one.grant)
