"""Where tokens are published, as it is configured."""

# Without annotations as text, each of which pydantic would have to compile and evaluate: 2 ms of a start in all.
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from rotator.core.publication import Format
from rotator.settings.parts import Part
from rotator.settings.values import (
    AbsolutePath,
    Argv,
    FileName,
    Mode,
    Names,
    Reference,
    SecretName,
    SignalName,
    Span,
    TargetFile,
    Text,
    Url,
    VaultTemplate,
)

# A bundle as most applications want it; none of them can be a template, which stands beside the names.
WholeFormat = Literal["raw", "json", "env", "header"]
USUAL_FILES: dict[str, WholeFormat] = {"token": "raw", "token.json": "json", "header": "header"}


# The longest that a hook may take, where nothing is said.
HOOK_TIMEOUT = timedelta(seconds=10)


class Signal(Part):
    """Which process is told, and by which signal; names as in signal(7), without SIG."""

    pid_file: AbsolutePath
    name: SignalName = "HUP"


class Target(Part):
    """Where a generation is published: exactly one of ``file``, ``directory``, ``vault`` and ``secret``, or what is
    told of it (a hook): ``command``, ``signal`` or ``webhook``. ``kv`` is the version of a Vault's engine, ``files``
    gives each file of a directory its format, ``after`` names the targets that a hook waits for. Readiness and start
    wait for what is ``required``; never for a hook."""

    file: TargetFile | None = None
    directory: TargetFile | None = None
    files: dict[FileName, WholeFormat] = Field(default_factory=dict)
    vault: VaultTemplate | None = None
    secret: SecretName | None = None
    format: Format | None = None
    template: Annotated[str, Field(min_length=1)] | None = None
    mode: Mode | None = None
    group: Text | None = None
    kv: Literal[1, 2] = 2
    fields: dict[Text, Text] = Field(default_factory=dict)
    max_versions: int | None = Field(default=None, ge=1, le=100)
    command: Argv | None = None
    signal: Signal | None = None
    webhook: Url | None = None
    after: Names | None = None
    timeout: Span | None = None
    signing_key: Reference | None = None
    ca_file: AbsolutePath | None = None
    allow_plain_http: bool = False
    required: bool = True

    @property
    def place(self) -> str | None:
        """The path of a target on this machine."""
        return self.file or self.directory

    @property
    def is_hook(self) -> bool:
        """Whether it is told of a token instead of holding it."""
        return self.command is not None or self.signal is not None or self.webhook is not None

    @property
    def patience(self) -> timedelta:
        """The longest that a hook may take."""
        return self.timeout or HOOK_TIMEOUT

    @property
    def bundled(self) -> dict[str, Format]:
        """The files of a directory: those that are written, else the usual three."""
        return {name: Format(form) for name, form in (self.files or USUAL_FILES).items()}

    @property
    def file_format(self) -> Format:
        return self.format or Format.RAW

    @property
    def file_mode(self) -> int:
        """What is written, else 0640 where a group shall read and 0600 where none shall."""
        if self.mode is not None:
            return self.mode
        return 0o600 if self.group is None else 0o640


# Which keys belong to which kind of target.
KEYS_OF = {
    "file": ("format", "template", "mode", "group"),
    "directory": ("files", "mode", "group"),
    "vault": ("fields", "max_versions", "kv"),
    "secret": ("fields",),
    "command": ("timeout", "after"),
    "signal": ("after",),
    "webhook": ("timeout", "after", "signing_key", "ca_file", "allow_plain_http"),
}
