"""The verdict: how every grant stands, in words that every page, probe and status line shows alike.

`examine` judges one grant; `Health` is the snapshot of all at one moment, and everything shown is made of it; `probes`
are the questions that a supervisor asks of it.
"""

from rotator.core.health import probes
from rotator.core.health.documents import document, grant_document, listed_document, token
from rotator.core.health.judgement import Margin, examine
from rotator.core.health.snapshot import (
    Census,
    GrantHealth,
    Health,
    Listed,
    ProviderHealth,
    Pulse,
    Startup,
    State,
    TargetHealth,
)

__all__ = [
    "Census",
    "GrantHealth",
    "Health",
    "Listed",
    "Margin",
    "ProviderHealth",
    "Pulse",
    "Startup",
    "State",
    "TargetHealth",
    "document",
    "examine",
    "grant_document",
    "listed_document",
    "probes",
    "token",
]
