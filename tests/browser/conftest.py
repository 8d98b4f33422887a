"""One real Chromium for all tests of a session, as Debian packages it; it reaches loopback alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--font-render-hinting=none",
)  # fmt: skip
DESK, PHONE = (1280, 900), (390, 844)
# Told by the browser itself, whatever it writes into its console.
LISTEN = (
    "window.violations = []; document.addEventListener('securitypolicyviolation', "
    "(event) => window.violations.push(event.violatedDirective + ' ' + event.blockedURI));"
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not on this machine")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            yield started
        finally:
            started.close()


@dataclass
class Window:
    """A page with what went wrong on it."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def wait_live(self) -> None:
        self.wait_text("#link", "live")

    def wait_text(self, selector: str, text: str | re.Pattern[str]) -> None:
        """Polled from outside: the page's own policy lets nobody evaluate a string."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector).first).to_have_text(text, timeout=15_000)

    def violations(self) -> list[str]:
        found: list[str] = self.page.evaluate("window.violations")
        return found


@pytest.fixture
def window(browser: Browser) -> Iterator[Callable[..., Window]]:
    """Opens a page: ``window(url, size=PHONE, scheme="dark", script=False)``."""
    contexts = []

    def open_page(url: str, *, size: tuple[int, int] = DESK, scheme: str = "light", script: bool = True) -> Window:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, java_script_enabled=script,
            reduced_motion="reduce", locale="en-GB", timezone_id="UTC",
        )  # fmt: skip
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        opened = Window(page)
        page.on("console", lambda told: opened.complaints.append(f"{told.type}: {told.text}"))
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        if script:
            page.add_init_script(LISTEN)
        page.goto(url)
        return opened

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    package = pytest.importorskip("axe_playwright_python")
    return Path(package.__file__).with_name("axe.min.js").read_text()
