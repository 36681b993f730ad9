from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runtime import _procfs
from runtime._procfs import Member

if TYPE_CHECKING:
    from tests.guard.conftest import OpenChild, Start


def fail_to_open(*arguments: object, **options: object) -> None:
    raise FileNotFoundError(*arguments)


# Where a process stands.


def test_a_process_stands_among_others() -> None:
    stat = _procfs.read_stat(os.getpid())
    assert stat is not None
    assert (stat.pid, stat.parent) == (os.getpid(), os.getppid())
    assert (stat.group, stat.session) == (os.getpgrp(), os.getsid(0))
    assert stat.state == "R"
    assert stat.alive
    assert stat.member == Member(os.getpid(), stat.start_ticks)


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    stat = _procfs.read_stat(child.pid)
    assert stat is not None
    assert stat.state == "Z"
    assert not stat.alive
    child.wait()
    assert _procfs.read_stat(child.pid) is None


@pytest.mark.parametrize("name", ["a b", "a) Z 1 (b", ") ) 1 2 3"])
def test_a_command_may_have_any_name(open_child: OpenChild, tmp_path: Path, name: str) -> None:
    program = shutil.copy(shutil.which("cat") or "", tmp_path / name)
    with open_child(str(program)) as child:
        stat = _procfs.read_stat(child.pid)
        assert stat is not None
        assert stat.parent == os.getpid()
        assert _procfs.read_name(child.pid) == name


def test_a_process_that_is_gone_has_nothing_to_say(open_child: OpenChild) -> None:
    with open_child(MARK="here") as child:
        assert _procfs.has_environ(child.pid, b"MARK=here")
    assert _procfs.read_stat(child.pid) is None
    assert _procfs.read_name(child.pid) == "?"
    assert _procfs.list_children(child.pid) == []
    assert not _procfs.has_environ(child.pid, b"MARK=here")
    assert not _procfs.holds_pipe(child.pid, 1)


# Who is whose.


