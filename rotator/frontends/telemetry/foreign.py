"""The standard library's logging and warnings, as lines of ours: third parties speak through the same listener.

They know nothing of our secrets, so what they say has credentials and query strings taken out. What Python itself
would print, with the words of an exception, comes here too: a task, a thread, a finalizer that failed.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache

from rotator.core import telling
from rotator.core.events import Level
from rotator.core.telling import Fields
from rotator.core.tokens import MASK
from rotator.frontends.telemetry.lines import LogListener

# httpx logs whole URLs at INFO, httpcore cookies at DEBUG, apscheduler two lines per beat, asyncio every slow callback.
TALKATIVE = ("httpx", "httpcore", "apscheduler", "urllib3", "hvac", "asyncio", "opentelemetry")
# Who finds defects of ours, and quotes them.
DEFECTS = ("asyncio", "threading", "unraisable")


@cache
def _credentials() -> tuple[tuple[re.Pattern[str], str], ...]:
    """What may be a credential where a stranger says it. Compiled with the first line of a third party."""
    return (
        (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
        (
            re.compile(
                r"((?:access_token|refresh_token|client_secret|password|secret_id|x-vault-token|cookie)"
                r"['\"]?\s*[:=]\s*)(?:b?'[^']*'|\"[^\"]*\"|[^\s&,;)}\]]+)",
                re.IGNORECASE,
            ),
            rf"\1{MASK}",
        ),
    )


def redact(text: str) -> str:
    """``text`` of a third party without what looks like a credential; stricter than `telling.redact`, which must leave
    our own sentences whole."""
    text = telling.redact(text)
    for pattern, instead in _credentials():
        text = pattern.sub(instead, text)
    return text


class _Foreign(logging.Handler):
    """Records of third parties and warnings, as lines of the listener."""

    def __init__(self, listener: LogListener) -> None:
        super().__init__()
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        try:
            error = record.exc_info[1] if record.exc_info else None
            self.tell(_level(record.levelno), record.name, record.getMessage(), record.created, error)
        except Exception:  # noqa: BLE001 (arguments of a stranger may raise anything when formatted)
            self._listener.lost += 1

    def tell(self, level: Level, name: str, text: str, at: float, error: BaseException | None) -> None:
        """``at`` in seconds since the epoch. A defect of ours that asyncio, a thread or the collector found is told by
        its class and places: its words may hold anything, and asyncio quotes them behind its first line."""
        ours = name in DEFECTS
        message = redact(text.partition("\n")[0] if ours else text)
        fields: Fields = {"logger": name}
        if error is not None:
            fields["exception"] = _places(error) if ours else redact(_in_one_line(error))
        self._listener.write(
            level, "log.foreign", message, datetime.fromtimestamp(at, UTC), fields, (name, level, message)
        )

    def thread_died(self, died: threading.ExceptHookArgs) -> None:
        """Instead of a traceback with its words on stderr (threading.excepthook)."""
        self._found("threading", f"a thread died: {died.thread.name if died.thread else '?'}", died.exc_value)

    def not_raised(self, lost: sys.UnraisableHookArgs) -> None:
        """Instead of the same in a finalizer (sys.unraisablehook)."""
        self._found("unraisable", "an exception that nobody could be told", lost.exc_value)

    def _found(self, name: str, text: str, error: BaseException | None) -> None:
        self.handle(logging.LogRecord(
            name, logging.ERROR, "", 0, text, (), None if error is None else (type(error), error, None)
        ))  # fmt: skip


def _places(error: BaseException) -> str:
    """The class and the innermost eight places, without the words of the exception."""
    frames = traceback.extract_tb(error.__traceback__, limit=-8)
    return " < ".join([type(error).__name__, *(f"{one.filename}:{one.lineno} {one.name}" for one in reversed(frames))])


def _in_one_line(error: BaseException) -> str:
    """The innermost eight frames and the words of the exception, never the values of its variables."""
    return " | ".join(line.strip() for line in traceback.format_exception(error, limit=-8, chain=False))


def _level(number: int) -> Level:
    for floor, level in ((50, Level.CRITICAL), (40, Level.ERROR), (30, Level.WARNING), (20, Level.INFO)):
        if number >= floor:
            return level
    return Level.DEBUG


@contextmanager
def setup(level: Level, listener: LogListener) -> Iterator[None]:
    """Route the standard library's logging and warnings to ``listener`` while the context lasts.

    Third parties speak from WARNING on, or from ``level`` where that is graver: no setting makes them louder,
    because what they say below holds URLs and cookies.
    """
    root, handler = logging.getLogger(), _Foreign(listener)
    floor = max(logging.WARNING, {Level.ERROR: logging.ERROR, Level.CRITICAL: logging.CRITICAL}.get(level, 0))
    loggers = [root, *(logging.getLogger(name) for name in TALKATIVE)]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(floor)
    root.addHandler(handler)
    logging.captureWarnings(True)
    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook, sys.unraisablehook = handler.thread_died, handler.not_raised
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        logging.captureWarnings(False)
        root.removeHandler(handler)
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)
