from __future__ import annotations

import fcntl
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runtime import guard as guard_module
from runtime._procfs import list_children, read_name, read_stat

if TYPE_CHECKING:
    from tests.guard.conftest import Start

#: A shell command that says its pid and stays.
STAY = "sh -c 'echo $$; exec sleep 1000'"

#: Ways to get out of sight of a parent.
ESCAPES = [
    pytest.param(f"{STAY} &", id="orphaned"),
    pytest.param(f"setsid {STAY} &", id="session of its own"),
    pytest.param(f"(setsid setsid {STAY} &) &", id="forked twice"),
    pytest.param(f"env -i setsid {STAY} &", id="clean environment"),
    pytest.param(f"trap '' TERM HUP INT QUIT; {STAY} &", id="deaf to SIGTERM"),
    pytest.param("setsid sh -c 'echo $$; kill -STOP $$' &", id="stopped"),
]

#: Makes of the command that follows the first process of a pid namespace.
UNSHARE = "unshare --pid --fork --mount-proc" + " --map-root-user" * (os.geteuid() != 0)

#: Announces every signal that comes; SIGTERM ends it, with what is still pending as the last line.
ANNOUNCE = """
signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print("ready", flush=True)
while (signum := signal.sigwait(signals)) != signal.SIGTERM:
    print(signum.name, flush=True)
print("SIGTERM", *signal.sigpending(), flush=True)
"""

#: Announces every request to stop, and does not.
REFUSE = """
signals = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print("ready", flush=True)
while True:
    print(signal.sigwait(signals).name, flush=True)
"""


def shell(command: str) -> str:
    """Return the code that runs *command* in a shell, and does not wait for it."""
    return f"subprocess.Popen(['sh', '-c', {command!r}])\n"


def has_pid_namespaces() -> bool:
    command = [*UNSHARE.split(), "true"]
    return shutil.which("unshare") is not None and subprocess.call(command) == 0


# How it ends.


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_the_runtimes(start_guarded: Start, status: int) -> None:
    assert start_guarded(f"sys.exit({status})").wait() == status


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
def test_death_by_signal_n_is_status_128_plus_n(start_guarded: Start, signum: int) -> None:
    assert start_guarded(f"os.kill(os.getpid(), {signum})").wait() == 128 + signum


def test_the_status_is_never_mistaken_for_that_of_an_orphan(start_guarded: Start) -> None:
    orphans = shell("true & (exit 3) & exit 4")
    programs = [start_guarded(orphans * 3 + "os._exit(7)") for _ in range(30)]
    assert [program.wait() for program in programs] == [7] * 30


def test_orphans_that_die_at_the_same_time_are_all_reaped(start_guarded: Start) -> None:
    program = start_guarded(
        """
from runtime._procfs import read_stat
reader, writer = os.pipe()
os.kill(guard.pid, signal.SIGSTOP)
if os.fork() == 0:
    for _ in range(9):
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)
            break
    signal.raise_signal(signal.SIGKILL)
os.wait()
orphans = guard.orphans()
print(len(orphans), flush=True)
os.close(writer)
while any(read_stat(pid).alive for pid in orphans):
    time.sleep(0.001)
os.kill(guard.pid, signal.SIGCONT)
while guard.orphans():
    time.sleep(0.001)
"""
    )
    assert program.read_line() == "9"
    assert program.wait() == 0


def test_an_ignored_sigchld_costs_no_status(start: Start) -> None:
    ignore = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    code = "from runtime.guard import open_guard; open_guard(); raise SystemExit(7)"
    assert start(ignore + code).wait() == 7


def test_a_guard_that_fails_says_why_and_lets_nothing_of_the_caller_run(start: Start) -> None:
    program = start(
        """
import os, select
from runtime import guard
def fail(runtime): raise LookupError("a fault")
guard._run_guard = fail
mine = guard.open_guard()
select.select([mine], [], [])
print("the guard has died", flush=True)
""",
        stderr=subprocess.PIPE,
    )
    assert program.wait() == 1
    assert b"LookupError: a fault" in program.process.stderr.read()
    assert program.read_line() == "the guard has died"
    assert program.read_line() == ""


