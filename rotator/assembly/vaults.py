"""The one login of each configured Vault."""

from __future__ import annotations

from rotator.assembly import references
from rotator.assembly.plan import Plan
from rotator.assembly.references import Read
from rotator.core.ports import Clock
from rotator.core.tokens import Secret
from rotator.drivers import vault
from rotator.drivers.secrets import Reference
from rotator.settings import SecretReference


def of(name: str, plan: Plan, clock: Clock) -> vault.Vault:
    """``[vault.NAME]``; nothing is read or sent before the first call."""
    shape = plan.settings.vault[name]
    pair = (shape.cert_file, shape.key_file)
    address = vault.Address(
        url=shape.address, namespace=shape.namespace, ca_file=shape.ca_file, timeout=shape.timeout,
        certificate=(pair[0], pair[1]) if pair[0] and pair[1] else None,
    )  # fmt: skip
    tally = None if plan.tallies is None else plan.tallies.setdefault(name, vault.Tally())
    return vault.Vault(name, address, _login(name, plan), clock, revokes=shape.revoke_on_stop, tally=tally)


def _login(name: str, plan: Plan) -> vault.Login:
    auth, key = plan.settings.vault[name].auth, f"vault.{name}.auth"
    if auth.approle is not None:
        return _app_role(name, plan)
    if auth.kubernetes is not None:
        jwt = _file(plan, str(auth.kubernetes.token_file), f"{key}.kubernetes.token_file")
        return vault.JwtLogin(auth.kubernetes.role, jwt, auth.kubernetes.mount)
    if auth.jwt is not None:
        return vault.JwtLogin(auth.jwt.role, _reader(plan, auth.jwt.token, f"{key}.jwt.token"), auth.jwt.mount)
    if auth.userpass is not None:
        password = _reader(plan, auth.userpass.password, f"{key}.userpass.password")
        return vault.UserpassLogin(auth.userpass.username, password, auth.userpass.mount)
    if auth.cert is not None:
        return vault.CertificateLogin(auth.cert.role, auth.cert.mount)
    if auth.token_file is not None:
        return vault.TokenFileLogin(_file(plan, str(auth.token_file), f"{key}.token_file"))
    assert auth.token is not None  # noqa: S101 (the settings know that one of them is there)
    return vault.TokenLogin(_reader(plan, auth.token, f"{key}.token"))


def _app_role(name: str, plan: Plan) -> vault.Login:
    role, key = plan.settings.vault[name].auth.approle, f"vault.{name}.auth.approle"
    assert role is not None  # noqa: S101 (asked for where it is there)
    role_id = _reader(plan, role.role_id, f"{key}.role_id")
    secret_id = None if role.secret_id is None else _reader(plan, role.secret_id, f"{key}.secret_id")
    if role.wrapped and secret_id is not None and role.role is not None:
        wrapping, name_of_role = secret_id, role.role
        return plan.unwrapped.shared(
            name, role, lambda: vault.WrappedAppRoleLogin(role_id, wrapping, name_of_role, role.mount)
        )
    return vault.AppRoleLogin(role_id=role_id, secret_id=secret_id, mount=role.mount)


def _reader(plan: Plan, shape: SecretReference, key: str) -> Read:
    return references.reader(plan, references.of(shape, key))


def _file(plan: Plan, path: str, key: str) -> Read:
    return references.reader(plan, Reference("file", Secret(path), key))
