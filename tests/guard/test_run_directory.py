from __future__ import annotations

import fcntl
import json
import os
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime import run_directory
from runtime._procfs import read_stat
from runtime.run_directory import (
    AlreadyRunningError,
    LeftoversError,
    RunDirectory,
    RunDirectoryError,
    TokenFileError,
    UnusableRunDirectoryError,
    default_run_directory,
    forget_file,
    note_in_file,
    open_run_directory,
    read_token,
    take_token,
)

if TYPE_CHECKING:
    from tests.guard.conftest import OpenChild, Start

#: A runtime that holds a run directory, and starts a process that bears its mark and hides.
HOLD = """
from pathlib import Path
from runtime.run_directory import open_run_directory
with open_run_directory(Path(sys.argv[1]), guard_pid=guard.pid) as directory:
    guard.hold(directory.fileno())
    mark = {**os.environ, "RUNTIME_TREE": directory.tree_id}
    print(os.getpid(), flush=True)
    subprocess.Popen(["setsid", "sh", "-c", "echo $$; kill -STOP $$"], env=mark)
    signal.pause()
"""


def open_once(path: Path, **options: Any) -> RunDirectory:
    with open_run_directory(path, **options) as directory:
        return directory


def read_lock(path: Path) -> dict[str, object]:
    content = (path / "lock").read_text()
    assert content.endswith("\n")
    return json.loads(content)


# Where it is.


@pytest.mark.parametrize(
    ("environment", "base"),
    [
        pytest.param({"XDG_RUNTIME_DIR": "/r", "XDG_STATE_HOME": "/s"}, "/r", id="runtime"),
        pytest.param({"XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": "/s"}, "/s", id="state"),
        pytest.param({"XDG_RUNTIME_DIR": "r", "XDG_STATE_HOME": "s"}, "/h/.local/state", id="home"),
        pytest.param({}, "/h/.local/state", id="nothing said"),
    ],
)
def test_the_default_is_a_folder_of_the_users(
    environment: dict[str, str], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/h", **environment}.items():
        monkeypatch.setenv(name, value)
    # printf /shop/main.yaml | sha256sum
    expected = Path(base, "trio-runtime", "main-36b03b5c")
    assert default_run_directory(Path("/shop/main.yaml")) == expected


def test_the_default_is_the_manifests_whatever_it_is_called_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").touch()
    Path("link.yaml").symlink_to("a.yaml")
    expected = default_run_directory(tmp_path / "a.yaml")
    assert default_run_directory(Path("a.yaml")) == expected
    assert default_run_directory(Path("link.yaml")) == expected
    assert default_run_directory(tmp_path / "b" / "a.yaml") != expected


def test_without_a_home_a_run_directory_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError

    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(UnusableRunDirectoryError, match="run_directory"):
        default_run_directory(Path("a.yaml"))


# What it is.


def test_it_is_made_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    said: list[str] = []
    with open_run_directory(path, say=said.append) as directory:
        assert directory.path == path
        assert path.stat().st_mode & 0o777 == 0o700
        assert (path / "lock").stat().st_mode & 0o777 == 0o600
        assert not os.get_inheritable(directory.fileno())
    assert (path / "lock").exists()
    assert said == []


def test_the_lock_says_who_has_it(tmp_path: Path) -> None:
    with open_run_directory(tmp_path, manifest=Path("/shop/main.yaml"), guard_pid=7) as directory:
        expected = {
            "pid": os.getpid(),
            "start_ticks": read_stat(os.getpid()).start_ticks,
            "guard_pid": 7,
            "state": "running",
            "manifest": "/shop/main.yaml",
        }
        assert read_lock(tmp_path) == expected
        for _ in range(2):
            directory.note_stopping()
            assert read_lock(tmp_path) == {**expected, "state": "stopping"}
    assert read_lock(tmp_path)["state"] == "stopping"


def test_every_tree_has_an_id_that_begins_like_those_of_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("a")
    ids = []
    for name in ("a", "link", "b"):
        with open_run_directory(tmp_path / name) as directory:
            ids.append(directory.tree_id)
    (first, one), (second, another), (elsewhere, _) = (each.split("-") for each in ids)
    assert first == second != elsewhere
    assert one != another
    assert [len(first), len(one)] == [8, 8]


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o700])
def test_a_folder_that_others_may_only_read_will_do(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    open_once(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    expected = f"others may write to it; chmod go-w {tmp_path}"
    with pytest.raises(UnusableRunDirectoryError, match=expected):
        open_once(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(UnusableRunDirectoryError, match=f"user with id {uid}"):
        open_once(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(UnusableRunDirectoryError, match=f"{path} cannot be used: File exists"):
        open_once(path)


def test_a_lock_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("/etc/passwd")
    with pytest.raises(UnusableRunDirectoryError, match="lock: "):
        open_once(tmp_path)


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UnusableRunDirectoryError, match="lock: No locks available"):
        open_once(tmp_path)


def test_a_full_disk_keeps_nobody_from_starting_and_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pwrite(fd: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with open_run_directory(tmp_path) as directory:
        directory.note_stopping()
    assert (tmp_path / "lock").read_bytes() == b""


# One tree at a time.


def test_a_second_tree_is_refused_while_one_runs(tmp_path: Path) -> None:
    said: list[str] = []
    with open_run_directory(tmp_path, manifest=Path("main.yaml")):
        with pytest.raises(AlreadyRunningError) as caught:
            open_once(tmp_path, say=said.append)
        assert (caught.value.path, caught.value.pid) == (tmp_path, os.getpid())
        assert str(caught.value) == (
            f"main.yaml is running in {tmp_path} already, as process {os.getpid()}; "
            f"to stop it: kill {os.getpid()}"
        )
        assert read_lock(tmp_path)["state"] == "running"
    assert said == []


def test_a_second_tree_waits_for_one_that_is_stopping(tmp_path: Path) -> None:
    said = []
    with ExitStack() as first:
        first.enter_context(open_run_directory(tmp_path)).note_stopping()

        def say(sentence: str) -> None:
            said.append(sentence)
            first.close()  # the former tree is gone

        with open_run_directory(tmp_path, say=say):
            assert read_lock(tmp_path)["state"] == "running"
    assert said == [f"waiting for the former runtime in {tmp_path} to be gone"]


def test_the_wait_has_an_end(tmp_path: Path) -> None:
    said = []
    with open_run_directory(tmp_path) as directory:
        directory.note_stopping()
        with pytest.raises(AlreadyRunningError, match=f"kill -9 {os.getpid()}"):
            open_once(tmp_path, wait_sec=0.1, say=said.append)
    assert len(said) == 1


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="nothing yet"),
        pytest.param('{"pid": 1, "start', id="half a line"),
        pytest.param("[]\n", id="something else"),
        pytest.param('{"pid": 1}\n', id="from another version"),
    ],
)
def test_who_has_not_said_who_it_is_is_waited_for(tmp_path: Path, content: str) -> None:
    with open_run_directory(tmp_path):
        (tmp_path / "lock").write_text(content)
        with pytest.raises(AlreadyRunningError) as caught:
            open_once(tmp_path, wait_sec=0)
    assert caught.value.pid is None
    assert str(caught.value) == f"a runtime is stopping in {tmp_path} already"


def test_a_recycled_pid_does_not_run(tmp_path: Path) -> None:
    with open_run_directory(tmp_path):
        former = {**read_lock(tmp_path), "start_ticks": 1}
        (tmp_path / "lock").write_text(json.dumps(former) + "\n")
        with pytest.raises(AlreadyRunningError, match="is stopping"):
            open_once(tmp_path, wait_sec=0)


def test_without_proc_the_lock_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "read_stat", lambda pid: None)
    with (
        open_run_directory(tmp_path),
        pytest.raises(AlreadyRunningError, match="is running"),
    ):
        open_once(tmp_path)


