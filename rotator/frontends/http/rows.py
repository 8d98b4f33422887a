"""One grant as HTML: its words, its bar and its day. Everything that comes from outside is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from rotator.core.events import brief
from rotator.core.grants import OutcomeClass
from rotator.core.health import GrantHealth, State, TargetHealth
from rotator.core.publication import rfc3339
from rotator.core.telling import markup
from rotator.frontends.http.history import DAY, Mark, What

# The words of `State`, as names of classes.
TONES = {
    State.FRESH: "good", State.RETRYING: "fair", State.DOUBT: "fair", State.EMPTY: "fair", State.EXPIRED: "bad",
    State.PERSON_NEEDED: "bad", State.LATCHED: "bad",
}  # fmt: skip
WIDE, HIGH = 1440, 22
# A drawing that nothing changes is drawn anew so often, as its right end is now.
DRAWN_EVERY = timedelta(minutes=5)


def tone(grant: GrantHealth) -> str:
    """``good``, ``fair`` (it heals by itself) or ``bad``: readers go without, or a person must act."""
    if grant.unready:
        return "bad"
    found = TONES[grant.state]
    return "fair" if found == "good" and grant.reason else found


def row(grant: GrantHealth, marks: Sequence[Mark], since: datetime, now: datetime) -> str:
    """A body of the table: the row of facts and, where something is wrong, the row that says why."""
    name = markup(grant.name)
    passwords = "–" if grant.passwords_limit is None else _passwords(grant)
    cells = (
        ("state", f'<span class="word">{markup(grant.state.value)}</span>{_unready(grant)}'),
        ("valid", _validity(grant, now)),
        ("next", _ago(grant.due_at, now) if grant.due_at is not None else "when a person acts"),
        ("outcome", _outcome(grant, now)),
        ("targets", _targets(grant.targets, grant.state is State.EXPIRED)),
        ("passwords", passwords),
        ("day", day(grant, marks, since, now)),
    )
    told = "".join(f'<td role="cell" class="{key}">{text}</td>' for key, text in cells)
    why = (
        f'<tr role="row" class="why"><td role="cell" colspan="8">{markup(grant.reason)}</td></tr>'
        if grant.reason
        else ""
    )
    return (
        f'<tbody role="rowgroup" id="g-{name}" class="{tone(grant)}"><tr role="row">'
        f'<th role="rowheader" scope="row">{name}<small>{markup(grant.provider)}</small></th>{told}</tr>{why}</tbody>'
    )


def _unready(grant: GrantHealth) -> str:
    return '<small class="unready">not ready</small>' if grant.unready else ""


def _validity(grant: GrantHealth, now: datetime) -> str:
    """What is left of the lifetime, as words and as a bar; both are kept true by the script where there is one."""
    if grant.expires_at is None or grant.issued_at is None:
        return '<span class="left">no token</span>'
    whole, left = grant.expires_at - grant.issued_at, max(grant.expires_at - now, timedelta(0))
    share = min(100.0, 100 * left / whole) if whole else 0.0
    words = f"{brief(left)} of {brief(whole)}" if left else f"expired {brief(now - grant.expires_at)} ago"
    begin, end = f"{grant.issued_at.timestamp():.0f}", f"{grant.expires_at.timestamp():.0f}"
    return (
        f'<span class="left" data-from="{begin}" data-to="{end}" '
        f'title="until {_clock(grant.expires_at)}">{words}</span>'
        '<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'<rect class="whole" width="100" height="4"/><rect class="rest" width="{share:.1f}" height="4"/></svg>'
    )


def _ago(at: datetime, now: datetime) -> str:
    """A time as a distance; the exact one where somebody points at it."""
    past = "now" if now - at < timedelta(minutes=1) else f"{brief(now - at)} ago"
    words = f"in {brief(at - now)}" if at > now else past
    return f'<time datetime="{rfc3339(at)}" title="{_clock(at)}">{words}</time>'


def _outcome(grant: GrantHealth, now: datetime) -> str:
    if not grant.last_outcome:
        return "none yet"
    last = grant.last_success_at
    granted = "" if grant.last_outcome == OutcomeClass.GRANTED else "last success "
    success = f"<small>{granted}{_ago(last, now)}</small>" if last is not None else "<small>no success yet</small>"
    return f"{markup(grant.last_outcome)}{success}"


def _passwords(grant: GrantHealth) -> str:
    limit, left = grant.passwords_limit or 0, grant.passwords_left or 0
    return f'<span class="count">{limit - left} of {limit}</span>'


def _targets(targets: Sequence[TargetHealth], expired: bool) -> str:
    """What is well is a name, for the rest the trouble stands behind it."""
    if not targets:
        return "none"
    lines = []
    for one in targets:
        good = one.generation is not None and not one.trouble
        words = f"generation {one.generation}" if good else one.trouble or "not written yet"
        optional = "" if one.required else "optional: "
        tone = "good" if good and not expired else "bad" if one.required else "fair"
        lines.append(
            f'<li class="{tone}" title="{markup(one.location)}"><span class="word">{markup(one.name)}</span> '
            f'<span class="{"sight" if good else "trouble"}">{optional}{markup(words)}</span></li>'
        )
    return f"<ul>{''.join(lines)}</ul>"


# --- the day ----------------------------------------------------------------------------------------------------


def day(grant: GrantHealth, marks: Sequence[Mark], since: datetime, now: datetime) -> str:
    """The last 24 hours, a unit a minute: rotations as strokes, failures as short ones, outages as bands."""

    def x(at: datetime) -> float:
        return round(max(0.0, WIDE - (now - at) / timedelta(minutes=1)), 1)

    drawn = [f'<rect class="unknown" width="{x(since):g}" height="{HIGH}"/>'] if x(since) > 0 else []
    drawn.append(f'<path class="axis" d="M{x(since):g} {HIGH - 1}H{WIDE}"/>')
    for begin, end, kind in _spans(grant, marks, now):
        width = max(3.0, x(end) - x(begin))
        drawn.append(f'<rect class="{kind}" x="{x(begin):g}" y="3" width="{width:g}" height="{HIGH - 6}"/>')
    tall = {What.ROTATED: (3, HIGH - 3), What.FAILED: (9, HIGH - 3), What.STUCK: (1, HIGH - 1)}
    for what in (What.ROTATED, What.FAILED, What.UNDELIVERED, What.STUCK):
        top, bottom = tall.get(what, (HIGH - 8, HIGH - 1))
        strokes = "".join(f"M{x(mark.at):g} {top}V{bottom}" for mark in marks if mark.what is what)
        if strokes:
            drawn.append(f'<path class="{what.value}" d="{strokes}"/>')
    label = markup(told(grant, marks, since, now))
    return (
        f'<svg class="day" viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f"{''.join(drawn)}</svg>"
    )


def told(grant: GrantHealth, marks: Sequence[Mark], since: datetime, now: datetime) -> str:
    """The same in words."""
    count = {what: sum(mark.what is what for mark in marks) for what in What}
    span = "the last day" if now - since >= DAY - timedelta(minutes=1) else f"since {_clock(since)}"
    parts = [_number(count[What.ROTATED], "rotation"), _number(count[What.FAILED], "failed exchange")]
    if count[What.UNDELIVERED]:
        parts.append(_number(count[What.UNDELIVERED], "failed delivery", "failed deliveries"))
    gaps = [end - begin for begin, end, kind in _spans(grant, marks, now) if kind == "gap"]
    if gaps:
        parts.append(f"no valid token for {brief(sum(gaps, timedelta(0)))}")
    return f"{span}: {', '.join(parts)}"


def _spans(grant: GrantHealth, marks: Sequence[Mark], now: datetime) -> list[tuple[datetime, datetime, str]]:
    """Bands as (begin, end, kind): an ``outage`` from the first failure to the next success, a ``gap`` while no token
    was valid."""
    found: list[tuple[datetime, datetime, str]] = []
    failing: datetime | None = None
    until: datetime | None = None
    for mark in marks:
        if mark.what in (What.FAILED, What.STUCK):
            failing = failing or mark.at
        elif mark.what is What.ROTATED:
            if failing is not None:
                found.append((failing, mark.at, "outage"))
            if until is not None and until < mark.at:
                found.append((until, mark.at, "gap"))
            failing, until = None, mark.until
    if failing is not None and grant.state is not State.FRESH:
        found.append((failing, now, "outage"))
    if grant.expires_at is not None and grant.expires_at < now:
        found.append((max(grant.expires_at, now - DAY), now, "gap"))
    return found


def _number(count: int, one: str, more: str = "") -> str:
    return f"{count or 'no'} {one if count == 1 else more or one + 's'}"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"
