"""The words you type. Data goes to stdout, messages to stderr, exit codes are those of sysexits.h.

argparse rather than click: it is in the standard library and costs 13 ms of a start where click costs 50.
Every command's module is imported when its word is typed.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from rotator.cli import words
from rotator.core import errors


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code. No error of ours and no defect leaves as a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A letter that the terminal does not know is no reason to end half-way.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = words.understand(argv)
        if arguments.run is None:
            return words.bare(arguments)
        code: int = arguments.run(arguments, dict(os.environ))
        sys.stdout.flush()
        return code
    except errors.RotatorError as error:
        complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`); the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001 (the last net: a defect is told without its text, which may hold a secret)
        print(f"rotator: a defect: {type(error).__name__} at {_where(error)}; please report it", file=sys.stderr)
        return errors.EXIT_BUG


def complain(error: errors.RotatorError) -> None:
    """One line for each thing that is wrong, on stderr."""
    for line in error.what.splitlines():
        print(f"rotator: {line}", file=sys.stderr)
    if error.mend:
        print(f"rotator: to mend it: {error.mend}", file=sys.stderr)


def _where(error: BaseException) -> str:
    """The innermost places of our own code, as file:line, without values."""
    places: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "?")
        places.append(f"{name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " < ".join(reversed(places[-4:]))
