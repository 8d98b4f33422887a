"""A secret that is mended in place counts at once: no restart, no reload, no waiting for the regular look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage, wait_for
from tests.peers.emulator import ACCOUNT

# Far beyond the patience of any test: what happens here happens by being noticed.
TIMING = '[timing]\nsweep_every = "1h"\nverify_every = "1h"\n'


class Volume:
    """A Secret as a kubelet mounts it: files are links into ``..data``, itself a link that is swapped as one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        folder.mkdir()

    def swap(self, **secrets: str) -> None:
        self._number += 1
        fresh = self._folder / f"..2026_{self._number}"
        fresh.mkdir()
        for name, value in secrets.items():
            (fresh / name).write_text(value)
            (fresh / name).chmod(0o440)
            if not (self._folder / name).is_symlink():
                (self._folder / name).symlink_to(f"..data/{name}")
        link = self._folder / "..data_tmp"
        link.symlink_to(fresh.name)
        link.rename(self._folder / "..data")


def swapped(stage: Stage) -> Callable[[str], None]:
    volume = Volume(stage.folder / "volume")
    put: Callable[[str], None] = lambda password: volume.swap(  # noqa: E731 (the other is a method)
        password=password, client_secret=ACCOUNT.client_secret
    )
    put("wrong")
    grant = stage.grant()
    for name in ("password", "client_secret"):
        grant = grant.replace(f"{stage.folder}/{name}", f"{stage.folder}/volume/{name}")
    stage.configure(grant, timing=TIMING)
    return put


def replaced(stage: Stage) -> Callable[[str], None]:
    def put(password: str) -> None:
        stage.secret("password.new", password).rename(stage.folder / "password")

    stage.configure(timing=TIMING)
    put("wrong")
    return put


@pytest.mark.parametrize("kind", [swapped, replaced])
def test_a_mended_password_ends_a_latch_without_a_restart(
    tmp_path: Path, kind: Callable[[Stage], Callable[[str], None]]
) -> None:
    with stages.opened(tmp_path) as stage:
        put = kind(stage)
        with stage.daemon() as daemon:
            assert "grant.latched" in daemon.told
            assert not stage.token.exists()
            put("still wrong")
            wait_for(lambda: stage.provider.journal.password_attempts == 2, "a second try")
            put(ACCOUNT.password)
            wait_for(stage.token.exists, "the token")
        assert stage.provider.journal.password_attempts == 3