# What it forwards.


def test_each_signal_is_forwarded_once(start_guarded: Start) -> None:
    program = start_guarded(ANNOUNCE)
    assert program.read_line() == "ready"
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGHUP):
        program.send(signum)
        assert program.read_line() == signum.name
    program.send(signal.SIGTERM)
    assert program.read_line() == "SIGTERM"
    assert program.wait() == 0


def test_other_signals_neither_reach_the_runtime_nor_harm_the_guard(start_guarded: Start) -> None:
    program = start_guarded(ANNOUNCE)
    assert program.read_line() == "ready"
    for signum in (signal.SIGUSR1, signal.SIGTSTP, signal.SIGALRM, signal.SIGPIPE):
        program.send(signum)
    program.send(signal.SIGTERM)
    assert program.read_line() == "SIGTERM"
    assert program.wait() == 0


def test_the_third_request_to_stop_kills(start_guarded: Start) -> None:
    program = start_guarded(REFUSE)
    assert program.read_line() == "ready"
    for signum in (signal.SIGTERM, signal.SIGINT):
        program.send(signum)
        assert program.read_line() == signum.name
    program.send(signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGKILL
    assert program.has_left_nothing()


def test_other_signals_are_no_request_to_stop(start_guarded: Start) -> None:
    program = start_guarded(ANNOUNCE)
    assert program.read_line() == "ready"
    for _ in range(guard_module.PATIENCE + 1):
        program.send(signal.SIGHUP)
        assert program.read_line() == "SIGHUP"
    program.send(signal.SIGTERM)
    assert program.wait() == 0


def test_ctrl_c_reaches_the_runtime_once(start: Start) -> None:
    terminal, inner = pty.openpty()
    # The interpreter is the leader of the terminal's session, as a shell's job would be.
    lead = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    prelude = "import os, signal\nfrom runtime.guard import open_guard\nguard = open_guard()\n"
    program = start(lead + prelude + ANNOUNCE, stdin=inner, start_new_session=True)
    os.close(inner)
    assert program.read_line() == "ready"
    os.write(terminal, b"\x03")
    assert program.read_line() == "SIGINT"
    program.send(signal.SIGTERM)
    assert program.read_line() == "SIGTERM"
    assert program.wait() == 0
    os.close(terminal)


def test_what_the_terminal_said_before_it_was_left_is_the_guards_to_forward(start: Start) -> None:
    program = start(
        """
import os, signal
from runtime import guard
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
os.kill(os.getpid(), signal.SIGINT)
guard._leave_terminal()
print(os.getsid(0) == os.getpid(), signal.sigpending())
"""
    )
    assert program.read_line() == "True set()"
    assert program.wait() == 0


def test_a_signal_during_the_fork_is_heard_once(start: Start) -> None:
    program = start(
        """
import os, signal, time
from runtime import guard
setsid = os.setsid
def interrupt_and_setsid():
    os.killpg(0, signal.SIGINT)
    time.sleep(0.1)  # long enough for a guard that does not wait for us to forward it too soon
    setsid()
os.setsid = interrupt_and_setsid
signal.signal(signal.SIGINT, lambda *_: print("SIGINT", flush=True))
guard.open_guard()
while True:  # pause() would not notice a signal that comes just before
    time.sleep(0.001)
""",
        start_new_session=True,
    )
    assert program.read_line() == "SIGINT"
    program.send(signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM
    assert program.read_line() == ""


# What it leaves behind: nothing.


@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)"])
@pytest.mark.parametrize("escape", ESCAPES)
def test_nothing_survives_the_runtime(start_guarded: Start, escape: str, end: str) -> None:
    program = start_guarded(shell(escape) + "sys.stdin.read()\n" + end)
    pid = program.read_pid()
    assert read_stat(pid) is not None
    program.process.stdin.close()
    assert program.wait() == (137 if "SIGKILL" in end else 0)
    assert program.has_left_nothing()
    assert read_stat(pid) is None


def test_a_whole_family_is_gone_with_the_runtime(start_guarded: Start) -> None:
    family = "for i in 1 2 3; do (setsid sh -c 'sleep 1000 & sleep 1000' & sleep 1000) & done; "
    program = start_guarded(shell(family + STAY) * 2 + "signal.pause()")
    assert program.read_pid() != program.read_pid()
    program.send(signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM
    assert program.has_left_nothing()


@pytest.mark.parametrize("step", ["pass", "os.setsid()"], ids=["one group", "a group each"])
def test_a_fork_storm_ends_with_the_runtime(start_guarded: Start, step: str) -> None:
    # Every process lives just long enough to fork the next one.
    storm = f"""
for _ in range(10):
    if os.fork() == 0:
        while os.fork() == 0:
            {step}
            time.sleep(0.001)
        signal.raise_signal(signal.SIGKILL)
print("raging", flush=True)
sys.stdin.read()
os._exit(3)
"""
    program = start_guarded(storm)
    assert program.read_line() == "raging"
    program.process.stdin.close()
    assert program.wait() == 3
    assert program.has_left_nothing()


def test_a_group_dies_at_one_stroke(start: Start) -> None:
    program = start(
        """
import os, signal, subprocess, time
from runtime import guard
from runtime._procfs import read_stat
first = subprocess.Popen(["sleep", "1000"], process_group=0)
second = subprocess.Popen(["sleep", "1000"], process_group=first.pid)
killed, killpg = [], os.killpg  # killpg(1) would be everybody
os.killpg = lambda group, signum: killed.append(group) or group > 1 and killpg(group, signum)
stat = read_stat(first.pid)
guard._kill([stat, stat._replace(group=0), stat._replace(group=1)])
print(first.wait(), second.wait(), killed == [first.pid], flush=True)
guard._kill([stat])  # nobody is left
"""
    )
    assert program.read_line() == "-9 -9 True"
    assert program.wait() == 0


def test_what_cannot_be_killed_is_named(start: Start) -> None:
    program = start(
        """
import subprocess, sys
from runtime import guard
guard._kill = lambda processes: None
guard.LAST_WAIT_SEC = 0.2
guard.open_guard()
subprocess.Popen(["setsid", "sh", "-c", "echo $$; kill -STOP $$"])
sys.stdin.read()
sys.exit(3)
""",
        stderr=subprocess.PIPE,
    )
    pid = program.read_pid()
    program.process.stdin.close()
    try:
        assert program.wait() == 3
        said = os.read(program.process.stderr.fileno(), 4096).decode()
        assert said == f"runtime-guard: could not be killed and is left: sh ({pid})\n"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_who_was_there_before_is_no_orphan_and_stays(start: Start) -> None:
    program = start(
        """
import os, subprocess
helper = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
from runtime.guard import open_guard
guard = open_guard()
print(helper.pid, guard.orphans(), flush=True)
os._exit(0)
"""
    )
    pid, orphans = program.read_line().split(maxsplit=1)
    try:
        assert orphans == "[]"
        assert program.wait() == 0
        assert program.has_left_nothing()
        assert read_stat(int(pid)).alive
    finally:
        os.kill(int(pid), signal.SIGKILL)


@pytest.mark.skipif(not has_pid_namespaces(), reason="unshare --pid is not to be had here")
def test_it_does_the_same_as_process_1(start_guarded: Start) -> None:
    orphan = "(setsid sh -c 'echo orphan; exec sleep 1000' &) &"
    program = start_guarded(
        f"print(guard.pid, guard.subreaper, flush=True)\n{shell(orphan)}{ANNOUNCE}sys.exit(7)",
        wrapper=UNSHARE,
    )
    assert program.read_line() == "1 True"
    assert {program.read_line(), program.read_line()} == {"orphan", "ready"}
    (guard,) = list_children(program.pid)
    os.kill(guard, signal.SIGINT)
    assert program.read_line() == "SIGINT"
    os.kill(guard, signal.SIGTERM)
    assert program.read_line() == "SIGTERM"
    assert program.wait() == 7
    assert program.has_left_nothing()


# What the runtime knows of it.


def test_the_runtime_sees_the_guard_die(start_guarded: Start) -> None:
    program = start_guarded(
        """
print(guard.is_alive(), flush=True)
select.select([guard.fileno()], [], [])
print(guard.is_alive(), os.read(guard.fileno(), 1), guard.orphans(), flush=True)
try:
    guard.hold(0)
except OSError as error:
    print(type(error).__name__, flush=True)
"""
    )
    assert program.read_line() == "True"
    program.send(signal.SIGKILL)
    assert program.read_line() == "False b'' []"
    assert program.read_line() == "BrokenPipeError"
    assert program.read_line() == ""


def test_an_orphan_is_the_guards(start_guarded: Start) -> None:
    program = start_guarded(
        """
child = subprocess.Popen(["sleep", "1000"])
print(guard.orphans(), guard.subreaper, guard.pid == os.getppid(), flush=True)
subprocess.run(["sh", "-c", "sleep 1000 & echo $!"])  # an orphan once the shell has ended
print(guard.orphans(), flush=True)
"""
    )
    assert program.read_line() == "[] True True"
    pid = program.read_pid()
    assert program.read_line() == f"[{pid}]"
    assert program.wait() == 0
    assert program.has_left_nothing()


def test_the_guard_has_a_name(start_guarded: Start) -> None:
    program = start_guarded(ANNOUNCE)
    assert program.read_line() == "ready"
    program.send(signal.SIGHUP)
    assert program.read_line() == "SIGHUP"  # so the guard is at work
    assert read_name(program.pid) == "runtime-guard"


def test_the_guard_holds_a_lock_until_everything_is_gone(
    start_guarded: Start, tmp_path: Path, kill: Callable[[int], None]
) -> None:
    program = start_guarded(
        """
import fcntl
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
guard.hold(lock)
os.close(lock)
print(os.getpid(), flush=True)
signal.pause()
""",
        tmp_path / "lock",
    )
    runtime = program.read_pid()
    with (tmp_path / "lock").open() as file:
        program.send(signal.SIGSTOP)  # the guard must not come to its end too soon for us to see
        kill(runtime)
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        program.send(signal.SIGCONT)
        assert program.wait() == 137
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# When it cannot be opened.


def test_threads_forbid_a_guard(start: Start) -> None:
    program = start(
        """
import threading
from runtime.guard import open_guard
threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    open_guard()
except RuntimeError as error:
    print(error, flush=True)
"""
    )
    assert "before there are threads" in program.read_line()
    assert program.wait() == 0


def test_threads_are_counted_without_proc_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def listdir(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert guard_module._count_threads() == threading.active_count()
    monkeypatch.delitem(sys.modules, "threading")
    assert guard_module._count_threads() == 1


def test_a_fork_that_fails_leaves_everything_as_it_was(start: Start) -> None:
    program = start(
        """
import ctypes, os, signal
from runtime import guard
def fail(): raise BlockingIOError("no process left")
def state():
    subreaper = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(37, ctypes.byref(subreaper))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return mask, os.listdir("/proc/self/fd"), subreaper.value
before = state()
os.fork = fail
try:
    guard.open_guard()
except OSError as error:
    print(error, state() == before, flush=True)
"""
    )
    assert program.read_line() == "no process left True"
    assert program.wait() == 0
