"""Log lines as they leave on a stream: forms, repeats, third parties, and streams that break."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import os
import pty
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

import pytest

from rotator.core import events
from rotator.core.events import Level
from rotator.core.tokens import MASK, Secret
from rotator.frontends import telemetry
from rotator.frontends.telemetry import Form, Journal, LogListener

AT = datetime(2026, 11, 23, 4, 5, 6, 789123, tzinfo=UTC)
SECRET = "s3cr3t-0123456789"


def rotated(at: datetime = AT, generation: int = 7) -> events.Rotated:
    return events.Rotated(
        at=at,
        grant="billing",
        kind="refresh_token",
        generation=generation,
        expires_at=at + timedelta(hours=1),
        due_at=None,
    )


def failed(at: datetime = AT, target: str = "app", reason: str = "disk full") -> events.DeliveryFailed:
    return events.DeliveryFailed(
        at=at, grant="billing", target=target, reason=reason, retry_at=at + timedelta(seconds=5)
    )


def lines_of(form: Form, *told: events.Event, threshold: Level = Level.INFO, colour: bool = False) -> list[str]:
    stream = io.StringIO()
    listener = LogListener(stream, form, threshold=threshold, colour=colour)
    for event in told:
        listener(event)
    assert listener.lost == 0
    return stream.getvalue().splitlines()


# --- forms ------------------------------------------------------------------------------------------------------


def test_json_has_the_sentence_and_every_field() -> None:
    (line,) = lines_of(Form.JSON, rotated())
    assert json.loads(line) == {
        "time": "2026-11-23T04:05:06.789Z",
        "level": "notice",
        "event": "token.rotated",
        "message": "billing: generation 7 by refresh_token, valid for 60m, next rotation when a person acts",
        "grant": "billing",
        "kind": "refresh_token",
        "generation": 7,
        "expires_at": "2026-11-23T05:05:06.789Z",
    }


def test_logfmt_is_one_line_of_pairs() -> None:
    (line,) = lines_of(Form.LOGFMT, failed(reason='a "b" = c'))
    assert line.startswith("time=2026-11-23T04:05:06.789Z level=error event=delivery.failed message=")
    assert line.endswith('grant=billing target=app reason="a \\"b\\" = c" retry_at=2026-11-23T04:05:11.789Z')


def test_the_journal_gets_its_priority_and_no_time_of_ours() -> None:
    assert lines_of(Form.JOURNAL, rotated(), failed()) == [
        "<5>billing: generation 7 by refresh_token, valid for 60m, next rotation when a person acts"
        " event=token.rotated grant=billing generation=7 expires_at=2026-11-23T05:05:06.789Z",
        "<3>billing: target app not written: disk full; tried again in 5s"
        " event=delivery.failed grant=billing target=app",
    ]


def test_text_is_coloured_only_when_asked() -> None:
    (plain,) = lines_of(Form.TEXT, failed())
    (coloured,) = lines_of(Form.TEXT, failed(), colour=True)
    assert "error" in plain and "target app not written: disk full" in plain and "\x1b" not in plain
    assert "\x1b[31m" in coloured


@pytest.mark.parametrize("form", [Form.TEXT, Form.JSON, Form.LOGFMT, Form.JOURNAL])
def test_what_a_provider_answered_cannot_forge_a_line_or_move_a_cursor(form: Form) -> None:
    hostile = "x\n<0>kernel: forged\r\x1b[2J\x85\u2028\ud800 end"
    stream = io.StringIO()
    LogListener(stream, form)(failed(reason=hostile))
    written = stream.getvalue()
    assert written.endswith("\n")
    assert written[:-1].isprintable()
    assert "forged" in written and "end" in written


@pytest.mark.parametrize("form", [Form.TEXT, Form.JSON, Form.LOGFMT, Form.JOURNAL])
def test_a_secret_in_a_field_shows_its_mask(form: Form) -> None:
    class Careless(events.Event):
        name = "careless"
        level = Level.ERROR
        grant: Secret
        several: tuple[Secret, ...]

        @property
        def sentence(self) -> str:
            return f"told {self.grant} and {self.several}"

    (line,) = lines_of(form, Careless(at=AT, grant=Secret(SECRET), several=(Secret(SECRET),)))
    assert SECRET not in line
    assert MASK in (json.loads(line)["grant"] if form is Form.JSON else line)


def test_a_boundless_reason_is_cut_below_what_the_journal_takes() -> None:
    (line,) = lines_of(Form.JSON, failed(reason="x" * 1_000_000))
    assert len(line) < 48 << 10


def test_nothing_below_the_threshold_is_written() -> None:
    assert lines_of(Form.JOURNAL, rotated(), threshold=Level.WARNING) == []
    assert len(lines_of(Form.JOURNAL, failed(), threshold=Level.WARNING)) == 1


def test_levels_go_by_their_words() -> None:
    assert [telemetry.level(word) for word in ("debug", "Notice", "critical")] == [
        Level.DEBUG,
        Level.NOTICE,
        Level.CRITICAL,
    ]
    with pytest.raises(ValueError, match="known: critical, error"):
        telemetry.level("loud")


# --- which form -------------------------------------------------------------------------------------------------


@contextmanager
def pipe() -> Iterator[TextIO]:
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w") as stream:
        yield stream


@contextmanager
def terminal() -> Iterator[TextIO]:
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "w") as stream:
            yield stream
    finally:
        os.close(ours)


def test_auto_takes_the_journal_only_where_the_stream_is_its() -> None:
    with pipe() as stream, pipe() as other:
        here = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{here.st_dev}:{here.st_ino}"}
        assert telemetry.choose("auto", stream, environ) is Form.JOURNAL
        assert telemetry.choose("auto", other, environ) is Form.JSON
        assert telemetry.choose("logfmt", stream, environ) is Form.LOGFMT
        assert telemetry.choose("auto", stream, {}) is Form.JSON
    assert telemetry.choose("auto", io.StringIO(), environ) is Form.JSON
    with pytest.raises(ValueError, match="xml"):
        telemetry.choose("xml", io.StringIO(), {})


def test_a_terminal_gets_text_and_colour_unless_declined() -> None:
    with terminal() as stream:
        assert telemetry.choose("auto", stream, {}) is Form.TEXT
        assert telemetry.is_colourful(stream, {"TERM": "xterm", "NO_COLOR": ""})
        assert not telemetry.is_colourful(stream, {"TERM": "xterm", "NO_COLOR": "1"})
        assert not telemetry.is_colourful(stream, {"TERM": "dumb"})
    with pipe() as stream:
        assert not telemetry.is_colourful(stream, {"TERM": "xterm"})


# --- repeats ----------------------------------------------------------------------------------------------------


def test_repeats_within_a_minute_are_counted_and_told_with_the_next() -> None:
    told = [failed(AT + timedelta(seconds=5 * step)) for step in range(14)]
    first, next_one = (json.loads(line) for line in lines_of(Form.JSON, *told))
    assert "repeated" not in first
    assert next_one["repeated"] == 11
    assert next_one["time"] == "2026-11-23T04:06:06.789Z"


def test_another_reason_target_or_generation_is_no_repeat() -> None:
    told = [failed(), failed(reason="read-only"), failed(target="other"), rotated(), rotated(generation=8)]
    assert len(lines_of(Form.JSON, *told)) == 5


def test_a_clock_set_back_silences_nothing() -> None:
    assert len(lines_of(Form.JSON, failed(), failed(AT - timedelta(hours=3)))) == 2


def test_memory_for_repeats_is_bounded() -> None:
    told = [failed(reason=f"reason {number}") for number in range(5000)]
    assert len(lines_of(Form.JOURNAL, *told, told[-1], told[0])) == 5001


# --- streams that break -----------------------------------------------------------------------------------------


def test_a_reader_that_went_away_costs_lines_only() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    raw = os.fdopen(writing, "wb", buffering=0)
    stream = io.TextIOWrapper(raw, write_through=True)
    listener = LogListener(stream, Form.JSON)
    listener(failed())
    listener(rotated())
    stream.close()
    listener(failed(target="other"))
    assert listener.lost == 3


# --- third parties ----------------------------------------------------------------------------------------------


@contextmanager
def routed(level: Level = Level.INFO, form: Form = Form.JSON) -> Iterator[io.StringIO]:
    """Logging through us alone: the test runner's own handlers stand aside."""
    stream, root = io.StringIO(), logging.getLogger()
    others, root.handlers = root.handlers, []
    try:
        with telemetry.setup(level, LogListener(stream, form, threshold=level)):
            yield stream
        assert root.handlers == []
    finally:
        root.handlers = others


