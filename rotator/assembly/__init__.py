"""Settings become objects; the only room that knows everyone.

``plan`` reads and checks the configuration, ``roster`` makes enrolments of it, ``house`` puts the daemon together,
``stored`` answers without a daemon, ``forecast`` makes a simulated fleet of it.
"""

from rotator.assembly.forecast import fleet
from rotator.assembly.house import Built, build, client, polls
from rotator.assembly.plan import Plan, effective, read, reset_state, span, state_folder
from rotator.assembly.stored import login, stored_health, stored_token

__all__ = [
    "Built", "Plan", "build", "client", "effective", "fleet", "login", "polls", "read", "reset_state", "span",
    "state_folder", "stored_health", "stored_token",
]  # fmt: skip
