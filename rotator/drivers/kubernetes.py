"""Publishes into a Kubernetes Secret by server-side apply, with the Pod's own account. Experimental.

Two requests of the API are all that is needed, so they go through the port `ports.Http`: lightkube and kr8s cost more
memory than the rest of the daemon's HTTP together.

https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rotator.core import lean, publication
from rotator.core.errors import Misconfigured, RotatorError, Unavailable
from rotator.core.ports import Http, HttpAnswer, HttpRequest
from rotator.core.publication import Found, Publication, Settled

MANAGER = "rotator"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LINEAGE, GENERATION, EXPIRES = "rotator/lineage", "rotator/generation", "rotator/expires-at"
# A Secret is 1 MiB at most (core/v1, MaxSecretSize), and a third more in base64.
LARGEST = 2 << 20
DEADLINE = timedelta(seconds=10)
# How often somebody else may be quicker between our look and our write.
TRIES = 3
# For the token alone: where its volume hangs, that holds nobody else's.
_THREAD = ThreadPoolExecutor(1, thread_name_prefix="kubernetes")

_SCHEME = "secret:"


@lean.dataclass(frozen=True, slots=True)
class Owner:
    """A Pod with which the Secret shall go (ownerReferences of ObjectMeta)."""

    name: str
    uid: str


class Cluster:
    """The API server as a Pod sees it. ``token_file`` is read anew for each request: the kubelet replaces it;
    ``patience`` is how long that may take."""

    def __init__(
        self, http: Http, url: str, token_file: Path, *, owner: Owner | None = None, patience: timedelta = DEADLINE
    ) -> None:
        self._http = http
        self._patience = patience.total_seconds()
        self._url = url.rstrip("/")
        self._token_file = token_file
        self.owner = owner

    async def ask(self, method: str, path: str, body: object = None, kind: str = "application/json") -> HttpAnswer:
        """One request. Raises Unavailable where the server is away or busy, Misconfigured where the token cannot be
        read or is not taken, or the server cannot be trusted."""
        headers = [("accept", "application/json"), ("authorization", f"Bearer {await self._token()}")]
        content = b"" if body is None else json.dumps(body).encode()
        if content:
            headers.append(("content-type", kind))
        request = HttpRequest(method, f"{self._url}{path}", tuple(headers), content)
        answer = await self._http.send(request, deadline=DEADLINE, limit=LARGEST)
        if answer.status is None:
            if answer.failure == "certificate":
                raise Misconfigured(f"the API server is not trusted: {answer.detail}", mend="set kubernetes.ca_file")
            raise Unavailable(f"the API server does not answer: {answer.detail}")
        if answer.status == 401:
            raise Misconfigured(
                f"the API server does not take the token in {self._token_file}",
                mend="mount a service account token without another audience there",
            )
        if answer.status == 429 or answer.status >= 500:
            raise Unavailable(f"the API server answers HTTP {answer.status}")
        return answer

    async def _token(self) -> str:
        reading = asyncio.get_running_loop().run_in_executor(_THREAD, self._token_file.read_text)
        try:
            async with asyncio.timeout(self._patience):  # noqa: TID251 (a driver's own deadline for a hung mount)
                return (await reading).strip()
        except TimeoutError:
            raise Unavailable(
                f"the service account token {self._token_file} was not read within {self._patience:g} s; "
                "the file system hangs",
                mend="mend the mount",
            ) from None
        except (OSError, UnicodeDecodeError):
            raise Misconfigured(
                f"the service account token {self._token_file} cannot be read",
                mend="set automountServiceAccountToken: true, or name another by kubernetes.token_file",
            ) from None


def parse_location(location: str) -> tuple[str, str] | None:
    """(namespace, name) behind a `SecretPublisher.location`, or None where it is the location of something else."""
    namespace, slash, name = location.removeprefix(_SCHEME).partition("/")
    return (namespace, name) if location.startswith(_SCHEME) and slash and name else None


class SecretPublisher:
    """One Secret as a target; see `ports.Publisher`. ``fields`` gives each key its template; None means the fields of a
    publication and its lineage. Keys that others put there stay theirs."""

    local = False
    judged_by_mark = False

    def __init__(self, cluster: Cluster, namespace: str, name: str, *, fields: Mapping[str, str] | None = None) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._fields = fields

    @property
    def location(self) -> str:
        return f"{_SCHEME}{self._namespace}/{self._name}"

    def __repr__(self) -> str:
        return f"SecretPublisher({self._namespace}/{self._name})"

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        """See `ports.Publisher.settle`."""
        data = self._data(wanted)
        for _ in range(TRIES):
            there = await self._look()
            settled = _judge(there, data, wanted)
            if settled.found in (Found.CURRENT, Found.AHEAD):
                return settled
            if await self._apply(there, data, wanted):
                return Settled(settled.found, mark=_mark(data))
        raise Unavailable(f"the Secret {self._namespace}/{self._name} is written by somebody else all the time")

    async def remove(self, mark: str) -> bool:
        """Delete the Secret while it holds what ``mark`` names and nothing else: with keys of others it stays."""
        there = await self._look()
        if there is None or _mark(there.get("data") or {}) != mark:
            return False
        version = there["metadata"].get("resourceVersion")
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": version}}
        answer = await self._cluster.ask("DELETE", self._path, body)
        if answer.status in (404, 409):
            return False
        if answer.status is None or answer.status >= 300:
            raise self._failure(answer, "delete")
        return True

    async def _look(self) -> dict[str, Any] | None:
        answer = await self._cluster.ask("GET", self._path)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self._failure(answer, "get")
        try:
            found: Any = json.loads(answer.body)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict):
            raise Misconfigured("what answers is no API server of Kubernetes", mend="mend kubernetes.api")
        return found

    async def _apply(self, there: dict[str, Any] | None, data: dict[str, str], wanted: Publication) -> bool:
        """False where it was changed since we looked (409)."""
        metadata: dict[str, Any] = {
            "name": self._name,
            "namespace": self._namespace,
            "labels": {"app.kubernetes.io/managed-by": MANAGER},
            "annotations": {
                LINEAGE: wanted.lineage,
                GENERATION: str(wanted.generation),
                EXPIRES: publication.rfc3339(wanted.access.expires_at),
            },
        }
        if self._cluster.owner is not None:
            owner = self._cluster.owner
            metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid}]
        if there is not None:
            metadata["resourceVersion"] = there["metadata"].get("resourceVersion")
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
        if there is not None and there.get("type"):
            # Immutable once it is there.
            body["type"] = there["type"]
        # force: a key that somebody took over by hand is ours again; it was reported as altered.
        path = f"{self._path}?fieldManager={MANAGER}&force=true"
        answer = await self._cluster.ask("PATCH", path, body, "application/apply-patch+yaml")
        if answer.status == 409:
            return False
        if answer.status is None or answer.status >= 300:
            raise self._failure(answer, "patch")
        return True

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/secrets/{self._name}"

    def _data(self, wanted: Publication) -> dict[str, str]:
        known = publication.fields(wanted)
        plain = {**known, "lineage": wanted.lineage}
        if self._fields is not None:
            plain = {key: publication.fill(template, known) for key, template in self._fields.items()}
        return {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}

    def _failure(self, answer: HttpAnswer, verb: str) -> RotatorError:
        place = f"Secret {self._namespace}/{self._name}"
        if answer.status == 403:
            return Misconfigured(
                f"the account may not {verb} the {place}",
                mend="give it a Role with get, create, patch and delete on secrets (docs/kubernetes.md)",
            )
        if answer.status == 404:
            return Misconfigured(f"there is no namespace {self._namespace}", mend="mend the key `secret`")
        return Misconfigured(f"the API server answers HTTP {answer.status} for the {place}", mend="is it immutable?")


def _described(there: Mapping[str, Any]) -> tuple[str, str, str]:
    notes = there["metadata"].get("annotations") or {}
    return str(notes.get(LINEAGE, "")), str(notes.get(GENERATION, "")), str(notes.get(EXPIRES, ""))


def _judge(there: Mapping[str, Any] | None, data: Mapping[str, str], wanted: Publication) -> Settled:
    if there is None:
        return Settled(Found.ABSENT)
    held = there.get("data") or {}
    lineage, generation, expires = _described(there)
    if lineage != wanted.lineage:
        return Settled(Found.FOREIGN if held else Found.ABSENT)
    number = int(generation) if generation.isascii() and generation.isdigit() and len(generation) < 17 else 0
    if number > wanted.generation:
        return Settled(Found.AHEAD, generation=number, expires_at=publication.read_time(expires))
    if number < wanted.generation:
        return Settled(Found.OLDER)
    same = all(_decoded(held.get(key)) == _decoded(value) for key, value in data.items())
    return Settled(Found.CURRENT, mark=_mark(data)) if same else Settled(Found.ALTERED)


def _decoded(value: object) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else None
    except binascii.Error:
        return None


def _mark(data: Mapping[str, str]) -> str:
    whole = hashlib.sha256()
    for key, value in sorted(data.items()):
        whole.update(key.encode() + b"\0" + hashlib.sha256(_decoded(value) or b"").digest())
    return whole.hexdigest()
