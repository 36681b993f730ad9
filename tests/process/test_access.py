"""What a user may execute, by the bits of files and folders that are really there."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from runtime.process._access import find_barrier

#: Nobody who has anything here, and neither is the group.
UID, GID = 54_321, 54_322
NO_GROUP: frozenset[int] = frozenset()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, with a program in ``bin`` that everybody may execute."""
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "bin").mkdir()
        (folder / "bin" / "tool").write_text("#!/bin/sh\n")
        for path in (folder, folder / "bin", folder / "bin" / "tool"):
            path.chmod(0o755)
        yield folder


def test_what_everybody_may_execute_has_no_barrier(folder: Path) -> None:
    assert find_barrier(folder / "bin" / "tool", UID, NO_GROUP) is None
    assert find_barrier(Path("/bin/sh"), UID, NO_GROUP) is None


@pytest.mark.parametrize("closed", [".", "bin", "bin/tool"])
@pytest.mark.parametrize("mode", [0o700, 0o750, 0o744])
def test_what_is_closed_to_others_is_the_barrier(folder: Path, closed: str, mode: int) -> None:
    (folder / closed).chmod(mode)
    assert find_barrier(folder / "bin" / "tool", UID, NO_GROUP) == folder / closed


def test_the_owner_and_the_group_have_bits_of_their_own(folder: Path) -> None:
    tool = folder / "bin" / "tool"
    status = tool.stat()
    owner, group = status.st_uid or UID, frozenset({status.st_gid})
    tool.chmod(0o654)
    assert find_barrier(tool, UID, group) is None
    assert find_barrier(tool, UID, NO_GROUP) == tool
    tool.chmod(0o645)
    assert find_barrier(tool, UID, group) == tool
    assert find_barrier(tool, UID, NO_GROUP) is None
    if os.geteuid() == 0:
        os.chown(tool, owner, -1)
    tool.chmod(0o611)
    assert find_barrier(tool, owner, group) == tool


@pytest.mark.parametrize("absolute", [True, False])
def test_links_are_followed_to_where_they_lead(folder: Path, *, absolute: bool) -> None:
    (folder / "closed").mkdir(mode=0o700)
    shutil.copy(folder / "bin" / "tool", folder / "closed" / "tool")
    (folder / "links").mkdir()
    (folder / "links").chmod(0o755)
    closed = folder / "closed" if absolute else Path("..", "closed")
    (folder / "links" / "way").symlink_to(closed)
    (folder / "links" / "tool").symlink_to(Path("way", "tool"))
    (folder / "links" / "good").symlink_to(Path("..", "bin", "tool"))
    assert find_barrier(folder / "links" / "tool", UID, NO_GROUP) == folder / "closed"
    assert find_barrier(folder / "links" / "way" / "tool", UID, NO_GROUP) == folder / "closed"
    assert find_barrier(folder / "links" / "good", UID, NO_GROUP) is None


def test_what_the_bits_do_not_tell_is_no_barrier(folder: Path) -> None:
    (folder / "bin").chmod(0o700)
    assert find_barrier(folder / "bin" / "tool", 0, NO_GROUP) is None
    assert find_barrier(folder / "missing" / "tool", UID, NO_GROUP) is None
    (folder / "loop").symlink_to("loop")
    assert find_barrier(folder / "loop", UID, NO_GROUP) is None


def test_an_access_control_list_is_not_judged(folder: Path) -> None:
    (folder / "bin").chmod(0o700)
    nobody = 2**32 - 1
    # Owner, that user, group, mask, others: see acl(5), and the kernel's posix_acl_xattr.h.
    entries = [(1, 7, nobody), (2, 1, UID), (4, 0, nobody), (16, 1, nobody), (32, 0, nobody)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(folder / "bin", "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")
    assert find_barrier(folder / "bin" / "tool", UID, NO_GROUP) is None
