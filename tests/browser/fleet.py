"""A fleet to look at, made without a world: some grants in every state, and a day of events behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from rotator.core import events
from rotator.core.health import GrantHealth, Health, Pulse, State, TargetHealth
from rotator.frontends.http.history import History

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
NAMES = ("billing", "crm", "exports", "invoices", "ledger", "mail", "payroll", "reports", "sandbox", "shop")
OUTAGE = (9 * HOUR, 7 * HOUR)


def fleet(now: datetime, count: int = len(NAMES)) -> tuple[GrantHealth, ...]:
    """By name; nearly all are well."""
    names = NAMES if count <= len(NAMES) else tuple(f"grant_{number:06}" for number in range(count))
    return tuple(_grant(name, number, count, now) for number, name in enumerate(names[:count]))


def _grant(name: str, number: int, count: int, now: datetime) -> GrantHealth:
    age = timedelta(seconds=60 + number * 977 % 2600)
    fresh = GrantHealth(
        name=name, provider="omnifund-sandbox" if name == "sandbox" else "omnifund", state=State.FRESH, reason="",
        generation=20 + number % 90, issued_at=now - age, expires_at=now - age + HOUR,
        due_at=now + timedelta(seconds=2700) - age,
        passwords_left=3 - (number % 7 == 3), passwords_limit=3, published=True, last_outcome="granted",
        targets=(
            TargetHealth("app", f"file:/run/rotator/{name}/token", 20 + number % 90),
            TargetHealth("cluster", f"vault:default:secret/oauth/{name}", 20 + number % 90),
        ),
    )  # fmt: skip
    if number == 1:
        return replace(
            fresh, state=State.LATCHED, due_at=None, last_outcome="credentials refused", passwords_left=2,
            issued_at=now - 52 * MINUTE, expires_at=now + 8 * MINUTE,
            reason="credentials refused: HTTP 400 invalid_grant, latched since "
            f"{now - 38 * MINUTE:%Y-%m-%d %H:%M:%S}Z; check `username` and `password`, and that the account is not "
            f"locked; then change the credentials of grants.{name}, or run `rotator rotate --force {name}`",
        )  # fmt: skip
    if number == 6:
        return replace(
            fresh, state=State.EXPIRED, issued_at=now - 100 * MINUTE, expires_at=now - 40 * MINUTE, published=False,
            due_at=now + 3 * MINUTE, last_outcome="not sent", reason="not sent: no connection: name not known; if it "
            "lasts, check the host in `token_url`, the name server and the way out",
            unready="target app and target cluster hold no valid token",
        )  # fmt: skip
    if number == 4:
        troubled = replace(fresh.targets[1], generation=None, trouble="the Vault is sealed; unseal it", required=False)
        return replace(fresh, targets=(fresh.targets[0], troubled), reason=f"target cluster {troubled.trouble}")
    return fresh


def day(grants: tuple[GrantHealth, ...], now: datetime) -> Iterator[events.Event]:
    """What happened to them: a rotation every 45 minutes, two hours of an outage, and what is wrong now."""
    told: list[events.Event] = []
    for number, grant in enumerate(grants):
        at = now - timedelta(seconds=60 + number * 977 % 2600)
        while at > now - 22 * HOUR:
            in_outage = now - OUTAGE[0] < at < now - OUTAGE[1] and number % 3 == 0
            if (grant.state is State.LATCHED and at > now - 52 * MINUTE) or (grant.state is State.EXPIRED and (
                at > now - 100 * MINUTE
            )):  # fmt: skip
                told.append(_failed(grant.name, at))
            elif in_outage:
                told += [_failed(grant.name, at + minutes * MINUTE) for minutes in (0, 9, 21, 30)]
            else:
                told.append(
                    events.Rotated(at=at, grant=grant.name, kind="refresh_token", generation=1, expires_at=at + HOUR,
                                   due_at=at + 45 * MINUTE)
                )  # fmt: skip
            at -= 45 * MINUTE
    yield from sorted(told, key=lambda event: event.at)


def _failed(name: str, at: datetime) -> events.ExchangeFailed:
    return events.ExchangeFailed(
        at=at, grant=name, kind="refresh_token", cls="not sent", reason="", mend="", next_at=None, valid_until=None
    )


def history(grants: tuple[GrantHealth, ...], now: datetime) -> History:
    made = History(now - 22 * HOUR)
    for event in day(grants, now):
        made(event)
    return made


def health(grants: tuple[GrantHealth, ...], now: datetime) -> Health:
    return Health(now, grants, Pulse(now, 3 * SECOND, 30 * SECOND), started=True)
