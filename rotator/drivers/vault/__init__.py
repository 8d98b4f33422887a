"""HashiCorp Vault and OpenBao: one login, and what uses it. hvac lives here alone, imported at the first call."""

from rotator.drivers.vault import cabinet
from rotator.drivers.vault.client import Address, Vault
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

__all__ = [
    "Address",
    "AppRoleLogin",
    "CertificateLogin",
    "JwtLogin",
    "KvPublisher",
    "Login",
    "TokenFileLogin",
    "TokenLogin",
    "UserpassLogin",
    "Vault",
    "VaultStore",
    "WrappedAppRoleLogin",
    "cabinet",
    "parse_location",
]
