"""HashiCorp Vault and OpenBao: one login, and what uses it. hvac lives here alone, imported at the first call."""

from rotator.drivers.vault.client import Address, Vault
from rotator.drivers.vault.login import AppRoleLogin, Login, TokenFileLogin, TokenLogin
from rotator.drivers.vault.publisher import KvPublisher, parse_location

__all__ = [
    "Address",
    "AppRoleLogin",
    "KvPublisher",
    "Login",
    "TokenFileLogin",
    "TokenLogin",
    "Vault",
    "parse_location",
]
