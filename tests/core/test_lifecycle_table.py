"""The state machine as a table: (state, fact) → (order, what the grant is then, what is told).

To be read as a document. It is ten to one: the token of generation 1 holds until one o'clock and was due at a
quarter to. An order is `rest`, or the exchange and the refresh token it spends. Afterwards: generation, what is
held (access, refresh, previous), and what is remembered; `+45m` is when it is due next, `person` that only a person
can help, `left` how many password exchanges are left of three.
"""

from __future__ import annotations

from dataclasses import replace

import build
import pytest
from build import HOUR, MINUTE, NOON

from rotator.core import lifecycle
from rotator.core.events import brief
from rotator.core.grants import Grant, Kind, Source
from rotator.core.policy import Rules

AT = 50 * MINUTE
MOMENT = build.moment(AT)
NOW = MOMENT.now

DEAD_CHAIN = {"refresh": None, "previous_refresh": None}
SENT = build.intent(at=MOMENT)
LOGIN = build.intent(Kind.PASSWORD, at=MOMENT)

STATES: dict[str, Grant] = {
    "empty": build.empty(),
    "fresh": build.fresh(due_at=NOW + MINUTE),
    "due": build.fresh(),
    "due, chain dead": build.fresh(**DEAD_CHAIN),
    "due, only previous left": build.fresh(refresh=None, previous_refresh=build.secret("refresh-0")),
    "due, budget spent": build.fresh(**DEAD_CHAIN, debits=(NOON - HOUR, NOON, NOW - 20 * MINUTE)),
    "needs a person": build.fresh(**DEAD_CHAIN, due_at=None, trouble=build.trouble()),
    "latched": build.fresh(due_at=None, latch=build.latch()),
    "in doubt": build.fresh(doubt=build.doubt(build.moment(45 * MINUTE))),
    "refreshing": build.fresh(intent=SENT),
    "refreshing previous": build.fresh(
        refresh=None, previous_refresh=build.secret("refresh-0"), intent=replace(SENT, source=Source.PREVIOUS)
    ),
    "logging in": build.fresh(**DEAD_CHAIN, intent=LOGIN, debits=(NOW,)),
    "authorizing": build.fresh(due_at=NOW + MINUTE, intent=replace(LOGIN, interactive=True), debits=(NOW,)),
    "authorizing, latched": build.fresh(
        due_at=None, latch=build.latch(), intent=replace(LOGIN, interactive=True), debits=(NOW,)
    ),
}

RULES: dict[str, Rules] = {
    "harmless": build.FORGIVING,
    "harmless, no password": build.FORGIVING_ALONE,
    "kills family": build.STRICT,
    "kills family, no password": build.STRICT_ALONE,
}


def ended(outcome: build.Outcome) -> lifecycle.Concluded:
    return lifecycle.Concluded(outcome=outcome, sent_at=NOW, credentials="old credentials")


FACTS: dict[str, lifecycle.Fact] = {
    "look": lifecycle.Due(credentials="old credentials"),
    "look, new credentials": lifecycle.Due(credentials="new credentials"),
    "asked": lifecycle.Due(credentials="old credentials", asked=True),
    "forced": lifecycle.Due(credentials="old credentials", forced=True),
    "authorize": lifecycle.Due(credentials="typed", asked=True, wanted=Kind.PASSWORD),
    "granted": ended(build.granted()),
    "granted, no refresh": ended(build.granted(refresh=build.NO_REFRESH)),
    "granted in part": ended(build.partly()),
    "not sent": ended(build.NOT_SENT),
    "doubtful": ended(build.DOUBTFUL),
    "busy": ended(build.BUSY),
    "token dead": ended(build.DEAD),
    "refused": ended(build.REFUSED),
    "misconfigured": ended(build.MISCONFIGURED),
    "target ahead": lifecycle.Behind(target="app", generation=7, expires_at=NOW + HOUR),
    "target not ahead": lifecycle.Behind(target="app", generation=1, expires_at=NOW + HOUR),
    "clock fell back": lifecycle.ClockFellBack(),
    "adopted": lifecycle.Adopted(refresh=build.secret("handed over")),
}

