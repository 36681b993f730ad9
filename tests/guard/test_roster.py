from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import _procfs, _roster
from runtime._procfs import read_stat
from runtime._roster import Entry, Roster, read_roster


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A child with pipes for its output, which lives until the test is over."""
    pipe = subprocess.PIPE
    with subprocess.Popen(["cat"], stdin=pipe, stdout=pipe, stderr=pipe) as started:
        yield started
        started.kill()


def note(roster: Roster, child: subprocess.Popen[bytes]) -> Entry:
    """Note a child, and return what is to be read of it."""
    stdout, stderr = child.stdout.fileno(), child.stderr.fileno()
    roster.note_started(child.pid, stdout, stderr)
    pipes = (os.fstat(fd).st_ino for fd in (stdout, stderr))
    return Entry(*read_stat(child.pid).member, *pipes)


def test_the_next_one_reads_what_was_noted(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    roster = Roster(tmp_path)
    assert read_roster(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    entry = note(roster, child)
    assert read_roster(tmp_path) == [entry]
    assert (tmp_path / "processes").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["processes"]


def test_the_file_goes_with_the_last_process(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    roster = Roster(tmp_path)
    note(roster, child)
    roster.note_ended(child.pid)
    roster.close()
    roster.close()
    assert list(tmp_path.iterdir()) == []


def test_the_file_stays_with_what_could_not_be_ended(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    roster = Roster(tmp_path)
    entry = note(roster, child)
    roster.close()
    assert read_roster(tmp_path) == [entry]


def test_one_that_has_noted_nothing_leaves_the_former_one_alone(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    former = Roster(tmp_path)
    entry = note(former, child)
    Roster(tmp_path).close()
    assert read_roster(tmp_path) == [entry]
    former.close()


def test_the_file_does_not_grow_with_the_number_of_restarts(
    tmp_path: Path, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_roster, "_MOST_STALE", 5)
    roster = Roster(tmp_path)
    most = 0
    for _ in range(50):
        entry = note(roster, child)
        roster.note_ended(child.pid)
        most = max(most, len(read_roster(tmp_path)))
        assert read_roster(tmp_path)[-1] == entry
    assert 5 < most < 10
    roster.close()


def test_entries_from_another_boot_or_container_mean_nothing(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    roster = Roster(tmp_path)
    entry = note(roster, child)
    file = tmp_path / "processes"
    content = file.read_text()
    boot, namespace = content.partition("\n")[0].split()
    assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for old, new in ((boot, boot[::-1]), (namespace, "1")):
        file.write_text(content.replace(old, new, 1))
        assert read_roster(tmp_path) == []
    file.write_text(content)
    assert read_roster(tmp_path) == [entry]
    roster.close()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(b"\n17 4", id="cut off"),
        pytest.param(b"\n", id="empty"),
        pytest.param(b"\n1 2 3 4 5", id="too much"),
        pytest.param(b"\none two three four", id="words"),
    ],
)
def test_a_line_that_is_not_whole_does_no_harm_to_others(
    tmp_path: Path, child: subprocess.Popen[bytes], damage: bytes
) -> None:
    roster = Roster(tmp_path)
    entry = note(roster, child)
    with (tmp_path / "processes").open("ab") as file:
        file.write(damage)
    assert note(roster, child) == entry
    assert read_roster(tmp_path) == [entry, entry]
    roster.close()


@pytest.mark.parametrize("content", [b"", b"\xff\n1 2 3 4", b"nonsense\n1 2 3 4"])
def test_what_is_no_roster_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "processes").write_bytes(content)
    assert read_roster(tmp_path) == []


@pytest.mark.parametrize("written", [0, 3, None])
def test_a_full_disk_keeps_nobody_from_starting_and_is_tried_again(
    tmp_path: Path,
    child: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    written: int | None,
) -> None:
    write = os.write

    def write_a_little(fd: int, data: bytes) -> int:
        if written is None:
            raise OSError(28, "No space left on device")
        return write(fd, data[:written])

    roster = Roster(tmp_path)
    entry = note(roster, child)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_a_little)
        note(roster, child)
        assert read_roster(tmp_path)[0] == entry
        assert [path.name for path in tmp_path.iterdir()] == ["processes"]
    assert note(roster, child) == entry == read_roster(tmp_path)[-1]
    roster.note_ended(child.pid)
    roster.close()
    assert list(tmp_path.iterdir()) == []


def test_without_proc_nothing_is_noted(
    tmp_path: Path, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_roster, "read_stat", lambda pid: None)
    roster = Roster(tmp_path)
    roster.note_started(child.pid, child.stdout.fileno(), child.stderr.fileno())
    roster.close()
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_knows_what_a_pid_means_no_entry_is_believed(
    tmp_path: Path, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _procfs._read

    def hide_boot_id(path: str, *arguments: Any) -> bytes:
        return b"" if path.endswith("boot_id") else read(path, *arguments)

    monkeypatch.setattr(_procfs, "_read", hide_boot_id)
    roster = Roster(tmp_path)
    entry = note(roster, child)
    assert (tmp_path / "processes").read_bytes() == entry.line()
    assert read_roster(tmp_path) == []
    roster.close()
