"""`drivers.vault.Vault` against answers that no healthy Vault gives, from a real HTTP server."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rotator.core import errors
from rotator.core.publication import Publication
from rotator.core.tokens import AccessToken, Secret
from rotator.drivers import vault
from rotator.drivers.clock import SystemClock
from tests.peers import openbao, wire
from tests.peers.wire import Asked, Reply

TOKEN = "canary-vault-token"
LOOK_UP = "/v1/auth/token/lookup-self"
FINE = Reply(body={"data": {"ttl": 0, "renewable": False}})


async def _token() -> Secret:
    return Secret(TOKEN)


def run(do: Callable[[vault.Vault], Awaitable[Any]], url: str, **address: Any) -> Any:
    workers = address.pop("workers", 4)

    async def work() -> Any:
        login = vault.Vault(
            "default", vault.Address(url=url, **address), vault.TokenLogin(_token), SystemClock(), workers=workers
        )
        try:
            return await do(login)
        finally:
            await login.close()

    return asyncio.run(work())


def read(login: vault.Vault, **settings: Any) -> Awaitable[Any]:
    return login.call(lambda client: client.adapter.get("/v1/kv/data/billing"), **settings)


def answers(reply: Reply) -> Callable[[Asked], Reply]:
    """``reply`` to everything but the login."""
    return lambda asked: FINE if asked.path == LOOK_UP else reply


def told(*words: str) -> dict[str, list[str]]:
    return {"errors": list(words)}


TABLE = [
    (Reply(301, b"moved", {"Location": "/ui/"}), errors.Misconfigured, "redirects to another place"),
    (Reply(400, told("odd request")), errors.Misconfigured, "takes no GET kv/data/billing: odd request"),
    (Reply(401, b""), errors.Refused, "status 401"),
    (Reply(404, told("no handler for route")), errors.Misconfigured, "nothing at kv/data/billing: no handler"),
    (Reply(405, told("unsupported operation")), errors.Misconfigured, "unsupported operation"),
    (Reply(412, told("required index state not present")), errors.Unavailable, "index state not present"),
    (Reply(429, told("rate limit"), {"Retry-After": "7"}), errors.Unavailable, "rate limit; it asks to wait 7 s"),
    (Reply(429, told(), {"Retry-After": "Wed, 21 Oct"}), errors.Unavailable, "to wait Wed, 21 Oct$"),
    (Reply(472, b""), errors.Misconfigured, "disaster-recovery secondary"),
    (Reply(473, b""), errors.Unavailable, "status 473"),
    (Reply(500, told("internal error")), errors.Unavailable, "internal error"),
    (Reply(501, b""), errors.Unavailable, "status 501"),
    (Reply(502, b"<html>bad gateway</html>", content_type="text/html"), errors.Unavailable, "status 502"),
    (Reply(503, told("Vault is sealed"), content_type="application/json; charset=utf-8"), errors.Unavailable, "sealed"),
    (Reply(504, b""), errors.Unavailable, "status 504"),
    (Reply(200, b"<html>log in to the network</html>"), errors.Unavailable, "the answer is not one of a Vault"),
    (Reply(200, ["no object"]), errors.Unavailable, "the answer is not one of a Vault"),
]


@pytest.mark.parametrize(("reply", "error", "words"), TABLE, ids=[f"{row[0].status}-{row[2]}" for row in TABLE])
def test_what_a_status_means(reply: Reply, error: type[Exception], words: str) -> None:
    with wire.serve(answers(reply)) as far_end, pytest.raises(error, match=words) as caught:
        run(read, far_end.url)
    assert type(caught.value) is error


def test_an_empty_answer_is_an_empty_object() -> None:
    with wire.serve(answers(Reply(204))) as far_end:
        assert run(read, far_end.url) == {}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_follows_no_redirect(status: int) -> None:
    with wire.serve(lambda asked: FINE) as other:
        target = {"Location": f"http://user:pass@127.0.0.1:{other.port}/v1/secret/place?with=query"}
        with (
            wire.serve(answers(Reply(status, headers=target))) as far_end,
            pytest.raises(errors.Misconfigured) as caught,
        ):
            run(read, far_end.url)
        assert other.asked == []
    assert f"redirects to http://127.0.0.1:{other.port} and" in str(caught.value)
    assert "address` of [vault.default]" in caught.value.mend


def test_every_request_says_that_it_is_one_and_names_the_namespace() -> None:
    with wire.serve(answers(Reply(body={}))) as far_end:
        run(read, far_end.url + "/", namespace="team/a")
    headers = far_end.asked[-1].headers
    assert far_end.asked[-1].path == "/v1/kv/data/billing"
    assert (headers["X-Vault-Request"], headers["X-Vault-Namespace"]) == ("true", "team/a")
    assert headers["X-Vault-Token"] == TOKEN


def test_a_replica_that_has_not_seen_our_write_is_asked_again_with_what_it_lacks() -> None:
    seen: list[str | None] = []

    def answer(asked: Asked) -> Reply:
        if asked.path == LOOK_UP:
            return FINE
        seen.append(asked.headers.get("X-Vault-Index"))
        if len(seen) == 1:
            return Reply(body={}, headers={"X-Vault-Index": "v1:the-write"})
        return Reply(412, told("required index state not present")) if len(seen) < 4 else Reply(body={"data": "right"})

    async def work(login: vault.Vault) -> Any:
        await read(login)
        return await read(login)

    with wire.serve(answer) as far_end:
        assert run(work, far_end.url, workers=2) == {"data": "right"}
    assert seen == [None, "v1:the-write", "v1:the-write", "v1:the-write"]


def test_a_replica_that_never_catches_up_is_told_after_a_few_tries() -> None:
    with wire.serve(answers(Reply(412, told("required index state not present")))) as far_end:
        with pytest.raises(errors.Unavailable):
            run(read, far_end.url)
        assert far_end.count("/v1/kv/data/billing") == 4


def test_one_new_login_for_all_that_got_a_403_and_then_once_more() -> None:
    refused = threading.Barrier(3, timeout=10)
    seen: list[int] = []

    def answer(asked: Asked) -> Reply:
        if asked.path == LOOK_UP:
            return FINE
        seen.append(1)
        if len(seen) <= 3:
            refused.wait()
            return Reply(403, told("permission denied"))
        return Reply(body={"data": "right"})

    async def three(login: vault.Vault) -> list[Any]:
        await login.call(lambda client: None)
        return list(await asyncio.gather(*(read(login) for _ in range(3))))

    with wire.serve(answer) as far_end:
        assert run(three, far_end.url) == [{"data": "right"}] * 3
    assert far_end.count(LOOK_UP) == 2
    assert far_end.count("/v1/kv/data/billing") == 6


def test_a_403_that_stays_is_about_rights_and_makes_no_flood_of_logins() -> None:
    reads: list[int] = []

    async def read_token() -> Secret:
        reads.append(1)
        return Secret(TOKEN)

    async def work(url: str) -> None:
        login = vault.Vault("default", vault.Address(url=url), vault.TokenLogin(read_token), SystemClock())
        for _ in range(5):
            with pytest.raises(errors.Refused, match="does not allow GET kv/data/billing: permission denied") as caught:
                await read(login)
            assert 'path "kv/data/billing" { capabilities = ["read"] }' in caught.value.mend
        await login.close()

    with wire.serve(answers(Reply(403, told("permission denied")))) as far_end:
        asyncio.run(work(far_end.url))
    assert len(reads) == 2
    assert far_end.count("/v1/kv/data/billing") == 6


def test_a_silent_server_against_the_outer_deadline() -> None:
    go_on = threading.Event()

    async def work(login: vault.Vault) -> None:
        await login.call(lambda client: None)
        limit = timedelta(milliseconds=200)
        with pytest.raises(errors.Unavailable, match=r"no answer within 0.2 s; outcome unknown"):
            await read(login, deadline=limit)
        # The only worker still hangs: the next call is not even sent, and says so.
        with pytest.raises(errors.Unavailable, match=r"hung for 0.2 s; nothing was sent"):
            await read(login, deadline=limit)
        go_on.set()
        assert await read(login) == {"data": "late"}

    with wire.serve(answers(Reply(body={"data": "late"}, wait=lambda: go_on.wait(10)))) as far_end:
        run(work, far_end.url, workers=1)
    assert far_end.count("/v1/kv/data/billing") == 2


def test_a_silent_server_against_the_timeout_of_a_read() -> None:
    go_on = threading.Event()

    async def work(login: vault.Vault) -> None:
        with pytest.raises(errors.Unavailable, match=r"no answer within 0.1 s; outcome unknown"):
            await read(login)
        go_on.set()

    with wire.serve(answers(Reply(wait=lambda: go_on.wait(10)))) as far_end:
        run(work, far_end.url, timeout=timedelta(milliseconds=100))


def test_cancelling_a_call_returns_at_once_and_the_next_one_works() -> None:
    here, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        here.set()
        go_on.wait(10)

    async def work(login: vault.Vault) -> Any:
        task = asyncio.ensure_future(read(login))
        await asyncio.to_thread(here.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        return await read(login)

    with wire.serve(answers(Reply(body={}, wait=hold))) as far_end:
        assert run(work, far_end.url) == {}


def test_nobody_listens_and_nobody_is_called_so() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(errors.Unavailable, match="connection refused"):
            run(read, f"http://127.0.0.1:{closed.getsockname()[1]}")
    with pytest.raises(errors.Unavailable, match="its name is not known"):
        run(read, "http://vault.invalid:8200")


@pytest.mark.parametrize("url", ["vault.service:8200", "http://", "ftp://user:canary@127.0.0.1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(errors.Misconfigured, match=r"set `address` of \[vault.default\]") as caught:
        run(read, url)
    assert "canary" not in str(caught.value)


def test_certificates_are_checked_against_the_given_ca(tmp_path: Path) -> None:
    with openbao.dev(tls=True) as bao:
        assert bao.ca_file is not None

        async def secure(ca_file: Path | None) -> Any:
            async def root() -> Secret:
                return Secret(bao.token)

            address = vault.Address(url=bao.url, ca_file=ca_file)
            login = vault.Vault("default", address, vault.TokenLogin(root), SystemClock())
            try:
                return await login.call(lambda client: client.sys.read_health_status(method="GET"))
            finally:
                await login.close()

        assert asyncio.run(secure(bao.ca_file))["sealed"] is False
        with pytest.raises(errors.Misconfigured, match=r"certificate of .* is not trusted; set `ca_file`"):
            asyncio.run(secure(None))
        with pytest.raises(errors.Misconfigured, match=r"the CA file .*none.pem cannot be read"):
            asyncio.run(secure(tmp_path / "none.pem"))


@pytest.mark.parametrize("token", ["canary\nX-Other: header", "canary-☃"])
def test_a_token_that_is_no_header_is_not_quoted(token: str) -> None:
    async def odd() -> Secret:
        return Secret(token)

    async def work(url: str) -> None:
        login = vault.Vault("default", vault.Address(url=url), vault.TokenLogin(odd), SystemClock())
        try:
            await read(login)
        finally:
            await login.close()

    with wire.serve(answers(FINE)) as far_end:
        with pytest.raises(errors.Misconfigured, match="cannot stand in a header") as caught:
            asyncio.run(work(far_end.url))
        assert far_end.asked == []
    assert "canary" not in repr(caught.value) + str(caught.value)


def test_a_server_that_quotes_our_secrets_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    words = f"bad {TOKEN} and canary-access-token-1 and hvs.CAESIcanary0123456789abcdef\n\x1b[31mred " + "x" * 999
    day = datetime(2027, 1, 1, tzinfo=UTC)
    access = AccessToken(Secret("canary-access-token-1"), "bearer", None, day, day + timedelta(hours=1), 1)

    def answer(asked: Asked) -> Reply:
        if asked.path == LOOK_UP:
            return FINE
        if asked.method == "GET":
            return Reply(404, told())
        return Reply(204) if "/metadata/" in asked.path else Reply(500, told(words))

    async def work(login: vault.Vault) -> None:
        await vault.KvPublisher(login, "kv", "billing").settle(Publication("billing", "l-1", access), day)

    with wire.serve(answer) as far_end, pytest.raises(errors.Unavailable) as caught:
        run(work, far_end.url)
    chain: list[BaseException] = [caught.value]
    while following := (chain[-1].__cause__ or chain[-1].__context__):
        chain.append(following)
    shown = " ".join(f"{one!r} {one} {vars(one)}" for one in chain) + caplog.text
    assert "bad •••" in shown
    assert "canary" not in shown
    assert "\x1b" not in shown
    assert len(str(caught.value)) < 400


def test_nothing_is_taken_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".vault-token").write_text("canary-home-token")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login canary password canary\n")
    program = """
