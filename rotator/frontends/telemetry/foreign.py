"""The standard library's logging and warnings, as lines of ours: third parties speak through the same listener.

They know nothing of our secrets, so what they say has credentials and query strings taken out.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache

from rotator.core.events import Level
from rotator.core.tokens import MASK
from rotator.frontends.telemetry.forms import Fields
from rotator.frontends.telemetry.lines import LogListener

# httpx logs whole URLs at INFO, httpcore cookies at DEBUG, apscheduler two lines per beat, asyncio every slow callback.
TALKATIVE = ("httpx", "httpcore", "apscheduler", "urllib3", "hvac", "asyncio")


@cache
def _credentials() -> tuple[tuple[re.Pattern[str], str], ...]:
    """What looks like a credential, and what stands there instead. Compiled with the first line of a third party."""
    return (
        # The user of a URL, its query, Authorization values, and the parameters of RFC 6749 by name.
        (re.compile(r"(?<=://)[^\s/@'\"]+(?=@)"), MASK),
        (re.compile(r"(https?://[^\s?'\"]*\?)[^\s'\"]+"), rf"\1{MASK}"),
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
    """``text`` without what looks like a credential. The last fence, not the first: ours never get here."""
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
            message = redact(record.getMessage())
            fields: Fields = {"logger": record.name}
            if record.exc_info and record.exc_info[1] is not None:
                fields["exception"] = redact(_in_one_line(record.exc_info[1]))
            at = datetime.fromtimestamp(record.created, UTC)
            level = _level(record.levelno)
            self._listener.write(level, "log.foreign", message, at, fields, (record.name, level, message))
        except Exception:  # noqa: BLE001 (arguments of a stranger may raise anything when formatted)
            self._listener.lost += 1


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
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)
