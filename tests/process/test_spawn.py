"""A program is started without a shell, in a session, folder and environment of its own."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.process import Process, SpawnError
from runtime.process.privileges import Privileges, Rights
from runtime.process.spawn import _spawn, spawn

needs_two_cpus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs a machine with two CPUs"
)


async def test_arguments_reach_the_program_as_they_are(room: Any) -> None:
    arguments = ["two words", "$HOME", "*", "'\"", "; exit 3", "", "ä\n"]
    code = "import sys; print(sys.argv[1:])"
    assert await room.run(room.py(code, *arguments)) == (0, [str(arguments)])


async def test_a_child_leads_a_session_and_a_group_of_its_own(room: Any) -> None:
    code = "import os; print(os.getpid() == os.getsid(0) == os.getpgrp())"
    assert await room.run(room.py(code)) == (0, ["True"])


async def test_a_child_works_in_the_folder_and_with_the_environment_that_it_is_given(
    room: Any, tmp_path: Path
) -> None:
    code = "import os; print(os.getcwd()); print(sorted(k for k in os.environ if k != 'LC_CTYPE'))"
    command = room.py(code, working_directory=tmp_path, env={"B": "2", "A": "1"})
    assert await room.run(command) == (0, [str(tmp_path), "['A', 'B']"])


async def test_standard_input_is_empty_and_nothing_else_of_ours_is_open_in_a_child(
    room: Any,
) -> None:
    code = "import os, sys; print(repr(sys.stdin.read())); print(os.listdir('/proc/self/fd'))"
    ours, _ = pipe = os.pipe()
    os.set_inheritable(ours, True)
    returncode, (read, fds) = await room.run(room.py(code))
    for fd in pipe:
        os.close(fd)
    assert (returncode, read) == (0, "''")
    assert fds == str(["0", "1", "2", "3"])  # the last one is the listing itself


async def test_output_and_errors_are_told_apart(room: Any) -> None:
    await room.run(room.sh("echo out; echo err >&2"))
    assert room.lines("stdout") == ["out"]
    assert room.lines("stderr") == ["err"]


async def test_a_child_does_not_inherit_ignored_or_blocked_signals_from_python(room: Any) -> None:
    code = "import signal as s; print(s.pthread_sigmask(s.SIG_BLOCK, []))"
    assert await room.run(room.py(code)) == (0, ["set()"])
    assert await room.run(room.sh("kill -PIPE $$")) == (-signal.SIGPIPE, ["set()"])


@needs_two_cpus
async def test_affinity_holds_from_the_first_instruction(room: Any) -> None:
    cpu = max(os.sched_getaffinity(0))
    # The mask when it starts is that of its first thread, which no code of ours has touched.
    script = "while read -r line; do case $line in Cpus_allowed_list:*) echo $line;; esac; done"
    command = room.sh(f"{script} < /proc/self/status", affinity=[cpu])
    assert await room.run(command) == (0, [f"Cpus_allowed_list: {cpu}"])


@needs_two_cpus
def test_the_thread_that_spawns_keeps_its_own_affinity(room: Any) -> None:
    before = os.sched_getaffinity(0)
    for argv in (["/bin/true"], ["/no/such/program"]):
        try:
            spawned = _spawn(room.command(*argv, affinity=[min(before)]))
        except SpawnError:
            assert argv == ["/no/such/program"]
        else:
            spawned.popen.wait()
            for fd in (spawned.pidfd, spawned.stdout, spawned.stderr):
                os.close(fd)
        assert os.sched_getaffinity(0) == before


def not_executable(folder: Path) -> Path:
    (folder / "script").write_text("#!/bin/sh\n")
    return folder / "script"


def no_interpreter(folder: Path) -> Path:
    (folder / "script").write_text("#!/no/such/interpreter\n")
    (folder / "script").chmod(0o755)
    return folder / "script"


def no_program(folder: Path) -> Path:
    (folder / "script").write_text("neither a script nor a binary")
    (folder / "script").chmod(0o755)
    return folder / "script"


@pytest.mark.usefixtures("fds_kept")
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda folder: folder / "missing", "No such file or directory"),
        (lambda folder: folder, "Permission denied"),
        (not_executable, "Permission denied"),
        (no_interpreter, "No such file or directory"),
        (no_program, "Exec format error"),
    ],
    ids=["missing", "a folder", "not executable", "no interpreter", "no program"],
)
async def test_a_program_that_cannot_be_started_is_named_with_the_reason(
    room: Any, tmp_path: Path, make: Callable[[Path], Path], problem: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(SpawnError) as caught:
        await spawn(room.command(path), room.host)
    assert str(caught.value) == f"cannot start {path}: {problem}"
    assert (caught.value.name, caught.value.problem) == ("p", problem)


@pytest.mark.usefixtures("fds_kept")
async def test_a_missing_working_directory_is_named_instead_of_the_program(
    room: Any, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(SpawnError, match=f"cannot start {missing}: No such file or directory"):
        await spawn(room.sh("true", working_directory=missing), room.host)


@pytest.mark.usefixtures("fds_kept")
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"env": {"A=B": "1"}}, "illegal environment variable name"),
        ({"env": {"A": "\0"}}, "embedded null byte"),
        ({"argv": ["/bin/true", "\0"]}, "embedded null byte"),
        ({"affinity": [100_000]}, "Invalid argument"),
    ],
    ids=["variable name", "variable", "argument", "cpu"],
)
async def test_what_the_system_refuses_is_a_spawn_error_too(
    room: Any, fields: dict[str, Any], words: str
) -> None:
    argv = fields.pop("argv", ["/bin/true"])
    with pytest.raises(SpawnError, match=words):
        await spawn(room.command(*argv, **fields), room.host)


@pytest.mark.usefixtures("fds_kept")
async def test_a_child_that_could_not_be_watched_is_not_left_running(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(SpawnError, match="Too many open files"):
        await spawn(room.sh("sleep 60"), room.host)


async def test_cancelled_before_it_begins_nothing_is_started(
    room: Any, list_marked: Callable[[], list[int]]
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await spawn(room.sh("sleep 60"), room.host)
    assert scope.cancelled_caught
    assert list_marked() == []


@pytest.mark.usefixtures("fds_kept")
async def test_a_start_under_way_is_not_cancelled(room: Any) -> None:
    room.host.spawning.total_tokens = 1
    with trio.CancelScope() as scope:
        spawned = None
        async with trio.open_nursery() as nursery:

            async def cancel_later() -> None:
                while not room.host.spawning.borrowed_tokens:
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(cancel_later)
            spawned = await spawn(room.command(sys.executable, "-S", "-c", ""), room.host)
    assert spawned is not None
    spawned.popen.wait()
    for fd in (spawned.pidfd, spawned.stdout, spawned.stderr):
        os.close(fd)


async def test_spawning_does_not_wait_for_other_work_in_threads(room: Any) -> None:
    release = trio.Event()

    def block() -> None:
        trio.from_thread.run(release.wait)

    async with trio.open_nursery() as nursery:
        limiter = trio.to_thread.current_default_thread_limiter()
        for _ in range(int(limiter.total_tokens) + 5):
            nursery.start_soon(trio.to_thread.run_sync, block)
        while limiter.available_tokens:
            await trio.lowlevel.checkpoint()
        assert await room.run(room.sh("exit 3")) == (3, [])
        release.set()


async def test_a_host_that_ignores_the_ends_of_children_is_told_so(room: Any) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(SpawnError, match="SIGCHLD is ignored"):
            await room.run(room.sh("exit 0"))
    finally:
        signal.signal(signal.SIGCHLD, before)


# --- another user, a priority, limits -------------------------------------------------------------

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start as another user")
NOBODY = pwd.getpwnam("nobody")


def given(**wishes: Any) -> Privileges:
    """Return what an entry of a manifest with these fields is given."""
    process = Process(name="p", path=Path("/bin/sh"), **wishes)
    assert process.resolve_privileges(Rights.ours()) == []
    assert process.privileges is not None
    return process.privileges


def read_ids(pid: int) -> dict[str, list[int]]:
    """Return the numbers of user, group and further groups as the kernel keeps them."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return {key: [int(n) for n in fields[key].split()] for key in ("Uid", "Gid", "Groups")}


@as_root
async def test_a_program_runs_as_another_user_in_all_respects(room: Any, look: Any) -> None:
    wishes = given(user="nobody")
    command = room.sh("id -u; exec sleep 60", working_directory=Path("/"), privileges=wishes)
    async with room.open(command) as child:
        await look.line(room.output, str(NOBODY.pw_uid))
        assert read_ids(child.pid) == {
            "Uid": [NOBODY.pw_uid] * 4,
            "Gid": [NOBODY.pw_gid] * 4,
            "Groups": sorted(os.getgrouplist("nobody", NOBODY.pw_gid)),
        }
    assert child.returncode == -signal.SIGTERM  # it could be stopped
