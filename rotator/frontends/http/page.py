"""The status page: one document with its style and script inside, which needs nothing from anywhere else.

Without a script the table is whole; with one it stays true by `stream`, which sends the same pieces anew.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from importlib import resources
from string import Template
from urllib.parse import urlencode

from rotator.core.events import brief
from rotator.core.health import GrantHealth, Health
from rotator.core.telling import markup
from rotator.frontends.http import board, rows
from rotator.frontends.http.board import Count, Shown, Wish
from rotator.frontends.http.history import History


@functools.cache
def asset(name: str) -> str:
    """A file beside this one."""
    return resources.files("rotator.frontends.http").joinpath(name).read_text()


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@functools.cache
def policy() -> str:
    """Nothing is loaded and nothing runs but what stands in the page itself (CSP Level 3)."""
    return (
        f"default-src 'none'; style-src 'sha256-{_hash(asset('page.css'))}'; "
        f"script-src 'sha256-{_hash(asset('page.js'))}'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


def render(health: Health, history: History, wish: Wish, version: str) -> str:
    """The whole page."""
    shown, counted = board.choose(health.grants, wish), board.count(health)
    return Template(asset("page.html")).substitute(
        title=markup(title(counted)),
        style=asset("page.css"),
        script=asset("page.js"),
        version=markup(version),
        verdict=verdict(counted),
        facts=facts(health),
        query=markup(wish.query),
        choices="".join(_choice(one, wish) for one in board.CHOICES),
        found=found(shown, wish, counted),
        rows="".join(row(one, history, health) for one in shown.grants),
        pager=pager(shown, wish),
        since=since(history, health),
        now=f"{health.at.timestamp():.3f}",
        events=markup("/events?" + address(wish, shown.page)),
    )


def row(grant: GrantHealth, history: History, health: Health) -> str:
    return rows.row(grant, history.marks(grant.name, health.at), history.since(health.at), health.at)


def title(counted: Count) -> str:
    """For the tab of a browser: what is wrong comes first."""
    return f"({counted.attention}) rotator" if counted.attention else "rotator"


def verdict(counted: Count) -> str:
    """The whole in one sentence."""
    total, lacking = counted.total, counted.total - counted.ready
    if not total:
        tone, words = "fair", "No grants are configured"
    elif lacking:
        tone, words = "bad", f"{lacking} of {_grants(total)} without a valid token"
    elif counted.attention:
        tone, words = "fair", f"Every token is valid; {_grants(counted.attention)} to look at"
    else:
        tone, words = "good", "The token is valid" if total == 1 else f"All {total:,} tokens are valid"
    return f'<h1 class="{tone}">{markup(words)}</h1>'


def facts(health: Health) -> str:
    """The line that STATUS= shows (its reasons stand in the table), and what probes are answered."""
    flags = (("alive", health.alive), ("started", health.started), ("ready", health.ready))
    chips = "".join(f'<li class="{"good" if on else "bad"}">{"" if on else "not "}{name}</li>' for name, on in flags)
    pulse = f"<p>{markup(health.pulse.reason)}</p>" if health.pulse is not None and not health.pulse.beats else ""
    return f'<p class="line">{markup(health.lead())}</p>{pulse}<ul class="flags" aria-label="Probes">{chips}</ul>'


def found(shown: Shown, wish: Wish, counted: Count) -> str:
    """How much of it is shown."""
    if not shown.grants:
        return "No grant fits." if counted.total else "There is nothing to show yet."
    first = (shown.page - 1) * board.PER_PAGE + 1
    last = first + len(shown.grants) - 1
    which = f"{shown.found:,}" + ("" if shown.found == counted.total else f" of {counted.total:,}")
    if shown.found == 1:
        return f"1{'' if counted.total == 1 else f' of {counted.total:,}'} grant"
    return f"{which} grants" if shown.pages == 1 else f"{first:,} to {last:,} of {which} grants"


def pager(shown: Shown, wish: Wish) -> str:
    if shown.pages == 1:
        return ""
    before = _link("Previous", wish, shown.page - 1, "prev") if shown.page > 1 else "<span>Previous</span>"
    after = _link("Next", wish, shown.page + 1, "next") if shown.page < shown.pages else "<span>Next</span>"
    return f"{before}<b>Page {shown.page:,} of {shown.pages:,}</b>{after}"


def since(history: History, health: Health) -> str:
    start = history.since(health.at)
    return (
        f'The last day is remembered since <time datetime="{start:%Y-%m-%dT%H:%M:%SZ}">{start:%Y-%m-%d %H:%M}Z</time>, '
        f"{brief(health.at - start)} ago. Times are UTC."
    )


def address(wish: Wish, page: int) -> str:
    """The query string of a page."""
    said = {"q": wish.query, "state": wish.state, "page": str(page) if page > 1 else ""}
    return urlencode({key: text for key, text in said.items() if text})


def changed(rows_shown: Sequence[GrantHealth], before: Sequence[GrantHealth]) -> bool:
    """Whether other grants are shown than before, or in another order."""
    return [one.name for one in rows_shown] != [one.name for one in before]


def _link(words: str, wish: Wish, page: int, rel: str) -> str:
    return f'<a rel="{rel}" href="/?{markup(address(wish, page))}">{words}</a>'


def _choice(state: str, wish: Wish) -> str:
    words = "to look at" if state == board.ATTENTION else state
    chosen = " selected" if state == wish.state else ""
    return f'<option value="{markup(state)}"{chosen}>{markup(words)}</option>'


def _grants(number: int) -> str:
    return f"{number:,} grant{'' if number == 1 else 's'}"