def test_a_tree_that_a_guard_still_clears_away_is_waited_for(
    tmp_path: Path, start_guarded: Start, kill: Callable[[int], None]
) -> None:
    program = start_guarded(HOLD, tmp_path)
    runtime, child = program.read_pid(), program.read_pid()
    program.send(signal.SIGSTOP)  # the guard
    kill(runtime)
    said = []

    def say(sentence: str) -> None:
        said.append(sentence)
        program.send(signal.SIGCONT)

    with open_run_directory(tmp_path, say=say):
        assert read_stat(child) is None
    assert said == [f"waiting for the former runtime in {tmp_path} to be gone"]


# What a tree left whose runtime and guard were both killed.


def test_leftovers_are_ended(
    tmp_path: Path, start_guarded: Start, kill: Callable[[int], None]
) -> None:
    program = start_guarded(HOLD, tmp_path)
    runtime, child = program.read_pid(), program.read_pid()
    program.send(signal.SIGKILL)
    program.wait()
    kill(runtime)
    assert read_stat(child).alive
    said = []
    with open_run_directory(tmp_path, say=said.append):
        stat = read_stat(child)
        assert stat is None or not stat.alive
    assert said == [f"ended what a former runtime had left: sh ({child})"]


def test_who_bears_another_mark_is_spared(tmp_path: Path, open_child: OpenChild) -> None:
    other = open_once(tmp_path / "other").tree_id
    said: list[str] = []
    with open_child(RUNTIME_TREE=other) as stranger:
        open_once(tmp_path, say=said.append)
        assert stranger.poll() is None
    assert said == []


def test_who_is_started_from_a_leftover_does_not_end_itself(tmp_path: Path, start: Start) -> None:
    mark = {**os.environ, "RUNTIME_TREE": open_once(tmp_path).tree_id}
    # A shell of the former tree, in which the next one is started.
    program = start(
        """
import os, subprocess, sys
code = '''
import sys
from pathlib import Path
from runtime.run_directory import open_run_directory
with open_run_directory(Path(sys.argv[1]), say=print):
    print("open")
'''
sys.exit(subprocess.run([sys.executable, "-c", code, sys.argv[1]]).returncode)
""",
        tmp_path,
        env=mark,
    )
    assert program.read_line() == "open"
    assert program.wait() == 0


