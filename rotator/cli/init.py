"""`rotator init`: from what a provider hands out to a configuration that works."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from rotator import assembly
from rotator.assembly import initial, services
from rotator.assembly.initial import Form, Wanted
from rotator.cli import program, secrets
from rotator.core.errors import BadUsage, Refused
from rotator.core.tokens import Secret

SYSTEM = Path("/etc/rotator/rotator.toml")
BUILT_IN = ("omnifund", "omnifund-sandbox")


def init(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Ask for what was not given, prove it by one exchange where wanted, write everything or nothing."""
    asks = sys.stdin.isatty() and not arguments.no_input
    form = Form(arguments.secrets) if arguments.secrets else _usual()
    config = arguments.config or _config(form, environ)
    wanted = _wanted(arguments, config, environ, asks)
    if arguments.trial:
        _prove(wanted, config, environ, asks)
    found = initial.pieces(wanted, form, config, arguments.manifest, environ)
    initial.write(found, force=arguments.force)
    for piece in found:
        print(f"written  {piece.path}")
    print(_next(form, config), file=sys.stderr)
    return 0


def _wanted(arguments: argparse.Namespace, config: Path, environ: Mapping[str, str], asks: bool) -> Wanted:
    providers, grants = _configured(config, environ)
    grant = _ask("Name of the grant", arguments.grant, "grant", "billing", asks)
    if grant in grants:
        # Before anything else is asked for, or a login is spent on a trial.
        raise BadUsage(f"there is a grant named {grant!r} already", mend="name another by --grant; nothing was written")
    provider = _ask("Provider", arguments.provider, "provider", BUILT_IN[0], asks)
    token_url = arguments.token_url
    if token_url is not None and token_url == providers.get(provider):
        # Told once more, as for the grant before.
        token_url = None
    elif token_url is None and provider not in (*BUILT_IN, *providers):
        token_url = _ask(f"Token URL of {provider}", None, "token-url", None, asks)
    client_id = _ask("Client id", arguments.client_id, "client-id", None, asks)
    client_secret = _secret("Client secret", arguments.client_secret_file, "--client-secret-file", asks)
    username = _ask("User name", arguments.username, "username", None, asks)
    password = _secret("Password", arguments.password_file, "--password-file", asks)
    return Wanted(
        grant, provider, client_id, username, arguments.target or f"{grant}/token", token_url, arguments.group,
        client_secret, password,
    )  # fmt: skip


def _ask(what: str, given: str | None, option: str, usual: str | None, asks: bool) -> str:
    if given is not None:
        return str(given)
    if not asks:
        if usual is not None:
            return usual
        raise BadUsage(f"{what.lower()} is not given", mend=f"add --{option}")
    print(f"{what}{f' [{usual}]' if usual else ''}: ", end="", file=sys.stderr, flush=True)
    typed = sys.stdin.readline().strip() or usual
    if not typed:
        raise BadUsage(f"{what.lower()} is empty", mend="nothing was written")
    return typed


def _secret(what: str, file: str | None, option: str, asks: bool) -> Secret | None:
    """From a file, from stdin, typed without being shown, or none: a public client, a person who logs in himself."""
    if file is not None:
        return secrets.read(file, option)
    if not asks:
        return None
    typed = getpass.getpass(f"{what} (not shown; empty for none): ")
    return Secret(typed) if typed else None


def _prove(wanted: Wanted, config: Path, environ: Mapping[str, str], asks: bool) -> None:
    """Raises Refused with what the provider said, and nothing is written, unless a person wants it all the same."""
    if wanted.password is None:
        raise BadUsage("a trial needs a password", mend="add --password-file, or leave out --trial")
    outcome = asyncio.run(initial.attempt(wanted, config if config.exists() else None, environ))
    if outcome.answer is not None:
        print("the provider granted a token: all of it is right", file=sys.stderr)
        return
    print(f"rotator: the provider did not grant: {outcome.message}", file=sys.stderr)
    if asks:
        print("Write it all the same? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise Refused("nothing was written", mend=outcome.mend or "mend what was typed, or leave out --trial")


def _configured(config: Path, environ: Mapping[str, str]) -> tuple[dict[str, str], set[str]]:
    """The token URLs of providers, and the names of grants, that are there already."""
    if not config.exists():
        return {}, set()
    there = assembly.read(config, environ, check=False).settings
    return {name: one.token_url for name, one in there.providers.items()}, set(there.grants)


def _usual() -> Form:
    """Encrypted for this machine where systemd runs it, else files of one's own."""
    if os.geteuid() != 0 or not Path("/run/systemd/system").is_dir():
        return Form.FILES
    return Form.ENCRYPTED if shutil.which("systemd-creds") else Form.CREDENTIALS


def _config(form: Form, environ: Mapping[str, str]) -> Path:
    if form is Form.KUBERNETES:
        return Path("rotator.toml")
    if os.geteuid() == 0:
        return SYSTEM
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path(environ.get("HOME", "/"), ".config")) / "rotator" / "rotator.toml"


def _next(form: Form, config: Path) -> str:
    if form is Form.KUBERNETES:
        return f"next: kubectl apply -f the manifest, then delete it; {config} goes into the ConfigMap"
    named = ("--config", str(config))
    if form is Form.FILES:
        return f"next: {program.typed('check', *named)} && {program.typed('run', *named)}"
    service = services.of(config)
    unit = "rotator" if service is None else service.unit.removesuffix(".service")
    return f"next: {program.typed('check', *named)} && systemctl enable --now {unit} (restart it where it runs)"
