"""A program is started without a shell, in a session, folder and environment of its own."""

from __future__ import annotations

import errno
import os
import pwd
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime._problems import Problem
from runtime.process import Process, SpawnError, _descriptors
from runtime.process.privileges import CAP_SYS_NICE, Privileges, Rights
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


@pytest.mark.parametrize("kernel", ["any", "before 5.11"])
@pytest.mark.parametrize("close_on_exec", [False, True])
async def test_standard_input_is_empty_and_nothing_else_of_ours_is_open_in_a_child(
    room: Any, monkeypatch: pytest.MonkeyPatch, close_on_exec: bool, kernel: str
) -> None:
    if kernel == "before 5.11":
        monkeypatch.setattr(_descriptors, "_close_range", lambda *_: -1)
    room.host = replace(room.host, close_on_exec=close_on_exec)
    code = "import os, sys; print(repr(sys.stdin.read())); print(os.listdir('/proc/self/fd'))"
    ours, _ = pipe = os.pipe()
    os.set_inheritable(ours, True)
    returncode, (read, fds) = await room.run(room.py(code))
    marked = not os.get_inheritable(ours)
    for fd in pipe:
        os.close(fd)
    assert (returncode, read) == (0, "''")
    assert fds == str(["0", "1", "2", "3"])  # the last one is the listing itself
    assert marked == (close_on_exec and kernel == "any")  # in a program of others, it is theirs


async def test_what_is_passed_on_is_open_in_a_child_whatever_is_closed_on_exec(room: Any) -> None:
    room.host = replace(room.host, close_on_exec=True)
    code = "import os; print(os.read(FD, 9)); print(*os.listdir('/proc/self/fd'))"
    ours, theirs = os.pipe()
    os.write(theirs, b"word")
    returncode, (read, fds) = await room.run(
        room.py(code.replace("FD", str(ours)), pass_fds=(ours,))
    )
    os.close(ours)
    os.close(theirs)
    assert (returncode, read) == (0, "b'word'")
    assert set(fds.split()) == {"0", "1", "2", str(ours), "3" if ours != 3 else "4"}


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
            spawned = _spawn(room.command(*argv, affinity=[min(before)]), room.host)
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
        ({"affinity": [100_000]}, r"none of the CPUs 100000 may be used here \(affinity\)"),
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
        await spawn(room.sh("exec sleep 60"), room.host)


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
    problems: list[Problem] = []
    process.resolve_privileges(Rights.ours(), problems)
    assert problems == []
    assert process.privileges is not None
    return process.privileges


