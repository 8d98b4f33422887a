"""What a hook tells: that there is a new generation, until when it holds and where it stands. Never the token itself.

A hook is a target of which nobody can see what "stands there". It is therefore named for ever by grant, target and
what it does (`location`), and each telling by lineage, generation and target (`identifier`), so that who is told twice
can see that it was one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping

from rotator.core import publication as publications
from rotator.core.publication import Publication
from rotator.core.tokens import MASK, Secret

TYPE = "dev.rotator.token.rotated"
# Standard Webhooks, "Signature scheme": secrets are base64 behind this prefix.
PREFIX = "whsec_"
# A page of a journal at most; what a command says beyond that it should log itself.
LONGEST = 300

_SCHEME = "hook:"
# No path, no sentence, no name of a unit: a run of letters and digits such as tokens and keys are made of.
_OPAQUE = re.compile(r"[A-Za-z0-9_~+=-]{24,}")


def location(grant: str, target: str, does: str) -> str:
    """``does`` changes with anything that makes it another place: then it has been told nothing yet."""
    return f"{_SCHEME}{grant}/{target} {does}"


def is_hook(location: str) -> bool:
    return location.startswith(_SCHEME)


def identifier(publication: Publication, target: str) -> str:
    """The same for every try, also after a restart: who has seen it may throw the rest away."""
    return f"{publication.lineage}-{publication.generation}-{target}"


def _told(publication: Publication, target: str) -> dict[str, str]:
    access = publication.access
    return {
        "ROTATOR_GRANT": publication.grant,
        "ROTATOR_TARGET": target,
        "ROTATOR_GENERATION": str(access.generation),
        "ROTATOR_EXPIRES_AT": publications.rfc3339(access.expires_at),
        "ROTATOR_EXPIRES_AT_UNIX": str(int(access.expires_at.timestamp())),
        "ROTATOR_ISSUED_AT": publications.rfc3339(access.issued_at),
        "ROTATOR_ID": identifier(publication, target),
    }


#: What a command is told by; no settings, where a command runs rotator itself.
VARIABLES = frozenset({
    "ROTATOR_GRANT", "ROTATOR_TARGET", "ROTATOR_GENERATION", "ROTATOR_EXPIRES_AT", "ROTATOR_EXPIRES_AT_UNIX",
    "ROTATOR_ISSUED_AT", "ROTATOR_ID",
})  # fmt: skip
# Where programs are, what their words are encoded in, and whose they are; nothing else that the daemon was given.
KEPT = ("PATH", "LANG", "HOME")
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(publication: Publication, target: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a command: KEPT of ``environ``, and VARIABLES. Not the supervisor's socket and watchdog,
    not the folder of credentials, and no secret."""
    kept = {name: environ[name] for name in KEPT if environ.get(name)}
    return {"PATH": USUAL_PATH, **kept, **_told(publication, target)}


def event(
    publication: Publication, target: str, source: str, fingerprint: str, locations: Mapping[str, str]
) -> dict[str, object]:
    """A CloudEvent 1.0 (https://github.com/cloudevents/spec, "Required Attributes"), the same at every try.

    ``source`` is who tells (a URI reference), ``locations`` where the token stands by target."""
    access = publication.access
    return {
        "specversion": "1.0",
        "id": identifier(publication, target),
        "source": source,
        "type": TYPE,
        "subject": publication.grant,
        "time": publications.rfc3339(access.issued_at),
        "datacontenttype": "application/json",
        "data": {
            "grant": publication.grant,
            "generation": access.generation,
            "issued_at": publications.rfc3339(access.issued_at),
            "expires_at": publications.rfc3339(access.expires_at),
            "fingerprint": fingerprint,
            "targets": dict(locations),
        },
    }


def body(event: Mapping[str, object]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def signature(key: Secret, identifier: str, at: int, body: bytes) -> str:
    """Of Standard Webhooks (https://www.standardwebhooks.com): HMAC-SHA256 over id, time and body. ``at`` is in seconds
    since 1970. A key behind PREFIX is base64; any other is taken as it is. Raises ValueError for a bad one."""
    text = key.reveal()
    raw = base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else text.encode()
    mac = hmac.new(raw, f"{identifier}.{at}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(mac.digest()).decode()}"


def quoted(output: bytes, secret: Secret) -> str:
    """What a command said, for a log: its end, in one line of plain text, without ``secret`` and whatever else looks
    like a token or a key."""
    text = output.decode("utf-8", "replace").replace(secret.reveal(), MASK)
    text = _OPAQUE.sub(_masked, "".join(one if one.isprintable() else " " for one in text))
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"…{text[-LONGEST:]}"


def _masked(run: re.Match[str]) -> str:
    """Words have no digits."""
    return MASK if any(one.isdigit() for one in run[0]) else run[0]
