"""Commands that open the lab: the demo and the emulated provider."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from rotator import assembly
from rotator.frontends.control import Client


def demo(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """The real daemon at work, for a while; 0 only if its reader never met an invalid token."""
    from rotator.lab import demo as lab

    return lab.show(
        span=assembly.span(arguments.span, "--for"),
        access_ttl=assembly.span(arguments.access_ttl, "--access-ttl"),
        ask=lambda path: Client(path).health(),
    )


def emulate(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from rotator.lab import emulator

    return emulator.main(
        port=arguments.port,
        access_ttl=assembly.span(arguments.access_ttl, "--access-ttl"),
        refresh_ttl=assembly.span(arguments.refresh_ttl, "--refresh-ttl"),
    )
