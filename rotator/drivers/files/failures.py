"""What an error of the file system means for a target, in words for the person who must act."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from rotator.core.errors import Misconfigured, RotatorError, Unavailable

_CANNOT_BE_A_FILE = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
_MENDS = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or raise the quota",
    errno.EROFS: "if it stays so, mount it writable (ReadWritePaths= in the unit)",
}


def mounted(path: Path) -> Misconfigured:
    return Misconfigured(
        f"{path} is a mount of its own, which no rename can replace",
        mend=f"mount the folder {path.parent} instead of the single file",
    )


def of(path: Path, error: OSError) -> RotatorError:
    """Misconfigured where a path or a right must be changed, Unavailable where waiting may help."""
    folder, reason = path.parent, os.strerror(error.errno or 0)
    if error.errno in (errno.EBUSY, errno.EXDEV):
        return mounted(path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return Misconfigured(
            f"{path} cannot be written: {reason}", mend=f"let uid {os.geteuid()} enter and write in {folder}"
        )
    if error.errno in _CANNOT_BE_A_FILE:
        return Misconfigured(f"{path} cannot be a file: {reason}", mend="mend the path, or move away what is there")
    mend = _MENDS.get(error.errno or 0, "")
    if error.errno == errno.ENOENT:
        mend = f"if it stays so, create or mount the folder {folder}"
    return Unavailable(f"{path} cannot be written now: {reason}", mend=mend)
