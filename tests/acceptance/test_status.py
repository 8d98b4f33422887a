"""`rotator status` and `rotator events` beside the real daemon: in a pipe, on a terminal, live, across a restart."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import pytest

from tests.acceptance import stage as stages
from tests.acceptance.screens import Pipe, Terminal
from tests.acceptance.stage import Stage, wait_for

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "status.schema.json").read_text())
# ECMA-48: SGR with a colour.
COLOUR = re.compile(r"\x1b\[[0-9;]*3[1-7][0-9;]*m")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        # One that is well, and one that nobody has logged in for.
        opened.configure(opened.grant(), opened.grant("crm", password=False), head='[startup]\nrequire = "all"\n')
        yield opened


@contextmanager
def daemon(stage: Stage) -> Iterator[stages.Process]:
    with stage.daemon() as process:
        yield process


# --- data ---------------------------------------------------------------------------------------------------------


def valid(document: object) -> None:
    jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker()).validate(document)


def test_what_status_prints_is_what_the_schema_says(stage: Stage) -> None:
    with daemon(stage):
        whole = stage.status()
        narrow = json.loads(stage.rotator("status", "--json", "billing").stdout)
    left = stage.status()
    for document in (whole, narrow, left):
        valid(document)
    assert whole["version"] and "note" not in whole and "left_out" not in whole
    assert (list(narrow["grants"]), narrow["left_out"]) == (["billing"], 1)
    assert "does not run" in left["note"]


def test_grants_are_picked_and_the_exit_code_is_of_those_that_were_named(stage: Stage) -> None:
    with daemon(stage):
        done = dict(
            stage.rotators(
                ("status", "b*"), ("status", "--worst-first", "--limit", "1"), ("status", "--state", "fresh"),
                ("status", "nobody"), ("status", "--state", "odd"), ("status", "--watch", "--every", "1ms"),
            )
        )  # fmt: skip
    named, worst, fresh, *wrong = done.values()
    assert named.returncode == 0 and "crm" not in named.stdout and "1 more grant(s)" in named.stderr
    assert worst.returncode == 69 and "billing" not in worst.stdout.splitlines()[1]
    assert fresh.returncode == 69 and "crm" not in fresh.stdout
    assert [one.returncode for one in wrong] == [64] * 3
    for one, told in zip(wrong, ("known grants: billing, crm", "states: latched,", "at least 100ms"), strict=True):
        assert told in one.stderr


# --- on a terminal ------------------------------------------------------------------------------------------------


def test_a_terminal_gets_bars_and_colours_unless_declined_and_a_pipe_neither(stage: Stage) -> None:
    with daemon(stage):
        usual = Terminal(stage, "status")
        plain = [
            Terminal(stage, "status", NO_COLOR="1"), Terminal(stage, "status", "--no-color"),
            Terminal(stage, "status", TERM="dumb"),
        ]  # fmt: skip
        narrow = Terminal(stage, "status", "billing", columns=60, PYTHONIOENCODING="ascii")
        assert [one.end() for one in (usual, *plain, narrow)] == [69, 69, 69, 69, 0]
        piped = stage.rotator("status").stdout
    assert COLOUR.search(usual.raw)
    for part in ("VALID FOR", "needs a person", "by a person", "1/2 grants published", "1/1 app"):
        assert part in usual.text, usual.text
    assert re.search(r"█+░* 5\dm +in \d\dm ", usual.text), usual.text
    assert not any(COLOUR.search(one.raw) for one in plain)
    assert ["█" in one.text for one in plain] == [True, True, False]
    assert "\x1b" not in plain[-1].raw + piped
    assert piped.startswith("GRANT") and "█" not in piped
    assert "####" in narrow.text and "billing" in narrow.text


# --- live ---------------------------------------------------------------------------------------------------------


def test_a_watch_on_a_terminal_lives_through_a_restart_and_ends_with_ctrl_c(stage: Stage) -> None:
    with daemon(stage):
        terminal = Terminal(stage, "status", "--watch", "--every", "100ms")
        terminal.wait_shown("1/2 grants published")
        assert stage.rotator("rotate", "--force", "billing").returncode == 0
    terminal.wait_shown("waiting for it")
    with daemon(stage):
        terminal.wait_shown("the daemon answers again")
    # The cursor is given back.
    assert terminal.end(signal.SIGINT) == 130
    assert terminal.raw.rstrip().endswith("\x1b[?25h")
    assert "Traceback" not in terminal.text


def test_a_watch_shows_as_many_grants_as_there_are_lines(stage: Stage) -> None:
    stage.configure(*(stage.grant(f"g_{number:02}") for number in range(12)))
    with daemon(stage):
        terminal = Terminal(stage, "status", "--watch", lines=12)
        terminal.wait_shown("6 not shown")
        assert terminal.end(signal.SIGTERM) == 143
    assert terminal.raw.rstrip().endswith("\x1b[?25h")


def test_a_watch_in_a_pipe_tells_each_change_once(stage: Stage) -> None:
    with daemon(stage):
        watch = Pipe(stage, "status", "--watch", "--every", "100ms", "--json", "billing")
        watch.wait_line('"generation": 1')
        assert stage.rotator("rotate", "--force", "billing").returncode == 0
        watch.wait_line('"generation": 2')
    watch.wait_line("waiting for it", err=True)
    with daemon(stage):
        watch.wait_line("answers again", err=True)
        assert stage.rotator("rotate", "--force", "billing").returncode == 0
        watch.wait_line('"generation": 3')
    assert watch.end(signal.SIGINT) == 130
    documents = [json.loads(line) for line in watch.out]
    for document in documents:
        valid(document)
    # A second look at the same is no line; between a token that is due and the next there may be one of each.
    generations = [one["grants"]["billing"]["generation"] for one in documents]
    assert generations == sorted(generations)
    assert len(documents) <= 8, "looked at ten times a second"
    assert sum("answers again" in line for line in watch.err) == 1
    assert not any("Traceback" in line for line in watch.err)


def test_a_watch_waits_for_a_daemon_and_shows_meanwhile_what_one_left(stage: Stage) -> None:
    with daemon(stage):
        pass
    watch = Pipe(stage, "status", "--watch", "--every", "100ms")
    watch.wait_line("does not run")
    watch.wait_line("waiting for it", err=True)
    with daemon(stage):
        watch.wait_line("answers again", err=True)
        assert watch.end(signal.SIGTERM) == 143
    blocks = "".join(watch.out).split("\n\n")
    assert re.match(r"\d{4}-\d\d-\d\dT", blocks[0])
    assert "GRANT" in blocks[0]


# --- events -------------------------------------------------------------------------------------------------------


def test_events_are_told_as_they_come_and_end_with_the_daemon(stage: Stage) -> None:
    with daemon(stage):
        follow = Pipe(stage, "events", "--follow", "--json", "--grant", "billing")
        follow.wait_line("token.rotated")
        assert stage.rotator("rotate", "--force", "billing").returncode == 0
        follow.wait_line('"generation": 2')
        recent = stage.rotator("events", "--since", "1h")
        errors = stage.rotator("events", "--level", "error", "--json")
        debug = stage.rotator("events", "--level", "debug", "--json")
        terminal = Terminal(stage, "events")
        assert terminal.end() == 0
    assert follow.end() == 0
    assert "the daemon has ended" in follow.err[-1]
    documents = [json.loads(line) for line in follow.out]
    assert {one["grant"] for one in documents} == {"billing"}
    names = [one["event"] for one in documents]
    assert names.count("token.rotated") == 2 and names.count("token.delivered") == 2
    log = [json.loads(line) for line in (stage.folder / "log-1").read_text().splitlines()]
    assert [one for one in documents if one not in log] == [], "the log has the very same lines"
    # What happened before anybody could ask, from the start on.
    assert "event=daemon.started" in recent.stdout and "event=daemon.ready" in recent.stdout
    assert {json.loads(line)["event"] for line in errors.stdout.splitlines()} == {"grant.person_needed"}
    assert "exchange.started" in debug.stdout
    assert COLOUR.search(terminal.raw)


def test_events_without_a_daemon_are_an_error_that_says_so(stage: Stage) -> None:
    done = stage.rotator("events", "--follow")
    assert done.returncode == 69
    assert "no daemon answers" in done.stderr and "start it" in done.stderr


def test_a_follower_is_told_of_a_daemon_that_was_killed(stage: Stage) -> None:
    process = stage.start()
    process.wait_logged("daemon.ready")
    wait_for((stage.state / "control").exists, "the control socket")
    follow = Pipe(stage, "events", "--follow")
    follow.wait_line("daemon.ready")
    process.end(signal.SIGKILL)
    assert follow.end() == 69
    assert "was cut off" in "".join(follow.err)


def test_the_daemon_loads_nothing_that_draws_traces_or_follows_before_it_is_asked(stage: Stage) -> None:
    stage.write(stage.config.read_text() + "[traces]\nenabled = true\n")
    with stage.daemon(PYTHONPROFILEIMPORTTIME="1") as process:
        assert stage.rotator("status").returncode == 69
        assert stage.rotator("events").returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in process.told.splitlines() if line.startswith("import time:")}
    assert {"rotator.frontends.control.chronicle", "rotator.engine.daemon"} <= loaded
    assert not [name for name in loaded if name.partition(".")[0] in ("rich", "opentelemetry", "requests")]
    assert "traces.enabled has no effect" in process.told
