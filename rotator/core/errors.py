"""Every error rotator raises on purpose, sorted by who must act.

::

    RotatorError
    ├── Transient        nobody acts; waiting mends it              exit 75
    │   └── Unavailable      a provider, a Vault, a store is away   exit 69
    ├── Doubtful         nobody acts; the lifecycle recovers        exit 75
    ├── Refused          the owner of the credentials acts          exit 77
    ├── Misconfigured    the operator edits a key or a file         exit 78
    │   ├── BadUsage         the words of the command are off       exit 64
    │   └── StateDamaged     the state needs `rotator state reset`  exit 65
    └── Overtaken        another process was first; yield to it     exit 75

A message is one line for the person who must act, at night: ``what`` says what is wrong and names the key or
file, ``mend`` says the mending step. Neither ever holds a secret: whoever raises sees to that.
Exit codes are those of sysexits.h.
"""

from __future__ import annotations

from datetime import timedelta

EXIT_OK = 0
EXIT_BUG = 70


class RotatorError(Exception):
    """What is wrong, and how to mend it; the base of the tree above."""

    exit_code = EXIT_BUG

    def __init__(self, what: str, *, mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}; {self.mend}" if self.mend else self.what


class Transient(RotatorError):
    """Waiting mends it: the caller tries again later, nobody is called."""

    exit_code = 75


class Unavailable(Transient):
    """Something outside us is away: a provider, a Vault, a disk."""

    exit_code = 69


class Doubtful(RotatorError):
    """A request left and its effect is unknown; only a look or the lifecycle can tell."""

    exit_code = 75


class Refused(RotatorError):
    """Credentials or rights were refused; trying the same again can only do harm."""

    exit_code = 77


class Misconfigured(RotatorError):
    """A key, a file or a permission must be changed by the operator."""

    exit_code = 78


class BadUsage(Misconfigured):
    """The words of the command do not fit: an unknown grant, a missing argument."""

    exit_code = 64


class StateDamaged(Misconfigured):
    """The stored state is damaged, lost or of a newer schema: left as it is and refused."""

    exit_code = 65


class Overtaken(RotatorError):
    """Another process holds the lock or saved first; its result stands and ours is not wanted.

    ``left`` is how long a lease may still keep us out, where that is why and it is known."""

    exit_code = 75

    def __init__(self, what: str, *, mend: str = "", left: timedelta | None = None) -> None:
        super().__init__(what, mend=mend)
        self.left = left
