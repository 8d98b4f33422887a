"""`rotator simulate` as an operator types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

CONFIG = """\
[providers.example]
token_url = "https://login.example.com/oauth/token"
reuse = "harmless"
default_lifetime = "30m"

[grants.billing]
provider = "example"
client_id = "client"
client_secret = { file = "/nowhere/secret" }
username = "user"
password = { file = "/nowhere/password" }
targets.app.file = "billing/token"

[grants.reports]
provider = "example"
client_id = "client"
client_secret = { file = "/nowhere/secret" }
targets.app.file = "reports/token"
"""


def simulate(folder: Path, *words: str, config: str = CONFIG, **environ: str) -> subprocess.CompletedProcess[str]:
    (folder / "rotator.toml").write_text(config)
    return subprocess.run(
        [sys.executable, "-m", "rotator", "simulate", "--config", str(folder / "rotator.toml"), *words],
        capture_output=True, text=True, check=False, timeout=120, encoding="utf-8",
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONIOENCODING": "utf-8", **environ},
    )  # fmt: skip


def test_the_configured_grants_go_through_days_of_faults(tmp_path: Path) -> None:
    """No secret is read: the files of the configuration do not exist."""
    picture = tmp_path / "days.svg"
    done = simulate(
        tmp_path, "--days", "2", "--provider-outage", "2h@20h", "--downtime", "1m/12h", "--plot", str(picture)
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{picture} written\n", "no progress where nobody watches"
    assert "2 grants of example for 2d, seed 1" in done.stdout
    assert "the provider did not grant between due and expired" in done.stdout
    assert "extrapolated" not in done.stdout
    assert "provider away" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert not [name for name in os.listdir(tmp_path) if name not in ("rotator.toml", "days.svg")], "nothing is opened"


def test_json_counts_what_was_asked_for_and_the_seed_repeats_it(tmp_path: Path) -> None:
    words = ("--grants", "6", "--days", "1", "--provider-outage", "2h", "--lost-answers", "1%", "--seed", "7", "--json")
    first, again = simulate(tmp_path, *words), simulate(tmp_path, *words)
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    document = json.loads(first.stdout)
    assert (document["grants"], document["simulated_grants"], document["extrapolated"]) == (6, 6, False)
    # Tokens of half an hour are rotated every 22 minutes. Three of the six know no password: an answer that is lost
    # ends their chain, until a person comes.
    assert 3 * 40 < document["rotations"] < 6 * 80
    assert document["rotations"] == sum(document["timeline"]["rotations"])
    assert document["password_exchanges"] >= 6
    assert sum(gap["count"] for gap in document["gaps"]) >= 6
    assert document["broken"] == []


def test_a_sample_is_labelled_in_every_line_that_it_scales(tmp_path: Path) -> None:
    done = simulate(tmp_path, "--grants", "5000", "--sample", "10", "--days", "0.5")
    assert done.returncode == 0, done.stderr
    assert "10 of 5,000 grants" in done.stdout
    for figure in ("rotations", "failed exchanges", "password exchanges", "busiest second", "reader gaps"):
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(figure)]
        assert "extrapolated" in line


def test_without_a_configured_grant_a_provider_is_enough(tmp_path: Path) -> None:
    done = simulate(tmp_path, "--provider", "omnifund", "--grants", "2", "--days", "0.25", config="")
    assert done.returncode == 0, done.stderr
    assert "2 grants of omnifund for 6h" in done.stdout


def test_plain_ascii_where_the_output_knows_no_more(tmp_path: Path) -> None:
    done = simulate(tmp_path, "--days", "0.25", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--grants", "0"), 64, "--grants must be from 1"),
        (("--grants", "many"), 64, "--grants"),
        (("--days", "nan"), 64, "--days must be more than 0"),
        (("--days", "-1"), 64, "--days must be more than 0"),
        (("--provider-outage", "2"), 64, "--provider-outage needs a unit"),
        (("--provider-outage", "2h@"), 64, "--provider-outage must be a duration"),
        (("--provider-outage", "2h@40d"), 64, "after the end of the simulation"),
        (("--provider-outage", "1s/1ms"), 64, "more than 100000 times"),
        (("--downtime", "1m/0s"), 64, "--downtime must be longer than nothing"),
        (("--clock-step=--1h",), 64, "--clock-step must be a duration"),
        (("--lost-answers", "200%"), 64, "--lost-answers must be a percentage"),
        (("--lost-answers", "0.01"), 64, "--lost-answers must be a percentage"),
        (("--token-lifetime", "0s"), 64, "--token-lifetime must be longer"),
        (("--provider", "nobody"), 64, "there is no provider 'nobody'"),
        (("--plot", "/nowhere/at/all.svg"), 64, "--plot /nowhere/at/all.svg cannot be written"),
        (("--plot", "/"), 64, "is a folder"),
    ],
)
def test_bad_input_gives_one_clear_line_and_nothing_is_simulated(
    tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    done = simulate(tmp_path, *words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    problems = [line for line in done.stderr.splitlines() if not line.startswith("rotator: to mend it: ")]
    assert len(problems) == 1, done.stderr
    assert message in problems[0]


def test_a_bad_configuration_is_refused_as_everywhere(tmp_path: Path) -> None:
    done = simulate(tmp_path, config=CONFIG.replace('reuse = "harmless"', 'reuse = "maybe"'))
    assert (done.returncode, done.stdout) == (78, "")
    assert "reuse" in done.stderr
