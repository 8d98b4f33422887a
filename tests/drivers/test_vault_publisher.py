"""`drivers.vault.KvPublisher` against a real OpenBao."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rotator.core import errors
from rotator.core.publication import Found, Publication, Settled
from rotator.core.tokens import AccessToken, Secret
from rotator.drivers import vault
from rotator.drivers.clock import SystemClock
from tests.acceptance.stage import wait_for
from tests.peers import openbao
from tests.peers.openbao import OpenBao

NOW = datetime.now(UTC).replace(microsecond=0)
PATH = "oauth/billing"


def publication(
    generation: int = 1, *, lineage: str = "lineage-1", lifetime: timedelta = timedelta(hours=1)
) -> Publication:
    issued = NOW + timedelta(minutes=generation)
    token = Secret(f"canary-token-{lineage}-{generation}")
    return Publication("billing", lineage, AccessToken(token, "bearer", "all", issued, issued + lifetime, generation))


async def _root() -> Secret:
    return Secret(openbao.ROOT_TOKEN)


def connect(bao: OpenBao, login: vault.Login | None = None) -> vault.Vault:
    return vault.Vault("default", vault.Address(url=bao.url), login or vault.TokenLogin(_root), SystemClock())


class Shelf:
    """The entry under test, with what a stranger and an operator can do to it."""

    def __init__(self, bao: OpenBao, mount: str) -> None:
        self.bao = bao
        self.mount = mount

    def settle(self, *wanted: Publication, **settings: Any) -> list[Settled]:
        async def work(publisher: vault.KvPublisher) -> list[Settled]:
            return [await publisher.settle(one, NOW) for one in wanted]

        return self.work(work, **settings)

    def remove(self, mark: str) -> bool:
        return self.work(lambda publisher: publisher.remove(mark))

    def work(self, do: Callable[[vault.KvPublisher], Awaitable[Any]], **settings: Any) -> Any:
        """Run ``do`` with a new publisher on a new login, as after a restart."""

        async def run() -> Any:
            login = connect(self.bao, settings.pop("login", None))
            far_end = settings.pop("between", lambda inner: inner)(login)
            try:
                return await do(vault.KvPublisher(far_end, self.mount, PATH, **settings))
            finally:
                await login.close()

        return asyncio.run(run())

    def read(self) -> dict[str, Any]:
        return self.bao.do("GET", f"{self.mount}/data/{PATH}")["data"]["data"]

    def meta(self) -> dict[str, Any]:
        return self.bao.do("GET", f"{self.mount}/metadata/{PATH}")["data"]

    def put(self, data: Mapping[str, object]) -> None:
        self.bao.do("POST", f"{self.mount}/data/{PATH}", {"data": data})

    def post(self, verb: str, version: int) -> None:
        self.bao.do("POST", f"{self.mount}/{verb}/{PATH}", {"versions": [version]})

    def delete(self, kind: str = "data") -> None:
        self.bao.do("DELETE", f"{self.mount}/{kind}/{PATH}")


@pytest.fixture
def shelf(bao: OpenBao, kv: str) -> Shelf:
    return Shelf(bao, kv)


def test_an_absent_entry_is_made_with_all_a_reader_needs(shelf: Shelf) -> None:
    wanted = publication()

    (settled,) = shelf.settle(wanted)

    assert settled.found is Found.ABSENT
    data = shelf.read()
    assert data["access_token"] == wanted.value.reveal()
    assert (data["lineage"], data["generation"], data["token_type"]) == ("lineage-1", "1", "Bearer")
    assert all(isinstance(value, str) for value in data.values())


def test_an_operator_sees_whose_it_is_and_a_dead_token_goes_away(shelf: Shelf) -> None:
    shelf.settle(publication())

    meta = shelf.meta()

    assert meta["custom_metadata"] == {
        "managed-by": "rotator", "grant": "billing", "lineage": "lineage-1", "generation": "1",
        "issued_at": shelf.read()["issued_at"], "expires_at": shelf.read()["expires_at"],
    }  # fmt: skip
    assert meta["max_versions"] == 3
    lives = _time(meta["versions"]["1"]["deletion_time"]) - _time(meta["versions"]["1"]["created_time"])
    assert lives == timedelta(hours=1, minutes=5)


def test_a_current_entry_is_not_written(shelf: Shelf) -> None:
    (first,) = shelf.settle(publication())
    before = shelf.meta()

    again = shelf.settle(publication(), publication())

    assert {one.found for one in again} == {Found.CURRENT}
    assert {one.mark for one in again} == {first.mark}
    assert shelf.meta() == before


def test_a_rotation_is_one_version_and_a_longer_life_is_not_cut_short(shelf: Shelf) -> None:
    long = publication(3, lifetime=timedelta(days=2))

    found = [one.found for one in shelf.settle(publication(1), publication(2), long)]

    assert found == [Found.ABSENT, Found.OLDER, Found.OLDER]
    meta = shelf.meta()
    assert meta["current_version"] == 3
    assert meta["custom_metadata"]["generation"] == "3"
    versions = meta["versions"]
    assert _time(versions["3"]["deletion_time"]) - _time(versions["3"]["created_time"]) > timedelta(days=2)


def test_what_was_altered_by_hand_is_put_right(shelf: Shelf) -> None:
    shelf.settle(publication())
    shelf.put({**shelf.read(), "access_token": "typed by hand"})

    assert [one.found for one in shelf.settle(publication())] == [Found.ALTERED]
    assert shelf.read()["access_token"] == publication().value.reveal()


def test_a_strangers_entry_and_another_lineage_are_foreign_once(shelf: Shelf) -> None:
    shelf.put({"access_token": "somebody else's"})

    one = shelf.settle(publication(7, lineage="lineage-0"), publication(1), publication(1))

    assert [each.found for each in one] == [Found.FOREIGN, Found.FOREIGN, Found.CURRENT]
    assert shelf.read()["lineage"] == "lineage-1"


@pytest.mark.parametrize("fields", [None, {"token": "$access_token"}], ids=["all fields", "fields of its own"])
def test_a_newer_generation_is_left_alone_also_when_its_version_is_gone(
    shelf: Shelf, fields: Mapping[str, str] | None
) -> None:
    shelf.settle(publication(5), fields=fields)
    before = shelf.meta()

    (ahead,) = shelf.settle(publication(4), fields=fields)
    assert (ahead.found, ahead.generation) == (Found.AHEAD, 5)
    assert ahead.expires_at == publication(5).access.expires_at
    assert shelf.meta() == before

    shelf.delete()
    (ahead,) = shelf.settle(publication(4), fields=fields)
    assert (ahead.found, ahead.generation) == (Found.AHEAD, 5)


def test_deleted_destroyed_and_undeleted_versions(shelf: Shelf) -> None:
    shelf.settle(publication())

    shelf.delete()
    assert [one.found for one in shelf.settle(publication())] == [Found.ABSENT]
    shelf.post("destroy", 2)
    assert [one.found for one in shelf.settle(publication())] == [Found.ABSENT]
    assert shelf.read()["access_token"] == publication().value.reveal()

    shelf.delete()
    shelf.post("undelete", 3)
    assert [one.found for one in shelf.settle(publication())] == [Found.CURRENT]
    shelf.delete("metadata")
    assert [one.found for one in shelf.settle(publication())] == [Found.ABSENT]
    assert shelf.meta()["current_version"] == 1


def test_fields_of_ones_own(shelf: Shelf) -> None:
    fields = {"header": "Authorization: $token_type ${access_token}", "until": "$expires_at_unix"}

    settled = shelf.settle(publication(1), publication(1), publication(2), fields=fields)

    assert [one.found for one in settled] == [Found.ABSENT, Found.CURRENT, Found.OLDER]
    ends = int(publication(2).access.expires_at.timestamp())
    assert shelf.read() == {"header": f"Authorization: Bearer {publication(2).value.reveal()}", "until": str(ends)}
    shelf.put({"header": "typed by hand"})
    assert [one.found for one in shelf.settle(publication(2), fields=fields)] == [Found.ALTERED]


def test_labels_of_other_people_stay_and_ours_come_back_without_a_new_version(shelf: Shelf) -> None:
    shelf.settle(publication())
    labels = {**shelf.meta()["custom_metadata"], "owner": "team-7", "generation": "?"}
    shelf.bao.do("POST", f"{shelf.mount}/metadata/{PATH}", {"custom_metadata": labels})

    found = [one.found for one in shelf.settle(publication(), publication())]

    assert found == [Found.ALTERED, Found.CURRENT]
    meta = shelf.meta()
    assert (meta["custom_metadata"]["owner"], meta["custom_metadata"]["generation"]) == ("team-7", "1")
    assert meta["current_version"] == 1


class Between:
    """Stands between a publisher and its Vault, and does something after the n-th call."""

    def __init__(self, inner: vault.Vault, after: Callable[[int], None]) -> None:
        self.inner = inner
        self.after = after
        self.calls = 0

    @property
    def name(self) -> str:
        return self.inner.name

    async def call(self, do: Any, **settings: Any) -> Any:
        result = await self.inner.call(do, **settings)
        self.calls += 1
        self.after(self.calls)
        return result


def test_who_dies_after_the_data_leaves_labels_that_the_next_one_mends(shelf: Shelf) -> None:
    shelf.settle(publication(1))

    def die(call: int) -> None:
        if call == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.settle(publication(2), between=lambda inner: Between(inner, die))
    assert (shelf.read()["generation"], shelf.meta()["custom_metadata"]["generation"]) == ("2", "1")

    assert [one.found for one in shelf.settle(publication(2))] == [Found.OLDER]
    assert (shelf.meta()["current_version"], shelf.meta()["custom_metadata"]["generation"]) == (2, "2")


def test_a_write_between_look_and_write_is_seen(shelf: Shelf) -> None:
    shelf.settle(publication(1))

    def meddle(call: int) -> None:
        if call == 1:
            shelf.put({"access_token": "in between"})

    settled = shelf.settle(publication(2), between=lambda inner: Between(inner, meddle))

    assert [one.found for one in settled] == [Found.ALTERED]
    assert (shelf.read()["generation"], shelf.meta()["current_version"]) == ("2", 3)


def test_whoever_is_always_overtaken_gives_way_for_now(shelf: Shelf) -> None:
    shelf.settle(publication(1))

    with pytest.raises(errors.Transient, match="by somebody else"):
        shelf.settle(publication(2), between=lambda inner: Between(inner, lambda call: shelf.put({"turn": str(call)})))
    assert "turn" in shelf.read()


def test_two_daemons_that_race_leave_the_newer_generation_whole(shelf: Shelf) -> None:
    async def race() -> list[list[Settled]]:
        logins = [connect(shelf.bao), connect(shelf.bao)]
        try:
            rounds = []
            for number in range(12):
                places = [vault.KvPublisher(login, shelf.mount, f"race/{number}") for login in logins]
                both = zip(places, (publication(1), publication(2)), strict=True)
                rounds.append(list(await asyncio.gather(*(place.settle(one, NOW) for place, one in both))))
            return rounds
        finally:
            await asyncio.gather(*(login.close() for login in logins))

    for number, (_, newer) in enumerate(asyncio.run(race())):
        data = shelf.bao.do("GET", f"{shelf.mount}/data/race/{number}")["data"]["data"]
        assert (data["generation"], data["access_token"]) == ("2", publication(2).value.reveal())
        assert newer.found in (Found.ABSENT, Found.OLDER)


def test_remove_deletes_only_what_its_mark_names(shelf: Shelf) -> None:
    first, second = shelf.settle(publication(1), publication(2))

    assert not shelf.remove(first.mark)
    assert shelf.read()["generation"] == "2"
    assert shelf.remove(second.mark)
    assert shelf.bao.ask("GET", f"{shelf.mount}/metadata/{PATH}")[0] == 404
    assert not shelf.remove(second.mark)

    # An entry that a stranger made anew counts its versions from 1 again.
    shelf.put({"access_token": "somebody else's"})
    assert not shelf.remove(first.mark)


def test_remove_after_the_version_deleted_itself(shelf: Shelf) -> None:
    (settled,) = shelf.settle(publication())
    shelf.delete()

    assert shelf.remove(settled.mark)
    assert shelf.bao.ask("GET", f"{shelf.mount}/metadata/{PATH}")[0] == 404


def test_a_mount_that_deletes_sooner_than_tokens_expire_is_written_to_again_in_time(shelf: Shelf) -> None:
    shelf.bao.do("POST", f"{shelf.mount}/config", {"delete_version_after": "10m"})

    async def work(publisher: vault.KvPublisher) -> list[Found]:
        return [(await publisher.settle(publication(), NOW + timedelta(minutes=at))).found for at in (0, 7, 9, 10)]

    assert shelf.work(work) == [Found.ABSENT, Found.CURRENT, Found.OLDER, Found.CURRENT]
    assert shelf.meta()["current_version"] == 2


def test_a_mount_of_version_2_is_not_written_as_version_1(shelf: Shelf) -> None:
    publisher = vault.Kv1Publisher(connect(shelf.bao), shelf.mount, PATH)

    with pytest.raises(errors.Misconfigured, match=r"is a KV v2 mount of Vault default; remove kv = 1"):
        asyncio.run(publisher.settle(publication(), NOW))


def test_a_mount_of_version_1_gets_no_token(shelf: Shelf) -> None:
    shelf.bao.do("POST", f"sys/mounts/{shelf.mount}-old", {"type": "kv", "options": {"version": "1"}})
    old = Shelf(shelf.bao, f"{shelf.mount}-old")

    with pytest.raises(errors.Misconfigured, match=r"is no KV v2 mount of Vault default; .*enable-versioning"):
        old.settle(publication())
    assert shelf.bao.ask("GET", f"{old.mount}/data/{PATH}")[0] == 404


def test_a_mount_that_is_not_there_is_named(shelf: Shelf) -> None:
    with pytest.raises(errors.Misconfigured, match="nothing at absent/data/oauth/billing: no handler"):
        Shelf(shelf.bao, "absent").settle(publication())


RIGHTS = """
path "{mount}/data/oauth/*"     {{ capabilities = ["create", "update", "read"] }}
path "{mount}/metadata/oauth/*" {{ capabilities = ["create", "update", "read"] }}
"""


def app_role(bao: OpenBao, name: str, policy: str) -> vault.AppRoleLogin:
    role_id, secret_id = (Secret(value) for value in bao.app_role(name, policy))

    async def read_role_id() -> Secret:
        return role_id

    async def read_secret_id() -> Secret:
        return secret_id

    return vault.AppRoleLogin(read_role_id, read_secret_id)


def test_the_documented_policy_suffices_to_publish(shelf: Shelf) -> None:
    login = app_role(shelf.bao, f"{shelf.mount}-publisher", RIGHTS.format(mount=shelf.mount))

    first, second, third = shelf.settle(publication(1), publication(2), publication(2), login=login)

    assert [first.found, second.found, third.found] == [Found.ABSENT, Found.OLDER, Found.CURRENT]
    with pytest.raises(errors.Refused, match=f'path "{shelf.mount}/metadata/{PATH}" {{ capabilities = ."delete".'):
        shelf.work(lambda publisher: publisher.remove(third.mark), login=login)
    # Once the version is gone there is no token to call a person for.
    shelf.delete()
    assert shelf.work(lambda publisher: publisher.remove(third.mark), login=login)


def test_without_rights_to_the_metadata_readers_get_their_token_and_a_person_is_told(shelf: Shelf) -> None:
    policy = f'path "{shelf.mount}/data/oauth/*" {{ capabilities = ["create", "update", "read"] }}'
    login = app_role(shelf.bao, f"{shelf.mount}-half", policy)

    for generation in (1, 2):
        with pytest.raises(errors.Refused, match=f'path "{shelf.mount}/metadata/{PATH}"'):
            shelf.settle(publication(generation), login=login)
        assert shelf.read()["generation"] == str(generation)


def test_without_any_rights_the_lines_of_the_policy_are_told(shelf: Shelf) -> None:
    with pytest.raises(errors.Refused) as caught:
        shelf.settle(publication(), login=app_role(shelf.bao, f"{shelf.mount}-none", ""))

    assert f"GET {shelf.mount}/data/{PATH}: " in caught.value.what
    assert "permission denied" in caught.value.what
    assert f'path "{shelf.mount}/data/{PATH}" {{ capabilities = ["create", "update", "read"] }}' in caught.value.mend


def test_locations_can_be_taken_apart_again(bao: OpenBao) -> None:
    login = connect(bao)
    for mount, path in (("secret", "oauth/billing"), ("team/kv", "a")):
        assert vault.parse_location(vault.KvPublisher(login, mount, path).location) == ("default", mount, path)
    assert vault.KvPublisher(login, "secret", "oauth/billing").location == "vault:default:secret/oauth/billing"
    for other in ("file:/run/token", "vault:default", "vault::a/b", "vault:default:secret"):
        assert vault.parse_location(other) is None
    with pytest.raises(errors.Misconfigured, match="no path of a Vault entry"):
        vault.KvPublisher(login, "secret", "oauth/../other")


def test_a_publisher_prints_no_token(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    async def work(publisher: vault.KvPublisher) -> str:
        return f"{publisher!r} {await publisher.settle(publication(), NOW)!r}"

    shown = shelf.work(work) + caplog.text
    assert "canary-token" not in shown
    assert openbao.ROOT_TOKEN not in shown
    assert json.dumps(shelf.read()).count("canary-token") == 1


def _time(raw: str) -> datetime:
    return datetime.fromisoformat(raw)


def test_a_namespace_of_a_real_server(bao: OpenBao) -> None:
    bao.do("POST", "sys/namespaces/team")
    bao.do("POST", "team/sys/mounts/kv", {"type": "kv", "options": {"version": "2"}})
    wait_for(lambda: bao.ask("GET", "team/kv/data/none")[0] == 404, "the mount in the namespace")

    async def token() -> Secret:
        return Secret(bao.token)

    async def work() -> None:
        address = vault.Address(url=bao.url, namespace="team")
        login = vault.Vault("default", address, vault.TokenLogin(token), SystemClock())
        settled = await vault.KvPublisher(login, "kv", PATH).settle(publication(), NOW)
        assert settled.found is Found.ABSENT
        await login.close()

    asyncio.run(work())
    assert bao.do("GET", f"team/kv/data/{PATH}")["data"]["data"]["access_token"]
    assert bao.ask("GET", f"kv/data/{PATH}")[0] in (403, 404)
