"""`rotator completion`: what a shell may offer, written from the words that the parser has. No shell is asked to run us
for it: a completion that reads a configuration would be slow, and one that asks a daemon rude."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

from rotator.cli import words
from rotator.core import lean

# Values that are names of files, by what --help calls them.
FILES = ("FILE", "DIR")


@lean.dataclass(frozen=True, slots=True)
class Option:
    """``value`` is how --help calls it, empty for a switch; ``choices`` are all that it may be."""

    names: tuple[str, ...]
    text: str
    value: str = ""
    choices: tuple[str, ...] = ()


@lean.dataclass(frozen=True, slots=True)
class Word:
    """A command by the words that lead to it: what may follow."""

    path: tuple[str, ...]
    text: str
    below: tuple[tuple[str, str], ...]
    options: tuple[Option, ...]
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " ".join(self.path)


def completion(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    print(script(arguments.shell), end="")
    return 0


def script(shell: str) -> str:
    """What ``bash``, ``zsh`` or ``fish`` reads."""
    found = list(_tree(words.parser(), (), ""))
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](found)


def _tree(parser: argparse.ArgumentParser, path: tuple[str, ...], text: str) -> Iterator[Word]:
    options: list[Option] = []
    below: list[tuple[str, str]] = []
    choices: list[str] = []
    deeper: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            below = [(one.dest, one.help or "") for one in action._choices_actions]
            deeper = list(action.choices.items())
        elif action.option_strings:
            value = "" if action.nargs == 0 else str(action.metavar or action.dest)
            shown = parser._get_formatter()._expand_help(action) if action.help else ""
            options.append(Option(tuple(action.option_strings), shown, value, _choices(action)))
        else:
            choices += _choices(action)
    yield Word(path, text, tuple(below), tuple(options), tuple(choices))
    told = dict(below)
    for name, one in deeper:
        yield from _tree(one, (*path, name), told.get(name, ""))


def _choices(action: argparse.Action) -> tuple[str, ...]:
    return tuple(str(one) for one in action.choices or ())


def _steps(found: list[Word]) -> str:
    """The patterns of a `case` that recognise the next word of a command."""
    return "|".join(f'"{" ".join(one.path[:-1])}/{one.path[-1]}"' for one in found if one.path)


# --- bash -----------------------------------------------------------------------------------------------------------

BASH = """\
# bash completion of rotator; to have it: eval "$(rotator completion bash)", or put this into
# /usr/share/bash-completion/completions/rotator
_rotator() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} at= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$at/${{COMP_WORDS[i]}}" in
            {steps}) at="${{at:+$at }}${{COMP_WORDS[i]}}" ;;
        esac
    done
    case "$at $prev" in
{values}
    esac
    case "$at" in
{words}
    esac
}}
complete -F _rotator rotator
"""


def _bash(found: list[Word]) -> str:
    values, offered = [], []
    for one in found:
        for option in one.options:
            if not option.value:
                continue
            patterns = "|".join(f'"{one.name} {name}"' for name in option.names)
            reply = f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$cur"))' if option.choices else ""
            if option.value in FILES:
                reply = 'COMPREPLY=($(compgen -f -- "$cur"))'
            values.append(f"        {patterns}) {reply or 'COMPREPLY=()'}; return ;;")
        names = [name for name, _ in one.below] + list(one.choices)
        names += [name for option in one.options for name in option.names]
        offered.append(f'        "{one.name}") COMPREPLY=($(compgen -W "{" ".join(names)}" -- "$cur")) ;;')
    return BASH.format(steps=_steps(found), values="\n".join(values), words="\n".join(offered))


# --- zsh ------------------------------------------------------------------------------------------------------------

ZSH = """\
#compdef rotator
# zsh completion of rotator; put this into a folder of $fpath as _rotator
_rotator() {{
    local at= i
    local -a offered
    for ((i = 2; i < CURRENT; i++)); do
        case "$at/${{words[i]}}" in
            {steps}) at="${{at:+$at }}${{words[i]}}" ;;
        esac
    done
    case "$at ${{words[CURRENT-1]}}" in
{values}
    esac
    case "$at" in
{words}
    esac
    _describe -o rotator offered
}}
if [ "$funcstack[1]" = "_rotator" ]; then _rotator "$@"; else compdef _rotator rotator; fi
"""


def _zsh(found: list[Word]) -> str:
    values, offered = [], []
    for one in found:
        for option in one.options:
            if not option.value:
                continue
            patterns = "|".join(f'"{one.name} {name}"' for name in option.names)
            reply = "_files" if option.value in FILES else ":"
            if option.choices:
                reply = f"compadd -- {' '.join(option.choices)}"
            values.append(f"        {patterns}) {reply}; return ;;")
        pairs = [*one.below, *((name, "") for name in one.choices)]
        pairs += [(name, option.text) for option in one.options for name in option.names]
        told = " ".join(_quoted(f"{name}:{text}" if text else name) for name, text in pairs)
        offered.append(f'        "{one.name}") offered=({told}) ;;')
    return ZSH.format(steps=_steps(found), values="\n".join(values), words="\n".join(offered))


# --- fish -----------------------------------------------------------------------------------------------------------

FISH = """\
# fish completion of rotator; put this into ~/.config/fish/completions/rotator.fish
complete -c rotator -f
"""


def _fish(found: list[Word]) -> str:
    lines = []
    for one in found:
        seen = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in one.path)
        if one.below:
            names = " ".join(name for name, _ in one.below)
            fresh = f"not __fish_seen_subcommand_from {names}"
            when = f"{seen}; and {fresh}" if seen else fresh
            lines += [
                f"complete -c rotator -n {_quoted(when)} -a {name} -d {_quoted(text)}" for name, text in one.below
            ]
        if one.choices:
            lines.append(f"complete -c rotator -n {_quoted(seen)} -a {_quoted(' '.join(one.choices))}")
        for option in one.options:
            flags = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            takes = " -r" if option.value else ""
            takes += (
                " -F" if option.value in FILES else f" -a {_quoted(' '.join(option.choices))}" * bool(option.choices)
            )
            when = f" -n {_quoted(seen)}" if seen else ""
            lines.append(f"complete -c rotator{when} {flags}{takes} -d {_quoted(option.text)}")
    return FISH + "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """In single quotes, as all three shells read them; nothing of ours has a backslash."""
    return "'" + text.replace("'", "’") + "'"
