"""What real processes and their descendants use is read as it is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtime import _procfs
from runtime.process.meter import Meter
from runtime.process.stats import ProcessRuntimeInfo
from runtime.process.usage import Reading, cpu_percent, family_cpu_percent

WAITS = "import sys; print('up', flush=True); sys.stdin.read()"
HOLDS = "block = bytearray(b'x') * (64 << 20)\n"
FORKS = """
import os, sys
for depth in range({depth}):
    if os.fork():
        os.wait()
        os._exit(0)
{last}
"""


@contextmanager
def running(code: str, *, lines: int = 1) -> Generator[int]:
    """Run a program in Python until the end of the block, from its first *lines* on."""
    command = [sys.executable, "-S", "-E", "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdout is not None
        for _ in range(lines):
            child.stdout.readline()
        try:
            yield child.pid
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.stdout.read()  # until those that it has forked are gone as well


def look(pid: int, *details: str, meter: Meter | None = None) -> Reading:
    return (meter or Meter()).read({"p": pid}, details)["p"]


def test_memory_that_is_touched_is_seen() -> None:
    with running(WAITS) as bare, running(HOLDS + WAITS) as holder:
        found = Meter().read({"bare": bare, "holder": holder})
    assert 60 < found["holder"].memory_mb - found["bare"].memory_mb < 70
    assert found["holder"].family_size == 1
    assert found["holder"].open_files is found["holder"].listening is None


def test_memory_and_cpu_are_what_psutil_says() -> None:
    with running(HOLDS + WAITS) as pid:
        use = look(pid).members[_member(pid)]
        handle = psutil.Process(pid)
        assert use.memory == pytest.approx(handle.memory_info().rss, rel=0.05)
        assert use.own_sec == pytest.approx(sum(handle.cpu_times()[:2]), abs=0.1)


def _member(pid: int) -> _procfs.Member:
    stat = _procfs.read_stat(pid)
    assert stat is not None
    return stat.member


def test_a_family_is_the_process_and_all_that_descends_from_it() -> None:
    code = FORKS.format(depth=3, last=HOLDS + WAITS)
    with running(code) as pid:
        found = look(pid)
    assert found.family_size == 4
    assert found.memory_mb < 40
    assert found.family_memory_mb > found.memory_mb + 64


def test_the_cpu_of_one_that_burns_is_about_a_core_and_of_one_that_sleeps_none() -> None:
    burns, meter = "print('up', flush=True)\nwhile True: pass", Meter()
    with running(burns) as busy, running(WAITS) as idle:
        pids = {"busy": busy, "idle": idle}
        first = meter.read(pids)
        second = first
        while second["busy"].members[second["busy"].leader].own_sec < (
            first["busy"].members[first["busy"].leader].own_sec + 0.3
        ):
            second = meter.read(pids)
    assert 0 < cpu_percent(first["busy"], second["busy"]) < 120
    assert cpu_percent(first["idle"], second["idle"]) <= 5


def test_the_cpu_of_children_that_came_and_went_is_counted() -> None:
    code = """
import os, sys, time
print("up", flush=True)
sys.stdin.readline()
for _ in range(4):
    if not os.fork():
        until = time.process_time() + 0.1
        while time.process_time() < until: pass
        os._exit(0)
    os.wait()
print("done", flush=True)
sys.stdin.readline()
"""
    command = [sys.executable, "-S", "-E", "-c", code]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        first = look(child.pid)
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        second = look(child.pid)
        child.stdin.write(b"\n")
        child.stdin.flush()
    passed = second.at - first.at
    assert family_cpu_percent(first, second) * passed >= 35  # of 40, in ticks of a hundredth
    assert cpu_percent(first, second) * passed < 20


LISTENS = """
import socket, sys
made = [socket.create_server(({host!r}, 0), family={family}) for _ in range({number})]
for each in made: print(each.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("host", "family", "form"),
    [
        ("127.0.0.1", socket.AF_INET, "127.0.0.1:{}"),
        ("0.0.0.0", socket.AF_INET, "0.0.0.0:{}"),  # noqa: S104
        ("::1", socket.AF_INET6, "[::1]:{}"),
        ("::", socket.AF_INET6, "[::]:{}"),
    ],
)
def test_ports_that_are_listened_on_are_told(host: str, family: int, form: str) -> None:
    code = LISTENS.format(host=host, family=int(family), number=2)
    command = [sys.executable, "-S", "-E", "-c", code]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    try:
        with socket.create_server((host, 0), family=family):
            pass
    except OSError:
        pytest.skip("this host has no such address")
    with subprocess.Popen(command, **pipes) as child:
        assert child.stdout is not None
        ports = sorted(int(child.stdout.readline()) for _ in range(2))
        found = look(child.pid, "p")
        child.communicate()
    assert found.listening == tuple(form.format(port) for port in ports)