def read_fields(pid: int) -> dict[str, list[str]]:
    """Return what the kernel says of a process, word by word."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


def read_limit(pid: int, name: str) -> list[str]:
    """Return a soft and a hard limit of a process as the kernel keeps them."""
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith(name):
            return line.removeprefix(name).split()[:2]
    raise AssertionError(name)


@as_root
async def test_a_program_runs_as_another_user_in_all_respects(room: Any, look: Any) -> None:
    wishes = given(user="nobody")
    command = room.sh("id -u; exec sleep 60", working_directory=Path("/"), privileges=wishes)
    async with room.open(command) as child:
        await look.line(room.output, str(NOBODY.pw_uid))
        fields = read_fields(child.pid)
        assert fields["Uid"] == [str(NOBODY.pw_uid)] * 4
        assert fields["Gid"] == [str(NOBODY.pw_gid)] * 4
        assert fields["Groups"] == [
            str(g) for g in sorted(os.getgrouplist("nobody", NOBODY.pw_gid))
        ]
        assert fields["CapEff"] == ["0" * 16]
    assert child.returncode == -signal.SIGTERM  # it could be stopped


@as_root
async def test_a_group_alone_leaves_the_user_and_the_other_groups_as_they_are(room: Any) -> None:
    command = room.sh("id -u; id -g; id -G", privileges=given(group=NOBODY.pw_gid))
    groups = " ".join(map(str, [NOBODY.pw_gid, *os.getgroups()]))
    assert await room.run(command) == (0, ["0", str(NOBODY.pw_gid), groups])


async def test_umask_nice_and_limits_hold_for_the_program(room: Any, look: Any) -> None:
    nice = os.getpriority(os.PRIO_PROCESS, 0) + 3
    wishes = given(umask="027", nice=nice, rlimits={"nofile": [100, 200], "core": 0, "nproc": 900})
    command = room.sh("umask; ulimit -Sn; ulimit -Hn; nice; exec sleep 60", privileges=wishes)
    async with room.open(command) as child:
        await look.line(room.output, str(nice))
        assert read_fields(child.pid)["Umask"] == ["0027"]
        assert read_limit(child.pid, "Max open files") == ["100", "200"]
        assert read_limit(child.pid, "Max core file size") == ["0", "0"]
        assert read_limit(child.pid, "Max processes") == ["900", "900"]
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == nice
    assert room.lines() == ["0027", "100", "200", str(nice)]


@as_root
@pytest.mark.skipif(CAP_SYS_NICE not in Rights.ours().capabilities, reason="needs CAP_SYS_NICE")
async def test_what_needs_privileges_is_taken_on_before_they_are_given_up(room: Any) -> None:
    wishes = given(user="nobody", nice=-3)
    command = room.sh("id -u; nice", working_directory=Path("/"), privileges=wishes)
    assert await room.run(command) == (0, [str(NOBODY.pw_uid), "-3"])


@pytest.mark.parametrize("environ", [{"A": "1"}, {"A": "1", "LC_CTYPE": "C"}], ids=str)
async def test_the_environment_is_exact_also_by_way_of_the_shim(room: Any, environ: Any) -> None:
    command = room.command("/usr/bin/env", env=environ, privileges=given(umask=0))
    returncode, lines = await room.run(command)
    assert (returncode, sorted(lines)) == (0, [f"{key}={environ[key]}" for key in sorted(environ)])


async def test_arguments_signals_and_files_are_the_same_by_way_of_the_shim(room: Any) -> None:
    arguments = ["two words", "-c", "$HOME", "", "ä\n", os.fsdecode(b"\xff")]
    code = "import os, sys; print(ascii(sys.argv[1:]), sorted(os.listdir('/proc/self/fd')))"
    printed = f"{arguments!a} {['0', '1', '2', '3']}"  # the last one is the listing itself
    assert await room.run(room.py(code, *arguments, privileges=given(umask=0))) == (0, [printed])
    command = room.sh("kill -PIPE $$", privileges=given(umask=0))
    assert await room.run(command) == (-signal.SIGPIPE, [printed])


@needs_two_cpus
async def test_pid_session_and_affinity_stay_by_way_of_the_shim(room: Any) -> None:
    cpu = max(os.sched_getaffinity(0))
    code = "import os; print(os.getpid(), os.getsid(0), os.getpgrp(), os.sched_getaffinity(0))"
    async with room.open(room.py(code, affinity=[cpu], privileges=given(umask=0))) as child:
        assert await child.wait_exit() == 0
    assert room.lines() == [f"{child.pid} {child.pid} {child.pid} {{{cpu}}}"]


def make_private_tool(folder: Path) -> Path:
    folder.chmod(0o700)
    (folder / "tool").symlink_to("/bin/true")
    return folder / "tool"


@as_root
@pytest.mark.usefixtures("fds_kept")
async def test_a_program_or_a_folder_that_the_user_may_not_enter_is_named(
    room: Any, tmp_path: Path
) -> None:
    tool = make_private_tool(tmp_path)
    words = "Permission denied for user 'nobody'"
    command = room.command(tool, working_directory=Path("/"), privileges=given(user="nobody"))
    with pytest.raises(SpawnError, match=f"^cannot start {tool}: {words}$"):
        await spawn(command, room.host)
    command = room.sh("true", working_directory=tmp_path, privileges=given(user="nobody"))
    with pytest.raises(SpawnError, match=f"^cannot start {tmp_path}: {words}$"):
        await spawn(command, room.host)


@pytest.mark.usefixtures("fds_kept")
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda folder: folder / "missing", "No such file or directory"),
        (no_interpreter, "No such file or directory"),
        (no_program, "Exec format error"),
        (not_executable, "Permission denied"),
    ],
    ids=["missing", "no interpreter", "no program", "not executable"],
)
async def test_a_program_that_the_shim_cannot_become_is_named_with_the_reason(
    room: Any, tmp_path: Path, make: Callable[[Path], Path], problem: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(SpawnError) as caught:
        await spawn(room.command(path, privileges=given(umask=0)), room.host)
    assert str(caught.value) == f"cannot start {path}: {problem}"


@pytest.mark.usefixtures("fds_kept")
async def test_a_setting_that_the_kernel_refuses_is_named(room: Any, tmp_path: Path) -> None:
    refused = Privileges(limits={"nofile": (1, 2**40)})
    problem = "rlimits.nofile: not allowed to raise maximum limit"
    with pytest.raises(SpawnError, match=f"^cannot start /bin/sh: {problem}$"):
        await spawn(room.sh("true", privileges=refused), room.host)
    missing = tmp_path / "missing"
    command = room.sh("true", working_directory=missing, privileges=given(umask=0))
    with pytest.raises(SpawnError, match=f"^cannot start {missing}: No such file or directory$"):
        await spawn(command, room.host)


@pytest.mark.usefixtures("fds_kept")
async def test_a_shim_that_hangs_is_killed_and_told(
    room: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setattr("runtime.process.spawn._SHIM_SEC", 0.05)
    with pytest.raises(SpawnError, match="cannot start /bin/sh: is not executed within"):
        await spawn(room.sh("true", privileges=given(umask=0)), room.host)


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (None, ["50", "{hard}"]),
        ({"umask": 0}, ["50", "{hard}"]),
        ({"rlimits": {"nofile": [40, 60]}}, ["40", "60"]),
    ],
    ids=["nothing is asked for", "something else is asked for", "it is asked for"],
)
async def test_children_get_the_limit_of_open_files_that_the_host_hands_down(
    room: Any, wishes: dict[str, Any] | None, expected: list[str]
) -> None:
    ours = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 60
    room.host = replace(room.host, open_files=(50, hard))
    privileges = None if wishes is None else given(**wishes)
    async with room.open(room.sh("exec sleep 60", privileges=privileges)) as child:
        found = read_limit(child.pid, "Max open files")
    assert found == [each.format(hard=hard) for each in expected]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == ours
