"""The invariants: what must hold at every step of a story, and at its end."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import timedelta

from rotator.core import events
from rotator.core.grants import Grant, Kind
from rotator.core.policy import Rules, spacing
from rotator.lab.memory import Shelf
from rotator.lab.simulation.readers import Cause, Gap, Hindrances

MINUTE = timedelta(minutes=1)

# Nothing in the way for so long, and a grant must be right: the longest pause between two tries is five minutes, a
# changed secret is looked for every five minutes, a sweep comes every two.
PATIENCE = 10 * MINUTE

# More exchanges of one grant than this in ten minutes are a tight loop: a doubling backoff from a second makes eleven.
MOST_EXCHANGES = 16


# Nobody can tell: it does not run, or only the provider and the readers know.
SILENT = {
    Cause.NOT_RUNNING, Cause.ASLEEP, Cause.TOUCHED, Cause.REVOKED, Cause.REPLACED, Cause.TWO_DAEMONS,
}  # fmt: skip


class Judge:
    """Watches every step. ``passed`` is the time that truly passed, whatever wall time says."""

    def __init__(
        self, rules: Rules, lifetime: timedelta, passed: Callable[[], timedelta], told: Callable[[str], None]
    ) -> None:
        self._rules = rules
        self._passed = passed
        self._tell = told
        self._spacing = spacing(lifetime, rules) - timedelta(seconds=1)
        self.broken: list[str] = []
        self.hindrances = Hindrances(passed)
        self.logins: dict[str, list[timedelta]] = defaultdict(list)
        # What the story did that buys more logins than the budget says, or an exchange before its time.
        self.more_logins = 0
        self.hurry_until = timedelta(0)
        self._exchanges: dict[tuple[str, int], deque[timedelta]] = defaultdict(lambda: deque(maxlen=MOST_EXCHANGES))
        self._unsaved: dict[str, str] = {}
        self._answered_at: dict[str, timedelta] = {}
        self._granted_at: dict[str, timedelta] = {}
        self._warned: dict[str, list[timedelta]] = defaultdict(list)

    def breaks(self, what: str) -> None:
        self._tell(f"BROKEN: {what}")
        self.broken.append(what)

    # --- steps -----------------------------------------------------------------------------------------------------

    def asked(self, shelf: Shelf, name: str, kind: str, *, mine: bool = True) -> None:
        """A request sets out. Not ``mine``: the one on the copy sends it, whose answers nobody follows here."""
        now, stored = self._passed(), shelf.grants.get(name)
        if stored is None or stored.intent is None:
            self.breaks(f"{name}: an exchange without a durable intent")
        if stored is not None and stored.latch is not None:
            self.breaks(f"{name}: an exchange while it is latched")
        if mine and name in self._unsaved:
            self.breaks(f"{name}: a granted answer was dropped")
            del self._unsaved[name]
        since = self._granted_at.get(name) if mine else None
        if since is not None and now - since < self._spacing and now > self.hurry_until:
            self.breaks(f"{name}: the next exchange came {now - since} after a granted one")
        exchanges = self._exchanges[name, id(shelf)]
        if len(exchanges) == MOST_EXCHANGES and now - exchanges[0] < PATIENCE:
            self.breaks(f"{name}: {MOST_EXCHANGES + 1} exchanges within {PATIENCE}")
        exchanges.append(now)
        if kind == Kind.PASSWORD.value:
            self._login(name, now)

    def reused(self, name: str, spent: timedelta) -> None:
        """A refresh token comes again that was ``spent`` so long ago, at a provider that revokes the whole family for
        it, and a good access token with it: only within its grace."""
        if self._passed() > self.hurry_until and spent >= self._rules.grace:
            self.breaks(f"{name}: a spent refresh token was sent again although a good access token hung on it")

    def _login(self, name: str, now: timedelta) -> None:
        times, budget = self.logins[name], self._rules.budget
        times.append(now)
        within = [at for at in times if at > now - budget.window]
        if len(within) > budget.limit + self.more_logins:
            self.breaks(f"{name}: {len(within)} password exchanges within {budget.window}")

    def answered(self, name: str, body: bytes) -> None:
        """An answer is handed over; from now on only a kill may lose it."""
        try:
            token = json.loads(body).get("access_token")
        except ValueError:
            return
        if isinstance(token, str):
            self._unsaved[name] = token
            self._answered_at[name] = self._passed()

    def saved(self, grant: Grant) -> None:
        """A record became durable, or was refused for good because another was first."""
        waiting = self._unsaved.get(grant.name)
        if waiting is not None and grant.access is not None and grant.access.value.reveal() == waiting:
            del self._unsaved[grant.name]
            # Spacing counts from the answer: it may have waited for the store until it was due again.
            self._granted_at[grant.name] = self._answered_at[grant.name]

    def killed(self) -> None:
        """What was not saved is gone, and nobody is to blame."""
        self._unsaved.clear()

    def heard(self, event: events.Event) -> None:
        if event.level <= events.Level.WARNING:
            self._warned[event.grant if isinstance(event, events.GrantEvent) else ""].append(self._passed())
        if isinstance(event, events.TaskFailed):
            self.breaks(f"a defect: {event.sentence}")

    # --- the end ---------------------------------------------------------------------------------------------------

    def judge_gap(self, gap: Gap, *, first: bool = False) -> None:
        """Name the exception that a gap falls under, or break."""
        clear = self.hindrances.longest_clear(gap.grant, gap.due, gap.ended)
        reasons = self.hindrances.of(gap.grant, gap.due - MINUTE, gap.ended)
        if clear > PATIENCE:
            told = ", ".join(sorted({one.cause.value for one in reasons})) or "nothing"
            self.breaks(
                f"{gap.grant}: readers found no valid token from {gap.began} to {gap.ended} although nothing stood in "
                f"the way for {clear} since it was due at {gap.due} (in the way was: {told})"
            )
            gap.cause = "unexplained"
            return
        if not reasons:
            gap.cause = Cause.NOT_YET.value
            if not first:
                self.breaks(
                    f"{gap.grant}: nothing explains that readers found no token from {gap.began} to {gap.ended}"
                )
            return
        longest = max(reasons, key=lambda one: min(one.ended or gap.ended, gap.ended) - max(one.began, gap.due))
        gap.cause = longest.cause.value
        silent = SILENT & {one.cause for one in reasons}
        if gap.ended - gap.began > PATIENCE and not silent and not self._was_told(gap):
            self.breaks(f"{gap.grant}: nobody was told why readers found no token from {gap.began} to {gap.ended}")

    def _was_told(self, gap: Gap) -> bool:
        since = gap.due - 2 * timedelta(hours=1)
        return any(since <= at <= gap.ended for name in (gap.grant, "") for at in self._warned[name])
