"""Log lines: what the bus tells, in one form, on one stream. A stream that breaks costs lines, never the daemon."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime, timedelta
from functools import cache
from typing import TextIO

from rotator.core.events import Event, Level
from rotator.frontends.telemetry import forms
from rotator.frontends.telemetry.forms import Fields, Form
from rotator.frontends.telemetry.journal import Journal

QUIET_FOR = timedelta(seconds=60)
# Kinds of lines that are remembered for their repeats: some 100 bytes each.
REMEMBERED = 4096


class LogListener:
    """Writes an event as a line: ``form`` as settled by `choose`, nothing less grave than ``threshold``.

    What was told within the last 60 s is counted instead of told again; the next one that is told says how many were
    left out (``repeated``). Two events are the same where every field but their times is. Safe to call from any
    thread. ``lost`` counts lines that the stream did not take. With ``Form.JOURNAL`` and a ``journal`` each becomes an
    entry with fields, and a line on the stream only where journald does not take it.
    """

    def __init__(
        self,
        stream: TextIO,
        form: Form,
        *,
        threshold: Level = Level.INFO,
        colour: bool = False,
        journal: Journal | None = None,
    ) -> None:
        self._stream = stream
        self._journal = journal if form is Form.JOURNAL else None
        self._render = forms.renderer(form, colour)
        self._threshold = threshold
        self._repeats = _Repeats()
        # Re-entrant: the first line loads modules, and a warning of theirs comes back as a line.
        self._lock = threading.RLock()
        self.lost = 0

    def __call__(self, event: Event) -> None:
        if event.level > self._threshold:
            return
        fields = {shown: getattr(event, name) for name, shown in _names(type(event))}  # type: ignore[arg-type]
        timeless = (value for value in fields.values() if not isinstance(value, datetime))
        self.write(event.level, event.name, event.sentence, event.at, fields, (event.name, *timeless))

    def write(self, level: Level, name: str, message: str, at: datetime, fields: Fields, key: Hashable) -> None:
        """One line, unless it repeats one of the same ``key``."""
        if level > self._threshold:
            return
        with self._lock:
            # What a person must act on is told each time it happens; the engine's own pauses bound how often.
            left_out = 0 if level <= Level.CRITICAL else self._repeats.admit(key, at)
            if left_out is None:
                return
            if left_out:
                fields = {**fields, "repeated": left_out}
            shown = {key: forms.plain(value) for key, value in fields.items() if value is not None}
            self._put(level, name, forms.plain(message), at, shown)

    def _put(self, level: Level, name: str, message: str, at: datetime, fields: Fields) -> None:
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.send(level, name, forms.escaped(message), at, fields)
                return
        try:
            self._stream.write(self._render(level, name, message, at, fields) + "\n")
            self._stream.flush()
        # ValueError: the stream is closed, or cannot encode this.
        except (OSError, ValueError):
            self.lost += 1


@cache
def _names(kind: type[Event]) -> tuple[tuple[str, str], ...]:
    """The fields of a kind of event, but for its time, and what each is called in a line."""
    names = (field.name for field in dataclasses.fields(kind) if field.name != "at")
    return tuple((name, "outcome" if name == "cls" else name) for name in names)


class _Repeats:
    """Remembers what was told when, and how often it was left out since."""

    def __init__(self) -> None:
        self._told: OrderedDict[Hashable, tuple[datetime, int]] = OrderedDict()

    def admit(self, key: Hashable, at: datetime) -> int | None:
        """How many were left out since the last one told; None for one to leave out."""
        last, left_out = self._told.get(key, (None, 0))
        # A clock that was set back must not silence anything for longer.
        if last is not None and abs(at - last) < QUIET_FOR:
            self._told[key] = (last, left_out + 1)
            return None
        self._told[key] = (at, 0)
        self._told.move_to_end(key)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return left_out
