"""What the configuration wants of each Vault, as policies."""

from __future__ import annotations

from rotator import settings
from rotator.assembly.plan import Plan
from rotator.core.errors import BadUsage
from rotator.drivers.vault import rights
from rotator.drivers.vault.rights import Right


def daemon(plan: Plan, vault: str) -> list[Right]:
    """What the daemon needs of ``[vault.NAME]``: exactly that."""
    needed: list[Right] = []
    for key, place, kv in _targets(plan):
        if place.name == vault:
            of = rights.of_target if kv == 2 else rights.of_kv1_target
            needed += of(place.mount, place.path, key)
    for key, reference in settings.references(plan.settings):
        if reference.kind == "vault":
            place = settings.vault_field(reference.value.get_secret_value())
            if place.name == vault:
                needed += rights.of_reader(place.mount, place.path, key)
    discovery = plan.settings.discovery.vault
    if discovery is not None and discovery.prefix.name == vault:
        needed += rights.of_folder(discovery.prefix.mount, discovery.prefix.path, "discovery.vault")
    seal = plan.settings.state.seal
    if seal is not None and seal.transit is not None and seal.transit.name == vault:
        needed += rights.of_transit(seal.transit.mount, seal.transit.path)
    state = settings.state_entry(plan.settings.state.url)
    if state is not None and state.name == vault:
        needed += rights.of_state(state.mount, state.path)
    return rights.merged(needed)


def readers(plan: Plan, vault: str) -> dict[str, list[Right]]:
    """For each grant that is published there, what its consumers need."""
    found: dict[str, list[Right]] = {}
    for key, place, kv in _targets(plan):
        if place.name == vault:
            of = rights.of_reader if kv == 2 else rights.of_kv1_reader
            found.setdefault(key.split(".")[1], []).extend(of(place.mount, place.path, key))
    return {grant: rights.merged(needed) for grant, needed in sorted(found.items())}


def text(plan: Plan, vault: str | None, *, for_readers: bool) -> str:
    """The policies as Vault takes them, each under a comment that says whose it is. Raises BadUsage for an unknown
    Vault, and where the configuration wants nothing of any."""
    known = sorted(plan.settings.vault)
    if vault is not None and vault not in known:
        raise BadUsage(f"no Vault is named {vault!r}", mend=f"known: {', '.join(known) or 'none is configured'}")
    parts = []
    for name in known if vault is None else [vault]:
        policies = readers(plan, name) if for_readers else {"": daemon(plan, name)}
        for whose, needed in policies.items():
            if needed:
                who = f"consumers of {whose}" if whose else "the daemon"
                parts.append(f"# Vault {name}: {who}.\n{rights.hcl(needed)}")
    if not parts:
        raise BadUsage("the configuration wants nothing of a Vault", mend="see docs/vault.md")
    return "\n".join(parts)


def _targets(plan: Plan) -> list[tuple[str, settings.VaultPath, int]]:
    return [
        (f"grants.{name}.targets.{target}", one.vault.filled(grant=name, provider=grant.provider), one.kv)
        for name, grant in plan.settings.grants.items()
        for target, one in grant.targets.items()
        if one.vault is not None
    ]
