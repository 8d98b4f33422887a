"""Commands about the register: grants in bulk, kept in the store instead of in the configuration."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from rotator import assembly
from rotator.cli import orders, screen
from rotator.core.errors import BadUsage, Misconfigured
from rotator.core.ports import Entry
from rotator.engine.daemon import Daemon
from rotator.frontends.control import Client

Document = dict[str, Any]
Portion = list[tuple[str, Document]]

PORTION = 32 << 10
"""So many bytes of entries go in one order; the socket takes twice as many, and each is one transaction."""
SHOWN = 20
"""So many of the problems of a file are told; the rest are counted."""
PAGE = 1000


def import_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Read the whole file first: nothing is entered where anything in it is wrong."""
    plan = assembly.read(arguments.config, environ, check=False)
    path, show = Path(arguments.file), screen.progress(environ)
    count, problems, seen = 0, list[str](), set[str]()
    for line, name, table in _entries(path):
        try:
            if name in seen:
                raise Misconfigured(f"{name} stands in the file twice")
            assembly.check_entry(plan, name, table)
        except Misconfigured as error:
            problems.append(f"{path}:{line}: {error}")
        seen.add(name)
        count += 1
        if count % PAGE == 0:
            show(f"{count:,} read, {len(problems):,} wrong")
    show("")
    if problems:
        more = [f"and {len(problems) - SHOWN:,} more"] if len(problems) > SHOWN else []
        raise Misconfigured("\n".join([*problems[:SHOWN], *more]), mend="mend the file; nothing was entered")
    if arguments.dry_run:
        print(f"{count:,} grants are good; nothing was entered", file=sys.stderr)
        return 0
    entered, way = 0, orders.Way(arguments.config, environ, plan)
    for portion in _portions(_entries(path)):
        orders.carry_out(way, partial(_enter, portion), partial(_enter_alone, portion))
        entered += len(portion)
        show(f"{entered:,} of {count:,} entered")
    show("")
    print(f"{entered:,} grants entered", file=sys.stderr)
    return 0


def list_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    way = orders.Way(arguments.config, environ)
    after, left = arguments.after, arguments.limit
    if not arguments.json:
        print("GRANT\tPROVIDER\tGEN\tEXPIRES\tROTATES")
    while left > 0:
        size = min(left, PAGE)
        page = orders.carry_out(way, partial(_ask, after, size), partial(_look, after, size))
        for one in page["grants"]:
            if arguments.json:
                print(json.dumps(one))
            else:
                columns = (one["name"], one["provider"], one["generation"], one["expires_at"], one["due_at"])
                print("\t".join("-" if column is None else str(column) for column in columns))
            after = one["name"]
        left -= len(page["grants"])
        if not page["more"]:
            break
    return 0


def _enter(portion: Portion, client: Client) -> Document:
    return client.enter([{"name": name, **table} for name, table in portion])


async def _enter_alone(portion: Portion, daemon: Daemon) -> Document:
    return await daemon.enter(
        [Entry(name, str(table.get("provider", "")), json.dumps(table)) for name, table in portion]
    )


def _ask(after: str, size: int, client: Client) -> Document:
    return client.listed(after, size)


async def _look(after: str, size: int, daemon: Daemon) -> Document:
    return await daemon.listed(after, size)


def show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    way = orders.Way(arguments.config, environ)
    name = arguments.grant
    document = orders.carry_out(way, lambda client: client.show(name), lambda daemon: daemon.show(name))
    if arguments.json:
        print(json.dumps(document, indent=2))
        return 0
    targets = document.pop("targets")
    for key, value in document.items():
        print(f"{key}: {'-' if value is None or value == '' else value}")
    for target, one in targets.items():
        stands = "not written" if one["generation"] is None else f"generation {one['generation']}"
        print(f"target {target}: {one['location']}: {one['trouble'] or stands}")
    return 0


def _portions(entries: Iterator[tuple[int, str, Document]]) -> Iterator[Portion]:
    portion: Portion = []
    size = 0
    for _, name, table in entries:
        length = len(name) + len(json.dumps(table)) + 20
        if portion and size + length > PORTION:
            yield portion
            portion, size = [], 0
        portion.append((name, table))
        size += length
    if portion:
        yield portion


def _entries(path: Path) -> Iterator[tuple[int, str, Document]]:
    """Line, name and table of each grant in a file of JSON lines or of comma-separated values. Raises BadUsage for
    another kind of file and Misconfigured for a line that is none."""
    readers = {".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _values}
    reader = readers.get(path.suffix)
    if reader is None:
        raise BadUsage(f"{path}: neither .jsonl nor .csv", mend="name the file for what it holds")
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            yield from reader(path, stream)
    except OSError as error:
        raise BadUsage(f"{path} cannot be read: {error.strerror}", mend="give the right FILE") from None
    except UnicodeDecodeError:
        raise BadUsage(f"{path} is not UTF-8 text", mend="save it as UTF-8") from None


def _json_lines(path: Path, stream: TextIO) -> Iterator[tuple[int, str, Document]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            table = json.loads(line)
        except (ValueError, RecursionError):
            raise Misconfigured(f"{path}:{number}: not JSON", mend="one object a line; nothing was entered") from None
        if not isinstance(table, dict) or not isinstance(name := table.pop("name", None), str):
            raise Misconfigured(f"{path}:{number}: not an object with a name", mend="nothing was entered")
        yield number, name, table


def _values(path: Path, stream: TextIO) -> Iterator[tuple[int, str, Document]]:
    """The first line names the keys; a dot goes one table down: ``targets.app.file``. An empty value counts as none."""
    rows = csv.DictReader(stream, strict=True)
    try:
        if "name" not in (rows.fieldnames or ()):
            raise Misconfigured(f"{path}:1: the first line names no column name", mend="name,provider,client_id,…")
        for row in rows:
            if None in row or None in row.values():
                raise Misconfigured(f"{path}:{rows.line_num}: not as many values as there are columns")
            table: Document = {}
            for key, value in row.items():
                if value and key != "name":
                    _put(table, key.split("."), value)
            yield rows.line_num, row["name"], table
    except csv.Error as error:
        raise Misconfigured(f"{path}:{rows.line_num}: not CSV: {error}", mend="nothing was entered") from None


def _put(table: Document, path: list[str], value: str) -> None:
    for key in path[:-1]:
        table = table.setdefault(key, {})
    table[path[-1]] = value
