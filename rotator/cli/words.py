"""Which words there are and what each takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn, TypeAlias

from rotator import __version__
from rotator.core.errors import BadUsage

Command = Callable[[argparse.Namespace, Mapping[str, str]], int]
_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"

CONFIG_HELP = (
    "the configuration; default: $ROTATOR_CONFIG, else the first of $CONFIGURATION_DIRECTORY/rotator.toml, "
    "~/.config/rotator/rotator.toml, /etc/rotator/rotator.toml"
)
EPILOG = """\
examples:
  rotator check                      is the configuration good?
  rotator run                        the daemon (systemd and containers start this)
  rotator status --watch             how every grant stands
  rotator events --follow            what happens
  rotator authorize billing          log in once; the password is not kept
  rotator demo                       see it work against an emulated provider
  rotator simulate                   see a month of this configuration under faults
"""
SIMULATE_EPILOG = """\
examples:
  rotator simulate --provider-outage 2h@3d          once, on the fourth day
  rotator simulate --provider-outage 30m/7d         once a week, at a time of chance
  rotator simulate --grants 5000 --days 7 --downtime 5m/1d --lost-answers 1% --plot month.svg
"""


def understand(argv: Sequence[str]) -> argparse.Namespace:
    """The command that is meant. Raises BadUsage, which shows no value of what it does not know: people do try
    ``--password``."""
    # A start waits for this: the daemon's own word needs none of the others, which cost it 6 ms.
    known = parser(_daemon_words) if argv[:1] == ["run"] else parser()
    found, rest = known.parse_known_args(argv)
    if rest:
        unknown = [word.partition("=")[0] for word in rest if word.startswith("-")]
        what = f"there is no option {unknown[0]}" if unknown else f"{len(rest)} word(s) too many for {found.word}"
        raise BadUsage(what, mend=f"see `rotator {found.word} --help`; a secret is never an argument")
    return found


def bare(arguments: argparse.Namespace) -> int:
    """`rotator` without a command: its version, or what there is to type."""
    if arguments.version:
        print(f"rotator {__version__}")
        return 0
    parser().print_help()
    return BadUsage.exit_code


class _Parser(argparse.ArgumentParser):
    """Complains as every command does: one line with the mending step, and exit code 64 where argparse has 2."""

    def error(self, message: str) -> NoReturn:
        raise BadUsage(message, mend=f"see `{self.prog} --help`")


def parser(*groups: Callable[[_Commands], None]) -> argparse.ArgumentParser:
    """All commands, or those of some ``groups``. A secret is never an argument: it is asked for, read from stdin, or
    referred to."""
    top = _Parser(
        prog="rotator",
        description="A valid OAuth 2.0 access token, always there.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    top.set_defaults(run=None, word="rotator")
    top.add_argument("--version", action="store_true", help="print the version")
    for group in groups or _GROUPS:
        group(commands)
    return top


def _daemon_words(commands: _Commands) -> None:
    run = _word(commands, "run", "service", "run the daemon until it is told to stop")
    run.add_argument("--once", action="store_true", help="stop once every grant is published or decided")
    run.add_argument("--within", metavar="SPAN", default="60s", help="how long --once may try (default: %(default)s)")
    run.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error (default: log.level)")


def _status_words(commands: _Commands) -> None:
    status = _word(commands, "status", "status", "how every grant stands", json=True)
    status.add_argument("names", metavar="GRANT", nargs="*", help="only these; with * and ? for several")
    status.add_argument("--state", metavar="STATE", action="append", default=[], help="only grants in this state")
    status.add_argument("--limit", metavar="N", type=int, help="show N grants at most")
    status.add_argument("--worst-first", action="store_true", help="those that need somebody first")
    status.add_argument("-w", "--watch", action="store_true", help="go on until interrupted: live, or each change")
    status.add_argument("--every", metavar="SPAN", default="1s", help="how often --watch looks (default: %(default)s)")
    events = _word(commands, "events", "events", "what the daemon told of late", json=True)
    events.add_argument("-f", "--follow", action="store_true", help="and what it tells from now on, until it ends")
    events.add_argument("--grant", metavar="GRANT", help="only of this grant")
    events.add_argument(
        "--level", choices=("critical", "error", "warning", "notice", "info", "debug"), default="info",
        help="as grave or graver (default: %(default)s)",
    )  # fmt: skip
    events.add_argument("--since", metavar="SPAN", help="not older than SPAN")
    for made in (status, events):
        made.add_argument("--no-color", action="store_true", help="no colours, as with NO_COLOR in the environment")


def _order_words(commands: _Commands) -> None:
    rotate = _grant_word(commands, "rotate", "orders", "rotate a grant now and publish it")
    rotate.add_argument(
        "-f", "--force", action="store_true", help="also through a latch, an empty password budget or the least spacing"
    )
    authorize = _grant_word(commands, "authorize", "orders", "log in once by password; the password is not kept")
    authorize.add_argument(
        "--password-file", metavar="FILE", help="read the password from FILE, - for stdin (default: ask for it)"
    )
    authorize.add_argument(
        "--refresh-token", metavar="FILE", help="take over an existing refresh token from FILE, - for stdin"
    )
    _grant_word(commands, "token", "orders", "print the access token")
    _grant_word(commands, "verify", "verify", "present the access token at the provider's login_url")
    wait = _grant_word(commands, "wait", "orders", "wait until a valid token is published")
    wait.add_argument("--timeout", metavar="SPAN", default="60s", help="give up after SPAN (default: %(default)s)")
    _grant_word(commands, "retire", "orders", "delete the stored tokens of a grant that is no longer configured")


def _register_words(commands: _Commands) -> None:
    grants = commands.add_parser("grants", help="grants in bulk, kept in the state", allow_abbrev=False)
    acts = grants.add_subparsers(title="commands", metavar="COMMAND", required=True)
    enter = _word(acts, "import", "grants", "enter the grants of a file, or change them; all or none")
    enter.add_argument("file", metavar="FILE", help="one JSON object a line (.jsonl), or comma-separated values (.csv)")
    enter.add_argument("-n", "--dry-run", action="store_true", help="only look whether all of them are good")
    listed = _word(acts, "list", "grants", "those that were entered, by name", json=True)
    listed.add_argument("--after", metavar="NAME", default="", help="begin behind this one")
    listed.add_argument("--limit", metavar="N", type=int, default=1000, help="at most N (default: %(default)s)")
    _grant_word(acts, "show", "grants", "how one stands")
    _grant_word(acts, "retire", "orders", "take one out, and delete its tokens and what it published")


def _look_words(commands: _Commands) -> None:
    check = _word(commands, "check", "look", "is the configuration good?", json=True)
    check.add_argument(
        "--online", action="store_true", help="also ask every provider, Vault and target; nothing is spent"
    )
    policy = _word(commands, "vault-policy", "vault", "the policies that this configuration needs in Vault")
    policy.add_argument("--vault", metavar="NAME", help="of [vault.NAME] only (default: of each)")
    policy.add_argument("--readers", action="store_true", help="for those who read what is published there")
    config = commands.add_parser("config", help="look at the configuration", allow_abbrev=False)
    shows = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _word(shows, "show", "look", "the effective configuration with the source of every value", json=True)
    state = commands.add_parser("state", help="look after the stored state", allow_abbrev=False)
    acts = state.add_subparsers(title="commands", metavar="COMMAND", required=True)
    reset = _word(acts, "reset", "look", "set a damaged or lost state aside and start anew")
    reset.add_argument("--yes", action="store_true", help="do not ask")
    reset.add_argument(
        "--keep-budget",
        action="store_true",
        help="do not count the password budget as spent (default: it counts as spent for its whole window)",
    )
    _word(commands, "rekey", "look", "write the stored state anew under state.seal as it is configured now")
    _word(commands, "version", "look", "print the version", config=False)
    completion = _word(commands, "completion", "completion", "print what your shell completes by", config=False)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")


def _init_word(commands: _Commands) -> None:
    init = _word(commands, "init", "init", "write a first grant: configuration and secrets, asked for or given")
    init.add_argument("--grant", metavar="NAME", help="its name (default: billing)")
    init.add_argument("--provider", metavar="NAME", help="omnifund, omnifund-sandbox, or one of your own")
    init.add_argument("--token-url", metavar="URL", help="of a provider that is not known yet")
    init.add_argument("--client-id", metavar="ID", help="what the provider calls the client")
    init.add_argument("--client-secret-file", metavar="FILE", help="read it from FILE, - for stdin (default: ask)")
    init.add_argument("--username", metavar="NAME", help="the resource owner")
    init.add_argument("--password-file", metavar="FILE", help="read it from FILE, - for stdin (default: ask)")
    init.add_argument("--target", metavar="FILE", help="where the token is published (default: GRANT/token)")
    init.add_argument("--group", metavar="GROUP", help="who may read it")
    init.add_argument(
        "--secrets", choices=("files", "credentials", "encrypted", "kubernetes"),
        help="where secrets are put (default: encrypted credentials under systemd as root, else files)",
    )  # fmt: skip
    init.add_argument(
        "--manifest", metavar="FILE", type=Path, default=Path("rotator-secret.yaml"),
        help="of --secrets kubernetes (default: %(default)s)",
    )  # fmt: skip
    init.add_argument("--trial", action="store_true", help="prove it by one login first; its tokens are not kept")
    init.add_argument("--no-input", action="store_true", help="ask for nothing")
    init.add_argument("-f", "--force", action="store_true", help="overwrite secrets that are there")


def _health_word(commands: _Commands) -> None:
    health = _word(commands, "health", "health", "does every required target hold a valid token? for probes")
    asked = health.add_mutually_exclusive_group()
    asked.add_argument("--live", action="store_true", help="only ask whether the daemon's own loop turns")
    asked.add_argument("--started", action="store_true", help="only ask whether it has once been ready")


def _host_words(commands: _Commands) -> None:
    install = _word(commands, "install", "host", "put units, user, folders and a configuration in place", config=False)
    install.add_argument("--systemd", action="store_true", help="for systemd")
    install.add_argument("--program", metavar="FILE", help="what the units start (default: this program)")
    uninstall = _word(commands, "uninstall", "host", "stop the services and take their files away", config=False)
    uninstall.add_argument("--purge", action="store_true", help="configuration, credentials and state too")
    uninstall.add_argument("--yes", action="store_true", help="do not ask")
    for made in (install, uninstall):
        made.add_argument("--prefix", metavar="DIR", default="/usr/local", help="of units (default: %(default)s)")
        made.add_argument("--root", metavar="DIR", default="/", help="stage below DIR; nothing else is done")
        made.add_argument("-n", "--dry-run", action="store_true", help="print what would be done")


def _lab_words(commands: _Commands) -> None:
    demo = _word(commands, "demo", "world", "watch the daemon work against an emulated provider", config=False)
    demo.add_argument("--for", dest="span", metavar="SPAN", default="30s", help="how long (default: %(default)s)")
    demo.add_argument(
        "--access-ttl", metavar="SPAN", default="8s", help="how long access tokens live (default: %(default)s)"
    )
    emulate = _word(commands, "emulate", "world", "serve an emulated OmniFund on loopback", config=False)
    emulate.add_argument("--port", type=int, default=8765, help="TCP port, 0 for any (default: %(default)s)")
    emulate.add_argument("--access-ttl", metavar="SPAN", default="1h", help="access token life (default: %(default)s)")
    emulate.add_argument(
        "--refresh-ttl", metavar="SPAN", default="14d", help="refresh token life (default: %(default)s)"
    )
    _simulate_words(commands)


def _simulate_words(commands: _Commands) -> None:
    made = _word(
        commands,
        "simulate",
        "simulate",
        "see days of this configuration under faults before it is deployed",
        json=True,
    )
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.epilog = SIMULATE_EPILOG
    fleet = made.add_argument_group("the fleet")
    fleet.add_argument("--grants", metavar="N", type=int, help="how many grants (default: those that are configured)")
    fleet.add_argument("--days", metavar="D", type=float, default=30.0, help="for how long (default: 30)")
    fleet.add_argument("--provider", metavar="NAME", help="only grants of this provider (default: all)")
    fleet.add_argument("--token-lifetime", metavar="SPAN", help="of access tokens (default: default_lifetime)")
    fleet.add_argument("--latency", metavar="SPAN", default="200ms", help="of an exchange (default: %(default)s)")
    fleet.add_argument("--sample", metavar="M", type=int, help="simulate M of the grants, extrapolate the rest")
    fleet.add_argument("--seed", metavar="S", type=int, default=1, help="the same seed, the same story (default: 1)")
    faults = made.add_argument_group("what breaks (each may be given several times)")
    for option, text in (
        ("--provider-outage", "the provider refuses connections"),
        ("--store-away", "the store takes no write"),
        ("--targets-away", "no target takes a write"),
        ("--downtime", "the daemon is killed and not started again for so long"),
        ("--clock-step", "the clock is set forward by SPAN, or back: --clock-step=-1h@2d"),
    ):
        faults.add_argument(option, metavar="SPAN[@TIME|/EVERY]", action="append", default=[], help=text)
    faults.add_argument(
        "--lost-answers", metavar="PERCENT", default="0%", help="so many answers break off (default: %(default)s%%)"
    )
    made.add_argument("--plot", metavar="FILE", type=Path, help="also draw the timeline as SVG into FILE")


_GROUPS = (
    _daemon_words, _status_words, _order_words, _register_words, _look_words, _init_word, _health_word, _host_words,
    _lab_words,
)  # fmt: skip


def _word(
    commands: _Commands, name: str, module: str, text: str, *, json: bool = False, config: bool = True
) -> argparse.ArgumentParser:
    made = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ("" if text.endswith("?") else "."),
        allow_abbrev=False,
    )
    if config:
        made.add_argument("--config", metavar="FILE", type=Path, help=CONFIG_HELP)
    if json:
        made.add_argument("--json", action="store_true", help="print JSON")
    made.set_defaults(run=_late(module, name), word=name)
    return made


def _grant_word(commands: _Commands, name: str, module: str, text: str) -> argparse.ArgumentParser:
    made = _word(commands, name, module, text, json=name != "wait")
    made.add_argument("grant", metavar="GRANT", help="the name of a grant, as in [grants.NAME]")
    return made


def _late(module: str, name: str) -> Command:
    def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
        found = import_module(f"rotator.cli.{module}")
        word = name.replace("-", "_")
        # A word of Python's own has an underscore behind it.
        command: Command = getattr(found, word, None) or getattr(found, f"{word}_")
        return command(arguments, environ)

    return run
