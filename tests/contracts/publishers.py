"""The publishers under contract, each with what a reader and a stranger can do to its target.

To add one: write a `Harness` and name it in `HARNESSES`.
"""

from __future__ import annotations

import asyncio
import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rotator.core.ports import Publisher
from rotator.core.publication import Format, Publication
from rotator.core.tokens import AccessToken, Secret
from rotator.drivers import files, http, kubernetes, vault
from rotator.drivers.clock import SystemClock
from tests.peers import apiserver, openbao
from tests.peers.openbao import OpenBao

NOW = datetime(2027, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def publication(generation: int, *, lineage: str = "lineage-1", token: str | None = None) -> Publication:
    """A generation that was issued ``generation`` hours after the first."""
    issued = NOW + timedelta(hours=generation)
    value = f"token-of-{lineage}-{generation}" if token is None else token
    access = AccessToken(Secret(value), "bearer", "all", issued, issued + timedelta(hours=1), generation)
    return Publication("billing", lineage, access)


class Harness(ABC):
    """One target in a world of its own. Its methods may block: they stand outside of the publisher."""

    #: Whether what stands there tells its generation and lineage; where not, a newer value is an altered one.
    tells_generation: bool

    @abstractmethod
    def publisher(self) -> Publisher:
        """A publisher of the target, a new one at each call, as after a restart."""

    @abstractmethod
    def read(self) -> str | None:
        """The access token as a reader gets it; None where there is none."""

    @abstractmethod
    def stamp(self) -> object:
        """Something that differs after every write, even of the same value."""

    @abstractmethod
    def scribble(self) -> None:
        """A stranger overwrites the target with a value of his own."""

    @abstractmethod
    def clear(self) -> None:
        """A stranger deletes the target."""


class FileHarness(Harness):
    def __init__(self, folder: Path, form: Format) -> None:
        self.tells_generation = form is Format.JSON
        self._form = form
        self._path = folder / "token"

    def publisher(self) -> Publisher:
        return files.FilePublisher(self._path, form=self._form, template="<$access_token>")

    def read(self) -> str | None:
        if not self._path.exists():
            return None
        text = self._path.read_text()
        match self._form:
            case Format.RAW:
                return text
            case Format.JSON:
                return str(json.loads(text)["access_token"])
            case Format.ENV:
                return dict(line.split("=", 1) for line in text.splitlines())["ACCESS_TOKEN"].strip('"')
            case Format.HEADER:
                return text.removeprefix("Authorization: Bearer ").rstrip("\n")
            case Format.TEMPLATE:
                return text.strip("<>")

    def stamp(self) -> object:
        status = self._path.stat()
        return status.st_ino, status.st_mtime_ns

    def scribble(self) -> None:
        self._path.write_text("scribbled")

    def clear(self) -> None:
        self._path.unlink()


def _file(form: Format) -> Callable[[Path], AbstractContextManager[Harness]]:
    @contextmanager
    def make(scratch: Path) -> Iterator[Harness]:
        yield FileHarness(scratch, form)

    return make


class BundleHarness(Harness):
    """A directory of three files; read through its links, as an application does."""

    tells_generation = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "bundle"
        self._folder.mkdir()

    def publisher(self) -> Publisher:
        forms = {"token": Format.RAW, "token.json": Format.JSON, "header": Format.HEADER}
        return files.BundlePublisher(self._folder, forms)

    def read(self) -> str | None:
        if not (self._folder / "token").exists():
            return None
        value = (self._folder / "token").read_text()
        assert json.loads((self._folder / "token.json").read_text())["access_token"] == value
        assert (self._folder / "header").read_text() == f"Authorization: Bearer {value}\n"
        return value

    def stamp(self) -> object:
        return (self._folder / "..data").resolve()

    def scribble(self) -> None:
        for name in ("token", "token.json", "header"):
            (self._folder / name).write_text("scribbled")

    def clear(self) -> None:
        (self._folder / "..data").unlink()


@contextmanager
def _bundle(scratch: Path) -> Iterator[Harness]:
    yield BundleHarness(scratch)


class SecretHarness(Harness):
    """A Secret at the stand-in for an API server."""

    tells_generation = True

    def __init__(self, folder: Path, server: apiserver.Apiserver) -> None:
        self._server = server
        self._token = folder / "account-token"
        self._token.write_text(server.token)

    def publisher(self) -> Publisher:
        cluster = kubernetes.Cluster(http.HttpxClient(), self._server.url, self._token)
        return kubernetes.SecretPublisher(cluster, "shop", "billing")

    def read(self) -> str | None:
        found = self._server.secrets.get("billing")
        return None if found is None else base64.b64decode(found["data"]["access_token"]).decode()

    def stamp(self) -> object:
        return self._server.secrets["billing"]["metadata"]["resourceVersion"]

    def scribble(self) -> None:
        found = self._server.secrets.get("billing", {"metadata": {"name": "billing"}})
        data = {"access_token": base64.b64encode(b"scribbled").decode()}
        self._server.put("billing", {**found, "data": data})

    def clear(self) -> None:
        del self._server.secrets["billing"]


@contextmanager
def _secret(scratch: Path) -> Iterator[Harness]:
    with apiserver.serve() as server:
        yield SecretHarness(scratch, server)


class VaultHarness(Harness):
    """A KV v2 entry of a real OpenBao; ``fields`` as `vault.KvPublisher` takes them."""

    tells_generation = True

    def __init__(self, bao: OpenBao, fields: Mapping[str, str] | None) -> None:
        self._bao = bao
        self._fields = fields
        self._mount = bao.mount_kv()
        self._logins: list[vault.Vault] = []

    def publisher(self) -> Publisher:
        async def token() -> Secret:
            return Secret(self._bao.token)

        address = vault.Address(url=self._bao.url)
        self._logins.append(vault.Vault("default", address, vault.TokenLogin(token), SystemClock()))
        return vault.KvPublisher(self._logins[-1], self._mount, "oauth/billing", fields=self._fields)

    def read(self) -> str | None:
        status, answer = self._bao.ask("GET", f"{self._mount}/data/oauth/billing")
        if status == 404:
            return None
        data = answer["data"]["data"]
        return str(data["access_token"] if self._fields is None else data["header"].removeprefix("Bearer "))

    def stamp(self) -> object:
        return self._bao.do("GET", f"{self._mount}/metadata/oauth/billing")["data"]

    def scribble(self) -> None:
        self._bao.do("POST", f"{self._mount}/data/oauth/billing", {"data": {"access_token": "scribbled"}})

    def clear(self) -> None:
        self._bao.do("DELETE", f"{self._mount}/data/oauth/billing")

    def close(self) -> None:
        for login in self._logins:
            asyncio.run(login.close())


class Kv1Harness(Harness):
    """A KV v1 entry. It has no versions: what was written is counted in the audit log."""

    tells_generation = True

    def __init__(self, bao: OpenBao) -> None:
        self._bao = bao
        self._mount = bao.mount_kv1()

    def publisher(self) -> Publisher:
        async def token() -> Secret:
            return Secret(self._bao.token)

        address = vault.Address(url=self._bao.url)
        login = vault.Vault("default", address, vault.TokenLogin(token), SystemClock())
        return vault.Kv1Publisher(login, self._mount, "oauth/billing")

    def read(self) -> str | None:
        status, answer = self._bao.ask("GET", f"{self._mount}/oauth/billing")
        return None if status == 404 else str(answer["data"]["access_token"])

    def stamp(self) -> object:
        asked = [line["request"] for line in self._bao.audited() if line["type"] == "request"]
        return sum(one["path"].startswith(self._mount) and one["operation"] != "read" for one in asked)

    def scribble(self) -> None:
        self._bao.do("POST", f"{self._mount}/oauth/billing", {"access_token": "scribbled"})

    def clear(self) -> None:
        self._bao.do("DELETE", f"{self._mount}/oauth/billing")


def _vault(fields: Mapping[str, str] | None = None) -> Callable[[Path], AbstractContextManager[Harness]]:
    @contextmanager
    def make(scratch: Path) -> Iterator[Harness]:
        with openbao.dev() as bao:
            harness = VaultHarness(bao, fields)
            try:
                yield harness
            finally:
                harness.close()

    return make


#: Each is given a fresh empty folder; it may raise `pytest.skip` where its far end is not there.
HARNESSES: dict[str, Callable[[Path], AbstractContextManager[Harness]]] = {
    **{f"file-{form.value}": _file(form) for form in Format},
    "bundle": _bundle,
    "secret": _secret,
    "vault": _vault(),
    "vault-fields": _vault({"header": "$token_type $access_token"}),
}
