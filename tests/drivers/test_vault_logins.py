"""Every way to log in to a Vault, by a real OpenBao."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from jwcrypto import jwk, jwt

from rotator.core import errors
from rotator.core.tokens import Secret
from rotator.drivers import vault
from rotator.drivers.clock import SystemClock
from tests.peers import openbao, wire
from tests.peers.openbao import OpenBao

POLICY = 'path "auth/token/lookup-self" { capabilities = ["read"] }'


def lies(value: str) -> Callable[[], Awaitable[Secret]]:
    async def read() -> Secret:
        return Secret(value)

    return read


def log_in(bao: OpenBao, way: vault.Login, *, certificate: tuple[Path, Path] | None = None) -> Mapping[str, Any]:
    """What the server says of the token that the login gave."""

    async def work() -> Mapping[str, Any]:
        address = vault.Address(url=bao.url, ca_file=bao.ca_file, certificate=certificate)
        guest = vault.Vault("default", address, way, SystemClock())
        try:
            told: Any = await guest.call(lambda client: client.auth.token.lookup_self())
        finally:
            await guest.close()
        data: Mapping[str, Any] = told["data"]
        return data

    return asyncio.run(work())


def enable(bao: OpenBao, kind: str) -> None:
    status, answer = bao.ask("POST", f"sys/auth/{kind}", {"type": kind})
    assert status == 204 or "already in use" in str(answer), answer


# --- response-wrapped secret_id --------------------------------------------------------------------------------------


def wrap(bao: OpenBao, path: str, body: object = None) -> str:
    """The wrapping token of what ``path`` answers."""
    return bao.wrapped("POST", path, body)


def made_at(role: str) -> str:
    return f"auth/approle/role/{role}/secret-id"


def test_a_wrapped_secret_id_is_opened_once_and_serves_later_logins(bao: OpenBao) -> None:
    role_id, _ = bao.app_role("wrapped")
    wrapping = wrap(bao, made_at("wrapped"))
    way = vault.WrappedAppRoleLogin(lies(role_id), lies(wrapping), "wrapped")
    assert log_in(bao, way)["path"] == "auth/approle/login"
    # The wrapping token is spent now; a second login goes by what came out of it.
    assert bao.ask("POST", "sys/wrapping/lookup", {"token": wrapping})[0] == 400
    assert log_in(bao, way)["path"] == "auth/approle/login"


def test_a_wrapping_token_of_another_role_is_not_opened(bao: OpenBao) -> None:
    role_id, _ = bao.app_role("wanted")
    bao.app_role("other")
    wrapping = wrap(bao, made_at("other"))
    with pytest.raises(errors.Refused, match=f"made at {made_at('other')} and not at {made_at('wanted')}") as caught:
        log_in(bao, vault.WrappedAppRoleLogin(lies(role_id), lies(wrapping), "wanted"))
    assert "attack" in caught.value.mend and wrapping not in str(caught.value)
    # Still there, for whoever looks into it.
    assert bao.ask("POST", "sys/wrapping/lookup", {"token": wrapping})[0] == 200


def test_a_wrapping_token_that_was_opened_by_somebody_else_is_refused(bao: OpenBao) -> None:
    role_id, _ = bao.app_role("stolen")
    wrapping = wrap(bao, made_at("stolen"))
    assert bao.ask("POST", "sys/wrapping/unwrap", None, token=wrapping)[0] == 200
    with pytest.raises(errors.Refused, match="refuses the login at sys/wrapping/lookup") as caught:
        log_in(bao, vault.WrappedAppRoleLogin(lies(role_id), lies(wrapping), "stolen"))
    assert "make a new wrapped secret_id" in caught.value.mend


def test_a_role_without_secret_id(bao: OpenBao) -> None:
    role_id, _ = bao.app_role("bare")
    bound = {"bind_secret_id": False, "token_bound_cidrs": ["127.0.0.0/8"], "token_ttl": "1h"}
    bao.do("POST", "auth/approle/role/bare", bound)
    assert log_in(bao, vault.AppRoleLogin(lies(role_id)))["path"] == "auth/approle/login"


# --- signed tokens ---------------------------------------------------------------------------------------------------


def signed(key: jwk.JWK, **claims: object) -> str:
    now = int(time.time()) - 5
    token = jwt.JWT(header={"alg": "ES256"}, claims={"iat": now, "nbf": now, "exp": now + 600, **claims})
    token.make_signed_token(key)
    return str(token.serialize())


def test_a_jwt_logs_in(bao: OpenBao) -> None:
    key = jwk.JWK.generate(kty="EC", crv="P-256")
    enable(bao, "jwt")
    bao.do("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [key.export_to_pem().decode()]})
    role = {"role_type": "jwt", "bound_audiences": ["vault"], "user_claim": "sub", "token_ttl": "1h"}
    bao.do("POST", "auth/jwt/role/rotator", role)

    good = vault.JwtLogin("rotator", lies(signed(key, sub="billing", aud="vault")))
    assert log_in(bao, good)["display_name"] == "jwt-billing"

    other = signed(key, sub="billing", aud="canary-audience")
    with pytest.raises(errors.Refused, match="refuses the login at auth/jwt/login") as caught:
        log_in(bao, vault.JwtLogin("rotator", lies(other)))
    assert "audience" in caught.value.mend and other not in str(caught.value)


def test_a_service_account_of_kubernetes_logs_in(bao: OpenBao, tmp_path: Path) -> None:
    key = jwk.JWK.generate(kty="EC", crv="P-256")
    account = {"namespace": "pay", "serviceaccount": {"name": "rotator", "uid": "u-1"}}
    token = signed(key, sub="system:serviceaccount:pay:rotator", **{"kubernetes.io": account})

    def review(asked: wire.Asked) -> wire.Reply:
        shown = json.loads(asked.body)["spec"]["token"]
        user = {"username": "system:serviceaccount:pay:rotator", "uid": "u-1", "groups": []}
        status = {"authenticated": shown == token, "user": user}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}
        return wire.Reply(201, body, {"Connection": "close"})

    enable(bao, "kubernetes")
    with wire.serve(review) as cluster:
        trust = {"kubernetes_ca_cert": certificate(tmp_path, "cluster")[0].read_text(), "disable_local_ca_jwt": True}
        config = {"kubernetes_host": cluster.url, **trust, "disable_iss_validation": True}
        bao.do("POST", "auth/kubernetes/config", config)
        bound = {"bound_service_account_names": ["rotator"], "bound_service_account_namespaces": ["pay"]}
        bao.do("POST", "auth/kubernetes/role/rotator", {**bound, "token_ttl": "1h"})
        told = log_in(bao, vault.JwtLogin("rotator", lies(token), "kubernetes"))
        assert told["display_name"] == "kubernetes-pay-rotator"
        assert cluster.count("/apis/authentication.k8s.io/v1/tokenreviews") == 1


# --- user name and password, certificate -----------------------------------------------------------------------------


def test_a_user_logs_in_with_a_password(bao: OpenBao) -> None:
    enable(bao, "userpass")
    bao.do("POST", "auth/userpass/users/rotator", {"password": "right", "token_ttl": "1h"})
    assert log_in(bao, vault.UserpassLogin("rotator", lies("right")))["display_name"] == "userpass-rotator"
    with pytest.raises(errors.Refused, match="refuses the login at auth/userpass/login/rotator") as caught:
        log_in(bao, vault.UserpassLogin("rotator", lies("canary-wrong")))
    assert "set the password" in caught.value.mend and "canary" not in str(caught.value)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed client certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH])
    signed_by_itself = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1)).add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    chain, private = folder / f"{name}.crt", folder / f"{name}.key"
    chain.write_bytes(signed_by_itself.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return chain, private


def test_a_certificate_logs_in_and_another_does_not(tmp_path: Path) -> None:
    known, stranger = certificate(tmp_path, "rotator"), certificate(tmp_path, "stranger")

    with openbao.dev(tls=True) as bao:

        async def prepare() -> None:
            root = vault.Vault(
                "root",
                vault.Address(url=bao.url, ca_file=bao.ca_file),
                vault.TokenLogin(lies(bao.token)),
                SystemClock(),
            )
            trusted = {"certificate": known[0].read_text(), "allowed_common_names": "rotator", "token_ttl": "1h"}
            await root.call(lambda client: client.adapter.post("/v1/sys/auth/cert", json={"type": "cert"}))
            await root.call(lambda client: client.adapter.post("/v1/auth/cert/certs/rotator", json=trusted))
            await root.close()

        asyncio.run(prepare())
        way = vault.CertificateLogin("rotator")
        assert log_in(bao, way, certificate=known)["display_name"] == "cert-rotator"
        with pytest.raises(errors.Refused, match="refuses the login at auth/cert/login") as caught:
            log_in(bao, way, certificate=stranger)
        assert "auth/cert/certs" in caught.value.mend
        with pytest.raises(errors.Misconfigured, match=r"none.crt cannot be read; mend `cert_file` of \[vault"):
            log_in(bao, way, certificate=(tmp_path / "none.crt", known[1]))
        with pytest.raises(errors.Misconfigured, match="hold nothing usable"):
            log_in(bao, way, certificate=(known[0], stranger[1]))
