"""A port makes a process ready when it is not a stranger who listens on it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio

from runtime import _procfs
from runtime.process import ProcessExitedError
from runtime.process.family import Family
from runtime.process.host import Host
from runtime.process.readiness import Candidate
from runtime.process.readiness._listeners import PortOwner
from runtime.supervision.graph import Stage

#: Listens once it can, in itself or in a child of a session of its own.
LISTENS = """
import os, signal, socket, sys, time
if "child" in sys.argv and os.fork() != 0:
    signal.pause()
if "child" in sys.argv:
    os.setsid()
while True:
    try:
        listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    except OSError:
        time.sleep(0.001)
    else:
        break
print("listening", flush=True)
signal.pause()
"""

ONCE = {"shutdown_strategy": "do_not_restart"}


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    """A listener of ours: we have started before every process of a test."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def port_of(listener: socket.socket) -> int:
    return listener.getsockname()[1]


def by_tcp(port: int, **params: object) -> dict[str, Any]:
    return {"ready_strategy": "tcp", "ready_params": {"port": port, **params}}


def held_by_us(port: int) -> str:
    who = f"pid {os.getpid()} ({_procfs.read_name(os.getpid())})"
    return f": port {port} is held by {who}, which is not part of it"


@pytest.mark.parametrize("host", [{}, {"host": "127.0.0.1"}], ids=["unset", "named"])
async def test_the_listener_of_a_stranger_makes_nobody_ready_and_is_named(
    make_pilot: Any, sh: Any, stranger: socket.socket, host: dict[str, str]
) -> None:
    port = port_of(stranger)
    definition = sh("exec sleep 60", ready_timeout_sec=1.5, **by_tcp(port, **host), **ONCE)
    pilot = make_pilot(definition)
    await pilot.start()
    status = pilot.supervisor.status("p")
    assert status.stage is Stage.FAILED
    assert status.reason == (
        "not ready within 1.5 s by its tcp check (the limit is ready_timeout_sec)"
        + held_by_us(port)
    )


@pytest.mark.usefixtures("open_gate")
async def test_one_that_ends_because_of_a_stranger_says_so(
    make_pilot: Any, sh: Any, stranger: socket.socket, open_gate: Callable[[], object]
) -> None:
    port = port_of(stranger)
    code = "read -r line < gate; exit 1"
    definition = sh(code, working_directory=".", ready_timeout_sec=600, **by_tcp(port), **ONCE)
    pilot = make_pilot(definition)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        for _ in range(2):  # the second try comes when the first one has had its answer
            connection, _ = await trio.to_thread.run_sync(stranger.accept)
            connection.close()
        open_gate()
        await pilot.supervisor.wait_until("p", Stage.FAILED)
    status = pilot.supervisor.status("p")
    assert isinstance(status.error, ProcessExitedError)
    assert status.error.returncode == 1
    assert status.reason.startswith("exited with 1 before it was ready after ")
    assert status.reason.endswith(held_by_us(port))


async def test_it_is_ready_once_the_stranger_has_left_and_it_listens_itself(
    make_pilot: Any, py: Any, stranger: socket.socket
) -> None:
    port = port_of(stranger)
    pilot = make_pilot(py(LISTENS, port, ready_timeout_sec=600, **by_tcp(port)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        for _ in range(2):
            connection, _ = await trio.to_thread.run_sync(stranger.accept)
            connection.close()
        assert pilot.supervisor.status("p").stage is Stage.STARTING
        stranger.close()
        await pilot.supervisor.wait_until("p", Stage.READY)
        assert pilot.supervisor.status("p").reason.startswith("ready after ")
        await pilot.stop()


async def test_a_listener_that_a_descendant_has_counts(
    make_pilot: Any, py: Any, free_port: Callable[[], int]
) -> None:
    port = free_port()
    definition = py(LISTENS, port, "child", ready_timeout_sec=600, **by_tcp(port))
    async with make_pilot(definition) as pilot:
        assert pilot.supervisor.status("p").ready


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"host": "0.0.0.0"}, id="another address"),  # noqa: S104
        pytest.param({"host": socket.gethostname()}, id="another name"),
    ],
)
async def test_whoever_listens_on_another_host_counts(
    make_pilot: Any, sh: Any, given: dict[str, str]
) -> None:
    with socket.create_server(("", 0)) as listener:
        definition = sh("exec sleep 60", ready_timeout_sec=20, **by_tcp(port_of(listener), **given))
        async with make_pilot(definition) as pilot:
            assert pilot.supervisor.status("p").ready


async def test_one_that_has_started_later_may_listen_for_the_process(
    make_pilot: Any, sh: Any, look: Any, free_port: Callable[[], int]
) -> None:
    """As the proxy does that publishes a container's port."""
    port = free_port()
    pilot = make_pilot(sh("exec sleep 60", ready_timeout_sec=600, **by_tcp(port)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await pilot.supervisor.wait_until("p", Stage.STARTING)
        await look.true(lambda: pilot.get_process_by_name("p").pid)  # it is spawned, too
        argv = [sys.executable, "-S", "-E", "-c", LISTENS, str(port)]
        async with trio.open_nursery() as proxies:
            proxy = partial(trio.run_process, argv, stdout=subprocess.DEVNULL, check=False)
            proxies.start_soon(proxy)
            await pilot.supervisor.wait_until("p", Stage.READY)
            proxies.cancel_scope.cancel()
        await pilot.stop()


async def test_where_nobody_may_be_looked_at_the_connection_counts(
    make_pilot: Any, sh: Any, stranger: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_procfs, "list_sockets", lambda pid: set())
    definition = sh("exec sleep 60", ready_timeout_sec=20, **by_tcp(port_of(stranger)))
    async with make_pilot(definition) as pilot:
        assert pilot.supervisor.status("p").ready


async def test_a_process_that_has_ended_is_not_made_ready(
    room: Any, stranger: socket.socket, look: Any
) -> None:
    async with room.open(room.sh("exec sleep 60")) as child:
        candidate = Candidate(child.family)
        assert not candidate.has_ended()
        os.kill(child.pid, 9)
        await child.wait_exit()
        assert candidate.has_ended()
    assert not Candidate().has_ended()


async def test_the_host_is_searched_once_for_a_stranger_who_stays(
    room: Any, stranger: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = 0
    list_pids = _procfs.list_pids

    def count() -> list[int]:
        nonlocal searches
        searches += 1
        return list_pids()

    async with room.open(room.sh("exec sleep 60")) as child:
        owner = PortOwner(port_of(stranger), Family(child.pid, "p", Host()), Host())
        monkeypatch.setattr(_procfs, "list_pids", count)
        for _ in range(3):
            found = await owner.find_stranger()
            assert found is not None
            assert found.pid == os.getpid()
        assert searches == 1
        port = port_of(stranger)
        stranger.close()
        assert await owner.find_stranger() is None
        assert _procfs.list_listeners(port) == set()
