"""What is counted of a Vault: by a real one, and by one that answers as it is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from rotator.core import errors
from rotator.core.tokens import Secret
from rotator.drivers import vault
from rotator.drivers.clock import SystemClock
from tests.peers import wire
from tests.peers.openbao import OpenBao


def test_logins_and_requests_of_a_real_one(bao: OpenBao) -> None:
    role_id, secret_id = bao.app_role("counted")
    tally = vault.Tally()

    async def work() -> None:
        async def role() -> Secret:
            return Secret(role_id)

        async def secret() -> Secret:
            return Secret(secret_id)

        way = vault.AppRoleLogin(role, secret)
        guest = vault.Vault("default", vault.Address(url=bao.url, ca_file=bao.ca_file), way, SystemClock(), tally=tally)
        await guest.call(lambda client: client.auth.token.lookup_self())
        with pytest.raises(errors.RotatorError):
            await guest.call(lambda client: client.adapter.get("/v1/sys/mounts"))
        await guest.close()

    asyncio.run(work())
    # A 403 is answered by one new login.
    assert tally.logins == {"granted": 2}
    assert tally.requests[("write", "2xx")] == 2
    assert tally.requests[("read", "2xx")] == 1
    assert tally.requests[("read", "403")] == 2
    assert tally.ends_at is not None
    assert tally.ends_at > datetime.now(UTC) + timedelta(minutes=1)


@pytest.mark.parametrize(("status", "outcome", "code"), [(400, "refused", "400"), (503, "unavailable", "503")])
def test_a_login_that_fails_is_counted_by_who_must_act(status: int, outcome: str, code: str) -> None:
    tally = vault.Tally()

    async def work(url: str) -> None:
        async def read() -> Secret:
            return Secret("a-token")

        way = vault.UserpassLogin("user", read)
        guest = vault.Vault("default", vault.Address(url=url), way, SystemClock(), tally=tally)
        with pytest.raises(errors.RotatorError):
            await guest.call(lambda client: client.auth.token.lookup_self())
        await guest.close()

    with wire.serve(lambda asked: wire.Reply(status, {"errors": ["no"]})) as server:
        asyncio.run(work(server.url))
    assert tally.logins == {outcome: 1}
    assert tally.requests == {("write", code): 1}
    assert tally.ends_at is None


def test_no_answer_and_odd_statuses_have_a_code_too() -> None:
    tally = vault.Tally()
    for method, status in (("get", None), ("LIST", 200), ("delete", 204), ("patch", 418), ("post", 307), ("put", 599)):
        tally.answered(method, status)
    assert set(tally.requests) == {
        ("read", "none"), ("list", "2xx"), ("delete", "2xx"), ("write", "4xx"), ("write", "3xx"), ("write", "5xx"),
    }  # fmt: skip
