"""What is counted of one Vault, over all logins and threads and over reloads."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime

from rotator.core.errors import Misconfigured, Refused, RotatorError

OPERATIONS = {"get": "read", "head": "read", "list": "list", "delete": "delete"}
"""What a method does here; all others write."""
TOLD = frozenset({400, 403, 404, 412, 429, 503})
"""Statuses that mean something of their own; others are counted by their class."""


class Tally:
    """``logins`` by how they ended, ``requests`` by operation and code (``none``: no answer came), ``ends_at`` of the
    login that stands (None: there is none, or it does not end)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.ends_at: datetime | None = None
        self.logins: Counter[str] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()

    def answered(self, method: str, status: int | None) -> None:
        """A request has ended; called on worker threads. ``status`` None: without an answer."""
        operation = OPERATIONS.get(method.lower(), "write")
        code = "none" if status is None else str(status) if status in TOLD else f"{status // 100}xx"
        with self._lock:
            self.requests[operation, code] += 1

    def logged_in(self, ends_at: datetime | None) -> None:
        """A login was made."""
        self.logins["granted"] += 1
        self.ends_at = ends_at

    def kept(self, ends_at: datetime | None) -> None:
        """The login was renewed."""
        self.ends_at = ends_at

    def not_logged_in(self, error: RotatorError) -> None:
        """A login was tried in vain."""
        kinds = ((Refused, "refused"), (Misconfigured, "misconfigured"))
        self.logins[next((word for kind, word in kinds if isinstance(error, kind)), "unavailable")] += 1
