"""Every metric: its name, type, labels and meaning. Rules, dashboard and docs are held against this list.

Names after https://prometheus.io/docs/practices/naming/: base units, ``_total`` for counters, and points in time rather
than “seconds left”, which are exact at the time of a query. Values of ``state`` and ``outcome`` are the words of
`rotator.core`: those of `State`, of `OutcomeClass`.
"""

from __future__ import annotations

from rotator.core import lean
from rotator.core.grants import OutcomeClass
from rotator.core.health import State

STATES = tuple(one.value for one in State)
OUTCOMES = tuple(one.value for one in OutcomeClass)
PUBLISHED = ("delivered", "repaired", "failed")
JUMPS = ("forward", "back", "sleep")
LOGINS = ("granted", "refused", "unavailable", "misconfigured")
OPERATIONS = ("read", "write", "list", "delete")
CODES = ("2xx", "3xx", "400", "403", "404", "412", "429", "4xx", "503", "5xx", "none")

GRANT = ("provider", "grant")
TARGET = (*GRANT, "target", "kind")

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


@lean.dataclass(frozen=True, slots=True)
class Family:
    """One metric. ``buckets`` (upper bounds in seconds) are those of a histogram."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


# --- a grant ----------------------------------------------------------------------------------------------------

EXPIRATION = Family(
    "rotator_token_expiration_timestamp_seconds", GAUGE, GRANT, "When the saved access token expires."
)  # fmt: skip
ISSUED = Family(
    "rotator_token_issued_timestamp_seconds", GAUGE, GRANT, "When the saved access token was asked for."
)  # fmt: skip
RENEWAL = Family(
    "rotator_token_renewal_timestamp_seconds", GAUGE, GRANT,
    "When the next exchange is due. Absent while nothing is: a person must act.",
)  # fmt: skip
STATE = Family("rotator_grant_state", GAUGE, (*GRANT, "state"), "1 for the state that the grant is in, else 0.")
REFRESH_EXPIRATION = Family(
    "rotator_refresh_token_expiration_timestamp_seconds", GAUGE, GRANT,
    "When the refresh token ends, estimated by the provider's refresh_lifetime.",
)  # fmt: skip
EXCHANGES = Family(
    "rotator_refresh_total", COUNTER, (*GRANT, "outcome"), "Exchanges (refresh and password) that ended, by outcome."
)  # fmt: skip
FAILURES = Family(
    "rotator_refresh_consecutive_failures", GAUGE, GRANT, "How often in a row the last failure happened; 0 if none."
)  # fmt: skip
LAST_SUCCESS = Family(
    "rotator_refresh_last_success_timestamp_seconds", GAUGE, GRANT, "When the provider last gave tokens."
)  # fmt: skip
BUDGET = Family(
    "rotator_password_budget_remaining", GAUGE, GRANT,
    "Password exchanges that may still be spent; absent where no password is configured.",
)  # fmt: skip
PUBLICATIONS = Family(
    "rotator_publish_total", COUNTER, (*TARGET, "outcome"),
    "Publications to a target: delivered, repaired (somebody had changed it), failed.",
)  # fmt: skip
PUBLISHED_AT = Family(
    "rotator_publish_last_success_timestamp_seconds", GAUGE, TARGET,
    "When the target was last written by this process; 0 before.",
)  # fmt: skip
PUBLISHED_EXPIRATION = Family(
    "rotator_published_expiration_timestamp_seconds", GAUGE, TARGET,
    "When the token at the target expires; 0 where nothing of ours is known to stand there.",
)  # fmt: skip

# --- a provider -------------------------------------------------------------------------------------------------

GRANTS = Family("rotator_grants", GAUGE, ("provider", "state"), "Grants in each state.")
GRANTS_PUBLISHED = Family(
    "rotator_grants_published", GAUGE, ("provider",), "Grants whose valid token stands in every required target."
)  # fmt: skip
GRANTS_OMITTED = Family(
    "rotator_grants_omitted", GAUGE, ("provider",), "Grants that have no series of their own: there are too many."
)  # fmt: skip
EXCHANGE_SECONDS = Family(
    "rotator_refresh_duration_seconds", HISTOGRAM, ("provider",), "From before a token request until its answer.",
    (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)  # fmt: skip
WAITING = Family("rotator_provider_waiting", GAUGE, ("provider",), "Grants that are due and wait for their turn.")
IN_FLIGHT = Family("rotator_provider_in_flight", GAUGE, ("provider",), "Rotations at work.")
BREAKER_OPEN = Family(
    "rotator_provider_breaker_open", GAUGE, ("provider",),
    "1 while the provider gave many grants in a row no answer and is asked by one at a time.",
)  # fmt: skip
BREAKER_OPENED = Family(
    "rotator_provider_breaker_opened_total", COUNTER, ("provider",), "How often that breaker opened."
)  # fmt: skip

REGISTER = Family(
    "rotator_register_grants", GAUGE, ("standing",),
    "Grants of the store's register: all of them (total), those with a valid token, waiting for a person, and due for "
    "more than a minute. Absent where there are none.",
)  # fmt: skip
STANDINGS = ("total", "valid", "resting", "overdue")

# --- how long things took ---------------------------------------------------------------------------------------

SAVE_SECONDS = Family(
    "rotator_save_duration_seconds", HISTOGRAM, (), "From an answer until it was durable in the store.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0),
)  # fmt: skip
PUBLISH_SECONDS = Family(
    "rotator_publish_duration_seconds", HISTOGRAM, ("kind",), "How long a publication that wrote took.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)  # fmt: skip
READABLE_SECONDS = Family(
    "rotator_answer_to_readable_seconds", HISTOGRAM, ("kind",),
    "From the provider's answer until readers find the new token at the target.",
    (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0),
)  # fmt: skip

# --- the daemon -------------------------------------------------------------------------------------------------

BUILD = Family("rotator_build_info", GAUGE, ("version", "python"), "Always 1.")
RELOAD_GOOD = Family(
    "rotator_config_last_reload_successful", GAUGE, (), "1 if the last reading of the configuration was good, else 0."
)  # fmt: skip
RELOADED_AT = Family(
    "rotator_config_last_reload_success_timestamp_seconds", GAUGE, (), "When the configuration was last taken over."
)  # fmt: skip
MISSED = Family(
    "rotator_scheduler_missed_total", COUNTER, (), "Sweeps that found nothing out, as the store did not answer."
)  # fmt: skip
STORE_ERRORS = Family("rotator_store_errors_total", COUNTER, (), "Troubles with the store that were told.")
DEFECTS = Family("rotator_defects_total", COUNTER, (), "Defects: a task ended in a way that nobody foresaw.")
LAG = Family(
    "rotator_event_loop_lag_seconds", HISTOGRAM, (), "How late the beat of the sweep rang: what held up the loop.",
    (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)  # fmt: skip
CLOCK_JUMPS = Family(
    "rotator_clock_jumps_total", COUNTER, ("direction",), "Wall time was set (forward, back), or the machine slept."
)  # fmt: skip
EVENTS_DROPPED = Family(
    "rotator_events_dropped_total", COUNTER, ("listener",), "Events that a listener was too slow for."
)  # fmt: skip
NOTIFY_ERRORS = Family("rotator_notify_errors_total", COUNTER, (), "Messages that systemd's socket did not take.")

# --- Vault ------------------------------------------------------------------------------------------------------

VAULT_EXPIRATION = Family(
    "rotator_vault_token_expiration_timestamp_seconds", GAUGE, ("vault",),
    "When the login at this Vault ends; absent without a login, and for one that does not end.",
)  # fmt: skip
VAULT_LOGINS = Family("rotator_vault_login_total", COUNTER, ("vault", "outcome"), "Logins that were tried.")
VAULT_REQUESTS = Family(
    "rotator_vault_requests_total", COUNTER, ("vault", "operation", "code"),
    "Requests by what they do and the status of the answer; none: no answer.",
)  # fmt: skip

# --- the process, with the names that all client libraries use ----------------------------------------------------

CPU = Family("process_cpu_seconds_total", COUNTER, (), "Processor time, user and system.")
STARTED = Family("process_start_time_seconds", GAUGE, (), "When the process was started.")
VIRTUAL = Family("process_virtual_memory_bytes", GAUGE, (), "Virtual memory.")
RESIDENT = Family("process_resident_memory_bytes", GAUGE, (), "Resident memory.")
OPEN_FILES = Family("process_open_fds", GAUGE, (), "Open file descriptors.")
MOST_FILES = Family("process_max_fds", GAUGE, (), "The soft limit of open file descriptors.")

FAMILIES = tuple(one for one in list(globals().values()) if isinstance(one, Family))
