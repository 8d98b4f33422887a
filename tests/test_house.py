"""The house's own rules, held by reading its files."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import rotator
from rotator import assembly

HOUSE = Path(__file__).parents[1]
PACKAGE = HOUSE / "rotator"
LONGEST_FILE = 300
LONGEST_FUNCTION = 60

# Files that are longer, each with its reason. A wall would only part what is read together.
LONG_FILES = {
    "core/events.py": "a list of small classes, one for each event",
    "core/ports.py": "contracts: mostly docstrings",
    "engine/daemon.py": "start, reload and drain are one order of things; the rest are its orders",
    "lab/world.py": "the twin of the ports, of test use only",
}

# Who alone may import what is heavy or has a place of its own; folders end in a slash.
KEEPERS = {
    "httpx": ("drivers/http/",),
    "hvac": ("drivers/vault/",),
    "requests": ("drivers/vault/",),
    "apscheduler": ("drivers/clock.py",),
    "pydantic": ("settings/",),
    "pydantic_settings": ("settings/",),
    "sqlite3": ("drivers/sqlite/",),
    "cryptography": ("drivers/seal.py",),
    "psycopg": ("drivers/postgres/",),
    "sdnotify": ("frontends/systemd.py",),
    "asyncinotify": ("drivers/watch.py",),
    "h11": ("drivers/http/", "frontends/control/server.py"),
    "starlette": ("lab/", "frontends/http/"),
    "uvicorn": ("lab/", "frontends/http/server.py"),
    "opentelemetry": ("frontends/tracing.py",),
    "rich": ("lab/demo.py", "cli/drawing.py"),
}
# What the command line may not load before a command needs it.
HEAVY = (*KEEPERS, "asyncio", "ssl", "rotator.assembly", "rotator.settings", "rotator.engine", "rotator.drivers")

# Built from halves, so that this file does not find itself.
WORKPLACES = ("/" + "work/", "/" + "root/", "/" + "home/", "/" + "Users/", "shared/" + "reference")
REGISTRIES = ("files." + "pythonhosted.org", "pypi." + "org/simple", "art" + "ifactory")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def within(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    """Every imported top-level name, lazy imports included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield node.module.partition(".")[0]


def test_every_keeper_keeps_its_own() -> None:
    strangers = [
        f"{within(path)} imports {name}"
        for path in modules()
        for name in set(imports(ast.parse(path.read_text())))
        if name in KEEPERS and not within(path).startswith(KEEPERS[name])
    ]
    assert strangers == []
    kept = {name for path in modules() for name in imports(ast.parse(path.read_text()))}
    idle = {name for name in KEEPERS if name not in kept} - {"requests"}
    assert idle == set(), "a keeper of nothing hides a mistake"


def test_every_third_party_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    declared = {re.split(r"[<>=\[; ]", one)[0].replace("-", "_") for one in [*project["dependencies"], *extras]}
    # Distributions of one namespace package.
    declared = {name.partition("_")[0] if name.startswith("opentelemetry") else name for name in declared}
    used = {name for path in modules() for name in imports(ast.parse(path.read_text()))}
    foreign = {name for name in used if name not in sys.stdlib_module_names and name != "rotator"}
    # certifi is httpx's own, requests and urllib3 are hvac's, pydantic_core is pydantic's.
    assert foreign - declared - {"certifi", "requests", "urllib3", "pydantic_core"} == set()
    assert declared - foreign == set(), "a dependency that nothing imports"


def test_no_file_is_longer_than_a_room_should_be() -> None:
    lengths = {within(path): len(path.read_text().splitlines()) for path in modules()}
    too_long = {name for name, length in lengths.items() if length > LONGEST_FILE}
    assert too_long - set(LONG_FILES) == set()
    assert set(LONG_FILES) - too_long == set(), "an exception that is none any more"
    assert all(LONG_FILES.values()), "an exception without a reason"


