"""Pictures of the page for the README, written where DOCS=write asks for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.browser import fleet
from tests.browser.conftest import DESK, PHONE, Window
from tests.browser.test_page import url
from tests.frontends.test_http import Shown, serving

DOCS = Path(__file__).parents[2] / "docs"
LARGEST = 200_000


@pytest.mark.parametrize(("name", "size", "scheme"), [("desk", DESK, "light"), ("phone", PHONE, "dark")])
def test_a_picture(
    window: Callable[..., Window], tmp_path: Path, name: str, size: tuple[int, int], scheme: str
) -> None:
    """Taken each time; times differ from run to run, so what is committed is only held to be there and small."""
    now = datetime.now(UTC)
    grants = fleet.fleet(now)
    show = Shown(fleet.health(grants, now), history=fleet.history(grants, now))
    path = (DOCS if os.environ.get("DOCS") == "write" else tmp_path) / f"page-{name}.png"
    with serving(show) as ask:
        opened = window(url(ask), size=size, scheme=scheme)
        opened.wait_live()
        opened.page.screenshot(path=path, animations="disabled")
    assert 5_000 < path.stat().st_size < LARGEST
    assert 5_000 < (DOCS / path.name).stat().st_size < LARGEST, "make docs"
