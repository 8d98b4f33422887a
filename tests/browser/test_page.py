"""The status page, as people see it: in a real Chromium, over the real server, of a fleet that is data."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rotator.core import events
from rotator.core.health import Health
from tests.browser import fleet
from tests.browser.conftest import DESK, PHONE, Window
from tests.frontends.test_http import Caller, Shown, serving

Open = Callable[..., Window]
SEE = """(text) => new MutationObserver(() => {
  if (document.querySelector("#g-mail .targets").textContent.includes(text)) window.seen ??= Date.now();
}).observe(document.body, { childList: true, subtree: true })"""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def shown(count: int = len(fleet.NAMES)) -> Shown:
    now = datetime.now(UTC)
    grants = fleet.fleet(now, count)
    return Shown(fleet.health(grants, now), history=fleet.history(grants[:100], now))


def url(ask: Caller, rest: str = "") -> str:
    return f"http://127.0.0.1:{ask.place.port}/{rest}"


def rotated(health: Health, name: str, generation: int) -> Health:
    now = datetime.now(UTC)
    grants = tuple(
        replace(one, generation=generation, issued_at=now, expires_at=now + fleet.HOUR, due_at=now + 45 * fleet.MINUTE,
                targets=tuple(replace(target, generation=generation) for target in one.targets))
        if one.name == name else one
        for one in health.grants
    )  # fmt: skip
    return replace(health, at=now, grants=grants)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_and_the_policy_find_nothing(window: Open, axe: str, scheme: str, size: tuple[int, int]) -> None:
    # The last page of two: every state, and the links between pages.
    with serving(shown(60)) as ask:
        opened = window(url(ask, "?page=2" if size == DESK else "?q=00000"), size=size, scheme=scheme)
        opened.wait_live()
        opened.page.evaluate(axe)
        found = opened.page.evaluate("(tags) => axe.run(document, { runOnly: tags })", RULES)
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
        assert len(found["passes"]) > 20
        assert opened.violations() == []
        assert opened.complaints == []
        wide = opened.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, "it scrolls sideways"


def test_a_rotation_is_shown_without_a_reload(window: Open, figures: Callable[[str], None]) -> None:
    show = shown()
    with serving(show) as ask:
        opened = window(url(ask))
        opened.wait_live()
        row = opened.page.locator("#g-mail .targets li").first
        assert "generation 25" in (row.text_content() or "")
        opened.page.evaluate(SEE, "generation 26")
        begin = time.time()
        show.health = rotated(show.health, "mail", 26)
        now = datetime.now(UTC)
        show.history(
            events.Rotated(at=now, grant="mail", kind="refresh_token", generation=26, expires_at=now, due_at=None)
        )
        opened.wait_text("#g-mail .targets li", "app generation 26")
        # The page's own note of when: it would be gone after a reload.
        took = opened.page.evaluate("window.seen") - 1000 * begin
        figures(f"status page: rotation told → shown {took:.0f} ms (aim: 1 s)")
        assert opened.page.locator("#g-mail .valid .left").text_content() == "60m of 60m"
        assert opened.violations() == []


def test_the_verdict_and_the_order_follow(window: Open) -> None:
    show = shown()
    with serving(show) as ask:
        opened = window(url(ask))
        opened.wait_live()
        page = opened.page
        assert page.locator("h1").text_content() == "1 of 10 grants without a valid token"
        assert page.title() == "(3) rotator"
        assert page.locator("tbody").first.get_attribute("id") == "g-payroll"
        good = tuple(
            replace(one, state=fleet.State.FRESH, reason="", unready="", published=True) for one in show.health.grants
        )
        show.health = replace(show.health, grants=good)
        opened.wait_text("h1", "All 10 tokens are valid")
        opened.wait_text("tbody th", re.compile("^billing"))
        assert page.title() == "rotator"
        # One that is gone, and one that is new.
        show.health = replace(show.health, grants=(*good[1:], replace(good[0], name="zebra")))
        opened.wait_text("tbody th", re.compile("^crm"))
        opened.wait_text("#g-zebra th", re.compile("^zebra"))
        assert page.locator("tbody").count() == 10
        assert opened.complaints == []


def test_it_is_whole_without_a_script(window: Open) -> None:
    with serving(shown(120)) as ask:
        page = window(url(ask), script=False).page
        assert page.locator("tbody").count() == 50
        assert page.locator("#live").is_hidden()
        assert "crm" not in page.locator("#g-grant_000001 .why").inner_text()
        assert "rotator rotate --force grant_000001" in page.locator("#g-grant_000001 .why").inner_text()
        page.get_by_role("link", name="Next").click()
        assert "51 to 100 of 120 grants" in page.locator("#found").inner_text()
        page.get_by_label("Grant or provider").fill("000007")
        page.get_by_role("button", name="Show").click()
        assert page.locator("tbody").count() == 1
        assert page.locator("#found").inner_text() == "1 of 120 grant"
        page.get_by_label("Grant or provider").fill("")
        page.get_by_label("State").select_option("latched")
        page.get_by_role("button", name="Show").click()
        assert page.locator("tbody").get_attribute("id") == "g-grant_000001"


def test_keys_alone_are_enough(window: Open) -> None:
    with serving(shown(120)) as ask:
        opened = window(url(ask))
        opened.wait_live()
        page = opened.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the grants"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.locator("#pause").get_attribute("aria-pressed") == "true"
        assert page.locator("#link").text_content() == "paused"
        page.keyboard.press("Enter")
        opened.wait_live()
        page.keyboard.press("Tab")
        page.keyboard.type("000003")
        page.keyboard.press("Enter")
        page.wait_for_url("**/?q=000003&state=")
        assert page.locator("tbody").count() == 1


def test_ten_thousand_grants_do_not_freeze_it(window: Open, figures: Callable[[str], None]) -> None:
    show = shown(10_000)
    with serving(show) as ask:
        opened = window(url(ask))
        opened.wait_live()
        paint = opened.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        answer = opened.page.evaluate("performance.getEntriesByType('navigation')[0].responseEnd")
        figures(f"status page of 10,000 grants: answered {answer:.0f} ms, first paint {paint:.0f} ms")
        assert opened.page.locator("tbody").count() == 50
        # A probe is answered while the page is kept true.
        for number in range(20):
            show.health = rotated(show.health, "grant_000000", 100 + number)
            show.history(events.Enrolled(at=datetime.now(UTC), grant="grant_000000", lineage=""))
            assert ask("/livez").status == 200
        assert "50 of 10,000 grants" in (opened.page.locator("#found").text_content() or "")
        assert ask("/?page=200").text.count("<tbody") == 50
        assert "9,951 to 10,000 of 10,000" in ask("/?page=200").text
        assert len(ask("/").text) < 300_000


def test_a_hostile_name_stays_text(window: Open) -> None:
    show = shown(1)
    evil = '</td><img src=x onerror="document.title=1"><script>document.title=1</script>"\'&'
    hostile = replace(
        show.health.grants[0], provider=evil, reason=evil, last_outcome=evil,
        targets=(replace(show.health.grants[0].targets[0], name="app", location=evil, trouble=evil),),
    )  # fmt: skip
    show.health = replace(show.health, grants=(hostile,))
    with serving(show) as ask:
        opened = window(url(ask, "?q=%22%3E%3Cscript%3E"))
        opened.wait_live()
        assert opened.page.locator("input").input_value() == '"><script>'
        opened = window(url(ask))
        opened.wait_live()
        assert opened.page.locator("img").count() == 0
        assert opened.page.locator(".why").inner_text() == evil
        assert opened.violations() == [] and opened.complaints == []


def test_the_end_of_the_daemon_is_told(window: Open) -> None:
    with serving(shown()) as ask:
        opened = window(url(ask))
        opened.wait_live()
    opened.wait_text("#link", re.compile("^no connection"))
