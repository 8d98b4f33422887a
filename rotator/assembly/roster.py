"""Enrolments as they are configured."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rotator import settings
from rotator.assembly import plan as plans
from rotator.assembly import terms
from rotator.assembly.plan import Plan
from rotator.assembly.references import of
from rotator.core import notices
from rotator.core.errors import RotatorError
from rotator.core.policy import Rules
from rotator.core.ports import Clock, Enrolment, Entry, Http, HttpAnswer, Publisher
from rotator.core.pressure import Limits
from rotator.core.publication import Publication
from rotator.core.tokens import Secret
from rotator.drivers import files, http, oauth, secrets
from rotator.drivers.secrets import Reference
from rotator.settings import Grant, Provider, SecretReference, Target

if TYPE_CHECKING:
    from rotator.assembly.discovery import Discovery
    from rotator.drivers.kubernetes import Cluster
    from rotator.drivers.vault import Vault

Key = Callable[[], Awaitable[bytes]]


class ConfiguredRoster:
    """The port `ports.Roster` over one reading of the configuration. One HTTP client for each way out (CA, proxy)
    and one login for each Vault; both are made when they are first needed. ``discovery`` adds what it has found so far,
    and is tended with the rest; it outlives a roster."""

    def __init__(self, plan: Plan, clock: Clock, key: Key, discovery: Discovery | None = None) -> None:
        self._plan = plan
        self._discovery = discovery
        self._clock = clock
        self._key = key
        self._clients: dict[tuple[object, ...], http.HttpxClient] = {}
        self._vaults: dict[str, Vault] = {}
        self._endpoints: dict[tuple[str, str | None], oauth.Endpoint] = {}
        self._dumps: dict[str, str] = {}
        self._rules: dict[tuple[object, ...], Rules] = {}
        self._limits: dict[str, Limits] = {}
        grants = {**(discovery.grants if discovery is not None else {}), **plan.settings.grants}
        self._enrolments = {name: self._enrol(name, grant) for name, grant in grants.items()}

    def enrolments(self) -> Mapping[str, Enrolment]:
        return self._enrolments

    async def standing(self, wanted: Sequence[tuple[Publisher, Publication]], now: datetime) -> Sequence[bool]:
        return await files.standing(wanted, now)

    def publisher_at(self, location: str) -> Publisher | None:
        path = files.parse_location(location)
        if path is not None:
            return files.at(path)
        if notices.is_hook(location):
            from rotator.drivers import processes

            return processes.Forgotten(location)
        if location.startswith("secret:"):
            from rotator.drivers import kubernetes

            found = kubernetes.parse_location(location)
            return None if found is None else kubernetes.SecretPublisher(self._cluster(), *found)
        if not location.startswith("vault"):
            return None
        from rotator.drivers import vault

        kinds = ((vault.parse_location, vault.KvPublisher), (vault.kv1.parse_location, vault.Kv1Publisher))
        for parse, kind in kinds:
            place = parse(location)
            if place is not None and place[0] in self._plan.settings.vault:
                return kind(self._vault(place[0]), place[1], place[2])
        return None

    async def tend(self) -> None:
        """Renew every Vault login that runs short."""
        if self._discovery is not None:
            await self._discovery.tend(self._enrolments)
        for vault in list(self._vaults.values()):
            try:
                await vault.renew_if_short()
            except RotatorError:
                # The next call logs in anew and tells what is wrong with the target that needs it.
                continue

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        for vault in self._vaults.values():
            await vault.close()

    def client(self, provider: Provider) -> Http:
        return self._client(provider.ca_file, provider.proxy)

    async def knock(self, target: Target, deadline: timedelta) -> HttpAnswer:
        """Whether the receiver of a webhook is there; it is told nothing."""
        assert target.webhook is not None  # noqa: S101 (the caller has looked)
        return await self._client(target.ca_file, None).knock(target.webhook, deadline=deadline)

    def _client(self, ca_file: Path | None, proxy: str | None) -> http.HttpxClient:
        way = (ca_file, proxy)
        if way not in self._clients:
            self._clients[way] = http.HttpxClient(ca_file=ca_file, proxy=proxy)
        return self._clients[way]

    @property
    def providers(self) -> Collection[str]:
        return self._plan.settings.providers.keys()

    def enrolment_of(self, entry: Entry) -> Enrolment:
        found = settings.registered.grant(self._plan.settings, entry.name, entry.text, self._taken)
        return self._enrol(entry.name, found, entry.text)

    @cached_property
    def _taken(self) -> Mapping[str, tuple[str, ...]]:
        """What the configuration itself writes, for those of the register, which come again and again."""
        return settings.sharing.places(self._plan.settings)

    @cached_property
    def _runtime(self) -> Path:
        return plans.runtime_directory(self._plan)

    def _rules_for(self, grant: Grant) -> Rules:
        """The same object for all that are treated alike."""
        budget = grant.budget
        alike = (grant.provider, terms.has_password(grant), budget.limit, budget.window, budget.apart)
        if alike not in self._rules:
            self._rules[alike] = terms.of_grant(self._plan.settings.providers[grant.provider], grant)
        return self._rules[alike]

    def _limits_of(self, provider: str) -> Limits:
        if provider not in self._limits:
            self._limits[provider] = terms.limits(self._plan.settings.providers[provider])
        return self._limits[provider]

    def _described(self, provider: str) -> str:
        if provider not in self._dumps:
            whole = self._plan.settings
            self._dumps[provider] = settings.described(whole, providers={provider: whole.providers[provider]})
        return self._dumps[provider]

    def _endpoint(self, name: str, scope: str | None) -> oauth.Endpoint:
        """The token endpoint of a provider, the same for all that ask for the same there."""
        if (name, scope) not in self._endpoints:
            provider = self._plan.settings.providers[name]
            profile = oauth.Profile(
                token_url=provider.token_url, encoding=oauth.Encoding(provider.encoding),
                auth=oauth.ClientAuth(provider.auth), scope=scope, error_map=provider.error_map,
            )  # fmt: skip
            self._endpoints[name, scope] = oauth.Endpoint(profile, self.client(provider), now=self._clock.now)
        return self._endpoints[name, scope]

    def _enrol(self, name: str, grant: Grant, text: str = "") -> Enrolment:
        """``text``: how it stands in the register."""
        provider = self._plan.settings.providers[grant.provider]
        scope = grant.scope or provider.scope
        described = hashlib.sha256(
            f"{text or settings.described(self._plan.settings, grants={name: grant})}"
            f"{self._described(grant.provider)}".encode()
        ).hexdigest()  # secrets are masked in a dump; a changed literal is noticed by the credentials' own digest
        return Enrolment(
            name=name,
            provider=grant.provider,
            identity=(provider.token_url, grant.client_id, grant.username),
            rules=self._rules_for(grant),
            endpoint=self._endpoint(grant.provider, scope),
            credentials=secrets.ReferenceSource(
                grant.client_id,
                _reference(grant.client_secret, f"grants.{name}.client_secret"),
                grant.username,
                _reference(grant.password, f"grants.{name}.password"),
                key=self._key,
                salt=(provider.token_url, provider.encoding, provider.auth, scope or ""),
                environ=self._plan.environ,
                elsewhere=self._read_vault,
            ),
            targets=self._targets(name, grant),
            optional=frozenset(target for target, one in grant.targets.items() if not one.required),
            limits=self._limits_of(grant.provider),
            fingerprint=described,
            after={target: frozenset(one.after) for target, one in grant.targets.items() if one.after is not None},
        )

    def _targets(self, name: str, grant: Grant) -> dict[str, Publisher]:
        """In the order of the configuration. A webhook tells where the others hold the token."""
        held = {
            target: self._publisher(one, name, grant.provider)
            for target, one in grant.targets.items()
            if not one.is_hook
        }
        locations = {target: publisher.location for target, publisher in held.items()}
        return {
            target: held.get(target) or self._hook(name, target, one, locations)
            for target, one in grant.targets.items()
        }

    def _hook(self, grant: str, name: str, target: Target, locations: Mapping[str, str]) -> Publisher:
        from rotator.assembly import hooks

        if target.webhook is None:
            return hooks.process(self._plan, grant, name, target)
        return hooks.webhook(
            grant, name, target, client=lambda ca_file: self._client(ca_file, None), locations=locations,
            key=self._key, read=self._read,
        )  # fmt: skip

    async def _read(self, reference: Reference) -> Secret:
        if reference.kind == secrets.VAULT:
            return await self._read_vault(reference)
        return await secrets.fetch(reference, self._plan.environ)

    def _publisher(self, target: Target, grant: str, provider: str) -> Publisher:
        if target.secret is not None:
            return self._secret(target)
        if target.vault is None:
            return _file(self._runtime, target)
        from rotator.drivers import vault

        place = target.vault.filled(grant=grant, provider=provider)
        if target.kv == 1:
            return vault.Kv1Publisher(self._vault(place.name), place.mount, place.path, fields=target.fields or None)
        kept = {} if target.max_versions is None else {"max_versions": target.max_versions}
        return vault.KvPublisher(self._vault(place.name), place.mount, place.path, fields=target.fields or None, **kept)

    def _secret(self, target: Target) -> Publisher:
        from rotator.assembly import clusters
        from rotator.drivers import kubernetes

        assert target.secret is not None  # noqa: S101 (the caller has looked)
        namespace, name = clusters.place(self._plan, target.secret)
        return kubernetes.SecretPublisher(self._cluster(), namespace, name, fields=target.fields or None)

    def _cluster(self) -> Cluster:
        from rotator.assembly import clusters

        return clusters.of(self._plan, lambda ca_file: self._client(ca_file, None))

    async def _read_vault(self, reference: Reference) -> Secret:
        from rotator.drivers import vault

        place = settings.vault_field(reference.value.reveal())
        return await vault.cabinet.read(
            self._vault(place.name), place.mount, place.path, place.field or "", reference.key
        )

    def _vault(self, name: str) -> Vault:
        if name not in self._vaults:
            self._vaults[name] = self._open_vault(name)
        return self._vaults[name]

    def _open_vault(self, name: str) -> Vault:
        from rotator.assembly import vaults

        return vaults.of(name, self._plan, self._clock)


def _reference(shape: SecretReference | None, key: str) -> Reference | None:
    return None if shape is None else of(shape, key)


def _file(runtime: Path, target: Target) -> files.FilePublisher | files.BundlePublisher:
    assert target.place is not None  # noqa: S101 (the settings know that it is not in a Vault)
    relative = not target.place.startswith("/")
    path = f"{runtime}/{target.place}" if relative else target.place
    if target.directory is not None:
        return files.BundlePublisher(
            Path(path), target.bundled, mode=target.file_mode, group=target.group, make_parents=relative
        )
    return files.FilePublisher(
        path, form=target.file_format, template=target.template or "", mode=target.file_mode, group=target.group,
        make_parents=relative,
    )  # fmt: skip


def references(plan: Plan) -> Iterator[Reference]:
    """Every secret reference of the configuration with its key."""
    for key, shape in settings.references(plan.settings):
        yield of(shape, key)


def files_of(plan: Plan) -> Iterator[tuple[str, files.FilePublisher | files.BundlePublisher]]:
    """Every file target with its key."""
    for name, grant in plan.settings.grants.items():
        for target, one in grant.targets.items():
            if one.place is not None:
                yield f"grants.{name}.targets.{target}", _file(plans.runtime_directory(plan), one)