def test_what_cannot_be_ended_is_named(
    tmp_path: Path, open_child: OpenChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_directory, "send_signal", lambda member, signum: False)
    monkeypatch.setattr(run_directory, "SWEEP_SEC", 0.05)
    with open_child(RUNTIME_TREE=open_once(tmp_path).tree_id) as child:
        with pytest.raises(LeftoversError) as caught:
            open_once(tmp_path)
        assert caught.value.survivors == (f"cat ({child.pid})",)
        assert str(caught.value).endswith(f"that cannot be killed: cat ({child.pid})")


# Errors.


@pytest.mark.parametrize(
    "error",
    [
        AlreadyRunningError(Path("/r"), 7, "main.yaml", "stopping"),
        UnusableRunDirectoryError(Path("/r"), "it is round"),
        LeftoversError(Path("/r"), ["cat (7)"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_a_trip(error: RunDirectoryError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)


# What else is there for the time that a tree runs.


def test_the_token_is_made_once_for_who_is_first_and_is_ours_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_run_directory(tmp_path / "run") as directory:
            assert not (directory.path / "token").exists()
            token = read_token(directory.path)
            assert read_token(directory.path) == token
            assert len(token) >= 40
            assert (directory.path / "token").stat().st_mode & 0o777 == 0o600
            assert (directory.path / "token").read_text() == f"{token}\n"
            assert {each.name for each in directory.path.iterdir()} == {"lock", "token"}
    finally:
        os.umask(before)


def test_several_who_are_first_get_the_same_token(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _: read_token(tmp_path), range(8)))
    assert len(set(tokens)) == 1
    assert tokens[0]
    assert [each.name for each in tmp_path.iterdir()] == ["token"]


def test_each_tree_has_a_token_of_its_own_and_takes_it_along(tmp_path: Path) -> None:
    tokens = set()
    for _ in range(2):
        with open_run_directory(tmp_path / "run") as directory:
            tokens.add(read_token(directory.path))
            note_in_file(directory.path, "control", "unix:/x")
        assert not (directory.path / "token").exists()
        assert not (directory.path / "control").exists()
        for name in ("token", "control"):  # as they are left by a tree that was killed
            (directory.path / name).write_text("former")
    assert len(tokens) == 2
    assert "former" not in tokens
    with open_run_directory(tmp_path / "run") as directory:
        assert not (directory.path / "control").exists()


def test_a_token_may_come_from_a_file_and_stay_the_same(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.write_text("0123456789-._~+/ab==\n")
    for _ in range(2):
        with open_run_directory(tmp_path / "run") as directory:
            take_token(directory.path, file)
            assert read_token(directory.path) == "0123456789-._~+/ab=="
            assert (directory.path / "token").stat().st_mode & 0o777 == 0o600
    assert file.exists()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"0123456789abcde", b"0123456789 abcdef", b"\xff" * 20, b"a" * 5_000]
)
def test_a_file_without_a_token_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "kept"
    file.write_bytes(content)
    with pytest.raises(TokenFileError, match="must have one line, of at least 16") as caught:
        take_token(tmp_path, file)
    assert caught.value.path == file
    assert not (tmp_path / "token").exists()
    with pytest.raises(TokenFileError, match="gone: No such file or directory"):
        take_token(tmp_path, tmp_path / "gone")


@pytest.mark.parametrize("written", [False, True], ids=["nobody writes", "somebody writes"])
def test_a_token_is_taken_from_no_pipe_and_nobody_waits_for_one(
    tmp_path: Path, written: bool
) -> None:
    file = tmp_path / "kept"
    os.mkfifo(file)
    writer = os.open(file, os.O_RDWR | os.O_NONBLOCK) if written else None
    words = "kept: it is no regular file; name one that has the token$"
    with pytest.raises(TokenFileError, match=words):
        take_token(tmp_path, file)
    with pytest.raises(TokenFileError, match=r"null: it is no regular file"):
        take_token(tmp_path, Path(os.devnull))
    with pytest.raises(TokenFileError, match="Is a directory"):
        take_token(tmp_path, tmp_path)
    if writer is not None:
        os.close(writer)


def test_an_address_is_replaced_as_a_whole_and_forgotten(tmp_path: Path) -> None:
    for text in ("127.0.0.1:1", "127.0.0.1:2"):
        note_in_file(tmp_path, "control", text)
        assert (tmp_path / "control").read_text() == f"{text}\n"
    assert (tmp_path / "control").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["control"]
    for _ in range(2):
        forget_file(tmp_path, "control")
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(UnusableRunDirectoryError, match="token: No such file or directory"):
        read_token(gone)
    with pytest.raises(UnusableRunDirectoryError, match="control: No such file or directory"):
        note_in_file(gone, "control", "x")
