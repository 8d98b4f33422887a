"""The token endpoint: requests of RFC 6749 go out, classes of our own come back.

Fulfils `ports.TokenEndpoint`. `requests` writes a request, `bodies` reads an answer, `table` says what every outcome
means, `verdicts` puts the two together and words it; all four are pure. Nothing here retries: the lifecycle decides.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from types import ModuleType

from rotator.core.grants import Outcome, OutcomeClass
from rotator.core.ports import Http, TokenRequest
from rotator.drivers.oauth.profile import ClientAuth, Encoding, Profile

__all__ = ["ClientAuth", "Encoding", "Endpoint", "Profile"]


class Endpoint:
    """The port `ports.TokenEndpoint` for one provider.

    ``now`` (aware UTC) is used for two courtesies only: to tell that the provider's clock and ours differ, and to
    read a Retry-After that is a date in an answer without a date of its own.
    """

    def __init__(self, profile: Profile, http: Http, *, now: Callable[[], datetime] | None = None) -> None:
        self._profile = profile
        self._http = http
        self._now = now

    async def exchange(self, request: TokenRequest, *, deadline: timedelta) -> Outcome:
        """Send exactly one request. A request that cannot be made is “not sent” and says which value is missing."""
        requests, verdicts = _forms()
        try:
            outgoing = requests.written(request, self._profile)
        except requests.Incomplete as lacking:
            return Outcome(cls=OutcomeClass.NOT_SENT, message=lacking.what, mend=lacking.mend)
        answer = await self._http.send(outgoing, deadline=deadline)
        now = self._now() if self._now is not None else None
        outcome = verdicts.classify(answer, request.kind, self._profile, hide=requests.secrets_of(request), now=now)
        judged: Outcome = verdicts.with_skew(outcome, answer, now)
        return judged


@cache
def _forms() -> tuple[ModuleType, ModuleType]:
    """10 ms of imports that a restart with a valid stored token need not spend before it publishes."""
    from rotator.drivers.oauth import requests, verdicts

    return requests, verdicts