TABLE = """
state                   | rules                     | fact                  | order                  | afterwards                                                 | told
empty                   | harmless                  | look                  | password               | 0 nothing, intent, due, left 2                             | exchange.started
empty                   | harmless, no password     | look                  | rest                   | 0 nothing, trouble, person, left 3                         | grant.person_needed
empty                   | harmless                  | asked                 | password               | 0 nothing, intent, due, left 2                             | exchange.started
empty                   | harmless, no password     | authorize             | password               | 0 nothing, intent, due, left 2                             | exchange.started
empty                   | harmless                  | adopted               | rest                   | 0 refresh, due, left 3                                     |
fresh                   | harmless                  | look                  | rest                   | 1 access refresh, +60s, left 3                             |
fresh                   | harmless                  | asked                 | refresh_token current  | 1 access refresh, intent, due, left 3                      | exchange.started
fresh                   | harmless                  | authorize             | password               | 1 access refresh, intent, +60s, left 2                     | exchange.started
due                     | harmless                  | look                  | refresh_token current  | 1 access refresh, intent, due, left 3                      | exchange.started
due                     | kills family              | look                  | refresh_token current  | 1 access refresh, intent, due, left 3                      | exchange.started
due                     | harmless                  | target ahead          | rest                   | 7 access refresh, doubt, unproven, due, left 3             | store.behind
due                     | harmless                  | target not ahead      | rest                   | 1 access refresh, due, left 3                              |
due                     | harmless                  | clock fell back       | rest                   | 1 access refresh, unproven, due, left 3                    |
due                     | harmless                  | adopted               | rest                   | 1 access refresh, due, left 3                              |
due, chain dead         | harmless                  | look                  | password               | 1 access, intent, due, left 2                              | exchange.started
due, chain dead         | harmless, no password     | look                  | rest                   | 1 access, trouble, person, left 3                          | grant.person_needed
due, only previous left | harmless                  | look                  | refresh_token previous | 1 access previous, intent, due, left 3                     | exchange.started
due, only previous left | kills family              | look                  | password               | 1 access previous, intent, due, left 2                     | exchange.started
due, budget spent       | harmless                  | look                  | rest                   | 1 access, trouble, +22h10m, left 0                         | grant.budget_spent
due, budget spent       | harmless                  | asked                 | rest                   | 1 access, due, left 0                                      |
due, budget spent       | harmless                  | forced                | password               | 1 access, intent, due, left 0                              | exchange.started
due, budget spent       | harmless                  | authorize             | password               | 1 access, intent, due, left 0                              | exchange.started
needs a person          | harmless, no password     | look                  | rest                   | 1 access, trouble, person, left 3                          |
needs a person          | harmless, no password     | asked                 | rest                   | 1 access, trouble, person, left 3                          |
needs a person          | harmless                  | look                  | password               | 1 access, intent, trouble, due, left 2                     | exchange.started
needs a person          | harmless, no password     | adopted               | rest                   | 1 access refresh, due, left 3                              |
needs a person          | harmless, no password     | authorize             | password               | 1 access, intent, trouble, person, left 2                  | exchange.started
latched                 | harmless                  | look                  | rest                   | 1 access refresh, latched, person, left 3                  |
latched                 | harmless                  | asked                 | rest                   | 1 access refresh, latched, person, left 3                  |
latched                 | harmless                  | look, new credentials | refresh_token current  | 1 access refresh, intent, due, left 3                      | grant.unlatched exchange.started
latched                 | harmless                  | forced                | refresh_token current  | 1 access refresh, intent, due, left 3                      | grant.unlatched exchange.started
latched                 | harmless                  | authorize             | password               | 1 access refresh, intent, latched, person, left 2          | exchange.started
latched                 | harmless                  | adopted               | rest                   | 1 access refresh, due, left 3                              | grant.unlatched
latched                 | harmless                  | target ahead          | rest                   | 7 access refresh, doubt, latched, unproven, person, left 3 | store.behind
latched                 | harmless                  | clock fell back       | rest                   | 1 access refresh, latched, unproven, person, left 3        |
in doubt                | harmless                  | look                  | refresh_token current  | 1 access refresh, intent, doubt, due, left 3               | exchange.started
in doubt                | kills family              | look                  | rest                   | 1 access refresh, doubt, +150s, left 3                     |
in doubt                | kills family              | forced                | password               | 1 access refresh, intent, doubt, due, left 2               | exchange.started
in doubt                | kills family, no password | look                  | rest                   | 1 access refresh, doubt, +10m, left 3                      |
in doubt                | kills family, no password | forced                | rest                   | 1 access refresh, doubt, due, left 3                       |
in doubt                | kills family              | adopted               | rest                   | 1 access refresh, due, left 3                              |
refreshing              | harmless                  | granted               | rest                   | 2 access refresh previous, +45m, left 3                    | token.rotated
refreshing              | harmless                  | granted, no refresh   | rest                   | 2 access refresh, +45m, left 3                             | token.rotated
refreshing              | harmless                  | granted in part       | rest                   | 2 access refresh previous, trouble, +30s, left 3           | exchange.failed
refreshing              | harmless                  | not sent              | rest                   | 1 access refresh, trouble, +0.75s, left 3                  | exchange.failed
refreshing              | harmless                  | doubtful              | rest                   | 1 access refresh, doubt, trouble, +1.5s, left 3            | exchange.doubtful exchange.failed
refreshing              | kills family              | doubtful              | rest                   | 1 access refresh, doubt, trouble, +5m, left 3              | exchange.doubtful exchange.failed
refreshing              | kills family, no password | doubtful              | rest                   | 1 access refresh, doubt, trouble, +10m, left 3             | exchange.doubtful exchange.failed
refreshing              | harmless                  | busy                  | rest                   | 1 access refresh, trouble, +60s, left 3                    | exchange.failed
refreshing              | harmless                  | token dead            | rest                   | 1 access, trouble, due, left 3                             | exchange.failed grant.chain_lost
refreshing              | harmless, no password     | token dead            | rest                   | 1 access, trouble, due, left 3                             | exchange.failed grant.chain_lost
refreshing              | harmless                  | refused               | rest                   | 1 access refresh, latched, trouble, person, left 3         | grant.latched
refreshing              | harmless                  | misconfigured         | rest                   | 1 access refresh, trouble, +5m, left 3                     | exchange.failed
refreshing              | harmless                  | look                  | rest                   | 1 access refresh, doubt, trouble, +1.5s, left 3            | exchange.doubtful exchange.failed
refreshing previous     | harmless                  | granted               | rest                   | 2 access refresh previous, +45m, left 3                    | token.rotated
refreshing previous     | harmless                  | not sent              | rest                   | 1 access previous, trouble, +0.75s, left 3                 | exchange.failed
refreshing previous     | harmless                  | doubtful              | rest                   | 1 access, trouble, due, left 3                             | exchange.failed
refreshing previous     | harmless                  | token dead            | rest                   | 1 access, trouble, due, left 3                             | exchange.failed grant.chain_lost
logging in              | harmless                  | granted               | rest                   | 2 access refresh, +39m, left 2                             | token.rotated
logging in              | harmless                  | granted, no refresh   | rest                   | 2 access, +39m, left 2                                     | token.rotated answer.odd
logging in              | harmless                  | granted in part       | rest                   | 2 access refresh, trouble, +30s, left 2                    | exchange.failed
logging in              | harmless                  | not sent              | rest                   | 1 access, trouble, +0.75s, left 3                          | exchange.failed
logging in              | harmless                  | doubtful              | rest                   | 1 access, trouble, lost, +5s, left 2                       | exchange.failed
logging in              | harmless                  | busy                  | rest                   | 1 access, trouble, +15m, left 2                            | exchange.failed
logging in              | harmless                  | token dead            | rest                   | 1 access, latched, trouble, person, left 2                 | grant.latched
logging in              | harmless                  | refused               | rest                   | 1 access, latched, trouble, person, left 2                 | grant.latched
logging in              | harmless                  | misconfigured         | rest                   | 1 access, latched, trouble, person, left 2                 | grant.latched
logging in              | harmless                  | look                  | rest                   | 1 access, trouble, lost, +5s, left 2                       | exchange.failed
authorizing             | harmless                  | granted               | rest                   | 2 access refresh, +39m, left 2                             | token.rotated
authorizing             | harmless                  | granted in part       | rest                   | 1 access refresh, +60s, left 2                             | exchange.failed
authorizing             | harmless                  | not sent              | rest                   | 1 access refresh, +60s, left 3                             | exchange.failed
authorizing             | harmless                  | doubtful              | rest                   | 1 access refresh, +60s, left 2                             | exchange.failed
authorizing             | harmless                  | busy                  | rest                   | 1 access refresh, +60s, left 2                             | exchange.failed
authorizing             | harmless                  | token dead            | rest                   | 1 access refresh, +60s, left 2                             | exchange.failed
authorizing             | harmless                  | refused               | rest                   | 1 access refresh, +60s, left 2                             | exchange.failed
authorizing             | harmless                  | misconfigured         | rest                   | 1 access refresh, +60s, left 2                             | exchange.failed
authorizing             | harmless                  | look                  | rest                   | 1 access refresh, +60s, left 2                             | exchange.failed
authorizing, latched    | harmless                  | granted               | rest                   | 2 access refresh, +39m, left 2                             | token.rotated grant.unlatched
authorizing, latched    | harmless                  | refused               | rest                   | 1 access refresh, latched, person, left 2                  | exchange.failed
authorizing, latched    | harmless                  | doubtful              | rest                   | 1 access refresh, latched, person, left 2                  | exchange.failed
authorizing, latched    | harmless                  | look                  | rest                   | 1 access refresh, latched, person, left 2                  | exchange.failed
"""  # noqa: E501 (a table is read across)

ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in TABLE.strip().splitlines()[1:]]


