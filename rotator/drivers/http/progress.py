"""How far one request got, whoever carried it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from rotator.core.ports import HttpAnswer, Reach
from rotator.drivers.http import failures


@dataclass(slots=True)
class Progress:
    """How far one request got. It lives outside the request, so that a timeout can still tell."""

    reach: Reach = Reach.NOTHING
    stage: failures.Stage = failures.Stage.TRUST
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def note(self, reach: Reach, stage: failures.Stage) -> None:
        self.reach, self.stage = reach, stage

    def began(self, status: int, headers: tuple[tuple[str, str], ...]) -> None:
        """The final status is there. Raises failures.Unusable for a body that would have to be inflated."""
        self.status, self.headers = status, headers
        self.note(Reach.STATUS, failures.Stage.BODY)
        for name, value in headers:
            if name == "content-encoding" and value.strip().lower() not in ("", "identity"):
                raise failures.Unusable("protocol", "the body is compressed although that was declined")

    def complete(self, body: bytes) -> None:
        self.body = body
        self.reach = Reach.COMPLETE

    def answer(self) -> HttpAnswer:
        return HttpAnswer(Reach.COMPLETE, self.status, self.headers, self.body)

    def failed(self, error: BaseException, place: str, deadline: timedelta) -> HttpAnswer:
        """An answer that is whole stays whole, also when the deadline strikes while its connection is put away."""
        if self.reach is Reach.COMPLETE:
            return self.answer()
        word, detail = failures.told(error, self.stage, place, deadline)
        return HttpAnswer(self.reach, self.status, self.headers, failure=word, detail=detail)


def too_large(limit: int) -> failures.Unusable:
    return failures.Unusable("too large", f"the body is larger than {limit} bytes")
