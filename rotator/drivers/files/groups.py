"""The group that may read a target: found by name or number, given to files and folders."""

from __future__ import annotations

import grp
import os
from pathlib import Path

from rotator.core.errors import Misconfigured

# (gid_t)-1 means "leave it" to chown(2).
_NOBODY = (1 << 32) - 1


def find(group: str, path: Path) -> int:
    """The number of ``group``; a name counts before a number, as with chown(1). Raises Misconfigured."""
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        if group.isascii() and group.isdecimal() and len(group) < 11 and int(group) < _NOBODY:
            return int(group)
    raise Misconfigured(
        f'{path}: there is no group "{group}"', mend="create it (sysusers.d, groupadd) or mend the key `group`"
    )


def give(thing: int | Path, gid: int, path: Path) -> None:
    """Give ``thing`` (a descriptor or a path), which is on its way to ``path``, to a group.

    Without CAP_CHOWN an owner may give it only to a group that he is in (chown(2)). Raises Misconfigured, OSError."""
    try:
        os.chown(thing, -1, gid)
    except PermissionError:
        raise Misconfigured(
            f"{path} cannot be given to group {gid}: uid {os.geteuid()} is not a member of it",
            mend="add the user to it (SupplementaryGroups= in the unit, fsGroup in a Pod) or take the key `group` out",
        ) from None
