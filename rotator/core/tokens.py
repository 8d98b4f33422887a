"""Secrets that do not print, access tokens, and fingerprints that may be shown in their place."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NoReturn

from rotator.core import lean

MASK = "•••"
FINGERPRINT_DIGITS = 8


class Secret:
    """A string that can be used but not shown.

    ``str``, ``repr``, ``format``, f-strings, ``%s`` and dataclass reprs give a mask; pickling is refused, so that no
    crash reporter or job store can carry it away. ``reveal`` is the one way out, and easy to grep for.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself, for the one place that must send or store it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # surrogatepass: a lone surrogate from a hostile JSON answer must compare, not raise.
        return hmac.compare_digest(
            self._value.encode("utf-8", "surrogatepass"), other._value.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied out of the process")


@lean.dataclass(frozen=True, slots=True)
class AccessToken:
    """What readers need: the token and how long it holds.

    ``issued_at`` is the time *before* the request was sent, because ``expires_in`` counts from a moment that the
    provider chose after that (RFC 6749 section 5.1); ``expires_at`` is therefore never later than the truth.
    ``generation`` is the number under which it was saved.
    """

    value: Secret
    token_type: str
    scope: str | None
    issued_at: datetime
    expires_at: datetime
    generation: int

    @property
    def lifetime(self) -> timedelta:
        return self.expires_at - self.issued_at

    def is_valid(self, now: datetime) -> bool:
        """Whether a reader may still use it; the last instant counts as expired."""
        return now < self.expires_at


def fingerprint(secret: Secret, key: bytes) -> str:
    """A short name for a secret: the first digits of an HMAC-SHA256 under the installation's key.

    Equal secrets have equal fingerprints within one installation; without the key nobody can test a guess.
    """
    return _keyed(key, (secret.reveal(),))[:FINGERPRINT_DIGITS]


def digest(parts: tuple[str | None, ...], key: bytes) -> str:
    """A keyed hash over several strings, each with its length, so that no two tuples run together.

    A latch remembers refused credentials by it: changing any part changes the digest.
    """
    return _keyed(key, parts)


def _keyed(key: bytes, parts: tuple[str | None, ...]) -> str:
    told: list[bytes] = []
    for part in parts:
        raw = b"" if part is None else part.encode("utf-8", "surrogatepass")
        told += (b"-" if part is None else str(len(raw)).encode(), b":", raw)
    # This runs for every rotation, on the loop: `hmac.digest` and `hmac.new` look the algorithm up each time and let go
    # of the interpreter meanwhile, which on a busy daemon costs more than the hash.
    keyed = _began(key).copy()
    keyed.update(b"".join(told))
    return keyed.hexdigest()


@lru_cache(4)
def _began(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod="sha256")
