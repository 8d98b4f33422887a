"""What every outcome of a token request means: one table, one row per outcome, the first row that fits counts.

Order of evidence: how far the request got, then the JSON ``error`` whatever the status (RFC 6749 section 5.2; some
send ``invalid_grant`` with 403 or 200), then the body of a 2xx, then the status. Never ``error_description``: its
text varies by server, version and language (it may only spare a login from being counted, see `verdicts`).

What the classes cost: NOT_SENT is tried again freely. BUSY waits as asked. DOUBTFUL may have spent the refresh
token. REFRESH_DEAD ends the chain. REFUSED latches at once, so that no account is ever locked by us. MISCONFIGURED
keeps every token and is tried again slowly, at ``pace``; a password exchange latches on it as well, unless the
answer proves that nobody looked at the credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from datetime import timedelta

from rotator.core import lean
from rotator.core.grants import Charge, Kind, OutcomeClass
from rotator.core.grants import OutcomeClass as C
from rotator.core.ports import Reach
from rotator.drivers.oauth.bodies import Body


@lean.dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one answer, as the rows ask for it."""

    reach: Reach
    failure: str | None
    status: int | None
    error: str | None
    body: Body


Fits = Callable[[Finding], bool]
Pace = tuple[timedelta, timedelta]

DEPLOY: Pace = (timedelta(minutes=5), timedelta(hours=1))
SOON: Pace = (timedelta(minutes=1), timedelta(minutes=15))
# Of the three logins of a day one is left after a page of half an hour, and after one of an hour.
SPARING: Pace = (timedelta(minutes=30), timedelta(hours=8))


@lean.dataclass(frozen=True, slots=True)
class Row:
    """``what`` says it in a message where the provider gave no error code. What begins with ``password`` stands where a
    password exchange differs from a refresh. ``pace``, ``charge`` and ``barred`` are those of the outcome."""

    what: str
    fits: Fits
    refresh: OutcomeClass
    password: OutcomeClass | None = None
    mend: str = ""
    password_mend: str = ""
    pace: Pace | None = None
    password_pace: Pace | None = None
    charge: Charge = Charge.ONE
    barred: bool = False

    def cls(self, kind: Kind) -> OutcomeClass:
        return self.password if self.password is not None and kind is Kind.PASSWORD else self.refresh

    def mending(self, kind: Kind) -> str:
        return self.password_mend if self.password_mend and kind is Kind.PASSWORD else self.mend

    def pacing(self, kind: Kind) -> Pace | None:
        return self.password_pace if self.password_pace is not None and kind is Kind.PASSWORD else self.pace


def unsent(*failures: str) -> Fits:
    """Failed before a byte of the request left; no word means any."""
    return lambda f: f.reach < Reach.WRITTEN and (not failures or f.failure in failures)


def unanswered(f: Finding) -> bool:
    """The request left, at least in part, and no status came back."""
    return f.reach < Reach.STATUS or f.status is None


def cut_off(codes: Container[int]) -> Fits:
    """Such a status, and a body that broke off before it said why."""
    return lambda f: f.status in codes and f.failure not in (None, "too large")


def error(*codes: str) -> Fits:
    return lambda f: f.error in codes


def success(*bodies: Body) -> Fits:
    """A 2xx with such a body."""
    return lambda f: f.status is not None and 200 <= f.status < 300 and f.body in bodies


def unknown_error_in_success(f: Finding) -> bool:
    return f.error is not None and success(*Body)(f)


def status(codes: Container[int]) -> Fits:
    return lambda f: f.status in codes


def otherwise(_: Finding) -> bool:
    return True


PROVIDER = "check `token_url`, `encoding` and `auth` of the provider"
URL = "check `token_url` of the provider"
CLIENT = "check `client_id` and `client_secret`"
LOGIN = "check `username` and `password`, and that the account is not locked"
NETWORK = "if it lasts, check the host in `token_url`, the name server and the way out"
TRUST = "check `ca_file` and this machine's clock, and whether something stands in between; it is never skipped"
BLOCKED = "ask the provider whether this address or client is blocked"

