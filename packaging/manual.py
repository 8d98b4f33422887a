"""Writes rotator(1) from the command's own words and rotator.toml(5) from the commented configuration.

``python packaging/manual.py FOLDER``
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import rotator
from rotator.cli import words

HOUSE = Path(__file__).parents[1]
EXITS = (
    ("0", "all is well"), ("64", "the words of the command are off"), ("65", "the state is damaged"),
    ("69", "a provider, Vault or the daemon is away"), ("70", "a defect; please report it"),
    ("75", "not now; try again"), ("77", "a person must act: credentials were refused or are missing"),
    ("78", "the configuration is wrong"),
)  # fmt: skip
FILES = (
    ("/etc/rotator/rotator.toml", "the configuration, rotator.toml(5)"),
    ("/etc/rotator/credentials/, /etc/rotator/credentials.encrypted/", "secrets, one a file, for the service alone"),
    ("/var/lib/rotator/", "the state: refresh tokens, readable by the service alone"),
    ("/run/rotator/", "published access tokens"),
    (
        "/etc/rotator/NAME/rotator.toml, /var/lib/rotator/NAME/, /run/rotator/NAME/",
        "the same for rotator@NAME.service: commands find the folders by the path of --config",
    ),
)


# What roff takes for something else, and what it shows for us (groff_char(7)).
LETTERS = str.maketrans({
    "\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", "\u2026": "\\[u2026]",
})  # fmt: skip


def escaped(text: str) -> str:
    """Text that no roff takes for a request of its own."""
    text = text.translate(LETTERS)
    return "\\&" + text if text.startswith(".") else text


def head(name: str, section: int, text: str) -> Iterator[str]:
    yield f'.TH {name.upper()} {section} "" "rotator {rotator.__version__}"'
    yield ".SH NAME"
    yield f"{name} \\- {text}"


def command(parser: argparse.ArgumentParser) -> Iterator[str]:
    """rotator(1)."""
    yield from head("rotator", 1, "a valid OAuth 2.0 access token, always there")
    yield ".SH SYNOPSIS"
    yield ".B rotator\n.I COMMAND\n[\\fIOPTIONS\\fR]"
    yield ".SH DESCRIPTION"
    yield escaped(
        "The daemon gets an access token, rotates it well before it expires, and keeps it in a file or in HashiCorp "
        "Vault / OpenBao, where applications that know no OAuth find it. The other commands look at it and give it "
        "orders. A secret is never an argument: it is asked for, read from standard input, or referred to."
    )
    yield ".SH COMMANDS"
    for name, one in commands(parser, ()):
        yield f'.SS "{escaped(" ".join(("rotator", *name)))}"'
        yield escaped((one.description or "") + "")
        for action in one._actions:
            if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                yield from option(one, action)
        if one.epilog:
            yield ".PP\n.EX\n" + "\n".join(escaped(line) for line in one.epilog.splitlines()) + "\n.EE"
    yield ".SH EXIT STATUS"
    for code, text in EXITS:
        yield f".TP\n.B {code}\n{escaped(text)}"
    yield ".SH FILES"
    for file, text in FILES:
        yield f".TP\n.I {escaped(file)}\n{escaped(text)}"
    yield ".SH EXAMPLES"
    yield ".EX\n" + "\n".join(escaped(line) for line in words.EPILOG.splitlines()[1:]) + "\n.EE"
    yield ".SH SEE ALSO"
    yield ".BR rotator.toml (5),\n.BR systemd.exec (5),\n.BR systemd\\-creds (1)"


def commands(
    parser: argparse.ArgumentParser, before: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command that does something, with the words that lead to it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, one in action.choices.items():
                deeper = list(commands(one, (*before, name)))
                yield from deeper or [((*before, name), one)]


def option(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    value = action.metavar or action.dest
    value = value if isinstance(value, str) else " ".join(value)
    if action.option_strings:
        shown = ", ".join(f"\\fB{escaped(one)}\\fR" for one in action.option_strings)
        shown += "" if action.nargs == 0 else f" \\fI{escaped(value)}\\fR"
    else:
        shown = f"\\fI{escaped(value)}\\fR"
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    yield f".TP\n{shown}\n{escaped(text)}"


def configuration(text: str) -> Iterator[str]:
    """rotator.toml(5): explanations become paragraphs, settings stand as they are written."""
    yield from head("rotator.toml", 5, "the configuration of rotator")
    yield ".SH DESCRIPTION"
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        setting = bool(line) and not re.match(r"#( |$)", line)
        if block and not setting:
            yield ".PP\n.EX\n" + "\n".join(escaped(one) for one in block) + "\n.EE"
            block = []
        if setting:
            block.append(line.removeprefix("#"))
            if header := re.fullmatch(r"#?\[([\w.]+)\]", line):
                yield f'.SH "[{escaped(header[1])}]"'
        elif re.fullmatch(r"# -+", line) or line == "":
            yield ".PP"
        elif line != "#":
            yield escaped(line.removeprefix("# ").strip())
        else:
            yield ".PP"
    yield ".SH SEE ALSO"
    yield ".BR rotator (1)"


def page(name: str) -> str:
    """The text of ``rotator.1`` or ``rotator.toml.5``."""
    if name == "rotator.1":
        lines = command(words.parser())
    else:
        lines = configuration((HOUSE / "config" / "rotator.toml").read_text())
    # Two .PP in a row, or one behind a heading, make some renderers complain.
    text = re.sub(r"(?:^\.PP\n)+(?=\.PP\n|\.SH|\.SS|\Z)", "", "\n".join(lines) + "\n", flags=re.MULTILINE)
    return re.sub(r"^(\.S[HS] .*\n)\.PP\n(?!\.EX)", r"\1", text, flags=re.MULTILINE)


PAGES = ("rotator.1", "rotator.toml.5")

if __name__ == "__main__":
    for name in PAGES:
        (Path(sys.argv[1]) / name).write_text(page(name))
