"""A Vault and the logins to it, as they are configured, and the grants that are looked for there."""

# Without annotations as text, each of which pydantic would have to compile and evaluate: 2 ms of a start in all.
from datetime import timedelta
from pathlib import Path

from rotator.settings.parts import Part
from rotator.settings.values import (
    AbsolutePath,
    Mount,
    Reference,
    Span,
    Text,
    Url,
    VaultFolder,
    VaultTemplate,
)


class AppRole(Part):
    """Vault's AppRole login. ``wrapped`` says that what ``secret_id`` refers to is a response-wrapping token, made for
    ``role``. A role with ``bind_secret_id=false`` has no secret_id."""

    role_id: Reference
    secret_id: Reference | None = None
    wrapped: bool = False
    role: Text | None = None
    mount: Mount = "approle"


class Kubernetes(Part):
    """Login with the Pod's service account; the file is read anew at each login."""

    role: Text
    token_file: AbsolutePath = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    mount: Mount = "kubernetes"


class Jwt(Part):
    """Login with a signed token that the surroundings provide."""

    role: Text
    token: Reference
    mount: Mount = "jwt"


class Userpass(Part):
    """Login with a user name and a password."""

    username: Text
    password: Reference
    mount: Mount = "userpass"


class Certificate(Part):
    """Login with the TLS certificate that the connection presents: `cert_file` and `key_file` of the Vault."""

    role: Text | None = None
    mount: Mount = "cert"


class Auth(Part):
    """How to log in to a Vault: exactly one of these."""

    token: Reference | None = None
    token_file: AbsolutePath | None = None
    approle: AppRole | None = None
    kubernetes: Kubernetes | None = None
    jwt: Jwt | None = None
    userpass: Userpass | None = None
    cert: Certificate | None = None


class Vault(Part):
    """A HashiCorp Vault or OpenBao."""

    address: Url
    namespace: Text | None = None
    ca_file: AbsolutePath | None = None
    cert_file: AbsolutePath | None = None
    key_file: AbsolutePath | None = None
    timeout: Span = timedelta(seconds=10)
    allow_plain_http: bool = False
    revoke_on_stop: bool = False
    auth: Auth


class VaultDiscovery(Part):
    """Grants that stand under a prefix in Vault, one entry each. The rest is for entries that do not say it
    themselves; ``{grant}`` and ``{provider}`` stand for the names."""

    prefix: VaultFolder
    provider: Text | None = None
    file: Text | None = None
    vault: VaultTemplate | None = None


class Discovery(Part):
    """Where else grants come from."""

    vault: VaultDiscovery | None = None
