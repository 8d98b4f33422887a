"""The token endpoint's order of checks, and how it stores what it grants (oauth2-php 1.3, `lib/OAuth2.php`).

Nothing is written before the last check has passed, so every refusal leaves the refresh token as it was.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass

from rotator.lab import journal, messages
from rotator.lab.faults import Step
from rotator.lab.journal import Entry
from rotator.lab.ledger import STICKY_SECONDS, Access, Refresh, Reuse, Verdict
from rotator.lab.messages import Parameters, Reply
from rotator.lab.registry import Client, Registry

# Case-sensitive, as the provider's own expression is.
GRANT_TYPE = re.compile(r"authorization_code|token|password|client_credentials|refresh_token|https?://.+|urn:.+")
WRONG_GRANT_TYPE = "Invalid grant_type parameter or parameter missing"
WRONG_CLIENT = "The client credentials are invalid"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a grant handler found: for whom, and with which scope, tokens may be made."""

    user: str | None
    scope: str | None
    spent: Refresh | None = None
    with_refresh: bool = True
    code: str | None = None


def kind(params: Parameters) -> str:
    """The grant type under which the journal keeps a request; a stranger's words are not kept."""
    grant_type = params.fields.get("grant_type", "")
    if not GRANT_TYPE.fullmatch(grant_type):
        return "none"
    return "extension" if ":" in grant_type else grant_type


def refuse(registry: Registry, entry: Entry, error: str, description: str | None, *, outcome: str = "") -> Reply:
    """A refusal, in the journal and in the provider's words."""
    registry.journal.settle(entry, outcome or error)
    statuses = registry.faults.error_statuses
    return messages.refusal(error, description, status=statuses.get(error, statuses.get("*", 400)))


def grant(
    registry: Registry, params: Parameters, headers: Mapping[str, str], entry: Entry
) -> Generator[Step, None, Reply]:
    """Check in the provider's order, then grant."""
    grant_type = params.fields.get("grant_type", "")
    if not GRANT_TYPE.fullmatch(grant_type):
        return refuse(registry, entry, "invalid_request", WRONG_GRANT_TYPE)
    credentials = messages.basic(headers)
    if credentials is None:
        client_id = params.given("client_id")
        if client_id is None:
            return refuse(registry, entry, "invalid_client", "Client id was not found in the headers or body")
        credentials = (client_id, params.fields.get("client_secret", ""))
    client = registry.clients.get(credentials[0])
    if client is None or client.secret not in (None, credentials[1]):
        return refuse(registry, entry, "invalid_client", WRONG_CLIENT)
    if grant_type not in client.grant_types:
        text = "The grant type is unauthorized for this client_id"
        return refuse(registry, entry, "unauthorized_client", text)
    finding: Finding | Reply
    match grant_type:
        case "password":
            finding = _by_password(registry, params, entry)
        case "refresh_token":
            finding = yield from _by_refresh(registry, params, client, entry)
        case "authorization_code":
            finding = _by_code(registry, params, client, entry)
        case "client_credentials":
            finding = _by_client(registry, credentials[1], entry)
        case "token":
            finding = refuse(registry, entry, "invalid_request", WRONG_GRANT_TYPE)
        case _:
            finding = refuse(registry, entry, "unsupported_grant_type", None)
    if isinstance(finding, Reply):
        return finding
    wanted = params.given("scope")
    if wanted is not None and not set(wanted.split()) <= set((finding.scope or "").split()):
        return refuse(registry, entry, "invalid_scope", "An unsupported scope was requested.")
    return (yield from _issue(registry, client, finding, wanted or finding.scope, entry))


def _by_password(registry: Registry, params: Parameters, entry: Entry) -> Finding | Reply:
    username, password = params.given("username"), params.given("password")
    if username is None or password is None:
        text = 'Missing parameters. "username" and "password" required'
        return refuse(registry, entry, "invalid_request", text)
    locked = registry.is_locked(username)
    if not registry.check_password(username, password):
        outcome = journal.LOCKED_OUT if locked else ""
        text = "Invalid username and password combination"
        return refuse(registry, entry, "invalid_grant", text, outcome=outcome)
    return Finding(username, registry.profile.scope)


def _by_client(registry: Registry, secret: str, entry: Entry) -> Finding | Reply:
    if secret in ("", "0"):
        text = 'The client_secret is mandatory for the "client_credentials" grant type'
        return refuse(registry, entry, "invalid_client", text)
    return Finding(None, registry.profile.scope, with_refresh=False)


