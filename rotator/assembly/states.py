"""The state that ``state.url`` names: its store, and the private folder on this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from rotator import settings
from rotator.assembly import plan as plans
from rotator.assembly.plan import Plan
from rotator.core.errors import BadUsage, Misconfigured
from rotator.core.ports import Clock, Dice, Store
from rotator.drivers import clock as clocks
from rotator.drivers import sqlite

if TYPE_CHECKING:
    from rotator.settings import VaultPath


def store(plan: Plan, clock: Clock, dice: Dice, *, read_only: bool = False) -> Store:
    """The store, not open yet. A daemon's folder is made first (see `make_folder`)."""
    place = _in_vault(plan)
    if place is None:
        return sqlite.SqliteStore(path(plan), clock=clock, dice=dice, read_only=read_only)
    from rotator.assembly import vaults
    from rotator.drivers import vault

    # What keeps a second daemon from our folder. Another machine's is welcome.
    lock = None if read_only else sqlite.Lock(folder(plan))
    return vault.VaultStore(
        lambda: vaults.of(place.name, plan, clock), place.mount, place.path, clock=clock, dice=dice,
        host=platform.node(), lock=lock, read_only=read_only,
    )  # fmt: skip


def described(plan: Plan) -> str:
    """Where the state is, for a person."""
    return str(folder(plan)) if _in_vault(plan) is None else plan.settings.state.url


def path(plan: Plan) -> Path:
    """The database that ``state.url`` names; a relative one lies in the state directory. For a state in Vault: what
    gives the folder its name, in the runtime directory, since nothing in it is to be kept."""
    if _in_vault(plan) is not None:
        return plans.runtime_directory(plan) / ".rotator"
    named = Path(plan.settings.state.url.removeprefix("sqlite:"))
    return named if named.is_absolute() else plans.state_directory(plan) / named


def folder(plan: Plan) -> Path:
    """Our own private folder, where state, lock and control socket lie."""
    return sqlite.folder_of(path(plan))


def make_folder(plan: Plan) -> None:
    """Make a user's own base folder; one that the system should have given us is not made behind its back."""
    directory = path(plan).parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        word = "state" if _in_vault(plan) is None else "runtime"
        raise Misconfigured(
            f"the {word} directory {directory} cannot be made: {os.strerror(error.errno or 0)}",
            mend="create it for the user that runs rotator, or change state.url"
            if word == "state" else "create it for the user that runs rotator, or name another by RUNTIME_DIRECTORY",
        ) from None  # fmt: skip
    if _in_vault(plan) is not None:
        sqlite.make(path(plan))


def reset(plan: Plan, *, charge_budget: bool) -> Path | None:
    """Set the stored state aside and begin anew; returns where the old one is kept. Raises Overtaken where a daemon
    holds it, BadUsage for a state that is not a file."""
    place = _in_vault(plan)
    if place is not None:
        raise BadUsage(
            f"the state is in Vault, at {place.mount}/{place.path}; it is not reset by this command",
            mend="bring entries back with `bao kv rollback` or from a snapshot; or stop every daemon and delete them: "
            f"bao kv metadata delete -mount={place.mount} {place.path}/grants/GRANT",
        )
    return sqlite.reset(path(plan), now=clocks.SystemClock().now(), charge_budget=charge_budget)


def check(plan: Plan) -> None:
    """Raises Misconfigured for a kind of store that there is none of."""
    kind = plan.settings.state.url.partition(":")[0]
    if kind not in ("sqlite", "vault"):
        raise Misconfigured(
            f"state.url: a {kind} store is not available in this version", mend='write state.url = "sqlite:state.db"'
        )


def _in_vault(plan: Plan) -> VaultPath | None:
    return settings.state_entry(plan.settings.state.url)