@pytest.mark.parametrize(("state", "rules", "fact", "order", "afterwards", "told"), ROWS)
def test_table(state: str, rules: str, fact: str, order: str, afterwards: str, told: str) -> None:
    step = lifecycle.advance(STATES[state], FACTS[fact], MOMENT, RULES[rules], build.EVEN)
    assert (ordered(step), described(step.grant), " ".join(build.names(step.events))) == (order, afterwards, told)


def test_every_row_is_written_once() -> None:
    assert len({row[:3] for row in ROWS}) == len(ROWS)


def test_every_state_and_every_fact_has_a_row() -> None:
    assert {row[0] for row in ROWS} == set(STATES)
    assert {row[2] for row in ROWS} == set(FACTS)


def ordered(step: lifecycle.Step) -> str:
    if isinstance(step.order, lifecycle.Rest):
        return "rest"
    if step.order.refresh is None:
        return step.order.kind.value
    current = step.order.refresh == step.grant.refresh
    return f"{step.order.kind.value} {'current' if current else 'previous'}"


def described(grant: Grant) -> str:
    held = [
        word
        for word, there in (
            ("access", grant.access), ("refresh", grant.refresh), ("previous", grant.previous_refresh),
        )
        if there is not None
    ]  # fmt: skip
    words = [f"{grant.generation} {' '.join(held) or 'nothing'}"]
    words += [
        word
        for word, there in (
            ("intent", grant.intent), ("doubt", grant.doubt), ("latched", grant.latch),
            ("trouble", grant.trouble),
            ("lost", grant.password_lost or None), ("unproven", grant.unproven or None),
        )
        if there is not None
    ]  # fmt: skip
    if grant.due_at is None:
        words.append("person")
    elif grant.due_at <= NOW:
        words.append("due")
    else:
        span = grant.due_at - NOW
        words.append(f"+{brief(span)}" if span % MINUTE == build.ZERO else f"+{span.total_seconds():g}s")
    return ", ".join([*words, f"left {build.left(grant, MOMENT, build.FORGIVING)}"])