def _by_code(registry: Registry, params: Parameters, client: Client, entry: Entry) -> Finding | Reply:
    value = params.given("code")
    if value is None:
        return refuse(registry, entry, "invalid_request", 'Missing parameter. "code" is required')
    redirect_uri = params.given("redirect_uri")
    if redirect_uri is None:
        return refuse(registry, entry, "invalid_request", "The redirect URI parameter is required.")
    code = registry.codes.get(value)
    if code is None or code.client != client.client_id:
        return refuse(registry, entry, "invalid_grant", "Code doesn't exist or is invalid for the client")
    if redirect_uri != code.redirect_uri:
        text = "The redirect URI is missing or do not match"
        return refuse(registry, entry, "redirect_uri_mismatch", text)
    if int(registry.now()) > code.expires_at:
        return refuse(registry, entry, "invalid_grant", "The authorization code has expired")
    entry.user = code.user
    return Finding(code.user, registry.profile.scope, code=value)


def _by_refresh(
    registry: Registry, params: Parameters, client: Client, entry: Entry
) -> Generator[Step, None, Finding | Reply]:
    value = params.given("refresh_token")
    if value is None:
        return refuse(registry, entry, "invalid_request", 'No "refresh_token" parameter found')
    reuse, grace = registry.profile.reuse, registry.profile.grace_seconds
    if reuse is not Reuse.FOS:
        # These providers lock the row: whoever comes second reads what the first has written.
        yield Step.READ
    row = registry.ledger.refresh.get(value)
    verdict = registry.ledger.judge(row, client.client_id, registry.now(), reuse, grace)
    if reuse is Reuse.FOS:
        # And this one does not: two requests that have both read are both granted.
        yield Step.READ
    if row is None or verdict in (Verdict.UNKNOWN, Verdict.DEAD):
        return refuse(registry, entry, "invalid_grant", "Invalid refresh token")
    if verdict is Verdict.EXPIRED:
        return refuse(registry, entry, "invalid_grant", "Refresh token has expired")
    if verdict is Verdict.SAME_PAIR:
        registry.journal.settle(entry, journal.GRANTED)
        return _granted(registry, row.children[-1].access, row.scope, row.children[-1].value)
    return Finding(row.user, row.scope, spent=row)


def _issue(
    registry: Registry, client: Client, finding: Finding, scope: str | None, entry: Entry
) -> Generator[Step, None, Reply]:
    """Create the access token, create the refresh token, delete the old one: three transactions, none around them."""
    profile, ledger, old = registry.profile, registry.ledger, finding.spent
    now = registry.now()
    owner = (client.client_id, finding.user, scope)
    family = old.family if old is not None else ledger.new_family()
    access = registry.token()
    ledger.access[access] = Access(access, *owner, int(now) + profile.access_seconds, family, parent=old)
    yield Step.ACCESS_STORED
    if registry.faults.crashes_at(Step.ACCESS_STORED):
        return _crash(registry, entry)
    refresh: str | None = None
    if old is not None and _stays(old, profile.reuse, now):
        refresh = old.value if profile.reuse is Reuse.STICKY_VALUE else None
        old.expires_at = int(now) + profile.refresh_seconds
    elif finding.with_refresh:
        refresh = registry.token()
        expires_at = int(now) + profile.refresh_seconds
        new = Refresh(refresh, *owner, expires_at, family, access, minted_at=now, parent=old)
        ledger.refresh[refresh] = new
        yield Step.REFRESH_STORED
        if registry.faults.crashes_at(Step.REFRESH_STORED):
            return _crash(registry, entry)
        if old is not None:
            old.children.append(new)
            ledger.spend(old, now)
    if old is not None:
        if profile.revoke_old_access:
            ledger.access.pop(old.access, None)
        old.access = access if refresh in (None, old.value) else old.access
        yield Step.OLD_DELETED
        if registry.faults.crashes_at(Step.OLD_DELETED):
            return _crash(registry, entry)
    if finding.code is not None:
        registry.codes.pop(finding.code, None)
    entry.committed = True
    registry.journal.settle(entry, journal.GRANTED)
    return _granted(registry, access, scope, refresh)


def _stays(old: Refresh, reuse: Reuse, now: float) -> bool:
    """Whether a refresh leaves the refresh token as it is."""
    if reuse is Reuse.STICKY_VALUE:
        return now - old.minted_at < STICKY_SECONDS
    return reuse is Reuse.NO_RT_IN_REFRESH


def _granted(registry: Registry, access: str, scope: str | None, refresh: str | None) -> Reply:
    answer: dict[str, object] = {
        "access_token": access,
        "expires_in": registry.profile.access_seconds,
        "token_type": "bearer",
        "scope": scope,
    }
    if refresh is not None:
        answer["refresh_token"] = refresh
    answer |= registry.faults.overrides
    return messages.write_json(200, {key: value for key, value in answer.items() if key not in registry.faults.omitted})


def _crash(registry: Registry, entry: Entry) -> Reply:
    registry.journal.settle(entry, "crashed")
    return messages.page(500, "Oops! An Error Occurred")
