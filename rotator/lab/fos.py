"""An OAuth provider without a network, faithful to FOSOAuthServerBundle, with faults on request.

Time and chance are given, so that a simulation can drive it under virtual time. `Provider.respond` answers one
token request at once; `Provider.steps` is the same request as a generator that can be held between its steps, which
is how two requests overlap.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping

from rotator.lab import journal, messages, rules
from rotator.lab.faults import Fault, Mishap, Step
from rotator.lab.journal import Entry
from rotator.lab.ledger import Reuse
from rotator.lab.messages import Parameters, Reply
from rotator.lab.registry import Registry

# The request is not even looked at.
BEFORE = (Mishap.LOST_BEFORE_COMMIT, Mishap.HTML, Mishap.BUSY)
OUTAGE = "outage"

Steps = Generator[Step, None, Reply | None]


class Provider(Registry):
    """The two endpoints over the `Registry`. None in place of an answer means that the connection is dropped."""

    def respond(self, method: str, headers: Mapping[str, str], query: str = "", body: bytes = b"") -> Reply | None:
        """Answer one token request at once."""
        steps = self.steps(method, headers, query, body)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                reply: Reply | None = end.value
                return reply

    def steps(self, method: str, headers: Mapping[str, str], query: str = "", body: bytes = b"") -> Steps:
        """The same request, step by step: whoever drives it may wait, or serve others, at each `Step`."""
        headers = messages.lower(headers)
        fields: dict[str, str] | Reply = messages.parse_form(query)
        if method == "POST":
            fields = messages.parse_body(headers, body, json_listener=self.profile.json_body_listener)
        params = Parameters({} if isinstance(fields, Reply) else fields)
        entry = self.journal.begin(rules.kind(params), self.now())
        with self.journal.flight(self._identify(params, headers, entry)):
            yield Step.ARRIVED
            if self.faults.outage:
                self.journal.settle(entry, OUTAGE)
                return None
            fault = self.faults.take()
            if fault is not None and fault.mishap in BEFORE:
                self.journal.settle(entry, fault.mishap)
                return _stand_in(fault)
            if method not in ("GET", "POST"):
                self.journal.settle(entry, "wrong method")
                return messages.wrong_method("GET, POST")
            if isinstance(fields, Reply):
                self.journal.settle(entry, "not read")
                return fields
            reply = yield from rules.grant(self, params, headers, entry)
            if fault is not None:
                self.journal.settle(entry, fault.mishap)
                return _broken(reply) if fault.mishap is Mishap.TRUNCATED else None
            return reply

    def login(self, method: str, headers: Mapping[str, str], query: str = "", body: bytes = b"") -> Reply | None:
        """Token Login: a POST that carries an access token."""
        entry = self.journal.begin("login", self.now())
        reply, outcome = None, OUTAGE
        if not self.faults.outage:
            reply, outcome = self._login(method, messages.bearer_tokens(messages.lower(headers), query, body), entry)
        self.journal.settle(entry, outcome)
        return reply

    def _identify(self, params: Parameters, headers: Mapping[str, str], entry: Entry) -> str | None:
        """Note who asks before anything is checked; return the grant (client and user) where both are known."""
        credentials = messages.basic(headers)
        client = credentials[0] if credentials else params.given("client_id")
        entry.client = client if client in self.clients else None
        row = self.ledger.refresh.get(params.fields.get("refresh_token", ""))
        user = row.user if row is not None else params.given("username")
        entry.user = user if user in self.users else None
        if entry.kind == "refresh_token":
            newest = row is not None and self.ledger.is_newest(row)
            entry.token = journal.NEWEST if newest else journal.UNKNOWN if row is None else journal.OLD
        return f"{entry.client} {entry.user}" if entry.client and entry.user else None

    def _login(self, method: str, tokens: list[str], entry: Entry) -> tuple[Reply | None, str]:
        realm, wanted = self.profile.realm, self.profile.login_scope
        if method != "POST":
            return messages.wrong_method("POST"), "wrong method"
        if len(tokens) > 1:
            text = "Only one method may be used to authenticate at a time (Auth header, GET or POST)."
            return messages.challenge(400, realm, "invalid_request", text), "invalid_request"
        if not tokens:
            text = "OAuth2 authentication required"
            return messages.challenge(401, realm, "access_denied", text), "access_denied"
        row = self.ledger.access.get(tokens[0])
        if row is None:
            text = "The access token provided is invalid."
            return messages.challenge(401, realm, "invalid_grant", text, wanted), "invalid_grant"
        entry.client, entry.user = row.client, row.user
        if int(self.now()) > row.expires_at:
            text = "The access token provided has expired."
            return messages.challenge(401, realm, "invalid_grant", text, wanted), "invalid_grant"
        if wanted and not set(wanted.split()) <= set((row.scope or "").split()):
            text = "The request requires higher privileges than provided by the access token."
            return messages.challenge(403, realm, "invalid_scope", text, wanted), "invalid_scope"
        user = self.users.get(row.user or "")
        if user is not None and user.refused_login:
            return messages.challenge(401, realm, "access_denied", user.refused_login), "access_denied"
        if self.profile.reuse is Reuse.UNTIL_NEW_USED:
            self.ledger.used(row)
        return messages.write_json(200, {}), journal.GRANTED


def _stand_in(fault: Fault) -> Reply | None:
    """What answers in the provider's place: a page, or nothing."""
    if fault.mishap is Mishap.LOST_BEFORE_COMMIT:
        return None
    if fault.mishap is Mishap.HTML:
        return messages.page(200, "We will be back soon")
    wait = () if fault.retry_after is None else (("Retry-After", fault.retry_after),)
    return messages.page(fault.status, "Try again later", wait)


def _broken(reply: Reply) -> Reply:
    return Reply(reply.status, reply.headers, reply.body[: len(reply.body) // 2], complete=False)
