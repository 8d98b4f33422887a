"""What a shell is given to complete by has every command and option, and bash really completes by it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rotator.cli import completion, words


def script(shell: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rotator", "completion", shell], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_every_option_is_offered(shell: str) -> None:
    text = script(shell)
    found = list(completion._tree(words.parser(), (), ""))
    assert len(found) > 20
    for one in found:
        assert all(name in text for name in one.path)
        for option in one.options:
            for name in option.names:
                dashes = len(name) - len(name.lstrip("-"))
                assert (f"-{'l' if dashes == 2 else 's'} {name.lstrip('-')}" if shell == "fish" else name) in text


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["sta"], {"state", "status"}),
        (["config", ""], {"show", "-h", "--help"}),
        (["state", "reset", "--k"], {"--keep-budget"}),
        (["status", "--w"], {"--watch", "--worst-first"}),
        (["status", "--json", "--li"], {"--limit"}),
        (["events", "--level", "no"], {"notice"}),
        (["completion", ""], {"bash", "zsh", "fish", "-h", "--help"}),
        (["status", "--limit", ""], set()),
        (["status", "--config", "/etc/host"], {"/etc/hosts"}),
    ],
)
def test_bash_completes_what_is_typed(typed: list[str], offered: set[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not on this machine")
    program = f"""{script("bash")}
COMP_WORDS=(rotator "$@"); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); _rotator; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run([bash, "-c", program, "bash", *typed], capture_output=True, text=True, check=True, timeout=60)
    found = set(done.stdout.split())
    assert found >= offered if "/etc/host" in typed[-1] else found == offered
    assert done.stderr == ""


def test_fish_completes_what_is_typed(tmp_path: Path) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not on this machine")
    (tmp_path / "rotator.fish").write_text(script("fish"))
    typed = ("sta", "config ", "events --level no", "status --wor", "completion ")
    asked = "; echo; ".join(f"complete -C 'rotator {one}'" for one in typed)
    done = subprocess.run(
        [fish, "--no-config", "-c", f"source {tmp_path}/rotator.fish; {asked}"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    blocks = [[line.split("\t")[0] for line in block.splitlines()] for block in done.stdout.split("\n\n")]
    assert blocks == [["state", "status"], ["show"], ["notice"], ["--worst-first"], ["bash", "fish", "zsh"]]


ZSH = """\
compdef() { : }; _describe() { shift 2; print -l "${(@P)1}" }; compadd() { shift; print -l -- "$@" }
source $1; shift; words=(rotator "$@"); CURRENT=$#words; _rotator
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["sta"], "status:how every grant stands"),
        (["config", ""], "show:the effective configuration with the source of every value"),
        (["events", "--level", ""], "notice"),
    ],
)
def test_zsh_offers_what_may_follow(typed: list[str], offered: str, tmp_path: Path) -> None:
    """Its own half, which picks by what is typed, is stood in for: it runs in an editor of lines alone."""
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("zsh is not on this machine")
    (tmp_path / "_rotator").write_text(script("zsh"))
    done = subprocess.run(
        [zsh, "-f", "-c", ZSH, "zsh", str(tmp_path / "_rotator"), *typed],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert offered in done.stdout.splitlines()
    assert done.stderr == ""
