"""`rotator verify`: does the provider accept the token? Token Login, once, on demand."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping

from rotator import assembly
from rotator.core.errors import Refused, Unavailable


def verify(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """POST the access token to the provider's ``login_url`` and say what came back.

    0 where it was accepted, 77 where it was refused, 69 where nothing can be said. It never touches the refresh
    token, whatever the answer: an ``invalid_grant`` here is about the access token.
    """
    plan = assembly.read(arguments.config, environ, check=False)
    try:
        token = assembly.client(plan).token(arguments.grant)
    except Unavailable:
        token = asyncio.run(assembly.stored_token(plan, arguments.grant))
    answer = asyncio.run(assembly.login(plan, arguments.grant, token))
    if arguments.json:
        print(json.dumps(answer, indent=2))
    else:
        print(f"{arguments.grant}: {answer['message']}", file=sys.stderr)
    if answer["accepted"]:
        return 0
    return Unavailable.exit_code if answer["status"] is None else Refused.exit_code
