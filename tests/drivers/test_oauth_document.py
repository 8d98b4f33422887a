"""docs/outcomes.md is the table of outcomes, with the examples by which the tests prove each row.

`DOCS=write` writes it anew; without that a difference is a failure.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from rotator.core.grants import Charge, Kind, OutcomeClass
from rotator.drivers.oauth import bodies, table
from tests.drivers.test_oauth_table import CASES, PROFILE, Case

DOCUMENT = Path(__file__).parents[2] / "docs" / "outcomes.md"
MOST_EXAMPLES = 5

BEFORE = """\
# What an answer of the token endpoint means

One row for each way in which a token request can end; the first row that fits counts. The evidence in its order: how
far the request got, the `error` of the body whatever the status, the body of a 2xx, the status. This page is written
from the table in `rotator/drivers/oauth/table.py` and the examples of its tests, which fail where the two differ.

| class | a refresh | a login (password exchange) |
|---|---|---|
| granted | saved, published, then told | the same |
| granted in part | the refresh token is kept, nothing is published; again after 30 s, ever more slowly | the same |
| not sent | the same again, after seconds, doubling to 5 min | the same, and it does not count |
| doubtful | the same refresh token once more within the provider's grace, then by `reuse` | one try more, after 5 s |
| busy | the same again, as asked (1 s to 1 h), else after 1 min, doubling to 1 h | the same, within the budget |
| refresh token dead | the token before it where `reuse` is harmless, then a login from the budget, else a person | |
| credentials refused | latched: nothing more is sent until they change or an operator asks | the same |
| misconfigured | every token is kept; again after 15 min, doubling to 1 h | latched, unless the login does not count |

In every class the last good access token stays published until it expires. Where a row has delays of its own, or where
a valid token would run out while it waits, that holds instead. A login is like a refresh where nothing else stands. How
it counts is how much of the password budget it takes; a wrong request counts as nothing where the provider says that
it saw no `grant_type`.

| what came back | for example | a refresh | a login | a login counts as | delays |
|---|---|---|---|---|---|
"""
COUNTS = {Charge.ONE: "1", Charge.NONE: "0", Charge.HALF: "1, and half of what is left"}


def row_of(case: Case) -> table.Row:
    answer, reading = case.answer, bodies.read(case.answer, PROFILE)
    return table.row(table.Finding(answer.reach, answer.failure, answer.status, reading.error, reading.body))


def example(case: Case) -> str:
    answer, reading = case.answer, bodies.read(case.answer, PROFILE)
    words = [str(answer.status)] if answer.status is not None else []
    words += [reading.said] if reading.said is not None else []
    if answer.failure is not None:
        words.append("any other" if "tomorrow" in answer.failure else answer.failure)
    return f"`{' '.join(words)}`"


def delays(pace: table.Pace | None) -> str:
    return "" if pace is None else f"{span(pace[0])} to {span(pace[1])}"


def span(one: timedelta) -> str:
    hours = one // timedelta(hours=1)
    return f"{hours} h" if hours else f"{one // timedelta(minutes=1)} min"


def line(row: table.Row, cases: list[Case]) -> str:
    examples = list(dict.fromkeys(example(one) for one in cases))
    shown = ", ".join(examples[:MOST_EXAMPLES]) + (" …" if len(examples) > MOST_EXAMPLES else "")
    login = row.cls(Kind.PASSWORD)
    refresh = f"{row.refresh}; a login where the budget allows one" if row.barred else str(row.refresh)
    charges = {COUNTS[one.charge] for one in cases}
    counted = "0" if login is OutcomeClass.NOT_SENT else " or ".join(sorted(charges, reverse=True))
    paces = list(dict.fromkeys(delays(row.pacing(kind)) for kind in (Kind.REFRESH, Kind.PASSWORD)))
    cells = (row.what, shown, refresh, "" if login is row.refresh else str(login), counted, "; a login ".join(paces))
    return f"| {' | '.join(cells)} |\n"


def rendered() -> str:
    proven: dict[str, list[Case]] = {}
    for case in CASES:
        proven.setdefault(row_of(case).what, []).append(case)
    return BEFORE + "".join(line(row, proven[row.what]) for row in table.ROWS)


def test_the_document_shows_the_table_as_it_is() -> None:
    text = rendered()
    if os.environ.get("DOCS") == "write":
        DOCUMENT.write_text(text)
    assert DOCUMENT.read_text() == text, "write it anew: DOCS=write pytest tests/drivers/test_oauth_document.py"


def test_every_row_and_every_class_is_in_the_document() -> None:
    text = rendered()
    assert all(f"| {row.what} |" in text for row in table.ROWS)
    assert all(f"| {cls} | " in BEFORE for cls in OutcomeClass)