def documents(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "name", ["httpx", "httpcore.http11", "apscheduler.scheduler", "urllib3", "hvac", "asyncio", "x"]
)
def test_third_parties_speak_from_warning_on_however_talkative_we_are(name: str) -> None:
    logger = logging.getLogger(name)
    with routed(Level.DEBUG) as stream:
        logger.debug("Set-Cookie")
        logger.info("GET https://provider/?code=1")
        logger.warning("something is odd")
        (line,) = documents(stream)
    assert (line["logger"], line["level"], line["message"]) == (name, "warning", "something is odd")
    with routed(Level.ERROR) as stream:
        logger.warning("something is odd")
        logger.error("something is broken")
        assert [line["message"] for line in documents(stream)] == ["something is broken"]


def test_an_exception_is_one_line_without_the_values_of_variables() -> None:
    def fail(password: str) -> None:
        raise RuntimeError("first\nsecond")

    with routed(form=Form.JOURNAL) as stream:
        try:
            fail(SECRET)
        except RuntimeError:
            logging.getLogger("x").exception("it failed")
        (line,) = stream.getvalue().splitlines()
    assert line.startswith("<3>it failed ")
    assert "RuntimeError: first" in line and "second" in line and "in fail" in line
    assert SECRET not in line


@pytest.mark.parametrize(
    "text",
    [
        f"POST https://provider.test/token?client_secret={SECRET}&a=b failed",
        f"proxy http://user:{SECRET}@proxy.test:3128 refused",
        f"Authorization: Bearer {SECRET}",
        f"{{'refresh_token': '{SECRET}', 'a': 1}}",
        f'{{"password":"{SECRET}"}}',
        f"body was grant_type=password&password={SECRET}&username=u",
        f"X-Vault-Token: {SECRET}",
    ],
)
def test_credentials_in_the_words_of_third_parties_are_taken_out(text: str) -> None:
    with routed() as stream:
        logging.getLogger("x").warning("%s", text)
        try:
            raise ValueError(text)
        except ValueError:
            logging.getLogger("x").exception("failed")
        assert len(documents(stream)) == 2
    assert SECRET not in stream.getvalue()
    assert MASK in json.loads(stream.getvalue().splitlines()[0])["message"]


