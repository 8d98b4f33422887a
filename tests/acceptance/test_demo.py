"""The first thing anybody tries: it shows the real daemon at work and says whether it kept its promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def test_the_demo_rotates_and_its_reader_never_meets_an_invalid_token(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rotator", "demo", "--for", "10s", "--access-ttl", "3s"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "LANG": "C.UTF-8"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
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
