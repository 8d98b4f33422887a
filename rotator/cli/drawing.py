"""A snapshot as rich draws it: colours by state, what is left of each token as a bar. Only a terminal loads this."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rotator.cli.selection import Selection
from rotator.core import telling
from rotator.core.events import brief
from rotator.core.health import State

Document = dict[str, Any]
STYLES = {
    State.LATCHED.value: "bold red",
    State.PERSON_NEEDED.value: "bold red",
    State.EMPTY.value: "cyan",
    State.EXPIRED.value: "red",
    State.DOUBT.value: "yellow",
    State.RETRYING.value: "yellow",
    State.FRESH.value: "green",
}
BAR = 10
# A rotation is due at a quarter; what is left below that is a delay, below a tenth soon an outage.
LATE, LAST = 0.2, 0.1
# Targets that are named each; of more only those in trouble.
NAMED = 3
# What stands around the rows of a live table: its head, the line below it, the reason of one grant at least.
AROUND = 6


class Screen:
    """A terminal."""

    def __init__(self, stream: TextIO, *, colour: bool, size: tuple[int, int] | None = None) -> None:
        width, height = size or (None, None)
        # force_terminal: who calls has looked, and rich asks the environment in its own ways.
        self._console = Console(
            file=stream, force_terminal=True, no_color=not colour, highlight=False, markup=False, emoji=False,
            width=width, height=height, color_system="auto" if colour else None,
        )  # fmt: skip
        self._filled, self._empty = "█░" if "utf" in (stream.encoding or "").lower() else "#-"

    def put(self, document: Document, picked: Selection) -> None:
        self._console.print(self._drawn(document, picked))

    @contextmanager
    def live(self) -> Iterator[Watch]:
        """A picture that is drawn over and over; the last one stays."""
        with Live(console=self._console, auto_refresh=False, vertical_overflow="crop") as live:
            yield Watch(self, live)

    @property
    def rows(self) -> int:
        """How many grants fit."""
        return max(1, self._console.height - AROUND)

    def _drawn(self, document: Document, picked: Selection, remark: str = "") -> RenderableType:
        at = datetime.fromisoformat(document["at"])
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("GRANT", "STATE", "VALID FOR", "ROTATES", "GEN", "PASSWORDS", "TARGETS"):
            table.add_column(title, no_wrap=title != "TARGETS", overflow="fold" if title == "GRANT" else "ellipsis")
        for name, grant in picked.rows:
            table.add_row(*self._row(name, grant, at))
        parts: list[RenderableType] = [table]
        for name, grant in picked.rows:
            if grant["reason"]:
                style = STYLES.get(grant["state"], "yellow") if grant["state"] != State.FRESH.value else "yellow"
                parts.append(Text.assemble((f"{name}: ", style), telling.escaped(grant["reason"])))
        parts.append(_summary(document, picked))
        if remark or document.get("note"):
            parts.append(Text(remark or str(document["note"]), style="bold yellow"))
        return Group(*parts)

    def _row(self, name: str, grant: Document, at: datetime) -> tuple[Text, ...]:
        state = grant["state"]
        style = STYLES.get(state, "magenta")
        if state == State.FRESH.value and not grant["published"]:
            style = "yellow"
        left = grant["passwords_left"]
        return (
            Text(name, style="bold"),
            Text(state, style=style),
            self._left(grant),
            Text(_when(grant["due_at"], at)),
            Text(str(grant["generation"]), style="dim"),
            Text("-" if left is None else str(left), style="red" if left == 0 else "dim"),
            _targets(grant["targets"]),
        )

    def _left(self, grant: Document) -> Text:
        """What is left of the token's life."""
        left, whole = grant["expires_in"], grant["lifetime"]
        if left is None or not whole:
            return Text("no token", style="dim")
        share = min(1.0, left / whole)
        full = round(BAR * share) or int(left > 0)
        style = "green" if share > LATE else "yellow" if share > LAST else "red"
        text = Text(self._filled * full, style=style)
        text.append(self._empty * (BAR - full), style="dim")
        text.append(f" {brief(timedelta(seconds=left)) if left > 0 else 'expired'}", style=style if left <= 0 else "")
        return text


class Watch:
    """A picture that is kept up to date, with room for as many grants as the terminal has lines."""

    def __init__(self, screen: Screen, live: Live) -> None:
        self._screen = screen
        self._live = live
        self._shown: tuple[Document, Selection] | None = None
        self._remark = ""

    @property
    def most(self) -> int:
        """As many grants as have a line each, with room for a reason below."""
        return self._screen.rows

    def update(self, document: Document, picked: Selection) -> None:
        self._shown = document, picked
        self._draw()

    def note(self, text: str) -> None:
        """A remark below the picture: with the time of what it is about, and until the next one."""
        self._remark = text
        if self._shown is not None:
            self._draw()

    def _draw(self) -> None:
        assert self._shown is not None  # noqa: S101 (the callers looked)
        self._live.update(self._screen._drawn(*self._shown, self._remark), refresh=True)


def _when(due: str | None, at: datetime) -> str:
    if due is None:
        return "by a person"
    later = datetime.fromisoformat(due) - at
    return f"in {brief(later)}" if later > timedelta(0) else "now"


def _targets(targets: dict[str, Document]) -> Text:
    bad = {name for name, one in targets.items() if one["generation"] is None or one["trouble"]}
    text = Text(f"{len(targets) - len(bad)}/{len(targets)}", style="red" if bad else "green")
    for name in targets if len(targets) <= NAMED else sorted(bad)[:NAMED]:
        text.append(f" {name}", style="red" if name in bad else "dim")
    return text


def _summary(document: Document, picked: Selection) -> Text:
    grants = document["grants"].values()
    published = sum(bool(grant["published"]) for grant in grants)
    more = f"; {picked.left_out} not shown" if picked.left_out else ""
    version = f"rotator {document['version']}, " if "version" in document else ""
    return Text(f"{published}/{len(grants)} grants published{more}  ({version}{document['at']})", style="dim")
