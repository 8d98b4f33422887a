"""The one file that imports hvac: a client that follows nothing, falls back to nothing, and hides nothing.

hvac 2.4 left alone returns a 307 as a success where redirects are off, raises without status and headers, and takes
address, token and certificates from the environment and from ``~/.vault-token``.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit


def _import_requests() -> None:
    """Without what guesses encodings, 3 MB for ever: nothing here is guessed at. None makes those imports fail, as the
    language reference has it (section 5.3.1), and requests provides for that, with a warning; older ones insist."""
    guessers = [name for name in ("chardet", "charset_normalizer") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(guessers))  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import requests  # noqa: F401
    except ImportError:
        pass
    finally:
        for name in guessers:
            del sys.modules[name]


_import_requests()

import hvac  # noqa: E402 (after the line above)
import hvac.adapters  # noqa: E402
import requests  # noqa: E402

from rotator.core.errors import Misconfigured, RotatorError, Unavailable  # noqa: E402
from rotator.drivers.vault.answers import Declined, redact  # noqa: E402

if TYPE_CHECKING:
    from rotator.drivers.vault.address import Address
    from rotator.drivers.vault.tally import Tally


_ADDRESS_ERRORS = (
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
)


# A replica that has not yet seen our last write says 412; it sees it within a blink, or something is wrong there.
CATCHING_UP = (0.05, 0.1, 0.2)


class Index:
    """The last X-Vault-Index that a Vault told, for all threads: sent along, it keeps a replica from answering with
    what was before (https://developer.hashicorp.com/vault/docs/enterprise/consistency)."""

    def __init__(self) -> None:
        self.told: str | None = None


class Strict(hvac.adapters.JSONAdapter):
    """Returns the JSON object of a 200 and ``{}`` for any other 2xx; raises `Declined` for all else.

    What kept the answer from us is raised as Unavailable or Misconfigured.
    """

    vault: str
    address: Address
    index: Index
    tally: Tally | None

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,
        **kwargs: Any,
    ) -> dict[Any, Any]:
        for pause in (*CATCHING_UP, None):
            outcome = self._exchange(method, url, self._seen(headers), **kwargs)
            if pause is None or not isinstance(outcome, Declined) or outcome.status != 412:
                break
            # On a worker thread, which has nothing else to do.
            time.sleep(pause)  # noqa: TID251
        # Raised from here, where neither the context nor a frame of the traceback holds a request or a response: they
        # hold our token, and a response also keeps its connection open, which urllib3 closes with the last reference.
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str] | None, **kwargs: Any
    ) -> dict[Any, Any] | Declined | RotatorError:
        try:
            response = hvac.adapters.RawAdapter.request(
                self,  # type: ignore[arg-type]  # the stubs make siblings of JSONAdapter and its base
                method,
                url,
                headers,
                raise_exception=False,
                **kwargs,
            )
        except (requests.RequestException, OSError) as error:
            self._count(method, None)
            return self._failure(error)
        except UnicodeError:
            return self._is_no_header()
        self._count(method, response.status_code)
        self.index.told = response.headers.get("X-Vault-Index") or self.index.told
        if 200 < response.status_code < 300:
            return {}
        body = _json(response)
        if response.status_code == 200 and isinstance(body, dict):
            return body
        return _declined(response, method, url, body, (self.token or "", *_strings(kwargs.get("json"))))

    def _count(self, method: str, status: int | None) -> None:
        if self.tally is not None:
            self.tally.answered(method, status)

    def _seen(self, headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
        return {**(headers or {}), "X-Vault-Index": self.index.told} if self.index.told else headers

    def _failure(self, error: Exception) -> RotatorError:
        """Why there is no answer, told from types: the texts of requests hold URLs and the reprs of objects."""
        where = f"Vault {self.vault} at {_origin(self.base_uri)}"
        key = f"[vault.{self.vault}]"
        causes = list(_causes(error))
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            return Misconfigured(
                f"the certificate of {where} is not trusted", mend=f"set `ca_file` of {key}, or mend the certificate"
            )
        if isinstance(error, _ADDRESS_ERRORS):
            return Misconfigured(f"{where} has no usable address", mend=f"set `address` of {key} to https://HOST:PORT")
        if isinstance(error, requests.exceptions.InvalidHeader):
            return self._is_no_header()
        mismatch = any(isinstance(one, ssl.SSLError) and one.reason == "KEY_VALUES_MISMATCH" for one in causes)
        if mismatch or not isinstance(error, requests.RequestException):
            return self._unreadable(key)
        if isinstance(error, requests.exceptions.ConnectTimeout):
            return Unavailable(f"{where}: no connection within {self.address.connect_timeout.total_seconds():g} s")
        # In the middle of a body, requests calls a timeout a ConnectionError; one with a number is the kernel's own.
        if isinstance(error, requests.exceptions.Timeout) or any(
            isinstance(cause, TimeoutError) and cause.errno is None for cause in causes
        ):
            return Unavailable(f"{where}: no answer within {self.address.timeout.total_seconds():g} s; outcome unknown")
        if isinstance(error, requests.exceptions.SSLError):
            return Unavailable(f"{where}: TLS failed", mend="if it stays so, look whether that port speaks https")
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            return Unavailable(f"{where}: its name is not known", mend="if it stays so, look at the address and at DNS")
        reason = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), "")
        return Unavailable(f"{where}: {reason.lower() or 'the connection broke'}")

    def _unreadable(self, key: str) -> Misconfigured:
        """Which of the files of the connection it was; requests and ssl tell it only in words."""
        named = {"ca_file": self.address.ca_file}
        if self.address.certificate is not None:
            named |= dict(zip(("cert_file", "key_file"), self.address.certificate, strict=True))
        missing = [one for one, file in named.items() if file is not None and not os.access(file, os.R_OK)]
        if missing:
            word = missing[0].removesuffix("_file").replace("ca", "CA")
            return Misconfigured(
                f"the {word} file {named[missing[0]]} cannot be read", mend=f"mend `{missing[0]}` of {key}"
            )
        files = " and ".join(f"`{one}`" for one, file in named.items() if file is not None)
        return Misconfigured(
            f"the certificate files of Vault {self.vault} hold nothing usable", mend=f"mend {files} of {key}: PEM"
        )

    def _is_no_header(self) -> Misconfigured:
        """A newline or a letter outside of Latin-1; the error of requests or http.client would quote it."""
        return Misconfigured(
            f"what would be sent to Vault {self.vault} cannot stand in a header", mend="look at its token and namespace"
        )


