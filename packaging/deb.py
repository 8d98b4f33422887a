"""Builds dist/rotator_VERSION_ARCH.deb with dpkg-deb: the program and all it needs in a folder of its own, for this
release's /usr/bin/python3; units, user and folders as `rotator install --systemd` puts them; man pages, completions.

``python packaging/deb.py [FOLDER]``; needs pip, dpkg-deb and the system's Python.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import manual

import rotator
from rotator.cli import completion

HOUSE = Path(__file__).parents[1]
DEBIAN = Path(__file__).parent / "debian"
PYTHON = "/usr/bin/python3"
LIBRARY = "usr/lib/rotator"
# -I: neither PYTHONPATH nor a user's own packages reach a daemon that holds secrets.
LAUNCHER = f"""\
#!{PYTHON} -I
import sys

sys.path.insert(0, "/{LIBRARY}")
from rotator.__main__ import main

main()
"""
# Where each shell looks for what packages bring.
COMPLETIONS = {
    "bash": "bash-completion/completions/rotator",
    "zsh": "zsh/vendor-completions/_rotator",
    "fish": "fish/vendor_completions.d/rotator.fish",
}
# What the documents call by its place in a checkout.
EXAMPLES = ("prometheus", "grafana", "kubernetes")
CONTROL = """\
Package: rotator
Version: {version}
Architecture: {arch}
Maintainer: The authors of rotator <rotator@localhost>
Installed-Size: {size}
Depends: python3 (>= {python}), python3 (<< {next_python}), libc6, systemd
Recommends: ca-certificates
Suggests: python3-cryptography, python3-psycopg
Section: admin
Priority: optional
Description: A valid OAuth 2.0 access token, always there
 One daemon gets an access token with the password grant, rotates it well
 before it expires, and keeps it where applications already look: a file, or
 HashiCorp Vault / OpenBao.
"""


def run(*command: str, **more: str) -> str:
    environ = {**os.environ, **more}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environ, cwd=HOUSE).stdout.strip()


def build(dist: Path) -> Path:
    """The finished package. Raises CalledProcessError where a step fails."""
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir(mode=0o755)
        _program(root, Path(folder))
        run(PYTHON, "-c", _entry(root), "install", "--systemd", "--prefix", "/usr", "--program", "/usr/bin/rotator",
            "--root", str(root))  # fmt: skip
        documents(root)
        package = dist / f"rotator_{rotator.__version__}_{run('dpkg', '--print-architecture')}.deb"
        _control(root)
        dist.mkdir(exist_ok=True)
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(package))
    return package


def _program(root: Path, scratch: Path) -> None:
    library = root / LIBRARY
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
    target = ("--target", str(library), "--no-compile", "--no-warn-script-location")
    run(*pip, "--python", PYTHON, "install", *target, "--require-hashes", "-r", "requirements/run.txt")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(scratch), ".")
    wheel = next(scratch.glob("*.whl"))
    run(*pip, "--python", PYTHON, "install", *target, "--no-deps", "--no-index", str(wheel))
    shutil.rmtree(library / "bin", ignore_errors=True)
    # Never checked against the source's time: packages are unpacked as one.
    run(
        PYTHON,
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
        str(root),
        "-p",
        "/",
        str(library),
    )
    launcher = root / "usr/bin/rotator"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)


def _entry(root: Path) -> str:
    return f"import sys; sys.path.insert(0, {str(root / LIBRARY)!r}); from rotator.__main__ import main; main()"


def documents(root: Path) -> None:
    """Man pages, completions and all that is for reading."""
    for name in manual.PAGES:
        place = root / "usr/share/man" / f"man{name[-1]}" / f"{name}.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(gzip.compress(manual.page(name).encode(), mtime=0))
    for shell, name in COMPLETIONS.items():
        place = root / "usr/share" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(completion.script(shell))
    _pages(root)
    place = root / "usr/share/doc/rotator"
    shutil.copy(HOUSE / "LICENSE", place / "copyright")
    (place / "changelog.gz").write_bytes(gzip.compress((HOUSE / "CHANGELOG.md").read_bytes(), mtime=0))


def _pages(root: Path) -> None:
    """The documents and what they speak of, for who has this machine and no checkout at night: the runbook, the rules
    of its alerts, the dashboard."""
    documents = root / "usr/share/doc/rotator"
    shutil.copytree(HOUSE / "docs", documents, dirs_exist_ok=True)
    for name in EXAMPLES:
        shutil.copytree(HOUSE / "config" / name, documents / "examples" / name, dirs_exist_ok=True)
        for page in documents.glob("*.md"):
            page.write_text(page.read_text().replace(f"config/{name}", f"examples/{name}"))


def _control(root: Path) -> None:
    major, minor = map(int, run(PYTHON, "-c", "import sys; print(*sys.version_info[:2])").split())
    place = root / "DEBIAN"
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) // 1024
    place.mkdir(mode=0o755)
    (place / "control").write_text(
        CONTROL.format(
            version=rotator.__version__, arch=run("dpkg", "--print-architecture"), size=size,
            python=f"{major}.{minor}", next_python=f"{major}.{minor + 1}~",
        )
    )  # fmt: skip
    (place / "conffiles").write_text("/etc/rotator/rotator.toml\n")
    for script in ("postinst", "prerm", "postrm"):
        shutil.copy(DEBIAN / script, place / script)
        (place / script).chmod(0o755)


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else HOUSE / "dist"))
