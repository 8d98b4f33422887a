"""PostgreSQL's errors in our words. Texts of libpq and of the server name hosts, roles, databases and tables; what we
send as parameters stands in none of those that are quoted here.

SQLSTATEs: PostgreSQL manual, appendix A.
"""

from __future__ import annotations

import psycopg

from rotator.core.errors import Misconfigured, RotatorError, StateDamaged, Unavailable

# Somebody else changed the same rows at the same time; nothing was done, and it is simply asked again.
CONTENDED = frozenset({"40001", "40P01", "40003", "55P03"})
# The server ends or refuses sessions: shutdown, crash of a neighbour, still starting, idle for too long.
ENDED = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "08000", "08003", "08006", "08007"})
READ_ONLY = "25006"
UNDEFINED_TABLE = "42P01"
# Two daemons that make the same table at the same time: the later one hears of it in one of these ways.
MADE_MEANWHILE = frozenset({"42P07", "42710", "23505"})

_UNAVAILABLE = {
    READ_ONLY: (
        "a read-only standby answered",
        "let state.url lead to the primary: name all hosts, and target_session_attrs=read-write",
    ),
    "57014": (
        "a statement took longer than statement_timeout",
        "look what holds it up (pg_stat_activity, pg_locks), or raise statement_timeout of the role",
    ),
    "53300": (
        "it has no connection to spare",
        "raise max_connections or the role's CONNECTION LIMIT (each daemon takes two), or put PgBouncer before it",
    ),
    "53100": ("its disk is full", "make room there"),
    "53200": ("it is out of memory", "look at its log"),
}
_MISCONFIGURED = {
    "42501": "the role may not do that: see the rights in docs/postgresql.md",
    "28P01": "look at the role's password: state.password, or PGPASSFILE",
    "28000": "look at pg_hba.conf and at the role",
    "3D000": "create the database, or change state.url",
}
# A refused connection has no SQLSTATE in libpq, only words; where they are in another language, it is Unavailable.
_WORDS = (
    ("too many clients", "53300"),
    ("too many connections", "53300"),
    ("remaining connection slots", "53300"),
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ("is not permitted to log in", "28000"),
    ("certificate", "certificate"),
    ("SSL", "certificate"),
    ("session is read-only", READ_ONLY),
    ("no such user", "28P01"),
    ("unsupported startup parameter", "startup"),
)  # fmt: skip
_MISSING = ("does not exist", "3D000")


class NoState(Unavailable):
    """The server answers, and nothing was ever stored there."""


def is_lost(error: psycopg.Error, closed: bool) -> bool:
    """Whether the connection is gone and with it the knowledge of what was done."""
    return closed or error.sqlstate in ENDED


def is_contended(error: psycopg.Error) -> bool:
    return error.sqlstate in CONTENDED


def connecting(error: psycopg.Error, place: str) -> RotatorError:
    """What a connection that did not come about tells."""
    text = _line(error)
    state = error.sqlstate or next((code for word, code in _WORDS if word in text), "")
    if not state and _MISSING[0] in text and "FATAL" in text:
        state = _MISSING[1]
    if state == "certificate":
        return Misconfigured(
            f"the state {place} is not reached over TLS: {text}",
            mend="look at sslmode, sslrootcert, sslcert and sslkey in state.url",
        )
    if state == "startup":
        return Misconfigured(
            f"the state {place} refuses the connection: {text}", mend="take that parameter out of state.url"
        )
    return _named(state, text, place)


def of_the_store(error: RotatorError) -> RotatorError:
    """A refusal by a store that has served us: it is about now, and no single entry or record is at fault."""
    return Unavailable(error.what, mend=error.mend) if isinstance(error, Misconfigured) else error


def asking(error: psycopg.Error, place: str) -> RotatorError:
    """What a statement that failed tells."""
    return _named(error.sqlstate or "", _line(error), place)


def _named(state: str, text: str, place: str) -> RotatorError:
    if state in _UNAVAILABLE:
        what, mend = _UNAVAILABLE[state]
        return Unavailable(f"the state {place} cannot be used: {what}", mend=mend)
    if state in _MISCONFIGURED:
        return Misconfigured(f"the state {place} is refused to us: {text}", mend=_MISCONFIGURED[state])
    if state == UNDEFINED_TABLE or state[:2] == "42":
        return StateDamaged(
            f"the tables of the state {place} are not as rotator made them: {text}",
            mend="bring them back from a backup; or drop all rotator_* tables and start anew",
        )
    if state[:2] in ("XX", "22", "23"):
        return StateDamaged(f"the state {place} is damaged: {text}", mend="look at the log of PostgreSQL")
    return Unavailable(f"the state {place} cannot be reached: {text}")


def _line(error: psycopg.Error) -> str:
    """The server's primary message, which quotes no parameter; else libpq's words in one line."""
    primary = error.diag.message_primary
    words = primary if primary else str(error)
    return "; ".join(part.strip() for part in words.splitlines() if part.strip())[:500] or type(error).__name__
