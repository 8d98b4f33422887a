"""What went wrong, in the words of `ports.HttpAnswer` and in a sentence for a person.

No text of the far end enters a sentence: what is not HTTP may well be an echo of our request.
"""

from __future__ import annotations

import errno
import socket
import ssl
from datetime import timedelta
from enum import StrEnum

from rotator.drivers.http import dial


class Stage(StrEnum):
    """Where a request stands, as the end of “… while”."""

    TRUST = "reading the CA certificates"
    LOOKUP = "looking up its address"
    CONNECT = "connecting"
    HANDSHAKE = "shaking hands for TLS"
    ANSWER = "waiting for the answer"
    BODY = "reading the answer's body"
    PROXY = "talking through the proxy"


NOT_HTTP = "it cannot be written down as HTTP; nothing was sent"
BEFORE_THE_REQUEST = frozenset({Stage.TRUST, Stage.LOOKUP, Stage.CONNECT, Stage.HANDSHAKE})


class Unusable(ValueError):
    """What we refuse ourselves: a URL, a setting, a body. ``word`` and ``detail`` as in `ports.HttpAnswer`."""

    def __init__(self, word: str, detail: str) -> None:
        super().__init__(detail)
        self.word = word
        self.detail = detail


def told(error: BaseException, stage: Stage, host: str, deadline: timedelta) -> tuple[str, str]:
    """The word and the sentence for ``error``; ``host`` is all that is named of the URL."""
    match error:
        case Unusable():
            return error.word, f"{host}: {error.detail}"
        case TimeoutError():
            word = "connect timeout" if stage in BEFORE_THE_REQUEST else "timeout"
            return word, f"{host}: out of time ({deadline.total_seconds():g} s) while {stage}"
        case socket.gaierror():
            return "dns", f"{host}: the name cannot be resolved ({error.strerror})"
        case UnicodeError():
            return "dns", f"{host}: this is not a possible host name"
        case ssl.SSLCertVerificationError():
            return "certificate", f"{host}: its certificate is not accepted ({error.verify_message.rstrip('.')})"
        case ssl.SSLEOFError():
            return "reset", f"{host}: the connection was cut while {stage}"
        case ssl.SSLError():
            return "tls", f"{host}: TLS failed while {stage} ({_tls_reason(error)})"
        case EOFError() | ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return "reset", f"{host}: the connection was cut while {stage}"
        case OSError():
            return _of_the_socket(error, stage, host)
        case _:
            return "protocol", f"{host}: what came back is not HTTP (while {stage})"


def from_library(name: str, text: str) -> BaseException:
    """An error of the HTTP library without a cause beneath: its class tells, its text may quote the far end."""
    match name:
        case "ProxyError":
            # The text begins with the proxy's status code.
            code = text[:3] if text[:3].isdecimal() else "no reason given"
            return Unusable("proxy", f"the proxy refused the tunnel ({code})")
        case "ConnectTimeout" | "PoolTimeout" | "ReadTimeout" | "WriteTimeout":
            return TimeoutError()
        case "ConnectError":
            return OSError(errno.EIO, "no connection")
        case "ReadError" | "WriteError" | "CloseError" | "EOFError":
            return EOFError()
        case "LocalProtocolError" | "InvalidURL":
            return Unusable("protocol", NOT_HTTP)
        case _:
            return ValueError()


def _of_the_socket(error: OSError, stage: Stage, host: str) -> tuple[str, str]:
    if isinstance(error, ConnectionRefusedError):
        return "refused", f"{host}: the connection was refused"
    if error.errno in dial.NO_ROUTE:
        return "unreachable", f"{host}: there is no way to it ({error.strerror})"
    # strerror, not str(): the text of a library might quote what was sent.
    reason = error.strerror or "no connection"
    return "connection", f"{host}: the connection failed while {stage} ({reason})"


def _tls_reason(error: ssl.SSLError) -> str:
    reason = error.reason or "no reason given"
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"):
        return "the server does not speak TLS on this port"
    return reason.lower().replace("_", " ")
