"""What applications meet while tokens rotate under them: a real OAuth server, a real OpenBao, and no pause."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.acceptance import house
from tests.acceptance.house import House, Reader
from tests.acceptance.reader import Seen
from tests.acceptance.stage import Process, wait_for
from tests.peers import django_oauth, openbao

LIFETIME = 8
LONG_ENOUGH = 34.0
VERIFY_EVERY = 2.0

Figures = Callable[[str], None]


def live(process: Process, seconds: float) -> None:
    """Let the daemon work for a while; that it still does is part of what is asked."""
    try:
        code = process.popen.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise AssertionError(f"the daemon ended with {code}:\n{process.told}")


def described(name: str, seen: Seen) -> str:
    return (
        f"{name}: {seen.reads} reads, {len(seen.tokens)} tokens; torn {seen.torn}, missing {seen.missing}, "
        f"expired {seen.expired}; least time left {seen.least_left:.1f} s"
    )


def check_whole(seen: Seen, issued: list[str]) -> None:
    assert seen.reads > 1000
    assert (seen.torn, seen.missing, seen.expired, seen.unanswered, seen.disagreed) == (0, 0, 0, 0, 0), seen.oddities
    strangers = [token for token in seen.tokens if token not in issued]
    assert not strangers, f"{len(strangers)} values that the provider never gave"
    order = [issued.index(token) for token in seen.tokens]
    assert order == sorted(order), "an older token came back"
    assert seen.generations == sorted(seen.generations), "an older generation came back"


def test_no_reader_meets_a_torn_a_missing_or_an_expired_token(tmp_path: Path, figures: Figures) -> None:
    with django_oauth.serve(access_seconds=LIFETIME) as peer, openbao.dev() as bao:
        place = House(tmp_path / "house", peer, {"reuse": '"harmless"', "rotate_at": "0.25", "spacing": '"1s"'})
        place.use_vault(bao)
        role_id, secret_id = bao.app_role("reader", house.READER_POLICY)
        login = {"role_id": role_id, "secret_id": secret_id}
        vault_token = bao.do("POST", "auth/approle/login", login)["auth"]["client_token"]
        files = {"raw": str(place.raw), "described": str(place.described), "port": peer.port, "path": "/api/me"}
        with place.daemon() as daemon:
            hasty, patient = Reader(**files), Reader(**files, patient=True)
            vault = Reader(port=bao.port, path=house.ENTRY_PATH, vault_token=vault_token)
            with house.reading(hasty, patient, vault):
                begun = time.time()
                live(daemon, LONG_ENOUGH)
                ended = time.time()
        exchanges = peer.exchanges()

    issued = [one.access_token for one in exchanges if one.access_token]
    # Every one but the last, which may not have been published by then.
    shown = [one.access_token for one in exchanges if begun <= one.answered_at <= ended][:-1]
    kinds = [one.kind for one in exchanges]
    figures(f"readers: {LONG_ENOUGH:g} s, tokens of {LIFETIME} s, {kinds.count('refresh_token')} rotations")
    figures(described("  file, without care", hasty.seen))
    figures(
        f"    presented {hasty.seen.presented} times, refused {hasty.seen.refused} times because a refresh revokes the "
        f"old token; {len(hasty.seen.windows)} windows, the longest {max(hasty.seen.windows, default=0):.0f} ms"
    )
    figures(described("  file, as documented", patient.seen))
    figures(
        f"    presented {patient.seen.presented} times, refused in the end {patient.seen.refused} times; "
        f"waited {len(patient.seen.windows)} times, at most {max(patient.seen.windows, default=0):.0f} ms"
    )
    figures(described("  OpenBao", vault.seen))

    for reader in (hasty, patient, vault):
        check_whole(reader.seen, issued)
        assert set(shown) <= set(reader.seen.tokens), "tokens did not reach the reader"
        assert len(shown) >= 10, "tokens did not rotate"
    assert kinds == ["password"] + ["refresh_token"] * (len(kinds) - 1)
    assert {one.status for one in exchanges} == {200}
    assert patient.seen.refused == 0


def test_a_sealed_vault_stops_no_file_and_is_put_right_once_it_opens(tmp_path: Path, figures: Figures) -> None:
    with django_oauth.serve(access_seconds=3600) as peer, openbao.raft() as bao:
        place = House(tmp_path / "house", peer, {"reuse": '"harmless"', "spacing": '"50ms"'})
        place.timing = f'[timing]\nsweep_every = "500ms"\nverify_every = "{VERIFY_EVERY:g}s"\n'
        place.use_vault(bao)

        def in_vault() -> str:
            status, answer = bao.ask("GET", house.ENTRY_PATH.removeprefix("/v1/"))
            return str(answer["data"]["data"]["access_token"]) if status == 200 else ""

        with (
            place.daemon() as daemon,
            house.reading(files := Reader(raw=str(place.raw), described=str(place.described))),
        ):
            first = place.raw.read_text()
            assert in_vault() == first
            bao.seal()
            sealed_at = time.monotonic()
            place.order("rotate", "billing")
            second = place.raw.read_text()
            assert second != first, "the file must not wait for the Vault"
            daemon.wait_logged("sealed")
            live(daemon, 4.0)
            place.order("rotate", "billing")
            third = place.raw.read_text()
            assert third not in (first, second)
            live(daemon, 2.0)
            bao.unseal()
            opened_at = time.monotonic()
            wait_for(lambda: in_vault() == third, f"the token in the opened Vault\n{place.told()}", within=40)
            late = time.monotonic() - opened_at
        issued = [one.access_token for one in peer.exchanges()]

    figures(
        f"sealed OpenBao (raft): sealed for {opened_at - sealed_at:.1f} s, the entry right {late:.2f} s after it was "
        f"opened (verify_every {VERIFY_EVERY:g} s); the file: {files.seen.missing} missing, {files.seen.torn} torn"
    )
    check_whole(files.seen, issued)
    assert files.seen.tokens == [first, second, third] == issued
    assert late < VERIFY_EVERY + 0.5