def test_children_are_those_of_every_thread(
    open_child: OpenChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, done = threading.Event(), threading.Event()
    others = []

    def start_one() -> None:
        with open_child() as child:
            others.append(child.pid)
            started.set()
            done.wait()

    thread = threading.Thread(target=start_one)
    thread.start()
    started.wait()
    try:
        with open_child() as child:
            expected = {child.pid, *others}
            assert set(_procfs.list_children(os.getpid())) >= expected
            monkeypatch.setattr(_procfs, "_kernel_lists_children", lambda: False)
            assert set(_procfs.list_children(os.getpid())) >= expected
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("listed", [True, False], ids=["listed by the kernel", "searched for"])
def test_descendants_are_everything_below(
    start: Start, listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_procfs, "_kernel_lists_children", lambda: listed)
    start_one = "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], *sys.argv[2:]])\n"
    code = "import os, subprocess, sys\n{}print(os.getpid(), flush=True)\nsys.stdin.read()"
    program = start(code.format(start_one), code.format(start_one), code.format(""))
    pids = [program.read_pid() for _ in range(3)]
    found = _procfs.list_descendants([program.pid])
    parents = {stat.pid: stat.parent for stat in found}
    assert set(parents) == set(pids) - {program.pid}
    child, grandchild = parents  # parents come first
    assert parents == {child: program.pid, grandchild: child}
    assert [stat.pid for stat in _procfs.list_descendants([program.pid, child])] == [grandchild]
    assert {child, grandchild} <= {stat.pid for stat in _procfs.list_processes()}
    assert {child, grandchild} <= set(_procfs.list_pids())


def test_without_proc_there_is_nobody(
    open_child: OpenChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_child() as child:
        monkeypatch.setattr(os, "open", fail_to_open)
        monkeypatch.setattr(os, "listdir", fail_to_open)
        monkeypatch.setattr(_procfs, "_kernel_lists_children", lambda: False)
        assert _procfs.list_processes() == []
        assert _procfs.list_children(os.getpid()) == []
        assert _procfs.list_descendants([os.getpid()]) == []
        assert _procfs.read_stat(child.pid) is None
        assert not _procfs.send_signal(Member(child.pid, 1), signal.SIGKILL)
        assert child.poll() is None


# What a process has.


@pytest.mark.parametrize(
    ("entry", "prefix", "found"),
    [
        pytest.param(b"MARK=one-two", False, True, id="whole"),
        pytest.param(b"MARK=one", False, False, id="begun"),
        pytest.param(b"MARK=one-", True, True, id="begun, where that is enough"),
        pytest.param(b"MARK=one-two", True, True, id="whole, where less is enough"),
        pytest.param(b"ARK=one-two", False, False, id="end of a name"),
        pytest.param(b"ARK=one", True, False, id="middle of an entry"),
    ],
)
def test_an_entry_of_the_environment(
    open_child: OpenChild, entry: bytes, prefix: bool, found: bool
) -> None:
    with open_child(MARK="one-two") as child:
        assert _procfs.has_environ(child.pid, entry, prefix=prefix) is found


def test_the_first_and_the_last_entry_count(open_child: OpenChild) -> None:
    with open_child(A="1", B="2", C="3") as child:
        assert all(_procfs.has_environ(child.pid, entry) for entry in (b"A=1", b"B=2", b"C=3"))


def test_a_pipe_is_held_by_who_has_an_end_of_it(open_child: OpenChild) -> None:
    with open_child() as child, open_child() as stranger:
        inode = os.fstat(child.stdout.fileno()).st_ino
        assert _procfs.holds_pipe(child.pid, inode)
        assert _procfs.holds_pipe(os.getpid(), inode)
        assert not _procfs.holds_pipe(stranger.pid, inode)


def test_a_descriptor_may_be_closed_while_one_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_procfs, "_list_numbers", lambda path: [1_000_000])
    assert not _procfs.holds_pipe(os.getpid(), 1)


# Signals.


@contextmanager
def without_pidfds(monkeypatch: pytest.MonkeyPatch, how: str) -> Iterator[None]:
    def refuse(pid: int) -> int:
        raise OSError(how)

    with monkeypatch.context() as patch:
        if how == "missing":
            patch.delattr(os, "pidfd_open")
        elif how == "refused":
            patch.setattr(os, "pidfd_open", refuse)
        yield


@pytest.mark.parametrize("how", ["there", "missing", "refused"])
def test_a_signal_reaches_its_process_and_no_other(
    open_child: OpenChild, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_child() as child, without_pidfds(monkeypatch, how):
        stat = _procfs.read_stat(child.pid)
        assert stat is not None
        former = Member(child.pid, stat.start_ticks - 1)
        assert not _procfs.send_signal(former, signal.SIGKILL)
        assert child.poll() is None
        assert _procfs.send_signal(stat.member, signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
        assert not _procfs.send_signal(stat.member, signal.SIGTERM)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("missing", [False, True], ids=["pidfd", "kill"])
def test_what_belongs_to_another_is_left_alone(start: Start, missing: bool) -> None:
    program = start(
        f"""
import os, signal
from runtime import _procfs
if {missing}: del os.pidfd_open
os.setuid(65534)
stat = _procfs.read_stat(os.getppid())
print(_procfs.send_signal(stat.member, signal.SIGKILL))
print(_procfs.has_environ(stat.pid, b"PATH=", prefix=True))
"""
    )
    assert program.read_line() == "False"
    assert program.read_line() == "False"


# Who listens.


@pytest.mark.parametrize(
    ("family", "address", "here"),
    [
        (socket.AF_INET, "127.0.0.1", True),
        (socket.AF_INET, "", True),
        (socket.AF_INET, "127.0.0.2", False),
        (socket.AF_INET6, "::1", True),
        (socket.AF_INET6, "::", True),
        (socket.AF_INET6, "::ffff:127.0.0.1", True),
        (socket.AF_INET6, "::ffff:127.0.0.2", False),
    ],
)
def test_a_listener_is_found_if_this_host_reaches_it_as_itself(
    family: socket.AddressFamily, address: str, here: bool
) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((address, 0))
        except OSError:
            pytest.skip(f"cannot listen on {address!r} here")
        port, inode = listener.getsockname()[1], os.fstat(listener.fileno()).st_ino
        # Others may listen at the same port of another address.
        assert inode not in _procfs.list_listeners(port)  # it is bound, and no more
        listener.listen()
        assert (inode in _procfs.list_listeners(port)) is here
        assert inode in _procfs.list_sockets(os.getpid())


def test_connections_are_not_listeners_however_many_there_are() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=600))
        address = listener.getsockname()
        for _ in range(500):  # more than is read at once
            stack.enter_context(socket.create_connection(address))
            connection, _ = listener.accept()
            stack.enter_context(connection)
        inode = os.fstat(listener.fileno()).st_ino
        assert _procfs.list_listeners(address[1]) == {inode}


def test_a_process_that_is_gone_has_no_sockets() -> None:
    with subprocess.Popen(["true"]) as child:
        pass
    assert _procfs.list_sockets(child.pid) == set()