import asyncio, sys
from datetime import timedelta
from rotator.core.tokens import Secret
from rotator.drivers import vault
from rotator.drivers.clock import SystemClock
early = [name for name in sys.modules if name.split(".")[0] in ("hvac", "requests", "urllib3")]
assert not early, early
async def empty(): return Secret("the-right-one")
async def main():
    login = vault.Vault("x", vault.Address(url=sys.argv[1]), vault.TokenLogin(empty), SystemClock())
    await login.call(lambda client: client.adapter.get("/v1/kv/data/billing"))
    await login.call(lambda client: setattr(client, "token", "") or client.adapter.get("/v1/sys/health"))
    await login.close()
asyncio.run(main())
"""
    with wire.serve(answers(FINE)) as far_end, wire.serve(answers(FINE)) as proxy:
        nowhere = {
            "HOME": str(tmp_path), "VAULT_ADDR": proxy.url, "VAULT_TOKEN": "canary", "VAULT_NAMESPACE": "canary",
            "VAULT_CLIENT_CERT": "/none.pem", "VAULT_CLIENT_KEY": "/none.key", "VAULT_CACERT": "/none.pem",
            "HTTP_PROXY": proxy.url, "http_proxy": proxy.url, "REQUESTS_CA_BUNDLE": "/none.pem",
        }  # fmt: skip
        subprocess.run(
            [sys.executable, "-W", "error", "-c", program, far_end.url],
            check=True, timeout=60, env={**os.environ, **nowhere},
        )  # fmt: skip
        assert proxy.asked == []
    assert [one.headers.get("X-Vault-Token") for one in far_end.asked] == ["the-right-one", "the-right-one", None]
    assert not any("canary" in str(one.headers) or "Authorization" in one.headers for one in far_end.asked)


def test_a_hung_call_does_not_keep_the_process_from_ending() -> None:
    go_on = threading.Event()
    program = """
