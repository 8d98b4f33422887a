"""`rotator status`: how every grant stands, once or for as long as somebody looks.

Plain columns in a pipe; on a terminal rich draws them, which is imported for nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

from rotator.cli import reach, screen, selection
from rotator.cli.selection import Selection, Wish
from rotator.core import telling
from rotator.core.errors import BadUsage, Transient, Unavailable

Document = dict[str, Any]
# Nobody reads more on a terminal, and drawing thousands takes seconds; a pipe gets all.
MOST_DRAWN = 200
# What changes by itself, without anything having happened.
PASSING = ("at", "line")


def status(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0 where each grant (of those that were named) is published, else 69; with --watch until it is interrupted."""
    wish = Wish(arguments.names, arguments.state, arguments.limit, arguments.worst_first)
    selection.check(wish)
    look = _Look(arguments, environ)
    if arguments.watch:
        return _watch(look, wish, arguments, environ)
    document = look.once()
    drawn = not arguments.json and screen.is_drawable(sys.stdout, environ)
    picked = selection.pick(document, wish, MOST_DRAWN if drawn else None)
    if arguments.json:
        print(json.dumps(selection.narrowed(document, picked), indent=2))
    elif drawn:
        from rotator.cli import drawing

        drawing.Screen(sys.stdout, colour=screen.is_colourful(arguments, environ)).put(document, picked)
    else:
        for line in columns(document, picked):
            print(line)
        sys.stdout.flush()
        if picked.left_out:
            print(f"rotator: {picked.left_out} more grant(s) are not shown", file=sys.stderr)
    return 0 if picked.well else Unavailable.exit_code


class _Look:
    """Where snapshots come from: the daemon, else the state that it left."""

    def __init__(self, arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
        self._config = arguments.config
        self._environ = environ

    def daemon(self) -> Document:
        """Raises Unavailable, and Transient where it is busy or stopping. Looked for anew each time: a daemon that is
        started again may have another configuration."""
        return reach.client(self._config, self._environ).health()

    def once(self) -> Document:
        try:
            return self.daemon()
        except Unavailable:
            from rotator import assembly

            plan = assembly.read(self._config, self._environ, check=False)
            return asyncio.run(assembly.stored_health(plan))


# --- for as long as somebody looks --------------------------------------------------------------------------------


def _watch(look: _Look, wish: Wish, arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from rotator import assembly
    from rotator.drivers import clock

    every = assembly.span(arguments.every, "--every")
    if every < timedelta(milliseconds=100):
        raise BadUsage("--every is at least 100ms")
    screen.end_as_asked()
    with _shown(arguments, environ) as shown:
        away = False
        try:
            document = look.daemon()
        except Transient:
            document, away = look.once(), True
            shown.note("the daemon does not answer; waiting for it")
        while True:
            # A grant that is named may be gone, or not there yet, after a restart: no reason to stop looking.
            shown.update(document, _still(document, wish, shown.most, strict=not away))
            clock.pause(every)
            try:
                document = look.daemon()
            except Transient as error:
                if not away:
                    shown.note(f"{error.what}; waiting for it")
                away = True
                continue
            if away:
                shown.note("the daemon answers again")
            away = False


def _still(document: Document, wish: Wish, most: int | None, *, strict: bool) -> Selection:
    try:
        return selection.pick(document, wish, most)
    except BadUsage:
        if strict:
            raise
        return Selection((), False, len(document["grants"]))


class _Shown(Protocol):
    """Where snapshots are shown one after the other. ``most``: the number of grants that it has room for."""

    @property
    def most(self) -> int | None: ...

    def update(self, document: Document, picked: Selection) -> None: ...

    def note(self, text: str) -> None: ...


@contextmanager
def _shown(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Iterator[_Shown]:
    """Live on a terminal, else a block (JSON: a line) for each change."""
    if arguments.json or not screen.is_drawable(sys.stdout, environ):
        yield _Blocks(arguments.json)
        return
    from rotator.cli import drawing

    with drawing.Screen(sys.stdout, colour=screen.is_colourful(arguments, environ)).live() as live:
        yield live


class _Blocks:
    most = None

    def __init__(self, in_json: bool) -> None:
        self._in_json = in_json
        self._last: Document | None = None

    def update(self, document: Document, picked: Selection) -> None:
        narrowed = selection.narrowed(document, picked)
        gist = _gist(narrowed)
        if gist != self._last:
            self._last = gist
            block = [json.dumps(narrowed)] if self._in_json else [document["at"], *columns(document, picked), ""]
            print("\n".join(block), flush=True)

    def note(self, text: str) -> None:
        print(f"rotator: {text}", file=sys.stderr, flush=True)


def _gist(document: Document) -> Document:
    """A snapshot without what passes."""
    grants = {
        name: {key: value for key, value in grant.items() if key != "expires_in"}
        for name, grant in document["grants"].items()
    }
    return {**{key: value for key, value in document.items() if key not in PASSING}, "grants": grants}


# --- columns ------------------------------------------------------------------------------------------------------


def columns(document: Document, picked: Selection) -> list[str]:
    """Plain columns, the reason of what is not fresh below them."""
    rows = [("GRANT", "STATE", "GEN", "EXPIRES", "ROTATES", "PASSWORDS LEFT", "TARGETS")]
    for name, grant in picked.rows:
        targets = grant["targets"].values()
        good = sum(one["generation"] is not None and not one["trouble"] for one in targets)
        left = "-" if grant["passwords_left"] is None else str(grant["passwords_left"])
        rows.append(
            (
                name, grant["state"], str(grant["generation"]), grant["expires_at"] or "-", grant["due_at"] or "-",
                left, f"{good}/{len(targets)}",
            )
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.extend(f"{name}: {telling.escaped(grant['reason'])}" for name, grant in picked.rows if grant["reason"])
    if document.get("note"):
        lines.append(document["note"])
    return lines
