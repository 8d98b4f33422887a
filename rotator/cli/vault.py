"""`rotator vault-policy`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from rotator import assembly


def vault_policy(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print what the configuration needs in Vault, without asking any."""
    from rotator.assembly import policies

    plan = assembly.read(arguments.config, environ, check=False)
    print(policies.text(plan, arguments.vault, for_readers=arguments.readers), end="")
    return 0
