"""Commands about grants. One that changes something is an order to the running daemon; only where none runs does it
take the state lock and run the same engine for one act."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from rotator import assembly
from rotator.cli import reach, secrets
from rotator.core.errors import BadUsage, Misconfigured, Transient, Unavailable
from rotator.core.tokens import Secret
from rotator.engine.daemon import Daemon
from rotator.frontends.control import Client

POLL = timedelta(milliseconds=200)
Document = dict[str, Any]


def rotate(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    name, force = arguments.grant, arguments.force
    way = Way(arguments.config, environ)
    document = carry_out(
        way, lambda client: client.rotate(name, force=force), lambda daemon: daemon.rotate(name, force)
    )
    return _done(arguments, document)


def authorize(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    name = arguments.grant
    way = Way(arguments.config, environ)
    owner = _owner(way, name)
    password = refresh = None
    if arguments.refresh_token is not None:
        refresh = secrets.read(arguments.refresh_token, "--refresh-token")
    elif arguments.password_file is not None:
        password = secrets.read(arguments.password_file, "--password-file")
    else:
        password = _ask(f"Password of {owner or 'the user'} for {name}: ")
    document = carry_out(
        way,
        lambda client: client.authorize(name, password=password, refresh=refresh),
        lambda daemon: daemon.authorize(name, password, refresh),
    )
    return _done(arguments, document)


def retire(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    name = arguments.grant
    way = Way(arguments.config, environ)
    document = carry_out(way, lambda client: client.retire(name), lambda daemon: daemon.retire(name))
    if arguments.json:
        _print(document)
    elif document["retired"]:
        print(f"{name}: retired; its stored tokens are deleted", file=sys.stderr)
    else:
        print(f"{name}: taken out of the register; the configuration has it, and goes on with it", file=sys.stderr)
    return 0


def token(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """The access token alone on stdout, without a newline where stdout is no terminal."""
    try:
        document = reach.client(arguments.config, environ).token(arguments.grant)
    except Unavailable:
        plan = assembly.read(arguments.config, environ, check=False)
        document = asyncio.run(assembly.stored_token(plan, arguments.grant))
    if arguments.json:
        _print(document)
    else:
        print(document["access_token"], end="\n" if sys.stdout.isatty() else "")
    return 0


def wait(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0 as soon as every target of the grant holds a valid token, 75 where that took too long."""
    name, limit = arguments.grant, assembly.span(arguments.timeout, "--timeout")
    client, last = reach.client(arguments.config, environ), "the daemon does not run"
    for _ in assembly.polls(limit, POLL):
        try:
            grants = client.health()["grants"]
        except Unavailable:
            continue
        if name not in grants:
            raise BadUsage(f"no grant is named {name!r}", mend=f"known grants: {', '.join(sorted(grants)) or 'none'}")
        if grants[name]["published"]:
            return 0
        last = grants[name]["reason"] or "it is not published yet"
    raise Transient(
        f"{name}: no valid token is published after {arguments.timeout}: {last}", mend="see `rotator status`"
    )


class Way:
    """To the running daemon, and to what it would do where none runs. ``plan``: the configuration, where it was read
    already. Raises Misconfigured as `reach.client` does."""

    def __init__(self, config: Path | None, environ: Mapping[str, str], plan: assembly.Plan | None = None) -> None:
        self.client = reach.client(config, environ, plan)
        self._config = config
        self._environ = environ
        self._read = plan
        self._checked: assembly.Plan | None = None

    def plan(self, *, check: bool = True) -> assembly.Plan:
        """Only who acts alone needs the secrets at hand; beside a daemon they are the daemon's. The same for each
        act."""
        if self._read is None:
            self._read = assembly.read(self._config, self._environ, check=False)
        if not check:
            return self._read
        if self._checked is None:
            self._checked = assembly.checked(self._read)
        return self._checked


def carry_out(way: Way, ask: Callable[[Client], Document], act: Callable[[Daemon], Awaitable[Document]]) -> Document:
    """Ask the running daemon, or do it alone where none runs."""
    if way.client.answers():
        return ask(way.client)
    checked = way.plan()

    async def alone() -> Document:
        daemon = assembly.build(checked, log_level="warning").daemon
        async with daemon.session():
            return await act(daemon)

    return asyncio.run(alone())


def _owner(way: Way, name: str) -> str | None:
    """Whose password is asked for, as far as it is known. Raises BadUsage for a grant that nobody knows, before
    anything is typed. The daemon knows more of them than the configuration, which may be bad by now."""
    runs = way.client.answers()
    if runs:
        way.client.show(name)
    try:
        grants = way.plan(check=False).settings.grants
    except Misconfigured:
        if not runs:
            raise
        return None
    if not runs and name not in grants:
        raise BadUsage(f"no grant is named {name!r}", mend=f"add [grants.{name}] to the configuration")
    return grants[name].username if name in grants else None


def _ask(prompt: str) -> Secret:
    if not sys.stdin.isatty():
        raise BadUsage("there is no terminal to ask on", mend="use --password-file FILE, or - for stdin")
    value = getpass.getpass(prompt)
    if not value:
        raise BadUsage("no password was typed", mend="nothing was sent")
    return Secret(value)


def _done(arguments: argparse.Namespace, document: Document) -> int:
    if arguments.json:
        _print(document)
    else:
        name, generation, until = document["grant"], document["generation"], document["expires_at"]
        print(f"{name}: generation {generation}, valid until {until}", file=sys.stderr)
        for target, found in document["targets"].items():
            if found["trouble"]:
                print(f"{name}: target {target}: {found['trouble']}", file=sys.stderr)
    return 0


def _print(document: Document) -> None:
    print(json.dumps(document, indent=2))