def test_a_port_of_a_descendant_is_one_of_the_family() -> None:
    code = FORKS.format(
        depth=1, last=LISTENS.format(host="127.0.0.1", family=int(socket.AF_INET), number=1)
    )
    with running(code) as pid:
        found = look(pid, "p")
        expected = {
            f"{c.laddr.ip}:{c.laddr.port}"
            for child in psutil.Process(pid).children()
            for c in child.net_connections("tcp")
        }
    assert set(found.listening or ()) == expected
    assert len(expected) == 1


def test_open_files_are_counted_where_they_are_asked_for() -> None:
    code = "import os\nfor _ in range({}): os.open('/dev/null', os.O_RDONLY)\n" + WAITS
    with ExitStack() as stack:
        few, many = (stack.enter_context(running(code.format(n))) for n in (0, 50))
        found = Meter().read({"few": few, "many": many, "unasked": many}, {"few", "many"})
    assert found["few"].open_files is not None
    assert found["many"].open_files == found["few"].open_files + 50
    assert found["many"].listening == ()
    assert found["unasked"].open_files is None


def test_what_is_gone_or_a_zombie_is_left_out_and_no_error() -> None:
    with running(WAITS) as gone:
        pass
    zombie = os.fork()
    if not zombie:
        os._exit(0)
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    try:
        pids = {"gone": gone, "zombie": zombie, "never": 2**22 + 7, "ours": os.getpid()}
        found = Meter().read(pids, pids)
    finally:
        os.waitpid(zombie, 0)
    assert list(found) == ["ours"]


def test_a_zombie_in_a_family_does_not_count_as_a_member_that_lives() -> None:
    code = (
        """
import os, sys
child = os.fork()
if not child: os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
"""
        + WAITS
    )
    with running(code) as pid:
        found = look(pid, "p")
    assert found.family_size == 1
    assert len(found.members) == 2
    assert found.open_files is not None


def test_one_that_ends_in_the_middle_of_a_pass_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its place has been read, and then it is gone before its cpu is."""
    seen: list[int] = []
    read_stat = _procfs.read_stat

    def read_and_lose(pid: int) -> _procfs.Stat | None:
        stat = read_stat(pid)
        if stat is not None and pid in doomed:
            seen.append(pid)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return stat

    children = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    doomed = {children[1].pid}
    monkeypatch.setattr(_procfs, "read_stat", read_and_lose)
    try:
        pids = {str(n): child.pid for n, child in enumerate(children)}
        found = Meter().read(pids, pids)
    finally:
        monkeypatch.undo()
        children[1].returncode = -9
        for child in children:
            child.kill()
            child.wait()
    assert seen == [children[1].pid]
    assert list(found) == ["0", "2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has processes that others may not look at")
def test_what_may_not_be_looked_at_is_not_known_and_no_error() -> None:
    """As nobody, at a process of root: cpu and memory are public, descriptors are not."""
    readable, writable = os.pipe()
    with running(WAITS) as pid:
        child = os.fork()
        if not child:
            os.setgid(65534)
            os.setuid(65534)
            found = Meter().read({"p": pid}, ["p"])["p"]
            words = f"{found.open_files} {found.listening} {found.memory_mb > 1}"
            os.write(writable, words.encode())
            os._exit(0)
        os.waitpid(child, 0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        assert pipe.read() == "None None True"


def test_a_later_process_with_the_same_name_begins_anew() -> None:
    meter, info = Meter(), ProcessRuntimeInfo()
    burns = "import time\nwhile time.process_time() < 0.3: pass\n" + WAITS
    with running(WAITS) as pid:
        first = look(pid, meter=meter)
        info.measure(pid)
    with running(burns) as pid:
        second = look(pid, meter=meter)
        info.measure(pid)
    assert cpu_percent(first, second) == family_cpu_percent(first, second) == 0.0
    assert info.cpu_usage_percent == 0.0


def test_two_who_look_do_not_disturb_one_another() -> None:
    one, other = ProcessRuntimeInfo(), Meter()
    with running("print('up', flush=True)\nwhile True: pass") as pid:
        one.measure(pid)
        used = look(pid, meter=other).members[_member(pid)].own_sec
        while look(pid, meter=other).members[_member(pid)].own_sec < used + 0.2:
            pass
        one.measure(pid)
    assert one.cpu_usage_percent > 0


def test_no_descriptor_is_left_open() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    meter: Callable[..., object] = Meter().read
    meter({"us": os.getpid()}, ["us"])
    before = count()
    for _ in range(5):
        meter({"us": os.getpid()}, ["us"])
    assert count() == before