def test_words_without_credentials_are_left_alone() -> None:
    text = "GET https://provider.test/a/b failed: password grant refused, bearer of bad news"
    assert telemetry.redact(text) == text


def test_a_record_that_cannot_be_formatted_costs_a_line_and_no_more() -> None:
    with routed() as stream:
        logging.getLogger("x").warning("%d", "not a number")
        logging.getLogger("x").warning("still here")
        assert [line["message"] for line in documents(stream)] == ["still here"]


def test_warnings_become_lines_and_repeats_are_left_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with routed() as stream:
            for _ in range(3):
                warnings.warn("this is old", DeprecationWarning, stacklevel=1)
            (line,) = documents(stream)
    assert "DeprecationWarning: this is old" in str(line["message"])
    assert line["logger"] == "py.warnings"


def test_afterwards_logging_is_as_it_was() -> None:
    root, quiet = logging.getLogger(), logging.getLogger("httpx")
    before = (root.level, quiet.level, list(root.handlers), warnings.showwarning)
    with telemetry.setup(Level.INFO, LogListener(io.StringIO(), Form.JSON)):
        assert (root.level, quiet.level) == (logging.WARNING, logging.WARNING)
        assert len(root.handlers) == len(before[2]) + 1
    assert (root.level, quiet.level, list(root.handlers), warnings.showwarning) == before


