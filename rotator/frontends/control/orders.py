"""From a request to an order and back: what the daemon can be asked, and how each answer and error looks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Protocol

from rotator.core import errors, lean
from rotator.core.ports import Entry
from rotator.core.tokens import Secret
from rotator.frontends.control import wire
from rotator.frontends.control.wire import Document

PAGE = 1000
# Told what was being done and what was raised. The text of the exception may hold anything: tell its class and place.
Defect = Callable[[str, Exception], None]


class Orders(Protocol):
    """What the daemon does when asked. Each returns a JSON-ready object and raises the errors of `core.errors`, with
    BadUsage for a grant that is not enrolled. A caller who hangs up does not cancel what he asked for."""

    async def health(self) -> Document:
        """`core.health.document` of now."""
        ...

    async def rotate(self, grant: str, force: bool) -> Document:
        """Exchange now; ``force`` releases a latch and spends a password outside the budget."""
        ...

    async def authorize(self, grant: str, password: Secret | None, refresh: Secret | None) -> Document:
        """Exactly one of the two is given: a password to be used once and not kept, or a refresh token to take over."""
        ...

    async def retire(self, grant: str) -> Document:
        """Delete the stored tokens of a grant that is no longer configured."""
        ...

    async def token(self, grant: str) -> Document:
        """``access_token`` (a Secret, or a string), ``expires_at`` and what else a reader needs."""
        ...

    async def reload(self) -> Document:
        """Read the configuration again."""
        ...

    async def show(self, grant: str) -> Document:
        """How one grant stands, of the register too."""
        ...

    async def enter(self, entries: Sequence[Entry]) -> Document:
        """Enrol grants in the register, or change them, all or none."""
        ...

    async def listed(self, after: str, limit: int) -> Document:
        """A page of the register: those behind a name, by name."""
        ...


@lean.dataclass(frozen=True, slots=True)
class Answer:
    """A status and the body, which holds a token where `token` was asked for and does not print."""

    status: int
    body: bytes = field(repr=False)
    allow: str = ""


def told(error: errors.RotatorError, status: int | None = None) -> Answer:
    """An error as an answer; ``status`` where HTTP has a more exact one."""
    usual, document = wire.describe(error)
    return Answer(status or usual, wire.encode(document))


async def obey(orders: Orders, method: str, target: str, body: bytes, on_defect: Defect) -> Answer:
    """Carry out one request. Never raises but for our own cancellation."""
    found = wire.parse(target)
    if found is None:
        # The path is not quoted: somebody may have put a token there.
        mend = "see `rotator --help`; after an update restart the daemon"
        return told(errors.BadUsage("the control socket knows no such order", mend=mend), 404)
    verb, grant = found
    if method != (wanted := wire.METHODS[verb, grant is not None]):
        refusal = told(errors.BadUsage(f"{verb} is asked for with {wanted}"), 405)
        return Answer(refusal.status, refusal.body, allow=wanted)
    try:
        document = await _carry_out(orders, verb, grant or "", _words(body))
        return Answer(200, wire.encode(document, reveal=verb == "token"))
    except errors.RotatorError as error:
        return told(error)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Not we were cancelled but what we asked for: the engine stopped half-way.
        return told(errors.Doubtful(f"the daemon stopped during {verb}", mend="look with `rotator status`"))
    except Exception as error:  # noqa: BLE001 (a defect of one order must not take the socket down, nor leak its text)
        on_defect(f"carrying out {verb} from the control socket", error)
        return Answer(500, wire.encode(wire.BUG))


async def _carry_out(orders: Orders, verb: str, grant: str, words: Document) -> Document:
    match verb:
        case "rotate":
            _known(words, "force")
            force = words.get("force", False)
            if not isinstance(force, bool):
                raise errors.BadUsage("force is true or false")
            return await orders.rotate(grant, force)
        case "authorize":
            _known(words, "password", "refresh_token")
            password, refresh = _secret(words, "password"), _secret(words, "refresh_token")
            if (password is None) == (refresh is None):
                raise errors.BadUsage("authorize takes a password or a refresh_token, one of the two")
            return await orders.authorize(grant, password, refresh)
        case "enter":
            _known(words, "entries")
            return await orders.enter(_entries(words.get("entries")))
        case "listed":
            _known(words, "after", "limit")
            after, limit = words.get("after", ""), words.get("limit", 100)
            if not isinstance(after, str) or not isinstance(limit, int) or not 1 <= limit <= PAGE:
                raise errors.BadUsage(f"after is a name, limit a number from 1 to {PAGE}")
            return await orders.listed(after, limit)
    _known(words)
    match verb:
        case "show":
            return await orders.show(grant)
        case "retire":
            return await orders.retire(grant)
        case "token":
            return await orders.token(grant)
        case "reload":
            return await orders.reload()
    return await orders.health()


def _entries(raw: object) -> list[Entry]:
    """The table of each grant stays as it came; what it means is for the configuration to say."""
    if not isinstance(raw, list):
        raise errors.BadUsage("entries is a list of objects")
    entries = []
    for one in raw:
        if not isinstance(one, dict) or not isinstance(name := one.get("name"), str):
            raise errors.BadUsage("an entry is an object with the name of a grant and its keys")
        table = {key: value for key, value in one.items() if key != "name"}
        entries.append(Entry(name, str(table.get("provider", "")), json.dumps(table)))
    return entries


def _words(body: bytes) -> Document:
    try:
        return wire.decode(body) if body else {}
    except ValueError as error:
        raise errors.BadUsage(f"the body of the request is {error}") from None


def _known(words: Document, *known: str) -> None:
    # The unknown key is not quoted: it may be a secret in the wrong place.
    if not words.keys() <= set(known):
        raise errors.BadUsage(f"the body of this request takes {' or '.join(known) or 'no key'}, it has another")


def _secret(words: Document, key: str) -> Secret | None:
    raw = words.get(key)
    if raw is None:
        return None
    if not isinstance(raw, str) or not raw:
        raise errors.BadUsage(f"{key} is a string that is not empty")
    try:
        raw.encode()
    except UnicodeEncodeError:
        raise errors.BadUsage(f"{key} is not valid Unicode: it has half of a surrogate pair") from None
    return Secret(raw)
