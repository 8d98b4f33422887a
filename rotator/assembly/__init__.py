"""Settings become objects; the only room that knows everyone.

``inspection`` reads the configuration and looks at what it names, ``plan`` is what comes of it, ``services`` knows the
unit that it belongs to, ``roster`` makes enrolments of it, ``house`` puts the daemon together, ``states`` knows the
store, ``stored`` answers without a daemon, ``policies`` and ``online`` say and ask what is needed elsewhere,
``forecast`` makes a simulated fleet of it.
"""

from rotator.assembly.forecast import fleet
from rotator.assembly.house import Built, build, client, polls
from rotator.assembly.inspection import checked, read
from rotator.assembly.plan import Plan, check_entry, effective, folders, locate, span
from rotator.assembly.states import described as state_described
from rotator.assembly.states import rekey
from rotator.assembly.states import reset as reset_state
from rotator.assembly.stored import login, stored_health, stored_token

__all__ = [
    "Built", "Plan", "build", "check_entry", "checked", "client", "effective", "fleet", "folders", "locate", "login",
    "polls", "read", "rekey", "reset_state", "span", "state_described", "stored_health", "stored_token",
]  # fmt: skip
