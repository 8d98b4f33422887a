"""What the ports carry between drivers and engine does not print what it must not."""

from __future__ import annotations

import build
from build import SECOND

from rotator.core import ports
from rotator.core.grants import Kind
from rotator.core.ports import Credentials, HttpAnswer, HttpRequest, Reach


def test_from_written_on_the_far_end_may_have_acted() -> None:
    assert Reach.NOTHING < Reach.CONNECTED < Reach.WRITTEN < Reach.STATUS < Reach.COMPLETE


def test_requests_and_answers_show_neither_headers_nor_bodies() -> None:
    headers, body = (("authorization", f"Basic {build.CANARY}"),), f"refresh_token={build.CANARY}".encode()
    request = HttpRequest("POST", "https://provider.example/token", headers, body)
    answer = HttpAnswer(Reach.COMPLETE, 200, headers, body)
    assert build.CANARY not in f"{request!r} {answer!r} {request} {answer}"
    assert "provider.example" in repr(request)


def test_a_header_is_the_first_of_its_name() -> None:
    answer = HttpAnswer(Reach.STATUS, 429, (("retry-after", "5"), ("retry-after", "9"), ("date", "today")))
    assert answer.header("retry-after") == "5"
    assert answer.header("location") is None


def test_credentials_and_token_requests_show_masks() -> None:
    held = Credentials("client", build.secret("client secret"), "user", build.secret("password"), "digest")
    request = ports.TokenRequest(Kind.REFRESH, held, build.secret("refresh"))
    assert build.CANARY not in f"{request!r} {request} {held!r}"
    assert "client" in repr(request)


def test_a_lease_runs_until_a_moment_of_its_own_boot() -> None:
    lease = ports.Lease("billing", "owner", 7, build.moment(45 * SECOND))
    assert lease.until.elapsed_since(build.moment()) == 45 * SECOND
