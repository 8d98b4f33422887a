"""A Secret as a target: what an API server may answer, and what is made of it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rotator.core.errors import Misconfigured, RotatorError, Unavailable
from rotator.core.publication import Found, Settled
from rotator.drivers import http, kubernetes
from tests.contracts.publishers import NOW, publication
from tests.peers import apiserver
from tests.peers.apiserver import Apiserver


@pytest.fixture
def server() -> Iterator[Apiserver]:
    with apiserver.serve() as served:
        yield served


def publisher(server: Apiserver, folder: Path, namespace: str = "shop", **more: Any) -> kubernetes.SecretPublisher:
    token = folder / "token"
    token.write_text(f"{server.token}\n")
    cluster = kubernetes.Cluster(http.HttpxClient(), server.url, token, owner=more.pop("owner", None))
    return kubernetes.SecretPublisher(cluster, namespace, "billing", **more)


def settle(one: kubernetes.SecretPublisher, generation: int = 1) -> Settled:
    return asyncio.run(one.settle(publication(generation), NOW))


def test_what_is_applied_names_its_generation_and_its_owner(server: Apiserver, tmp_path: Path) -> None:
    owner = kubernetes.Owner("shop-0", "0b5d6f0e")
    settle(publisher(server, tmp_path, owner=owner, fields={"header": "$token_type $access_token"}))
    found = server.secrets["billing"]
    assert base64.b64decode(found["data"]["header"]) == b"Bearer " + publication(1).value.reveal().encode()
    assert set(found["data"]) == {"header"}
    assert found["metadata"]["annotations"]["rotator/generation"] == "1"
    assert found["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "shop-0", "uid": "0b5d6f0e"}
    ]


def test_keys_of_others_stay_theirs(server: Apiserver, tmp_path: Path) -> None:
    server.put("billing", {"metadata": {"name": "billing"}, "type": "Opaque", "data": {"theirs": "YQ=="}})
    assert settle(publisher(server, tmp_path)).found is Found.FOREIGN
    assert settle(publisher(server, tmp_path)).found is Found.CURRENT
    assert server.secrets["billing"]["data"]["theirs"] == "YQ=="


def test_who_was_quicker_is_looked_at_again(server: Apiserver, tmp_path: Path) -> None:
    one = publisher(server, tmp_path)
    settle(one)
    server.before_write.append(lambda: server.put("billing", server.secrets["billing"]))
    assert settle(one, 2).found is Found.OLDER
    assert [method for method, _ in server.asked] == ["GET", "PATCH", "GET", "PATCH", "GET", "PATCH"]
    # One that is ahead by then wins.
    ahead = publisher(server, tmp_path)
    server.before_write.append(lambda: settle(ahead, 9))
    assert settle(one, 3).found is Found.AHEAD
    server.before_write.extend([lambda: server.put("billing", server.secrets["billing"])] * 3)
    with pytest.raises(Unavailable, match="somebody else all the time"):
        settle(one, 10)


def test_the_token_is_read_anew_each_time(server: Apiserver, tmp_path: Path) -> None:
    one = publisher(server, tmp_path)
    settle(one)
    server.token = "second-token"
    with pytest.raises(Misconfigured, match="does not take the token"):
        settle(one)
    (tmp_path / "token").write_text("second-token")
    assert settle(one).found is Found.CURRENT
    (tmp_path / "token").unlink()
    with pytest.raises(Misconfigured, match="automountServiceAccountToken"):
        settle(one)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (403, Misconfigured, "may not get"), (429, Unavailable, "429"), (500, Unavailable, "500"),
        (503, Unavailable, "503"), (400, Misconfigured, "400"),
    ],
)  # fmt: skip
def test_a_refusal_is_sorted_by_who_must_act(
    server: Apiserver, tmp_path: Path, status: int, kind: type[RotatorError], words: str
) -> None:
    server.refuse.append(status)
    with pytest.raises(kind, match=words) as caught:
        settle(publisher(server, tmp_path))
    assert server.token not in str(caught.value)
    assert settle(publisher(server, tmp_path)).found is Found.ABSENT, "nothing was written, nothing is left"


def test_where_only_reading_is_allowed_the_missing_verb_is_named(server: Apiserver, tmp_path: Path) -> None:
    one = publisher(server, tmp_path)
    server.before_write.append(lambda: server.refuse.clear())
    original = server.answer

    def answer(method: str, *rest: Any) -> tuple[int, dict[str, Any]]:
        return (403, apiserver.status(403, "no")) if method == "PATCH" else original(method, *rest)

    server.answer = answer  # type: ignore[method-assign]
    with pytest.raises(Misconfigured, match="may not patch"):
        settle(one)


def test_a_server_that_is_away_and_a_namespace_that_is_not_there(server: Apiserver, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no namespace elsewhere"):
        settle(publisher(server, tmp_path, "elsewhere"))
    server.port = 1
    with pytest.raises(Unavailable, match="does not answer"):
        settle(publisher(server, tmp_path))


def test_what_is_immutable_is_told(server: Apiserver, tmp_path: Path) -> None:
    server.put("billing", {"metadata": {"name": "billing"}, "type": "Opaque", "data": {}, "immutable": True})
    with pytest.raises(Misconfigured, match="immutable"):
        settle(publisher(server, tmp_path))
