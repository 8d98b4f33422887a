"""What nobody configures any more: served until the token expires, then deleted."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta

from rotator.core import events
from rotator.core.errors import Misconfigured, RotatorError
from rotator.core.ports import Delivery, Roster
from rotator.engine import reading
from rotator.engine.tools import Tools

MOST = 1000
"""So many are looked at in a round; those whose tokens expired longest ago come first."""


class Orphans:
    """The delivered tokens that stand at no configured place. ``places`` are those that are configured."""

    def __init__(self, tools: Tools, look_every: timedelta) -> None:
        self._tools = tools
        self._look_every = look_every
        self._places: frozenset[str] = frozenset()
        self._look_at: datetime | None = None
        self._stuck: dict[tuple[str, str], str] = {}

    def take_over(self, places: frozenset[str]) -> None:
        self._places = places
        self._look_at = None

    def look_again(self) -> None:
        """Wall time was set."""
        self._look_at = None

    def is_due(self, now: datetime) -> bool:
        return self._look_at is None or self._look_at <= now

    async def clear(self, roster: Roster) -> None:
        """Delete those whose token has expired.

        A task of its own: a Vault that keeps silent must not hold up the sweep."""
        now = self._tools.clock.now()
        self._look_at = now + self._look_every
        orphans = [one for one in await self._tools.store.expired(now, MOST) if one.location not in self._places]
        enrolled = await self._enrolled({orphan.grant for orphan in orphans}, roster)
        for orphan in orphans:
            # Looked up for each: a reload may have come while the one before was removed.
            if orphan.location not in self._places and orphan.location not in enrolled.get(orphan.grant, ()):
                await self._remove(orphan, roster)

    async def _enrolled(self, names: Collection[str], roster: Roster) -> dict[str, set[str]]:
        """Where those of these grants publish that stand in the register: an outage may have outlived their tokens."""
        register = self._tools.store.register
        places: dict[str, set[str]] = {}
        # Who cannot be read is left out; the others are not to suffer for it.
        for entry in () if register is None or not names else (await reading.entries(register, names))[0]:
            with suppress(Misconfigured):
                places[entry.name] = {place.location for place in roster.enrolment_of(entry).targets.values()}
        return places

    async def clear_away(self, grant: str, roster: Roster) -> None:
        """Delete what was published for a grant that is retired, at once. Raises what the store raises."""
        for orphan in await self._tools.store.deliveries(grant):
            if orphan.location in self._places:
                # Another grant publishes there now.
                await self._tools.store.forget(orphan.grant, orphan.location)
            else:
                await self._remove(orphan, roster)

    async def _remove(self, orphan: Delivery, roster: Roster) -> None:
        """Delete one delivered token, if it still stands there, and forget it. Where that fails it is told once for
        each reason, and tried again at the next round."""
        tools, key = self._tools, (orphan.grant, orphan.location)
        try:
            publisher = roster.publisher_at(orphan.location)
            if publisher is None:
                raise Misconfigured("nothing in the configuration leads there any more", mend="delete it by hand")
            gone = await publisher.remove(orphan.mark)
            await tools.store.forget(orphan.grant, orphan.location)
        except Exception as error:  # noqa: BLE001 (a publisher's defect must not keep the other orphans)
            reason = reason_of(error)
            if self._stuck.get(key) != reason:
                text = f"{orphan.grant}: {orphan.location} is no longer configured but not deleted: {reason}"
                tools.bus.tell(events.Warned(at=tools.clock.now(), text=text))
            self._stuck[key] = reason
            return
        self._stuck.pop(key, None)
        if gone:
            tools.bus.tell(events.TargetRemoved(at=tools.clock.now(), grant=orphan.grant, target=orphan.target))


def reason_of(error: Exception) -> str:
    # The text of a foreign exception may hold anything, the token included.
    return str(error) if isinstance(error, RotatorError) else f"a defect, {type(error).__name__}; please report it"
