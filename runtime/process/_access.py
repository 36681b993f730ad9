"""What a user may execute, as far as the bits of files and folders tell."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MOST_LINKS = 40  # as the kernel has it
_ACL = "system.posix_acl_access"


def find_barrier(program: Path, uid: int, groups: frozenset[int]) -> Path | None:
    """Return the folder that *uid* may not enter on the way to *program*, or what it may not run.

    Symbolic links are followed. None when nothing is in the way, and where the bits do not tell:
    for root, for what is not there or not to be seen by us, and beyond an access control list.
    """
    if uid == 0:
        return None
    with suppress(OSError):
        for step in _steps(program):
            if not _may_pass(step, uid, groups):
                return step
    return None


def _steps(path: Path) -> Iterator[Path]:
    """Yield each folder that the kernel goes through on the way to *path*, and where that ends."""
    to_go = list(reversed(path.parts))
    here = Path(path.anchor)
    links = 0
    while to_go:
        part = to_go.pop()
        if part == here.anchor:
            here = Path(part)
            continue
        yield here
        following = here.parent if part == ".." else here / part
        if following.is_symlink() and links < _MOST_LINKS:
            links += 1
            to_go += reversed(following.readlink().parts)
        else:
            here = following
    yield here


def _may_pass(path: Path, uid: int, groups: frozenset[int]) -> bool:
    status = path.stat()
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if hasattr(os, "listxattr") and _ACL in os.listxattr(path):
        return True
    return bool(status.st_mode & (stat.S_IXGRP if status.st_gid in groups else stat.S_IXOTH))
