"""The first thing anybody tries: it shows the real daemon at work and says whether it kept its promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In the environment of somebody who has configured a daemon of his own by it."""
    own = {"ROTATOR_GRANTS__BILLING__PROVIDER": "nobody", "ROTATOR_STATE__URL": "sqlite:/nowhere/state.db"}
    return subprocess.run(
        [sys.executable, "-m", "rotator", "demo", *words],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8", **own},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_demo_rotates_and_its_reader_never_meets_an_invalid_token(tmp_path: Path) -> None:
    done = demo(tmp_path, "--for", "10s", "--access-ttl", "3s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^rotated  billing ", done.stdout, re.MULTILINE)) >= 3
    summary = re.search(
        r"^summary   (\d+) rotations; .* presented the token (\d+) times: (\d+) valid, (\d+) invalid, (\d+) missing$",
        done.stdout,
        re.MULTILINE,
    )
    assert summary is not None, done.stdout
    rotations, presented, valid, invalid, missing = map(int, summary.groups())
    assert rotations >= 3
    assert valid == presented > 0
    assert (invalid, missing) == (0, 0)
    assert done.stdout.splitlines()[-1] == "result    the reader never saw an invalid token"
    assert list(tmp_path.glob("rotator-demo-*")) == [], "it clears away what it made"


def test_who_stops_it_before_the_first_rotation_is_told_so(tmp_path: Path) -> None:
    done = demo(tmp_path, "--for", "1s")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        1, "result    no rotation yet: let it run for longer, by --for",
    ), done.stdout + done.stderr  # fmt: skip