def connect(vault: str, address: Address, index: Index, tally: Tally | None = None) -> hvac.Client:
    """A client with one session of its own, for one thread; ``index`` is that of all. Opens no connection yet."""
    session = requests.Session()
    # No ~/.netrc (its password would go along as a second Authorization), no proxies, no REQUESTS_CA_BUNDLE.
    session.trust_env = False
    # Set here, because hvac lets a session's default True win over its own `verify` argument.
    session.verify = str(address.ca_file) if address.ca_file else True
    session.cert = (str(address.certificate[0]), str(address.certificate[1])) if address.certificate else None
    adapter = Strict(
        base_uri=address.url.rstrip("/"),
        token="",
        verify=session.verify,  # type: ignore[arg-type]  # the stubs know no path
        timeout=(address.connect_timeout.total_seconds(), address.timeout.total_seconds()),  # type: ignore[arg-type]
        allow_redirects=False,
        session=session,
        namespace=address.namespace,
    )
    adapter.vault, adapter.address, adapter.index, adapter.tally = vault, address, index, tally
    # A factory, because Client would fill what it hands to an adapter from VAULT_CLIENT_CERT and its kin; the empty
    # token keeps it from VAULT_TOKEN and ~/.vault-token.
    return hvac.Client(url=adapter.base_uri, token="", session=session, adapter=lambda **_: adapter)  # type: ignore[arg-type]


def _declined(response: requests.Response, method: str, url: str, body: Any, secrets: tuple[str, ...]) -> Declined:
    told = body if isinstance(body, dict) else {}
    errors = told.get("errors")
    data = told.get("data")
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if response.status_code == 200:
        errors = ["the answer is not one of a Vault"]
    return Declined(
        response.status_code,
        method,
        unquote(url).lstrip("/").removeprefix("v1/"),
        errors=redact(errors, secrets) if isinstance(errors, list) else (),
        retry_after=response.headers.get("Retry-After"),
        index=response.headers.get("X-Vault-Index"),
        location=_origin(response.headers.get("Location", "")),
        metadata=metadata if isinstance(metadata, dict) else None,
    )


def _origin(url: str) -> str:
    """Scheme and host only: the path may name a secret, and user information may be one. Empty where it has no host."""
    try:
        target = urlsplit(url)
    except ValueError:
        return ""
    return f"{target.scheme}://{target.netloc.rpartition('@')[2]}" if target.netloc else ""


def _json(response: requests.Response) -> Any:
    """The body where it is JSON, whatever Content-Type says: hvac reads none with ``; charset=utf-8``."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _strings(value: object) -> Iterator[str]:
    """Every string in a request's body: what was sent may not come back in an error text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what lies beneath it: requests and urllib3 chain by context, by ``reason`` and by arguments."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or one in seen:
            continue
        seen.append(one)
        yield one
        waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