def test_no_function_is_longer_than_it_should_be() -> None:
    too_long = [
        f"{within(path)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert too_long == []


def test_no_drawer_for_everything() -> None:
    for path in modules():
        assert not re.search(r"util|helper|common|misc|manager", within(path)), path
        classes = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        assert not [name for name in classes if "Manager" in name or "Util" in name or name == "Rotator"], path


def test_tests_fake_the_far_end_and_never_our_own_names() -> None:
    """No mock at all, and `monkeypatch` only for the environment and the working directory."""
    found = []
    for path in sorted((HOUSE / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text())
        if {"mock"} & set(imports(tree)) or "unittest.mock" in path.read_text().replace('"unittest.mock"', ""):
            found.append(f"{path.name}: mock")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called == "patch" or called.endswith((".patch", ".patch.object")):
                found.append(f"{path.name}:{node.lineno}: {called}")
            if called == "monkeypatch.setattr" and _is_ours(node, tree):
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def _is_ours(call: ast.Call, tree: ast.Module) -> bool:
    """Whether the first argument is one of our names: a dotted string, or a name imported from the package."""
    first = ast.unparse(call.args[0])
    ours = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rotator"
        for alias in node.names
    } | {"rotator"}
    return re.split(r"[.\"'(]", first.strip("\"'"))[0] in ours


def test_every_room_that_the_drawing_names_exists() -> None:
    text = (HOUSE / "ARCHITECTURE.md").read_text()
    named: set[str] = set()
    for line in re.findall(r"^\| (`(?:core|drivers|engine|frontends|lab)/[^|]*)\|", text, re.MULTILINE):
        floor = re.match(r"`(\w+)/", line)
        assert floor is not None
        named |= {
            name if "/" in name else f"{floor[1]}/{name}" for name in re.findall(r"`([\w/]+)`", line)
        }  # fmt: skip
    assert len(named) > 20
    missing = [name for name in named if not (PACKAGE / name).is_dir() and not (PACKAGE / f"{name}.py").is_file()]
    assert missing == []
    there = {
        f"{floor}/{path.stem}"
        for floor in ("core", "drivers", "engine", "frontends")
        for path in (PACKAGE / floor).iterdir()
        if not path.name.startswith("__")
    }
    assert there - named == set(), "rooms that the drawing does not show"


def test_the_loops_own_threads_are_left_to_the_resolver() -> None:
    """A mount that hangs takes whatever threads read from it, for ever; no name must wait for one of those."""
    strangers = [
        f"{within(path)}: {found}"
        for path in modules()
        if not within(path).startswith("lab/")
        for found in re.findall(r"\bto_thread\(|run_in_executor\(\s*None", path.read_text())
    ]
    assert strangers == []


def test_the_first_word_costs_next_to_nothing() -> None:
    """Building the parser loads nothing heavy: `--help` and a typing error answer at once."""
    program = (
        "import sys; from rotator import cli; from rotator.cli import words; words.parser(); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("word", ["version", "check", "status"])
def test_a_command_loads_only_what_it_needs(word: str, tmp_path: Path) -> None:
    program = (
        "import sys; from rotator import cli; "
        f"cli.main({[word] if word == 'version' else [word, '--config', str(tmp_path / 'rotator.toml')]!r}); "
        f"print([name for name in {('httpx', 'hvac', 'apscheduler', 'rich', 'uvicorn', 'opentelemetry')!r} "
        "if name in sys.modules], file=sys.stderr)"
    )
    (tmp_path / "rotator.toml").write_text("")
    environ = {"PATH": os.environ["PATH"], "STATE_DIRECTORY": str(tmp_path), "RUNTIME_DIRECTORY": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30, env=environ
    )
    assert done.stderr.splitlines()[-1] == "[]", done.stderr


def test_frozen_dataclasses_are_lean() -> None:
    """But for the lab, which no start waits for."""
    usual = [
        within(path)
        for path in modules()
        if not within(path).startswith("lab/") and "\n@dataclass(frozen=True" in path.read_text()
    ]
    assert usual == []


def test_there_is_one_version() -> None:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"], "the version stands in the package alone"
    assert re.fullmatch(r"\d+\.\d+\.\d+", rotator.__version__)
    changes = (HOUSE / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[?v?(\S+?)\]?(?: |$)", changes, re.MULTILINE)
    assert newest is not None, "CHANGELOG.md has no version"
    assert newest[1] in (rotator.__version__, "Unreleased")
    done = subprocess.run(
        [sys.executable, "-m", "rotator", "version"], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.startswith(f"rotator {rotator.__version__} ")


def test_the_example_configuration_is_read(tmp_path: Path) -> None:
    plan = assembly.read(HOUSE / "config" / "rotator.toml", {"STATE_DIRECTORY": str(tmp_path)}, check=False)
    assert list(plan.settings.grants) == ["billing"]
    assert plan.warnings == ()


def committed() -> list[Path]:
    if not (HOUSE / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={HOUSE}", "ls-files", "-z"], cwd=HOUSE, capture_output=True, text=True,
        check=True, timeout=30,
    )  # fmt: skip
    return [HOUSE / name for name in listed.stdout.split("\0") if name and (HOUSE / name).is_file()]


def test_committed_files_name_no_workplace() -> None:
    found = []
    for path in committed():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(HOUSE)}: {word}" for word in (*WORKPLACES, *REGISTRIES) if word in text
        ]  # fmt: skip
    assert found == []