ROWS: tuple[Row, ...] = (
    # --- nothing was sent (RFC 9110 section 9.2.2: safe to repeat)
    Row("no connection", unsent("dns", "refused", "unreachable", "connection"), C.NOT_SENT, mend=NETWORK),
    Row("no connection through the proxy", unsent("proxy"), C.NOT_SENT, mend="check `proxy` of the provider"),
    Row("no connection in time", unsent("connect timeout", "timeout", "reset"), C.NOT_SENT, mend=NETWORK),
    Row("not proven to be the right server", unsent("certificate", "tls"), C.NOT_SENT, mend=TRUST,
        pace=SOON),
    Row("a request that cannot be written", unsent("protocol"), C.NOT_SENT, mend=URL),
    Row("nothing was sent", unsent(), C.NOT_SENT, mend=NETWORK),
    # --- it left, and nobody knows (a write that failed half-way is among these)
    Row("no answer came back", unanswered, C.DOUBTFUL),
    # --- the provider's own word, in any status
    Row("the grant is dead", error("invalid_grant"), C.REFRESH_DEAD, C.REFUSED, password_mend=LOGIN),
    # No probe from time to time: a refused client latches like a refused user, and what is latched sends nothing. A
    # secret that was put right releases the latch, and the refresh token is kept for that.
    Row("the client is refused", error("invalid_client"), C.REFUSED, mend=CLIENT),
    # Some give a refresh token with every login and let the client use none: only another login is left to it.
    Row("the client may not do this", error("unauthorized_client", "unsupported_grant_type"), C.MISCONFIGURED,
        mend="have the provider allow this client the grant types password and refresh_token", barred=True),
    Row("the scope is refused", error("invalid_scope"), C.MISCONFIGURED, mend="remove or correct `scope`"),
    Row("the request is not understood", error("invalid_request"), C.MISCONFIGURED, mend=PROVIDER),
    Row("the provider is busy", error("temporarily_unavailable", "server_error", "slow_down", "internal_failure"),
        C.BUSY),
    # --- 2xx by its body; with tokens in it an error that nobody knows does not take them away
    Row("a new token set", success(Body.TOKENS), C.GRANTED),
    Row("tokens came, but no bearer token that may be used", success(Body.HALF), C.PARTIAL,
        mend="ask the provider why; readers keep the last good token"),
    Row("an error that is not known", unknown_error_in_success, C.MISCONFIGURED, mend=PROVIDER),
    Row("there is nothing in the answer", success(Body.EMPTY), C.DOUBTFUL),
    Row("the answer was cut off; tokens may have been issued in it", success(Body.CUT), C.DOUBTFUL),
    Row("the answer is not JSON; tokens may have been issued in it", success(Body.BROKEN), C.DOUBTFUL),
    Row("there is no access token in the answer that may be used", success(Body.UNUSABLE), C.DOUBTFUL),
    # Something else than the provider's token code answered, which says nothing of a login's credentials: a latch would
    # outlive the maintenance. But it counts, and is tried sparingly: where `token_url` leads to a login form for
    # people, the page may be the answer to a password that was looked at.
    Row("a web page came, not a token: a login, a maintenance or a portal page", success(Body.PAGE), C.MISCONFIGURED,
        C.BUSY, mend=URL, pace=SOON, password_pace=SPARING),
    # --- the status alone
    Row("a redirect, which is never followed", status(range(300, 400)), C.MISCONFIGURED,
        mend="if the move is right, write the new address into `token_url`"),
    # Refused, so nothing was spent; why is in the part that is missing, and the next answer will tell.
    Row("refused, and the answer was cut off before it said why", cut_off((400, 401, 403)), C.BUSY),
    Row("the request is refused without an OAuth error", status((400,)), C.MISCONFIGURED, mend=PROVIDER),
    Row("a login is asked for by something before the provider", status((401,)), C.MISCONFIGURED, mend=URL),
    Row("access is forbidden, perhaps by a firewall", status((403,)), C.MISCONFIGURED, mend=BLOCKED),
    Row("there is no token endpoint here", status((404, 405, 410, 421, 501)), C.MISCONFIGURED, mend=URL, pace=DEPLOY),
    # RFC 9110 section 15.5.8: the proxy's own answer; the request went no further.
    Row("the proxy asks for a login", status((407,)), C.MISCONFIGURED, mend="check `proxy` of the provider",
        charge=Charge.NONE),
    # RFC 9110 section 15.5.9: the server did not get the whole request.
    Row("the server gave up waiting for the request", status((408,)), C.NOT_SENT),
    Row("the form of the request is refused", status((411, 413, 414, 415, 431)), C.MISCONFIGURED, mend=PROVIDER),
    Row("the account or the resource is locked", status((423,)), C.MISCONFIGURED, C.REFUSED,
        mend="ask the provider to unlock it"),
    Row("too many requests", status((425, 429)), C.BUSY, charge=Charge.HALF),
    Row("the request is refused", status(range(400, 500)), C.MISCONFIGURED, mend=BLOCKED),
    # RFC 9110 section 15.6.4: the server says itself that it is not handling requests now.
    Row("the server is overloaded or under maintenance", status((503,)), C.BUSY),
    Row("a gateway failed; the request may have been carried out", status((502, 504, *range(520, 525))), C.DOUBTFUL),
    Row("the server failed; the request may have been carried out", status(range(500, 600)), C.DOUBTFUL),
    Row("an answer that means nothing", otherwise, C.DOUBTFUL, mend=URL),
)  # fmt: skip


def row(finding: Finding) -> Row:
    """The first row that fits; the last one fits everything."""
    return next(one for one in ROWS if one.fits(finding))
