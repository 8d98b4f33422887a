"""One process of a story: a daemon with its own store, line and clock, on a shelf that outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from rotator.core import events
from rotator.core.policy import Reuse, Rules
from rotator.core.ports import Enrolment
from rotator.drivers import oauth
from rotator.engine.bus import Bus
from rotator.engine.daemon import Daemon, Parts
from rotator.engine.timing import Timing
from rotator.lab import ledger, world
from rotator.lab.breakable import FlakyStore, Line, WatchedPlace
from rotator.lab.memory import Shelf

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)

# What a spent refresh token costs at each kind of provider, as its settings would say.
PROFILES: dict[ledger.Reuse, tuple[Reuse, timedelta]] = {
    ledger.Reuse.FOS: (Reuse.HARMLESS, timedelta(0)),
    ledger.Reuse.GRACE_SAME_PAIR: (Reuse.HARMLESS, 2 * MINUTE),
    ledger.Reuse.GRACE_NEW_PAIR: (Reuse.KILLS_FAMILY, 45 * SECOND),
    ledger.Reuse.FAMILY_REVOKE: (Reuse.KILLS_FAMILY, timedelta(0)),
    ledger.Reuse.UNTIL_NEW_USED: (Reuse.HARMLESS, timedelta(0)),
    ledger.Reuse.NEVER_REVOKED: (Reuse.HARMLESS, timedelta(0)),
    ledger.Reuse.STICKY_VALUE: (Reuse.HARMLESS, timedelta(0)),
    ledger.Reuse.NO_RT_IN_REFRESH: (Reuse.HARMLESS, timedelta(0)),
}


# Sparser than in production: over months the beats would cost more than the rotations.
TIMING = Timing(sweep_every=2 * MINUTE, verify_every=5 * MINUTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """What all processes of a story share."""

    rules: Rules
    secrets: Mapping[str, world.FixedCredentials]
    places: Mapping[str, WatchedPlace]
    timing: Timing = TIMING


class Process:
    """One daemon. Ending it is the story's business: whatever was not saved is gone then."""

    def __init__(
        self, the_set: Set, shelf: Shelf, line: Line, store: FlakyStore, clock: world.VirtualClock,
        dice: world.SeededDice, hear: Callable[[events.Event], None],
    ) -> None:  # fmt: skip
        self.shelf, self.line, self.store, self.clock = shelf, line, store, clock
        bus = Bus(clock.now)
        bus.join("story", hear)
        daemon = Daemon(
            Parts(
                version="lab", clock=clock, dice=dice, store=store, bus=bus,
                roster=world.FixedRoster(self._enrolment(the_set, name) for name in the_set.secrets),
                watcher=world.BlindWatcher(), supervisor=world.QuietSupervisor(listens=False), timing=the_set.timing,
            )
        )  # fmt: skip
        self.serving = asyncio.create_task(daemon.serve(), name="daemon")

    def _enrolment(self, the_set: Set, name: str) -> Enrolment:
        profile = oauth.Profile(token_url="https://provider.invalid/oauth/v2/token")  # noqa: S106 (no password)
        return Enrolment(
            name=name,
            provider="lab",
            identity=("lab", name, name),
            rules=the_set.rules,
            endpoint=oauth.Endpoint(profile, self.line, now=self.clock.now),
            credentials=the_set.secrets[name],
            targets={"app": the_set.places[name]},
        )
