"""One image for all tests of a session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.container import engine as engines
from tests.container.engine import IMAGE, Engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """With the image `IMAGE`."""
    if reason := engines.why_not():
        pytest.skip(reason)
    made = Engine(engines.scratch())
    try:
        made.prepare()
        made.make_base()
        made.build(made.download(), IMAGE)
        yield made
    finally:
        made.run("podman", "system", "reset", "--force", check=False)
        shutil.rmtree(made.folder, ignore_errors=True)
