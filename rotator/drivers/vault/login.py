"""Ways to log in to a Vault: a token, a token file, AppRole.

https://developer.hashicorp.com/vault/docs/concepts/tokens and .../docs/auth/approle
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from rotator.core import policy
from rotator.core.tokens import Secret
from rotator.drivers.vault.answers import Declined

if TYPE_CHECKING:
    import hvac

Read = Callable[[], Awaitable[Secret]]

ZERO = timedelta(0)


@dataclass(frozen=True, slots=True)
class Auth:
    """What a login gave. A ``lease`` of zero never ends; ``counted`` tells that its uses are limited."""

    token: Secret
    lease: timedelta
    renewable: bool
    counted: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login, its secrets read: ``send`` makes it, on a worker thread."""

    secrets: tuple[Secret, ...]
    send: Callable[[hvac.Client], Auth]


class Login(Protocol):
    """How to get a Vault token.

    ``issues`` tells that Vault makes a token at each login; otherwise it comes from outside and is read anew.
    ``renews`` tells that the token is ours to renew. ``mend`` is the step where it is refused.
    """

    @property
    def issues(self) -> bool: ...

    @property
    def renews(self) -> bool: ...

    @property
    def mend(self) -> str: ...

    async def prepare(self) -> Attempt:
        """Read the secrets. Raises what reading them raises; nothing was sent then."""
        ...


@dataclass(frozen=True, slots=True)
class TokenLogin:
    """A token that an operator gives us, and that we renew. ``read`` is asked at login and by every renewal beat."""

    read: Read
    issues = False
    renews = True
    mend = "put a token there that is valid and may read auth/token/lookup-self"

    async def prepare(self) -> Attempt:
        token = await self.read()
        return Attempt((token,), lambda client: _look_up(client, token))


@dataclass(frozen=True, slots=True)
class TokenFileLogin(TokenLogin):
    """A token that somebody else keeps alive (the sink of a Vault Agent): read anew, never renewed."""

    renews = False
    mend = "look at who writes that file (a Vault Agent?): its token is not valid"


@dataclass(frozen=True, slots=True)
class AppRoleLogin:
    """AppRole at auth/``mount``. ``secret_id`` is None for a role with ``bind_secret_id=false``."""

    role_id: Read
    secret_id: Read | None = None
    mount: str = "approle"
    issues = True
    renews = True

    @property
    def mend(self) -> str:
        return f"make a new secret_id (auth/{self.mount}/role/NAME/secret-id) and put it there, or mend the role_id"

    async def prepare(self) -> Attempt:
        role_id = await self.role_id()
        secret_id = await self.secret_id() if self.secret_id else None
        secrets = (role_id,) if secret_id is None else (role_id, secret_id)

        def send(client: hvac.Client) -> Auth:
            told: Any = client.auth.approle.login(
                role_id=role_id.reveal(),
                secret_id=secret_id.reveal() if secret_id else None,
                use_token=False,
                mount_point=self.mount,
            )
            return read_auth(told, f"auth/{self.mount}/login")

        return Attempt(secrets, send)


def read_auth(told: dict[str, Any], path: str, token: Secret | None = None) -> Auth:
    """The ``auth`` of a login's or a renewal's answer; ``token`` is the one renewed. Raises Declined for any other."""
    auth = told.get("auth")
    value = auth.get("client_token") if isinstance(auth, dict) else None
    if isinstance(value, str) and value:
        token = Secret(value)
    if not isinstance(auth, dict) or token is None:
        raise Declined(200, "post", path, errors=("the answer holds no token",))
    return _auth(token, auth, "lease_duration")


def _look_up(client: hvac.Client, token: Secret) -> Auth:
    client.token = token.reveal()
    told: Any = client.auth.token.lookup_self()
    data = told.get("data")
    if not isinstance(data, dict):
        raise Declined(200, "get", "auth/token/lookup-self", errors=("the answer describes no token",))
    return _auth(token, data, "ttl")


def _auth(token: Secret, told: Mapping[str, Any], lease: str) -> Auth:
    return Auth(
        token, policy.read_lifetime(told.get(lease)) or ZERO, told.get("renewable") is True, bool(told.get("num_uses"))
    )
