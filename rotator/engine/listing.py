"""What stands in the register, as it is read: one that cannot be read keeps no other out, and a grant of the
configuration whose name stands there too is found due all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from datetime import datetime

from rotator.core import events, policy
from rotator.core.errors import Misconfigured
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Enrolment, Entry, Register, Roster
from rotator.engine import reading, rotation
from rotator.engine.board import Desk
from rotator.engine.desks import Desks
from rotator.engine.tools import Tools

SHOWN = 5
"""So many names stand in one warning; the rest are counted."""


class LeftOut:
    """Those of the register that cannot be served, each told once for each reason."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._why: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._why)

    def __contains__(self, name: str) -> bool:
        return name in self._why

    def add(self, name: str, error: Misconfigured) -> None:
        # That one record is damaged is no reason to reset the state of all.
        mended = str(error).replace("`rotator state reset`", f"`rotator grants retire {name}` and enter it again")
        text = f"{name} of the register is left out: {mended}"
        if self._why.get(name) != text:
            self._tools.bus.tell(events.Warned(at=self._tools.clock.now(), text=text))
        self._why[name] = text

    def forget(self, name: str) -> None:
        """It may be good by now."""
        self._why.pop(name, None)

    def check(self, name: str) -> None:
        """Raises Misconfigured with the reason for one that is left out."""
        if name in self._why:
            raise Misconfigured(self._why[name])

    async def read(self, names: Collection[str]) -> list[tuple[Entry, Grant | None]]:
        """Entry and record of each; whose entry or record cannot be read is left out, and the others are not to suffer
        for it. Raises what is no fault of a single one."""
        register = self._tools.store.register
        assert register is not None  # noqa: S101 (nobody is looked for where there is none)
        # All at once: a store on a thread answers what is asked together in one go.
        (entries, unreadable), records = await asyncio.gather(
            reading.entries(register, names), asyncio.gather(*map(self._record, names))
        )
        for name, error in unreadable.items():
            self.add(name, error)
        stored, found = dict(zip(names, records, strict=True)), list[tuple[Entry, Grant | None]]()
        for entry in entries:
            grant = stored[entry.name]
            if isinstance(grant, Misconfigured):
                self.add(entry.name, grant)
            else:
                found.append((entry, grant))
        return found

    async def enrol(self, enrolment: Enrolment) -> tuple[Grant, bool]:
        """See `rotation.enrol`. Raises Misconfigured where its record cannot be read, and leaves it out then."""
        try:
            return await rotation.enrol(enrolment, self._tools)
        except Misconfigured as error:
            self.add(enrolment.name, error)
            raise Misconfigured(self._why[enrolment.name]) from None

    def make(self, entry: Entry, roster: Roster) -> Enrolment | None:
        """None for one that does not fit what is configured, which is left out."""
        try:
            return roster.enrolment_of(entry)
        except Misconfigured as error:
            self.add(entry.name, error)
            return None

    async def made(
        self, entries: Iterable[tuple[Entry, Grant | None]], roster: Roster | None
    ) -> dict[str, tuple[Enrolment, Grant, bool]]:
        """What ``roster`` makes of them, what is known of each by that, and whether that is new. Raises what the store
        raises."""
        assert roster is not None  # noqa: S101 (nobody is looked for before there is one)
        made = [(enrolment, grant) for entry, grant in entries if (enrolment := self.make(entry, roster)) is not None]
        found = {one.name: (one, *await known(one, grant, self._tools)) for one, grant in made}
        if self._tools.store.follows:
            await self._undo([one.name for one, grant in made if grant is None], found)
        return found

    async def _undo(self, enrolled: list[str], found: dict[str, tuple[Enrolment, Grant, bool]]) -> None:
        """Struck by another daemon before it was enrolled here: he has not seen what we left of it."""
        register = self._tools.store.register
        assert register is not None  # noqa: S101 (as above)
        for name in set(enrolled) - await reading.standing(register, enrolled):
            del found[name]
            await self._tools.store.retire(name)

    async def _record(self, name: str) -> Grant | Misconfigured | None:
        try:
            return await self._tools.store.grant(name)
        except Misconfigured as error:
            return error


async def known(enrolment: Enrolment, stored: Grant | None, tools: Tools) -> tuple[Grant, bool]:
    """The grant to work with, and whether it is new or of another client or user by now. Raises what the store
    raises."""
    if stored is not None and stored.identity == rotation.identity(enrolment, tools):
        return stored, False
    return await rotation.enrol(enrolment, tools)


def is_of_the_future(grant: Grant, moment: Moment) -> bool:
    """Whether it was exchanged later than it is now: wall time was set back, and its expiry cannot be judged."""
    return grant.exchanged_at is not None and grant.exchanged_at > moment.now + policy.CLOCK_TOLERANCE


class Shadowed:
    """Entries whose names are those of residents. The configuration counts; but the store names as due only who does
    not stand in the register, and the register only who is of a provider that it is asked for, and theirs may be
    configured no more. So they are due by their desks."""

    def __init__(self, tools: Tools, desks: Desks) -> None:
        self._tools = tools
        self._desks = desks
        self._names: set[str] = set()
        self._told: set[str] = set()

    async def look(self, register: Register, roster: Roster) -> None:
        """Ask who stands in both, now and once ``roster`` is taken over. Raises what the store raises."""
        ours = roster.enrolments().keys() | {desk.enrolment.name for desk in self._desks}
        self._names = await reading.standing(register, ours)

    def note(self, names: Collection[str]) -> None:
        """These stand in the register."""
        self._names |= {name for name in names if self._desks.is_resident(name)}

    def struck(self, name: str) -> None:
        self._names.discard(name)

    def due(self, now: datetime) -> list[Desk]:
        """Those of them that are due. Who is new among them is told."""
        desks = self._at_desks()
        self._tell([desk.enrolment.name for desk in desks], now)
        return [desk for desk in desks if desk.grant.due_at is not None and desk.grant.due_at <= now]

    def next_due(self, after: datetime) -> datetime | None:
        times = (desk.grant.due_at for desk in self._at_desks())
        return min((at for at in times if at is not None and at > after), default=None)

    def _at_desks(self) -> list[Desk]:
        desks = (self._desks.get(name) for name in sorted(self._names) if self._desks.is_resident(name))
        return [desk for desk in desks if desk is not None]

    def _tell(self, names: list[str], now: datetime) -> None:
        fresh, self._told = [name for name in names if name not in self._told], set(names)
        if not fresh:
            return
        shown, stand, which = ", ".join(fresh[:SHOWN]), "stand", "NAME"
        if len(fresh) == 1:
            stand, which = "stands", shown
        elif len(fresh) > SHOWN:
            shown += f" and {len(fresh) - SHOWN:,} more"
        text = (
            f"{shown} {stand} in the register and in the configuration, which counts; "
            f"run `rotator grants retire {which}` to take the entry out"
        )
        self._tools.bus.tell(events.Warned(at=now, text=text))
