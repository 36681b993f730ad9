"""Lines get into a file whole, in their order, and the file makes room between two of them."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.process.rotation import (
    Appended,
    append_lines,
    current_of,
    end_of_fitting,
    plan_rotation,
    rotated,
)

LOG = Path("/logs/api.log")
LARGE = 1024 * 1024
MANY = 10_000


def append(path: Path, data: bytes, *, most: int = LARGE, keep: int = MANY) -> Appended:
    return append_lines(path, data, most_bytes=most, keep=keep)


def kept(path: Path) -> list[bytes]:
    """Return what the file and the older ones have in them, the oldest first."""
    numbers = {current_of(each)[1] for each in path.parent.iterdir() if current_of(each)[0] == path}
    return [rotated(path, number).read_bytes() for number in sorted(numbers, reverse=True)]


# --- what is renamed to what ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "taken", "moves"),
    [
        pytest.param(0, [], [(0, None)], id="none is kept: it is removed"),
        pytest.param(1, [], [(0, 1)], id="the first rotation"),
        pytest.param(1, [1], [(0, 1)], id="the oldest gives way"),
        pytest.param(3, [], [(0, 1)], id="all numbers are free"),
        pytest.param(3, [1], [(1, 2), (0, 1)], id="one is taken"),
        pytest.param(3, [1, 2, 3], [(2, 3), (1, 2), (0, 1)], id="all are taken"),
        pytest.param(3, [1, 3], [(1, 2), (0, 1)], id="a gap is filled, and nothing lost"),
        pytest.param(3, [2, 3], [(0, 1)], id="the first is free"),
        pytest.param(2, [1, 2, 3, 4], [(1, 2), (0, 1)], id="more were kept once"),
    ],
)
def test_files_move_up_to_the_first_free_number(
    keep: int, taken: list[int], moves: list[tuple[int, int | None]]
) -> None:
    exists = {rotated(LOG, number) for number in taken}.__contains__
    found = plan_rotation(LOG, keep, exists)
    assert found == [
        (rotated(LOG, source), None if target is None else rotated(LOG, target))
        for source, target in moves
    ]


@pytest.mark.parametrize(
    ("name", "current"),
    [
        ("api.log.1", ("api.log", 1)),
        ("api.log.999999999", ("api.log", 999_999_999)),
        ("api.1.2", ("api.1", 2)),
        ("a\nb.1", ("a\nb", 1)),
        *((name, (name, 0)) for name in ("api.log", "api.log.0", "api.log.01", "api.log.x")),
        *((name, (name, 0)) for name in (".1", "1", "api.log.²", "api.log." + "1" * 5000)),
    ],
)
def test_the_name_of_an_older_file_tells_whose_it_is(name: str, current: tuple[str, int]) -> None:
    assert current_of(Path("/logs", name)) == (Path("/logs", current[0]), current[1])


def test_the_name_of_an_older_file_is_the_files_own_with_a_number() -> None:
    assert rotated(LOG, 0) == LOG
    assert rotated(LOG, 12) == Path("/logs/api.log.12")
    assert current_of(rotated(LOG, 12)) == (LOG, 12)


@given(keep=st.integers(1, 6), taken=st.sets(st.integers(1, 8)), done=st.integers(0, 5))
def test_a_rotation_that_is_interrupted_loses_nothing_and_the_next_one_goes_on(
    keep: int, taken: set[int], done: int
) -> None:
    files = {rotated(LOG, number): number for number in taken | {0}}
    exists = files.__contains__
    interrupted = plan_rotation(LOG, keep, exists)
    for source, target in interrupted[: min(done, len(interrupted) - 1)]:
        assert target is not None
        files[target] = files.pop(source)
    for source, target in plan_rotation(LOG, keep, exists):
        assert target is not None
        files[target] = files.pop(source)
    assert LOG not in files
    only_the_oldest = {keep} if taken.issuperset(range(1, keep + 1)) else set()
    assert taken | {0} == {*files.values()} | only_the_oldest
    in_order = [files[path] for path in sorted(files, key=lambda path: current_of(path)[1])]
    assert in_order == sorted(in_order)


# --- how lines get in -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "room", "end"),
    [(0, 100, 9), (0, 9, 9), (0, 8, 6), (0, 6, 6), (0, 5, 3), (0, 2, 0), (3, 3, 6), (3, -1, 3)],
)
def test_as_many_whole_lines_are_taken_as_there_is_room_for(
    start: int, room: int, end: int
) -> None:
    assert end_of_fitting(b"11\n22\n33\n", start, room) == end


lines = st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"") + b"\n"))


@settings(max_examples=100, deadline=None)
@given(batches=st.lists(lines, max_size=8), most=st.integers(1, 80), keep=st.integers(0, 4))
def test_what_is_kept_is_the_end_of_what_was_written_and_all_of_it_when_enough_is_kept(
    batches: list[list[bytes]], most: int, keep: int
) -> None:
    with TemporaryDirectory() as folder:
        some, all_of_it = Path(folder, "some", "log"), Path(folder, "all", "log")
        for path, number in ((some, keep), (all_of_it, MANY)):
            for batch in batches:
                assert append(path, b"".join(batch), most=most, keep=number) == (b"", None)
        written = b"".join(line for batch in batches for line in batch)
        if batches:
            files = kept(all_of_it)
            assert b"".join(files) == written
            assert kept(some) == files[-(keep + 1) :]
            assert all(len(file) <= most or file.count(b"\n") == 1 for file in files)
            # No file has room left for the first line of the next one.
            firsts = [file[: file.find(b"\n") + 1] for file in files[1:]]
            assert all(len(a) + len(b) > most for a, b in zip(files, firsts, strict=False))


def test_a_file_is_filled_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, b"1234\n" * 2, most=10)
    assert kept(path) == [b"1234\n1234\n"]
    append(path, b"\n", most=10)
    assert kept(path) == [b"1234\n1234\n", b"\n"]


def test_a_line_that_is_longer_than_a_file_may_be_gets_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, b"a\n" + b"long" * 5 + b"\nb\n", most=10)
    assert kept(path) == [b"a\n", b"long" * 5 + b"\n", b"b\n"]


def test_the_file_and_its_folders_are_made_even_without_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "log"
    assert append(path, b"") == (b"", None)
    assert path.read_bytes() == b""


def test_half_a_line_that_a_crash_has_left_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"whole\nhal")
    append(path, b"next\n")
    assert path.read_bytes() == b"whole\nhal\nnext\n"


def test_a_file_that_was_emptied_is_written_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, b"one\n")
    os.truncate(path, 0)
    append(path, b"two\n")
    assert path.read_bytes() == b"two\n"


def test_a_link_to_the_file_is_followed_and_renamed_itself(tmp_path: Path) -> None:
    path, target = tmp_path / "log", tmp_path / "target"
    path.symlink_to(target)
    append(path, b"one\n", most=4)
    append(path, b"two\n", most=4)
    assert target.read_bytes() == b"one\n"
    assert kept(path) == [b"one\n", b"two\n"]
    assert not path.is_symlink()


# --- when it cannot be ----------------------------------------------------------------------------


def test_what_is_no_file_is_refused_and_nobody_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name, code in (("folder", errno.EISDIR), ("folder/../fifo", 0)):
        left, error = append(tmp_path / name, b"one\n")
        assert left == b"one\n"
        assert error is not None
        assert error.errno == code, error
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert str(append(tmp_path / "fifo", b"one\n").error).endswith(f"'{tmp_path / 'fifo'}'")
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    left, error = append(tmp_path / "file" / "log", b"one\n")
    assert left == b"one\n"
    assert isinstance(error, OSError)
    assert (tmp_path / "file").is_file()


def test_a_rotation_that_fails_keeps_the_limit_and_all_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, b"one\n")
    (tmp_path / "log.1" / "full").mkdir(parents=True)
    left, error = append(path, b"two\nthree\n", most=8, keep=1)
    assert isinstance(error, OSError)
    assert (path.read_bytes(), left) == (b"one\ntwo\n", b"three\n")
    (tmp_path / "log.1" / "full").rmdir()
    (tmp_path / "log.1").rmdir()
    assert append(path, left, most=8, keep=1) == (b"", None)
    assert kept(path) == [b"one\ntwo\n", b"three\n"]


class TinyDisk(NamedTuple):
    """A place where only so much can be written, until it is given room."""

    folder: Path
    give_room: Callable[[], None]
    code: int


@pytest.fixture(params=["tmpfs", "rlimit"])
def tiny_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TinyDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
        if (
            os.geteuid() != 0
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("a file system can only be mounted by root, where that is permitted")
        (folder / "filler").write_bytes(b"x" * 40_000)
        try:
            yield TinyDisk(folder, (folder / "filler").unlink, errno.ENOSPC)
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    else:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_001, before[1]))

        def give_room() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

        try:
            yield TinyDisk(folder, give_room, errno.EFBIG)
        finally:
            give_room()


def test_on_a_full_disk_a_line_is_in_the_file_whole_or_not_at_all(tiny_disk: TinyDisk) -> None:
    path = tiny_disk.folder / "log"
    data = b"".join(b"line %d\n" % number for number in range(5_000))
    left, error = append(path, data)
    assert error is not None
    assert error.errno == tiny_disk.code
    assert 0 < len(left) < len(data)
    assert left.startswith(b"line ")
    assert path.read_bytes() + left == data
    again = append(path, left)
    assert again.error is not None
    assert path.read_bytes() + again.left == data
    tiny_disk.give_room()
    assert append(path, again.left) == (b"", None)
    assert path.read_bytes() == data
