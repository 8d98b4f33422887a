"""Records sealed at rest: AES-256-GCM with a key that is an operator's secret, or a data key that a Vault wraps.

A record is bound to its grant, lineage and generation as associated data: one that was put in the place of another, or
an older one under a newer number, does not open. `cryptography` does it (NIST SP 800-38D; nonces of 96 random bits, far
below the 2^32 that one key bears).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from rotator.core import extras, lean
from rotator.core.errors import Misconfigured, StateDamaged
from rotator.core.tokens import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_SIZE = 32
NONCE_SIZE = 12
VERSION = 1

Read = Callable[[], Awaitable[Secret]]


@lean.dataclass(frozen=True, slots=True)
class Envelope:
    """What stands in the place of a record. ``wrapped`` is the data key as the Vault wrapped it, empty for a key of the
    operator's; ``key`` names the key without telling anything of it."""

    key: str
    nonce: bytes
    text: bytes
    wrapped: str = ""

    def dump(self) -> str:
        told = {"sealed": VERSION, "key": self.key, "nonce": _b64(self.nonce), "text": _b64(self.text)}
        return json.dumps(told | ({"wrapped": self.wrapped} if self.wrapped else {}), separators=(",", ":"))


def envelope(record: str) -> Envelope | None:
    """None for a record in clear. Raises StateDamaged for a seal that no version of ours made."""
    if not record.startswith('{"sealed":'):
        return None
    try:
        told = json.loads(record)
        if told["sealed"] != VERSION:
            raise ValueError
        return Envelope(
            str(told["key"]), base64.b64decode(told["nonce"]), base64.b64decode(told["text"]),
            str(told.get("wrapped", "")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise StateDamaged(
            "a stored grant is sealed in a way that is not known", mend="start the newer rotator"
        ) from None


class Seal:
    """The key that seals, and others that still open. ``prepare`` before the first record, then no I/O.

    Made by `with_key` or `with_data_key`."""

    def __init__(self, fetch: Callable[[Iterable[str], bool], Awaitable[tuple[bytes, str, list[bytes]]]]) -> None:
        self._fetch = fetch
        self._ciphers: dict[str, AESGCM] = {}
        self._key = ""
        self._wrapped = ""

    async def prepare(self, records: Iterable[str], *, anew: bool = False) -> None:
        """Fetch the keys that these records need, and prove the one that will seal by sealing with it; ``anew`` takes a
        fresh data key. Raises what fetching raises, and Misconfigured where a record cannot be opened."""
        envelopes = [found for record in records if (found := envelope(record)) is not None]
        wrapped = list(dict.fromkeys(one.wrapped for one in reversed(envelopes) if one.wrapped))
        current, self._wrapped, others = await self._fetch(wrapped, anew)
        self._ciphers = {_name(key): _cipher(key) for key in (current, *others)}
        self._key = _name(current)
        if self.open(self.close("a probe", "probe"), "probe") != "a probe":
            raise Misconfigured("the key of state.seal does not open what it sealed", mend="look at state.seal")
        for one in envelopes:
            self._known(one)

    def close(self, record: str, about: str) -> str:
        # No dice: a nonce that a seed repeats would break the seal.
        nonce = os.urandom(NONCE_SIZE)  # noqa: TID251
        text = self._ciphers[self._key].encrypt(nonce, record.encode(), about.encode())
        return Envelope(self._key, nonce, text, self._wrapped).dump()

    def open(self, record: str, about: str) -> str:
        """A record in clear comes back as it is: it was written before there was a seal."""
        found = envelope(record)
        if found is None:
            return record
        from cryptography.exceptions import InvalidTag

        try:
            return self._known(found).decrypt(found.nonce, found.text, about.encode()).decode()
        except InvalidTag:
            raise StateDamaged(
                "a stored grant does not open under its seal: it was changed, or is that of another grant",
                mend="find out who writes to the state; then `rotator state reset`",
            ) from None

    def _known(self, one: Envelope) -> AESGCM:
        cipher = self._ciphers.get(one.key)
        if cipher is None:
            raise Misconfigured(
                f"the state is sealed with another key ({one.key})", mend="put the former key into state.seal.former"
            )
        return cipher


def with_key(read: Read, former: Read | None) -> Seal:
    """``read`` gives 32 bytes in base64 or hexadecimal; ``former`` the key before, while records are sealed with it."""

    async def fetch(wrapped: Iterable[str], anew: bool) -> tuple[bytes, str, list[bytes]]:
        return parse(await read(), "key"), "", [] if former is None else [parse(await former(), "former")]

    return Seal(fetch)


def with_data_key(
    make: Callable[[], Awaitable[tuple[bytes, str]]], unwrap: Callable[[str], Awaitable[bytes]], former: Read | None
) -> Seal:
    """``make`` gives a fresh data key, plain and wrapped; ``unwrap`` a wrapped one. Each record carries its own wrapped
    key, so that a copy of the state is whole."""

    async def fetch(wrapped: Iterable[str], anew: bool) -> tuple[bytes, str, list[bytes]]:
        known = [(await unwrap(one), one) for one in wrapped]
        current = await make() if anew or not known else known[0]
        others = [key for key, _ in known] + ([] if former is None else [parse(await former(), "former")])
        return *current, others

    return Seal(fetch)


def parse(secret: Secret, word: str) -> bytes:
    """Raises Misconfigured for anything but 32 bytes."""
    text = secret.reveal()
    for decode in (bytes.fromhex, lambda given: base64.b64decode(given, validate=True)):
        try:
            key: bytes = decode(text)
        except (ValueError, binascii.Error):
            continue
        if len(key) == KEY_SIZE:
            return key
    raise Misconfigured(
        f"state.seal.{word} is not a key of {KEY_SIZE} bytes in base64 or hexadecimal",
        mend="make one: openssl rand -base64 32",
    )


def _cipher(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise extras.lacking("state.seal needs the package cryptography", "seal") from None
    return AESGCM(key)


def _name(key: bytes) -> str:
    """Tells keys apart. Keys are random: eight bytes of a hash tell nothing of them."""
    return hashlib.sha256(b"rotator seal" + key).hexdigest()[:16]


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
