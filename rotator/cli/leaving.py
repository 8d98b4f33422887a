"""The end of the process, which no thread holds up that hangs in a mount."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

# What was begun may end: a file that is written, a name that is looked up.
PATIENCE = 2.0


def soon(code: int) -> None:
    """End this process with ``code`` in `PATIENCE` seconds, should it still be there: Python waits at its end for each
    thread of a pool, however long a mount lets it hang. To be called once everything is saved and told."""
    if "concurrent.futures.thread" not in sys.modules:
        return
    import threading

    def leave() -> None:
        threading.Event().wait(PATIENCE)
        os._exit(code)

    # RuntimeError: no thread may be started (TasksMax=).
    with suppress(RuntimeError):
        threading.Thread(target=leave, name="farewell", daemon=True).start()