import asyncio, sys
from datetime import timedelta
from rotator.core.errors import Unavailable
from rotator.core.tokens import Secret
from rotator.drivers import vault
from rotator.drivers.clock import SystemClock
async def token(): return Secret("t")
async def main():
    login = vault.Vault("x", vault.Address(url=sys.argv[1]), vault.TokenLogin(token), SystemClock())
    await login.call(lambda client: None)
    try:
        await login.call(lambda c: c.adapter.get("/v1/kv/data/billing"), deadline=timedelta(milliseconds=200))
    except Unavailable:
        await login.close()
        print("closed")
asyncio.run(main())
"""
    with wire.serve(answers(Reply(wait=lambda: go_on.wait(60)))) as far_end:
        try:
            # The socket read itself would take 10 s.
            done = subprocess.run(
                [sys.executable, "-c", program, far_end.url], check=True, timeout=8, capture_output=True, text=True
            )
        finally:
            go_on.set()
    assert done.stdout == "closed\n"


def test_after_closing_nothing_is_sent() -> None:
    async def work(login: vault.Vault) -> None:
        await read(login)
        await login.close()
        await login.close()
        with pytest.raises(errors.Unavailable, match="no longer in use"):
            await read(login)

    with wire.serve(answers(FINE)) as far_end:
        run(work, far_end.url)
    assert far_end.count("/v1/kv/data/billing") == 1


def test_nothing_that_guesses_encodings_is_loaded_and_who_wants_it_gets_it_still() -> None:
    program = (
        "import sys, rotator.drivers.vault.adapter; "
        "assert 'charset_normalizer' not in sys.modules and 'chardet' not in sys.modules; "
        "import charset_normalizer"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)
