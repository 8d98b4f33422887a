"""The outside shape: what may be written, with its defaults. Frozen, closed against unknown keys, silent about input.

A model knows one table by itself; what ties tables together is in `checks`.
"""

# Without annotations as text, each of which pydantic would have to compile and evaluate: 2 ms of a start in all.
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from rotator.core import pressure
from rotator.core.policy import Reuse
from rotator.settings.parts import TABLE, Part
from rotator.settings.targets import Target
from rotator.settings.values import (
    AbsolutePath,
    Duration,
    Listen,
    Name,
    ProviderName,
    Proxy,
    Reference,
    Span,
    StoreUrl,
    Text,
    Url,
    VaultEntry,
)
from rotator.settings.vaults import Discovery, Vault

# RFC 6749 sections 4.1.2.1 and 5.2, and RFC 8628 section 3.5.
ErrorCode = Literal[
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
    "slow_down",
]


class Seal(Part):
    """What seals stored records: exactly one of ``key`` (32 bytes, base64 or hexadecimal) and ``transit``
    ("[NAME:]MOUNT/KEY" of a Vault). ``former`` is the key before, until `rotator rekey` has run."""

    key: Reference | None = None
    transit: VaultEntry | None = None
    former: Reference | None = None


class State(Part):
    """Where grants live durably. The URL does not print: its query may hold more than one expects.
    ``password`` is that of the role in PostgreSQL, where libpq does not find it by itself."""

    url: StoreUrl = Field(default="sqlite:state.db", repr=False)
    password: Reference | None = None
    seal: Seal | None = None


class Startup(Part):
    """Which grants must be published, or need a person, before `rotator run` says that it is ready."""

    require: Literal["all", "any", "none"] = "all"


class Log(Part):
    """How events are told; ``auto`` is text on a terminal, else what the surroundings read best."""

    format: Literal["auto", "text", "json", "logfmt"] = "auto"
    level: Literal["debug", "info", "notice", "warning", "error", "critical"] = "info"


class Traces(Part):
    """Spans for OpenTelemetry; where they go is for the OTEL_* variables to say, and without one of those that name a
    place there are none."""

    enabled: bool = False


class Timing(Part):
    """The beats: re-deriving every alarm from the store, looking at every published target, and asking a store that
    is shared what other daemons saved."""

    sweep_every: Span = timedelta(seconds=10)
    verify_every: Span = timedelta(seconds=30)
    follow_every: Span = timedelta(milliseconds=500)


class Readiness(Part):
    """How long a required token must still hold; see `rotator.core.health.Margin` for the two thresholds."""

    least: Duration = timedelta(seconds=30)
    enough: Duration = timedelta(minutes=2)


class Http(Part):
    """Probes, metrics and the status page. Nothing listens, and nothing of it is loaded, without ``address``."""

    address: Listen | None = None
    token: Reference | None = None


class Metrics(Part):
    """Up to so many grants each has series of its own on the metrics page; beyond, only those that are not well."""

    per_grant_up_to: int = Field(default=1000, ge=0, le=100_000)


class Limits(Part):
    """What the provider bears from this client: exchanges in flight, and exchanges started in a second.

    For all its grants together; see `rotator.core.pressure.Limits` for why these are the defaults."""

    in_flight: int = Field(default=pressure.Limits().in_flight, ge=1, le=256)
    per_second: float = Field(default=pressure.Limits().per_second, gt=0, le=1000)


class Provider(Part):
    """An authorization server and its quirks.

    ``reuse`` defaults to the careful one: a provider that nobody described may revoke the whole family when a spent
    refresh token is presented again (RFC 9700 section 4.14.2), and being careful costs at most one password exchange.
    """

    token_url: Url
    login_url: Url | None = None
    encoding: Literal["form", "json"] = "form"
    auth: Literal["body", "basic"] = "body"
    scope: Text | None = None
    reuse: Reuse = Reuse.KILLS_FAMILY
    grace: Duration = timedelta(0)
    default_lifetime: Span = timedelta(hours=1)
    longest_lifetime: Span = timedelta(hours=24)
    refresh_lifetime: Span = timedelta(days=14)
    deadline: Span = timedelta(seconds=30)
    rotate_at: float = Field(default=0.75, gt=0, lt=1)
    jitter: float = Field(default=0.05, ge=0, lt=0.5)
    spacing: Span = timedelta(seconds=30)
    limits: Limits = TABLE
    proxy: Proxy | None = Field(default=None, repr=False)
    ca_file: AbsolutePath | None = None
    allow_plain_http: bool = False
    error_map: dict[Text, ErrorCode] = Field(default_factory=dict)


class Budget(Part):
    """How many password exchanges may be spent: ``limit`` in any ``window``, at least ``apart``.

    Sixteen is far above what payment processors forgive before they lock an account (6 to 10)."""

    limit: int = Field(default=3, ge=0, le=16)
    window: Span = timedelta(hours=24)
    apart: Duration = timedelta(minutes=15)


class Grant(Part):
    """One client and one resource owner at one provider. ``scope`` overrides the provider's."""

    description: Text | None = None
    provider: Text
    client_id: Text
    client_secret: Reference | None = None
    username: Text | None = None
    password: Reference | None = None
    scope: Text | None = None
    budget: Budget = TABLE
    targets: dict[Name, Target] = Field(default_factory=dict)


class Cluster(Part):
    """The API server for targets of the kind ``secret``; what is left out is found as in any Pod. With ``owner`` a
    Secret goes with the Pod that $POD_NAME and $POD_UID name."""

    api: Url | None = None
    ca_file: AbsolutePath | None = None
    token_file: AbsolutePath | None = None
    namespace: Text | None = None
    owner: Literal["pod"] | None = None


class Settings(BaseSettings):
    """The whole configuration. Made by `rotator.settings.load`; it never reads the environment by itself."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False, env_file=None
    )

    state: State = TABLE
    startup: Startup = TABLE
    log: Log = TABLE
    traces: Traces = TABLE
    timing: Timing = TABLE
    readiness: Readiness = TABLE
    http: Http = TABLE
    metrics: Metrics = TABLE
    providers: dict[ProviderName, Provider] = Field(default_factory=dict)
    grants: dict[Name, Grant] = Field(default_factory=dict)
    vault: dict[Name, Vault] = Field(default_factory=dict)
    discovery: Discovery = TABLE
    kubernetes: Cluster = TABLE

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The one source that is given, or plain arguments; never the built-in ones, which take typing errors
        for nothing and want JSON for a table."""
        given: Any = init_settings.init_kwargs.get("source") if isinstance(init_settings, InitSettingsSource) else None
        return (given,) if isinstance(given, PydanticBaseSettingsSource) else (init_settings,)