def test_lines_of_several_threads_do_not_mix() -> None:
    with routed() as stream:

        def speak(name: str) -> None:
            for number in range(50):
                logging.getLogger(name).warning("line %d of %s", number, name)

        threads = [threading.Thread(target=speak, args=(f"t{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(documents(stream)) == 200


# --- the journal's own protocol -----------------------------------------------------------------------------------


def entries(datagrams: list[bytes]) -> list[dict[str, str]]:
    """Read as journald reads them: a name, the length of the value, the value."""
    found = []
    for datagram in datagrams:
        pairs, rest = {}, datagram
        while rest:
            name, _, rest = rest.partition(b"\n")
            length = int.from_bytes(rest[:8], "little")
            pairs[name.decode()] = rest[8 : 8 + length].decode()
            assert rest[8 + length : 9 + length] == b"\n"
            rest = rest[9 + length :]
        found.append(pairs)
    return found


@contextmanager
def journald(folder: Path) -> Iterator[tuple[str, socket.socket]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(folder / "journal"))
        receiver.setblocking(False)
        yield str(folder / "journal"), receiver


def test_every_field_of_an_event_is_a_field_of_its_journal_entry(tmp_path: Path) -> None:
    stream = io.StringIO()
    with journald(tmp_path) as (address, receiver):
        LogListener(stream, Form.JOURNAL, journal=Journal(address))(failed(reason='a "b"\nPRIORITY=0'))
        (entry,) = entries([receiver.recv(65536)])
    assert entry == {
        "MESSAGE": 'billing: target app not written: a "b"\\nPRIORITY=0; tried again in 5s',
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "rotator",
        "MESSAGE_ID": telemetry.message_id("delivery.failed"),
        "ROTATOR_EVENT": "delivery.failed",
        "ROTATOR_GRANT": "billing",
        "ROTATOR_TARGET": "app",
        "ROTATOR_REASON": 'a "b"\nPRIORITY=0',
        "ROTATOR_RETRY_AT": "2026-11-23T04:05:11.789Z",
    }
    assert stream.getvalue() == "", "told once"


def test_without_a_journald_the_line_goes_to_the_stream(tmp_path: Path) -> None:
    stream = io.StringIO()
    listener = LogListener(stream, Form.JOURNAL, journal=Journal(str(tmp_path / "nobody")))
    listener(failed())
    assert stream.getvalue().startswith("<3>billing: target app not written")
    assert listener.lost == 0


def test_a_journald_that_reads_nothing_holds_nobody_up(tmp_path: Path) -> None:
    stream = io.StringIO()
    with journald(tmp_path) as (address, _receiver):
        listener = LogListener(stream, Form.JOURNAL, journal=Journal(address))
        for number in range(2000):
            listener(rotated(generation=number))
    assert stream.getvalue().count("\n") > 0, "what did not fit the queue is on the stream"
    assert listener.lost == 0


def test_only_the_journal_form_uses_the_journal(tmp_path: Path) -> None:
    stream = io.StringIO()
    with journald(tmp_path) as (address, receiver):
        LogListener(stream, Form.JSON, journal=Journal(address))(failed())
        with pytest.raises(BlockingIOError):
            receiver.recv(65536)
    assert stream.getvalue()


# --- defects of ours that Python finds ----------------------------------------------------------------------------


def test_a_defect_that_asyncio_finds_is_told_without_its_words() -> None:
    async def main() -> None:
        async def fail() -> None:
            raise ValueError(SECRET)

        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        del task
        gc.collect()

    with routed(Level.DEBUG) as stream:
        asyncio.run(main())
        (line,) = documents(stream)
    assert SECRET not in stream.getvalue()
    assert (line["level"], line["message"]) == ("error", "Task exception was never retrieved")
    assert str(line["exception"]).startswith("ValueError < ") and "fail" in str(line["exception"])


def test_a_thread_and_a_finalizer_that_fail_are_told_without_their_words() -> None:
    def fail() -> None:
        raise ValueError(SECRET)

    class Careless:
        def __del__(self) -> None:
            fail()

    before = threading.excepthook, sys.unraisablehook
    with routed() as stream:
        thread = threading.Thread(target=fail, name="worker")
        thread.start()
        thread.join()
        Careless()
        told = documents(stream)
    assert (threading.excepthook, sys.unraisablehook) == before
    assert SECRET not in stream.getvalue()
    assert [line["message"] for line in told] == ["a thread died: worker", "an exception that nobody could be told"]
    assert all("fail" in str(line["exception"]) for line in told)


@pytest.mark.parametrize("form", [Form.TEXT, Form.JSON, Form.LOGFMT, Form.JOURNAL])
def test_a_reason_that_echoes_a_credential_loses_it_in_our_own_lines_too(form: Form) -> None:
    (line,) = lines_of(form, failed(reason=f"the store said: Bearer {SECRET}"))
    assert SECRET not in line and MASK in (json.loads(line)["reason"] if form is Form.JSON else line)
