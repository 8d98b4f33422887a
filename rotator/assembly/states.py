"""The state that ``state.url`` names: its store, and the private folder on this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rotator import settings
from rotator.assembly import plan as plans
from rotator.assembly import references
from rotator.assembly.plan import Plan
from rotator.core import extras
from rotator.core.errors import BadUsage, Misconfigured
from rotator.core.ports import Clock, Dice, Store
from rotator.drivers import clock as clocks
from rotator.drivers import secrets, sqlite

if TYPE_CHECKING:
    from rotator.drivers.postgres import PostgresStore
    from rotator.drivers.seal import Seal
    from rotator.drivers.vault import Vault
    from rotator.settings import VaultPath

T = TypeVar("T")


def store(plan: Plan, clock: Clock, dice: Dice, *, read_only: bool = False) -> Store:
    """The store, not open yet. A daemon's folder is made first (see `make_folder`)."""
    if not is_remote(plan):
        return _sqlite(plan, clock, dice, read_only=read_only)
    # What keeps a second daemon from our folder. Another machine's is welcome.
    lock = None if read_only else sqlite.Lock(folder(plan))
    place = _in_vault(plan)
    if place is None:
        return _postgres(plan, clock, dice, lock, read_only=read_only)
    from rotator.assembly import vaults
    from rotator.drivers import vault

    return vault.VaultStore(
        lambda: vaults.of(place.name, plan, clock), place.mount, place.path, clock=clock, dice=dice,
        host=platform.node(), lock=lock, read_only=read_only,
    )  # fmt: skip


def _sqlite(plan: Plan, clock: Clock, dice: Dice, *, read_only: bool = False) -> sqlite.SqliteStore:
    return sqlite.SqliteStore(path(plan), clock=clock, dice=dice, seal=_seal(plan, clock), read_only=read_only)


def _postgres(
    plan: Plan, clock: Clock, dice: Dice, lock: sqlite.Lock | None, *, read_only: bool = False
) -> PostgresStore:
    try:
        from rotator.drivers import postgres
    except ImportError:
        raise extras.lacking("a state in PostgreSQL needs the package psycopg", "postgres") from None
    shape = plan.settings.state
    password = None
    if shape.password is not None:
        password = references.reader(plan, references.of(shape.password, "state.password"))
    return postgres.PostgresStore(
        postgres.Address(shape.url, password), clock=clock, dice=dice, host=platform.node(),
        seal=_seal(plan, clock), lock=lock, read_only=read_only,
    )  # fmt: skip


def _seal(plan: Plan, clock: Clock) -> Seal | None:
    shape = plan.settings.state.seal
    if shape is None:
        return None
    from rotator.drivers import seal

    former = None if shape.former is None else references.reader(plan, references.of(shape.former, "state.seal.former"))
    if shape.key is not None:
        return seal.with_key(references.reader(plan, references.of(shape.key, "state.seal.key")), former)
    assert shape.transit is not None  # noqa: S101 (the settings know that it is one of two)
    from rotator.assembly import vaults
    from rotator.drivers.vault import transit

    place = shape.transit

    async def asked(do: Callable[[Vault], Awaitable[T]]) -> T:
        """At a start only: a login of its own, which ends with the answer."""
        way = vaults.of(place.name, plan, clock)
        try:
            return await do(way)
        finally:
            await way.close()

    return seal.with_data_key(
        lambda: asked(lambda way: transit.make(way, place.mount, place.path)),
        lambda wrapped: asked(lambda way: transit.unwrap(way, place.mount, place.path, wrapped)),
        former,
    )


async def rekey(plan: Plan) -> int:
    """Write every stored record under the seal as configured, while no daemon runs; how many. Raises Overtaken where
    one does, Misconfigured for a key that cannot be read. No other secret is needed."""
    if plan.settings.state.seal is None or _in_vault(plan) is not None:
        raise BadUsage("state.seal is not set, so there is nothing to seal", mend="see state.seal in the configuration")
    for key, shape in settings.references(plan.settings):
        if key.startswith("state."):
            secrets.check(references.of(shape, key), plan.environ)
    clock, dice = clocks.SystemClock(), clocks.SystemDice()
    sealed = _sqlite(plan, clock, dice)
    store = _postgres(plan, clock, dice, sqlite.Lock(folder(plan))) if is_remote(plan) else sealed
    if is_remote(plan):
        make_folder(plan)
    await store.open()
    try:
        return await store.seal_anew()
    finally:
        await store.close()


def described(plan: Plan) -> str:
    """Where the state is, for a person."""
    if not is_remote(plan):
        return str(folder(plan))
    # What stands in the query of a URL is nobody's business.
    return plan.settings.state.url.partition("?")[0]


def path(plan: Plan) -> Path:
    """The database that ``state.url`` names; a relative one lies in the state directory. For a state elsewhere:
    what gives the folder its name, in the runtime directory, since nothing in it is to be kept."""
    if is_remote(plan):
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
        word = "runtime" if is_remote(plan) else "state"
        raise Misconfigured(
            f"the {word} directory {directory} cannot be made: {os.strerror(error.errno or 0)}",
            mend="create it for the user that runs rotator, or change state.url"
            if word == "state" else "create it for the user that runs rotator, or name another by RUNTIME_DIRECTORY",
        ) from None  # fmt: skip
    if is_remote(plan):
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
    if is_remote(plan):
        raise BadUsage(
            f"the state is in PostgreSQL, {described(plan)}; it is not reset by this command",
            mend="bring it back from a backup; or stop every daemon and delete rows of rotator_grants, knowing that "
            "their passwords are used again",
        )
    return sqlite.reset(path(plan), now=clocks.SystemClock().now(), charge_budget=charge_budget)


def is_remote(plan: Plan) -> bool:
    """Whether the state is elsewhere than in a file of this machine."""
    return not plan.settings.state.url.startswith("sqlite:")


def _in_vault(plan: Plan) -> VaultPath | None:
    return settings.state_entry(plan.settings.state.url)
