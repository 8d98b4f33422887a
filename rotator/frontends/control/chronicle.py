"""What happened of late, and what happens: a listener of the bus that followers at the control socket read from.

Everything is bounded: the events that are remembered, the followers, and what waits for each. A follower that reads too
slowly loses the oldest that waits for it and is told how many; nobody else notices.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime

from rotator.core import lean, telling
from rotator.core.errors import BadUsage, Transient
from rotator.core.events import Event, EventsDropped, Level
from rotator.frontends.control import wire

REMEMBERED = 256
FOLLOWERS = 8
WAITING = 256


@lean.dataclass(frozen=True, slots=True)
class Wish:
    """What a follower wants: events of ``grant`` (None: of all, and of the daemon), as grave as ``level`` or graver,
    not older than ``since`` (None: all that is remembered), and with ``follow`` also those that come."""

    follow: bool = False
    grant: str | None = None
    level: Level = Level.INFO
    since: datetime | None = None

    def takes(self, event: Event) -> bool:
        return event.level <= self.level and self.grant in (None, getattr(event, "grant", None))


def wish(query: str) -> Wish:
    """The wish in the query of ``GET /v1/events``. Raises BadUsage, which quotes no value."""
    from urllib.parse import parse_qsl

    words = dict(parse_qsl(query, keep_blank_values=True))
    if not words.keys() <= {"follow", "grant", "level", "since"}:
        raise BadUsage("events are asked for with follow, grant, level or since")
    if words.get("follow", "false") not in ("true", "false"):
        raise BadUsage("follow is true or false")
    grant = words.get("grant")
    if grant is not None and not wire.GRANT.fullmatch(grant):
        raise BadUsage("that is not the name of a grant")
    try:
        level = Level[words.get("level", "info").upper()]
    except KeyError:
        raise BadUsage(f"level is one of {', '.join(one.name.lower() for one in Level)}") from None
    since = _time(words["since"]) if "since" in words else None
    return Wish(words.get("follow") == "true", grant, level, since)


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise BadUsage("since is a time with its zone, such as 2026-11-24T12:00:00Z")
    return at


class Chronicle:
    """The listener. ``before`` are events that were told before there was one, the oldest first."""

    def __init__(self, before: Iterable[Event] = ()) -> None:
        self._recent = deque(before, maxlen=REMEMBERED)
        self._followers: set[Follower] = set()
        self._ended = False

    def __call__(self, event: Event) -> None:
        self._recent.append(event)
        for follower in self._followers:
            follower.hear(event)

    def follow(self, wish: Wish) -> Follower:
        """A follower that has what is remembered already; close it. Raises Transient where there are too many, or the
        daemon ends."""
        if self._ended:
            raise Transient("the daemon is stopping", mend="try again once it has started")
        if wish.follow and len(self._followers) >= FOLLOWERS:
            raise Transient(f"{FOLLOWERS} others follow the events already", mend="end one of them, or read the log")
        follower = Follower(self, wish, (one for one in self._recent if wish.since is None or one.at >= wish.since))
        if wish.follow:
            self._followers.add(follower)
        return follower

    def forget(self, follower: Follower) -> None:
        self._followers.discard(follower)

    def close(self) -> None:
        """Let every follower come to an end once it has what waits for it."""
        self._ended = True
        for follower in self._followers:
            follower.end()


class Follower:
    """One reader's share: `lines` in order, each an event as JSON, until there will be no more."""

    def __init__(self, chronicle: Chronicle, wish: Wish, past: Iterable[Event]) -> None:
        self._chronicle = chronicle
        self._wish = wish
        self._waiting = deque((one for one in past if wish.takes(one)), maxlen=max(WAITING, REMEMBERED))
        self._dropped = 0
        self._ended = not wish.follow
        self._news = asyncio.Event()
        self._news.set()

    def hear(self, event: Event) -> None:
        if not self._wish.takes(event):
            return
        if len(self._waiting) == self._waiting.maxlen:
            self._dropped += 1
        self._waiting.append(event)
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    def close(self) -> None:
        self._chronicle.forget(self)

    async def wait_lines(self) -> list[bytes] | None:
        """The lines that wait, at least one; None once there will be no more."""
        while not self._waiting:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        return list(self._taken())

    def _taken(self) -> Iterator[bytes]:
        if self._dropped:
            # The oldest of what waits is newer than what was lost, and no later than when that was noticed.
            at = self._waiting[0].at
            dropped = EventsDropped(at=at, listener="of the control socket", count=self._dropped)
            self._dropped = 0
            yield wire.encode(telling.document(dropped))
        while self._waiting:
            yield wire.encode(telling.document(self._waiting.popleft()))
