"""Ways to log in to a Vault: a token, a token file, AppRole (also response-wrapped), JWT and Kubernetes, userpass,
a TLS certificate.

https://developer.hashicorp.com/vault/docs/concepts/tokens and .../docs/auth/approle
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from rotator.core import lean, policy
from rotator.core.errors import Refused, RotatorError
from rotator.core.tokens import Secret
from rotator.drivers.vault.answers import Declined

if TYPE_CHECKING:
    import hvac

Read = Callable[[], Awaitable[Secret]]

ZERO = timedelta(0)


@lean.dataclass(frozen=True, slots=True)
class Auth:
    """What a login gave. A ``lease`` of zero never ends; ``counted`` tells that its uses are limited."""

    token: Secret
    lease: timedelta
    renewable: bool
    counted: bool


@lean.dataclass(frozen=True, slots=True)
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


@lean.dataclass(frozen=True, slots=True)
class TokenLogin:
    """A token that an operator gives us, and that we renew. ``read`` is asked at login and by every renewal beat."""

    read: Read
    issues = False
    renews = True
    mend = "put a token there that is valid and may read auth/token/lookup-self"

    async def prepare(self) -> Attempt:
        token = await self.read()
        return Attempt((token,), lambda client: _look_up(client, token))


@lean.dataclass(frozen=True, slots=True)
class TokenFileLogin(TokenLogin):
    """A token that somebody else keeps alive (the sink of a Vault Agent): read anew, never renewed."""

    renews = False
    mend = "look at who writes that file (a Vault Agent?): its token is not valid"


@lean.dataclass(frozen=True, slots=True)
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

        fields = {"role_id": role_id.reveal()} | ({"secret_id": secret_id.reveal()} if secret_id else {})
        return Attempt(secrets, lambda client: _log_in(client, self.mount, fields))


class WrappedAppRoleLogin:
    """AppRole whose secret_id comes response-wrapped: what lies there is a wrapping token, good for one use.

    It is unwrapped only where it was made at the ``role``'s own secret-id path, so that nobody can slip us another
    role's (.../docs/concepts/response-wrapping, "Response wrapping token validation"). The secret_id that came out is
    kept in memory for later logins; a new wrapping token replaces it.
    """

    issues = True
    renews = True

    def __init__(self, role_id: Read, wrapping: Read, role: str, mount: str = "approle") -> None:
        self._role_id = role_id
        self._wrapping = wrapping
        self._mount = mount
        self._made_at = f"auth/{mount}/role/{role}/secret-id"
        self._unwrapped: tuple[Secret, Secret] | None = None
        # Several Vaults, each on threads of its own, may share this login; it is good for one use.
        self._opening = threading.Lock()

    @property
    def mend(self) -> str:
        return f"make a new wrapped secret_id (vault write -wrap-ttl=10m -f {self._made_at}) and put it there"

    async def prepare(self) -> Attempt:
        role_id = await self._role_id()
        try:
            wrapping = await self._wrapping()
        except RotatorError:
            # Many take the file away once it was used; what we hold goes on.
            if self._unwrapped is None:
                raise
            wrapping = self._unwrapped[0]
        return Attempt((role_id, wrapping), lambda client: self._send(client, role_id, wrapping))

    def _send(self, client: hvac.Client, role_id: Secret, wrapping: Secret) -> Auth:
        with self._opening:
            if self._unwrapped is None or self._unwrapped[0] != wrapping:
                self._unwrapped = wrapping, self._unwrap(client, wrapping)
            fields = {"role_id": role_id.reveal(), "secret_id": self._unwrapped[1].reveal()}
        return _log_in(client, self._mount, fields)

    def _unwrap(self, client: hvac.Client, wrapping: Secret) -> Secret:
        looked: Any = client.adapter.post("/v1/sys/wrapping/lookup", json={"token": wrapping.reveal()})
        made_at = _data(looked, "sys/wrapping/lookup").get("creation_path")
        if made_at != self._made_at:
            raise Refused(
                f"the wrapped secret_id was made at {made_at} and not at {self._made_at}; it was not opened",
                mend="take it for an attack: look at Vault's audit log for who made it, then deliver a new one",
            )
        client.token = wrapping.reveal()
        try:
            opened: Any = client.adapter.post("/v1/sys/wrapping/unwrap")
        finally:
            client.token = ""
        secret_id = _data(opened, "sys/wrapping/unwrap").get("secret_id")
        if not isinstance(secret_id, str) or not secret_id:
            raise Declined(200, "post", "sys/wrapping/unwrap", errors=("the answer holds no secret_id",))
        return Secret(secret_id)


@lean.dataclass(frozen=True, slots=True)
class JwtLogin:
    """A signed token that the surroundings give us, at auth/``mount``: JWT and Kubernetes log in with the same two
    fields. ``jwt`` is read anew at each login, since a kubelet replaces it long before it expires.

    .../docs/auth/jwt and .../docs/auth/kubernetes
    """

    role: str
    jwt: Read
    mount: str = "jwt"
    issues = True
    renews = True

    @property
    def mend(self) -> str:
        return (
            f"look at auth/{self.mount}/role/{self.role}: its audience, subject or service account must be that of our "
            "token, and its issuer must be known to Vault"
        )

    async def prepare(self) -> Attempt:
        jwt = await self.jwt()
        fields = {"role": self.role, "jwt": jwt.reveal()}
        return Attempt((jwt,), lambda client: _log_in(client, self.mount, fields))


@lean.dataclass(frozen=True, slots=True)
class UserpassLogin:
    """A user name and a password at auth/``mount``; .../docs/auth/userpass"""

    username: str
    password: Read
    mount: str = "userpass"
    issues = True
    renews = True

    @property
    def mend(self) -> str:
        return f"set the password of auth/{self.mount}/users/{self.username} anew and put it there"

    async def prepare(self) -> Attempt:
        password = await self.password()
        fields, path = {"password": password.reveal()}, f"login/{quote(self.username, safe='')}"
        return Attempt((password,), lambda client: _log_in(client, self.mount, fields, path))


@lean.dataclass(frozen=True, slots=True)
class CertificateLogin:
    """The TLS certificate that the connection presents (`Address.certificate`), at auth/``mount``; ``role`` chooses
    among several that fit. .../docs/auth/cert"""

    role: str | None = None
    mount: str = "cert"
    issues = True
    renews = True

    @property
    def mend(self) -> str:
        return f"look at auth/{self.mount}/certs: our certificate, its CA and its names must be known there and valid"

    async def prepare(self) -> Attempt:
        fields = {} if self.role is None else {"name": self.role}
        return Attempt((), lambda client: _log_in(client, self.mount, fields))


def _log_in(client: hvac.Client, mount: str, fields: Mapping[str, str], path: str = "login") -> Auth:
    told: Any = client.adapter.post(f"/v1/auth/{mount}/{path}", json=dict(fields))
    return read_auth(told, f"auth/{mount}/{path}")


def _data(told: Any, path: str) -> Mapping[str, Any]:
    data = told.get("data")
    if not isinstance(data, dict):
        raise Declined(200, "post", path, errors=("the answer holds no data",))
    return data


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
