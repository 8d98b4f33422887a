"""HashiCorp Vault and OpenBao: one login, and what uses it. hvac lives here alone, imported at the first call."""

from rotator.drivers.vault import cabinet, kv1
from rotator.drivers.vault.address import Address
from rotator.drivers.vault.client import Vault
from rotator.drivers.vault.kv1 import Kv1Publisher
from rotator.drivers.vault.login import (
    AppRoleLogin,
    CertificateLogin,
    JwtLogin,
    Login,
    TokenFileLogin,
    TokenLogin,
    UserpassLogin,
    WrappedAppRoleLogin,
)
from rotator.drivers.vault.publisher import KvPublisher, parse_location
from rotator.drivers.vault.store import VaultStore
from rotator.drivers.vault.tally import Tally

__all__ = [
    "Address",
    "AppRoleLogin",
    "CertificateLogin",
    "JwtLogin",
    "Kv1Publisher",
    "KvPublisher",
    "Login",
    "Tally",
    "TokenFileLogin",
    "TokenLogin",
    "UserpassLogin",
    "Vault",
    "VaultStore",
    "WrappedAppRoleLogin",
    "cabinet",
    "kv1",
    "parse_location",
]
