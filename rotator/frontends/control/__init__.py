"""The control socket: how the command line speaks to a running daemon.

The client is at hand here, for the command line loads it first and it needs the standard library alone; the server
is imported by its module.
"""

from rotator.frontends.control.client import Client

__all__ = ["Client"]
