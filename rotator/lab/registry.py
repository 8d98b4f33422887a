"""What the provider knows: its clients, its users and their passwords, its settings, and everything it has stored."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rotator.lab.faults import Faults
from rotator.lab.journal import Journal
from rotator.lab.ledger import Ledger, Reuse


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client. Stored without a secret (None), it accepts any, as the bundle does."""

    client_id: str
    secret: str | None = field(repr=False)
    grant_types: frozenset[str] = frozenset({"password", "refresh_token"})


@dataclass(frozen=True, slots=True)
class User:
    """A resource owner. ``refused_login`` is the text with which Token Login turns the account away (``User account
    is locked.``); the token endpoint never looks at such flags."""

    username: str
    password: str = field(repr=False)
    refused_login: str | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """The provider's settings. Lifetimes are seconds, as on the wire; ``scope`` is what every token gets, and
    ``login_scope`` what Token Login asks for."""

    access_seconds: int = 3600
    refresh_seconds: int = 1209600
    code_seconds: int = 30
    scope: str | None = None
    login_scope: str | None = None
    realm: str = "Service"
    reuse: Reuse = Reuse.FOS
    grace_seconds: float = 0.0
    revoke_old_access: bool = False
    json_body_listener: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """A stored authorization code."""

    client: str
    user: str
    redirect_uri: str
    expires_at: int


def token_of(randomness: bytes) -> str:
    """A token as the provider makes them: 86 characters, the base64 of a hexadecimal SHA-256."""
    return base64.urlsafe_b64encode(hashlib.sha256(randomness).hexdigest().encode()).decode().rstrip("=")


def fresh_token() -> str:
    return token_of(secrets.token_bytes(100))


class Registry:
    """The provider's database. ``profile`` and ``faults`` may be changed while it serves.

    ``now`` gives seconds since the epoch, ``token`` a new token value; ``keep`` bounds the journal's entries.
    """

    def __init__(
        self,
        clients: Iterable[Client],
        users: Iterable[User],
        *,
        now: Callable[[], float],
        token: Callable[[], str] = fresh_token,
        profile: Profile | None = None,
        keep: int | None = None,
    ) -> None:
        self.clients = {client.client_id: client for client in clients}
        self.users = {user.username: user for user in users}
        self.codes: dict[str, Code] = {}
        self.now = now
        self.token = token
        self.profile = profile or Profile()
        self.faults = Faults()
        self.journal = Journal(keep)
        self.ledger = Ledger()
        self._bad_passwords: dict[str, int] = {}
        self._locked_until: dict[str, float] = {}

    def issue_code(self, client_id: str, username: str, redirect_uri: str) -> str:
        """Store the code that the authorize endpoint would have sent to ``redirect_uri``."""
        value = self.token()
        self.codes[value] = Code(client_id, username, redirect_uri, int(self.now()) + self.profile.code_seconds)
        return value

    def is_locked(self, username: str) -> bool:
        """Whether too many bad passwords have locked the account (see `Faults.lockout_after`)."""
        return self.now() < self._locked_until.get(username, 0.0)

    def check_password(self, username: str, password: str) -> bool:
        """Compare, and count what was wrong; a locked account refuses the right password too."""
        user = self.users.get(username)
        if user is None or self.is_locked(username):
            return False
        if user.password == password:
            self._bad_passwords.pop(username, None)
            return True
        count = self._bad_passwords.get(username, 0) + 1
        if self.faults.lockout_after and count >= self.faults.lockout_after:
            self._locked_until[username] = self.now() + self.faults.lockout_seconds
            count = 0
        self._bad_passwords[username] = count
        return False

    def purge(self) -> None:
        """Run the clean-up job: drop expired tokens and codes."""
        now = self.now()
        self.ledger.purge(now)
        self.codes = {value: code for value, code in self.codes.items() if int(now) <= code.expires_at}
