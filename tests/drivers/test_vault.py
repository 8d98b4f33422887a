"""`drivers.vault.Vault`: logging in, staying logged in, and a Vault that is sealed, by a real OpenBao."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rotator.core import errors
from rotator.core.tokens import Secret
from rotator.drivers import vault
from tests.peers import wire
from tests.peers.openbao import OpenBao
from tests.peers.wire import Asked, Reply

HOUR = timedelta(hours=1)
READ = 'path "{mount}/data/*" {{ capabilities = ["read"] }}'
LOGIN = "/v1/auth/approle/login"
RENEWAL = "/v1/auth/token/renew-self"


class SetClock:
    """A clock that stands until it is set. A Vault asks it for nothing but the time."""

    def __init__(self) -> None:
        self.time = datetime(2027, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


class Slip:
    """A secret that lies somewhere: it can be replaced, missing, and is counted when it is read."""

    def __init__(self, value: str) -> None:
        self.value: str | None = value
        self.reads = 0

    async def read(self) -> Secret:
        self.reads += 1
        if self.value is None:
            raise errors.Transient("the slip is not there")
        return Secret(self.value)


class Guest:
    """One Vault with its login, its clock and its secret."""

    def __init__(self, url: str, role_id: str, secret_id: str) -> None:
        self.clock = SetClock()
        self.slip = Slip(secret_id)
        role = Slip(role_id)
        self.vault = vault.Vault(
            "default", vault.Address(url=url), vault.AppRoleLogin(role.read, self.slip.read), self.clock
        )

    async def token(self) -> str:
        """The Vault token in use."""
        return await self.vault.call(lambda client: str(client.token))

    async def read(self, mount: str, path: str = "billing") -> Any:
        return await self.vault.call(lambda client: client.adapter.get(f"/v1/{mount}/data/{path}"))


def visit(bao: OpenBao, mount: str, do: Callable[[Guest], Awaitable[Any]], **role: object) -> Any:
    """Run ``do`` with an AppRole login of its own that may read ``mount``, where an entry lies."""
    bao.do("POST", f"{mount}/data/billing", {"data": {"a": "1"}})
    return run(do, Guest(bao.url, *bao.app_role(f"{mount}-reader", READ.format(mount=mount), **role)))


def run(do: Callable[[Guest], Awaitable[Any]], guest: Guest) -> Any:
    async def work() -> Any:
        try:
            return await do(guest)
        finally:
            await guest.vault.close()

    return asyncio.run(work())


def last_renewal(bao: OpenBao, token: str) -> Any:
    return bao.do("POST", "auth/token/lookup", {"token": token})["data"].get("last_renewal")


def test_app_role_logs_in_once_and_at_the_first_call(bao: OpenBao, kv: str) -> None:
    async def work(guest: Guest) -> None:
        await guest.vault.renew_if_short()
        assert guest.slip.reads == 0
        answers = await asyncio.gather(*(guest.read(kv) for _ in range(8)))
        assert {one["data"]["data"]["a"] for one in answers} == {"1"}
        assert guest.slip.reads == 1

    visit(bao, kv, work)


@pytest.mark.parametrize("revokes", [True, False])
def test_a_token_that_was_made_for_us_is_given_back_where_that_is_wanted(bao: OpenBao, kv: str, revokes: bool) -> None:
    token = ""

    async def work(guest: Guest) -> None:
        nonlocal token
        token = await guest.token()

    role_id, secret_id = bao.app_role(f"{kv}-giver", READ.format(mount=kv))
    guest = Guest(bao.url, role_id, secret_id)
    slip = Slip(role_id)
    login = vault.AppRoleLogin(slip.read, guest.slip.read)
    guest.vault = vault.Vault("default", vault.Address(url=bao.url), login, guest.clock, revokes=revokes)
    run(work, guest)
    assert bao.ask("POST", "auth/token/lookup", {"token": token})[0] == (403 if revokes else 200)


def test_a_token_from_elsewhere_is_never_given_back(bao: OpenBao) -> None:
    token = bao.do("POST", "auth/token/create", {"policies": ["default"]})["auth"]["client_token"]

    async def work() -> None:
        login = vault.TokenLogin(Slip(token).read)
        made = vault.Vault("default", vault.Address(url=bao.url), login, SetClock(), revokes=True)
        await made.call(lambda client: client.auth.token.lookup_self())
        await made.close()

    asyncio.run(work())
    assert bao.ask("POST", "auth/token/lookup", {"token": token})[0] == 200


def test_a_revoked_token_is_replaced_by_one_login_for_all(bao: OpenBao, kv: str) -> None:
    async def work(guest: Guest) -> None:
        old = await guest.token()
        bao.do("POST", "auth/token/revoke", {"token": old})

        answers = await asyncio.gather(*(guest.read(kv) for _ in range(8)))

        assert len(answers) == 8
        assert guest.slip.reads == 2
        assert await guest.token() != old

    visit(bao, kv, work)


def test_a_secret_id_that_is_gone_is_refused_once_and_a_new_one_helps_at_once(bao: OpenBao, kv: str) -> None:
    async def work(guest: Guest) -> None:
        good, old = guest.slip.value, await guest.token()
        bao.do("POST", f"auth/approle/role/{kv}-reader/secret-id/destroy", {"secret_id": good})
        bao.do("POST", "auth/token/revoke", {"token": old})

        with pytest.raises(errors.Refused, match="refuses the login at auth/approle/login") as caught:
            await guest.read(kv)
        assert "secret_id" in caught.value.mend
        assert str(good) not in str(caught.value)

        guest.slip.value = bao.secret_id(f"{kv}-reader")
        await guest.read(kv)

    visit(bao, kv, work)


def test_rights_that_were_given_since_the_login_count(bao: OpenBao, kv: str) -> None:
    async def work(guest: Guest) -> None:
        with pytest.raises(errors.Refused, match=f'path "{kv}/data/other" {{ capabilities = ."read"'):
            await guest.read(kv, "other")
        bao.do("POST", f"{kv}/data/other", {"data": {"a": "2"}})
        bao.do("POST", f"sys/policies/acl/{kv}-reader", {"policy": READ.format(mount=kv)})
        assert (await guest.read(kv, "other"))["data"]["data"] == {"a": "2"}

    bao.do("POST", f"{kv}/data/billing", {"data": {"a": "1"}})
    one = READ.format(mount=kv).replace("*", "billing")
    run(work, Guest(bao.url, *bao.app_role(f"{kv}-reader", one)))


def test_two_thirds_into_its_lease_a_token_is_renewed(bao: OpenBao, kv: str) -> None:
    async def work(guest: Guest) -> None:
        token = await guest.token()
        guest.clock.time += HOUR * 0.6
        await guest.vault.renew_if_short()
        assert last_renewal(bao, token) is None

        guest.clock.time += HOUR * 0.1
        await guest.vault.renew_if_short()
        assert last_renewal(bao, token) is not None
        # It counts from the renewal: beyond the first lease the same login goes on.
        guest.clock.time += HOUR * 0.5
        assert await guest.token() == token
        assert guest.slip.reads == 1

    visit(bao, kv, work)


def test_a_token_from_outside_is_not_read_again_at_every_beat(bao: OpenBao, kv: str) -> None:
    """Each reading wakes a thread; one that Vault refuses is read at once all the same."""
    clock, slip = SetClock(), Slip(bao.token)
    login = vault.Vault("test", vault.Address(url=bao.url), vault.TokenFileLogin(slip.read), clock)

    async def work() -> None:
        await login.call(lambda client: client.auth.token.lookup_self())
        reads = []
        for _ in range(12):
            clock.time += timedelta(seconds=10)
            await login.renew_if_short()
            reads.append(slip.reads)
        assert reads == [1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5]
        await login.close()

    asyncio.run(work())


def test_a_token_that_cannot_be_renewed_is_replaced_in_its_last_days(bao: OpenBao, kv: str) -> None:
    async def work(guest: Guest) -> None:
        token = await guest.token()
        guest.clock.time += HOUR * 0.8
        await guest.vault.renew_if_short()
        assert await guest.token() == token

        guest.clock.time += HOUR * 0.1
        await guest.vault.renew_if_short()
        assert await guest.token() != token
        assert guest.slip.reads == 2

    visit(bao, kv, work, token_type="batch")


def test_a_lease_that_ran_out_is_not_tried(bao: OpenBao, kv: str) -> None:
    async def work(guest: Guest) -> None:
        token = await guest.token()
        guest.clock.time += HOUR * 2
        assert await guest.token() != token

    visit(bao, kv, work)


def test_a_lease_that_is_over_before_we_think_so(bao: OpenBao, kv: str) -> None:
    async def work(guest: Guest) -> None:
        token = await guest.token()
        until = time.monotonic() + 20
        while bao.ask("POST", "auth/token/lookup", {"token": token})[0] == 200:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        assert (await guest.read(kv))["data"]["data"] == {"a": "1"}
        assert guest.slip.reads == 2

    visit(bao, kv, work, token_ttl="1s", token_max_ttl="1s")


def test_a_token_of_few_uses_is_no_login(bao: OpenBao, kv: str) -> None:
    async def work(guest: Guest) -> None:
        with pytest.raises(
            errors.Misconfigured, match="Vault default may be used a few times only; set token_num_uses=0"
        ):
            await guest.read(kv)

    visit(bao, kv, work, token_num_uses=3)


@pytest.mark.parametrize("kind", [vault.TokenLogin, vault.TokenFileLogin])
def test_a_token_from_outside_is_renewed_only_where_it_is_ours(bao: OpenBao, kind: type[vault.TokenLogin]) -> None:
    def issue() -> str:
        return str(bao.do("POST", "auth/token/create", {"ttl": "1h", "policies": ["default"]})["auth"]["client_token"])

    first, second = issue(), issue()
    slip, clock = Slip(first), SetClock()
    login = vault.Vault("default", vault.Address(url=bao.url), kind(slip.read), clock)

    async def token() -> str:
        return await login.call(lambda client: str(client.token))

    async def work() -> None:
        assert await token() == first
        clock.time += HOUR * 0.7
        slip.value = None
        await login.renew_if_short()
        assert (last_renewal(bao, first) is not None) == (kind is vault.TokenLogin)

        slip.value = second
        await login.renew_if_short()
        assert await token() == second
        bao.do("POST", "auth/token/revoke", {"token": second})
        with pytest.raises(errors.Refused, match="refuses the login at auth/token/lookup-self") as caught:
            await login.call(lambda client: client.auth.token.lookup_self())
        assert second not in str(caught.value)
        await login.close()

    asyncio.run(work())


def test_while_it_is_sealed_it_is_unavailable_and_afterwards_all_is_well(sealable_bao: OpenBao) -> None:
    mount = sealable_bao.mount_kv()

    async def work(guest: Guest) -> None:
        await guest.read(mount)
        sealable_bao.seal()
        try:
            with pytest.raises(errors.Unavailable, match="sealed"):
                await guest.read(mount)
            guest.clock.time += HOUR * 0.7
            with pytest.raises(errors.Unavailable, match="sealed"):
                await guest.vault.renew_if_short()
            guest.clock.time += HOUR
            with pytest.raises(errors.Unavailable, match="sealed"):
                await guest.read(mount)
        finally:
            sealable_bao.unseal()
        guest.clock.time += timedelta(seconds=30)
        assert (await guest.read(mount))["data"]["data"] == {"a": "1"}

    visit(sealable_bao, mount, work)


def test_no_secret_is_shown(bao: OpenBao, kv: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    async def work(guest: Guest) -> None:
        token, secret_id = await guest.token(), str(guest.slip.value)
        guest.slip.value = "canary-secret-id"
        bao.do("POST", "auth/token/revoke", {"token": token})
        with pytest.raises(errors.Refused) as caught:
            await guest.read(kv)
        shown = f"{caught.value!r} {caught.value} {guest.vault!r} {vars(guest.vault)} {caplog.text}"
        for secret in (token, secret_id, "canary-secret-id"):
            assert secret not in shown

    visit(bao, kv, work)


# --- what only a scripted far end can time ---------------------------------------------------------------------------


class Script:
    """A Vault that grants leases of an hour until it is told otherwise."""

    def __init__(self) -> None:
        self.login = self.renewal = Reply(body={"auth": _auth(3600)})
        self.rest = Reply(body={"data": {}})

    def __call__(self, asked: Asked) -> Reply:
        return {LOGIN: self.login, RENEWAL: self.renewal}.get(asked.path, self.rest)


def _auth(lease: int) -> dict[str, object]:
    return {"client_token": "a-token", "lease_duration": lease, "renewable": True}


def test_where_vault_renews_for_less_and_less_a_new_login_is_made() -> None:
    script = Script()

    async def work(guest: Guest) -> None:
        await guest.token()
        script.renewal = Reply(body={"auth": _auth(500)})
        guest.clock.time += HOUR * 0.7
        await guest.vault.renew_if_short()
        assert [one.path for one in far_end.asked] == [LOGIN, RENEWAL, LOGIN]

    with wire.serve(script) as far_end:
        run(work, Guest(far_end.url, "role", "secret"))


def test_a_failed_renewal_costs_nothing_until_the_lease_is_short() -> None:
    script = Script()
    script.renewal = Reply(500, {"errors": ["busy"]})

    async def work(guest: Guest) -> None:
        await guest.token()
        guest.clock.time += HOUR * 0.7
        for seconds, renewals in ((0, 1), (9, 1), (1, 2), (19, 2), (1, 3)):
            guest.clock.time += timedelta(seconds=seconds)
            try:
                await guest.vault.renew_if_short()
            except errors.Unavailable as error:
                assert "busy" in str(error)
            assert far_end.count(RENEWAL) == renewals
        await guest.token()
        assert far_end.count(LOGIN) == 1
        guest.clock.time += HOUR * 0.2
        await guest.vault.renew_if_short()
        assert far_end.count(LOGIN) == 2

    with wire.serve(script) as far_end:
        run(work, Guest(far_end.url, "role", "secret"))


@pytest.mark.parametrize(
    ("reply", "error", "delays"),
    [
        (
            Reply(400, {"errors": ["invalid role or secret ID"]}),
            errors.Refused,
            [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300],
        ),
        (Reply(503, {"errors": ["sealed"]}), errors.Unavailable, [1, 2, 4, 8, 16, 30, 30]),
        (Reply(200, {"auth": None}), errors.Unavailable, [1, 2]),
    ],
)
def test_logins_that_fail_become_rarer(reply: Reply, error: type[Exception], delays: list[int]) -> None:
    script = Script()
    script.login = reply

    async def work(guest: Guest) -> None:
        messages = set()
        for number, delay in enumerate(delays, 1):
            for _ in range(3):
                with pytest.raises(error) as caught:
                    await guest.token()
                messages.add(str(caught.value))
            assert far_end.count(LOGIN) == number
            guest.clock.time += timedelta(seconds=delay - 0.001)
            with pytest.raises(error):
                await guest.token()
            assert far_end.count(LOGIN) == number
            guest.clock.time += timedelta(seconds=0.001)
        assert len(messages) == 1
        script.login = Script().login
        assert await guest.token() == "a-token"

    with wire.serve(script) as far_end:
        run(work, Guest(far_end.url, "role", "secret"))


def test_a_secret_that_cannot_be_read_is_no_failed_login() -> None:
    async def work(guest: Guest) -> None:
        kept, guest.slip.value = guest.slip.value, None
        for _ in range(3):
            with pytest.raises(errors.Transient, match="the slip is not there"):
                await guest.token()
        guest.slip.value = kept
        assert await guest.token() == "a-token"

    with wire.serve(Script()) as far_end:
        run(work, Guest(far_end.url, "role", "secret"))
        assert [one.path for one in far_end.asked] == [LOGIN]
