"""A command as a person sees it on a terminal, and as a program that reads its pipe does."""

from __future__ import annotations

import atexit
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from typing import Any

from tests.acceptance.stage import PATIENCE, Stage, wait_for

# Whoever runs the tests in the background may ignore SIGINT, and a child would go on with that.
INTERRUPTIBLE = ("env", "--default-signal=INT")
# ECMA-48: control sequences.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command on a terminal of its own; what it showed, as it came."""

    def __init__(self, stage: Stage, *words: str, columns: int = 120, lines: int = 24, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.popen = subprocess.Popen(
            [*INTERRUPTIBLE, *stage.command(*words)], cwd=stage.folder,
            env=stage.environ(**{"TERM": "xterm-256color", **environ}),
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._raw = bytearray()
        # A test that fails does not come to the end of it.
        atexit.register(self.popen.kill)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        # EIO is how the end of a terminal looks (pty(7)).
        try:
            while chunk := os.read(self._ours, 4096):
                self._raw += chunk
        except OSError:
            pass

    @property
    def raw(self) -> str:
        return bytes(self._raw).decode(errors="replace")

    @property
    def text(self) -> str:
        return CONTROL.sub("", self.raw)

    def wait_shown(self, part: str) -> None:
        wait_for(lambda: part in self.text, f"{part!r} on the terminal:\n{self.text}")

    def end(self, number: int | None = None) -> int:
        if number is not None:
            self.popen.send_signal(number)
        code = self.popen.wait(PATIENCE)
        self._thread.join()
        os.close(self._ours)
        return code


class Pipe:
    """A command whose output is followed line by line."""

    def __init__(self, stage: Stage, *words: str) -> None:
        self.popen = subprocess.Popen(
            [*INTERRUPTIBLE, *stage.command(*words)], env=stage.environ(), cwd=stage.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.out: list[str] = []
        self.err: list[str] = []
        pairs = ((self.popen.stdout, self.out), (self.popen.stderr, self.err))
        atexit.register(self.popen.kill)
        self._threads = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in pairs]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(stream: Any, into: list[str]) -> None:
        with stream:
            into.extend(iter(stream.readline, ""))

    def wait_line(self, part: str, *, err: bool = False) -> None:
        lines = self.err if err else self.out
        wait_for(lambda: any(part in line for line in list(lines)), f"{part!r}: {self.out} {self.err}")

    def end(self, number: int | None = None) -> int:
        if number is not None:
            self.popen.send_signal(number)
        code = self.popen.wait(PATIENCE)
        for thread in self._threads:
            thread.join()
        return code
