"""A readiness check returns once it is true; who waits for it owns the deadline."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.process import Process
from runtime.process.host import Host
from runtime.process.readiness import STRATEGIES, Candidate, bind, wait_ready
from runtime.supervision.graph import Stage

HOST = replace(Host(), check_interval_sec=0.01)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as test:
            test.bind(("::1", 0))
    except OSError:
        return False
    return True


ADDRESSES = [
    pytest.param(socket.AF_INET, "127.0.0.1", id="IPv4"),
    pytest.param(
        socket.AF_INET6,
        "::1",
        id="IPv6",
        marks=pytest.mark.skipif(not has_ipv6(), reason="needs IPv6"),
    ),
]


class Port:
    """A port that nobody listens on before `open` is called."""

    def __init__(self, family: socket.AddressFamily, address: str) -> None:
        self._socket = socket.socket(family)
        self._socket.bind((address, 0))
        self.number: int = self._socket.getsockname()[1]

    def open(self) -> None:
        self._socket.listen()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def make_port() -> Iterator[Callable[..., Port]]:
    ports: list[Port] = []

    def make(family: socket.AddressFamily, address: str) -> Port:
        ports.append(Port(family, address))
        return ports[-1]

    yield make
    for port in ports:
        port.close()


class Check:
    """A check that runs in the background."""

    def __init__(self, nursery: trio.Nursery, strategy: str, **params: object) -> None:
        self.passed = trio.Event()
        nursery.start_soon(self._run, strategy, params)

    async def _run(self, strategy: str, params: dict[str, object]) -> None:
        await wait(strategy, **params)
        self.passed.set()


async def wait(strategy: str, here: Host = HOST, **params: object) -> None:
    await bind(strategy, params, Path("/")).wait(here, Candidate())


# --- tcp ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "address"), ADDRESSES)
@pytest.mark.parametrize("named", [True, False], ids=["by address", "localhost"])
@pytest.mark.usefixtures("fds_kept")
async def test_a_port_that_is_opened_late_is_found_in_either_family(
    make_port: Callable[..., Port], family: socket.AddressFamily, address: str, named: bool
) -> None:
    port = make_port(family, address)
    params = {"port": port.number, **({"host": address} if named else {})}
    async with trio.open_nursery() as nursery:
        check = Check(nursery, "tcp", **params)
        with trio.move_on_after(0.1):
            await check.passed.wait()
        assert not check.passed.is_set()
        port.open()
        await check.passed.wait()
    port.close()


async def test_a_port_may_be_given_as_text(make_port: Callable[..., Port]) -> None:
    port = make_port(socket.AF_INET, "127.0.0.1")
    port.open()
    await wait("tcp", port=str(port.number))


@pytest.mark.usefixtures("fds_kept")
@pytest.mark.parametrize("host", ["999.999.999.999", "a..b", "x" * 70, "no.such.host.invalid"])
async def test_a_host_without_an_address_is_not_ready(host: str) -> None:
    candidate = Candidate()
    assert not await bind("tcp", {"port": 1, "host": host}, Path("/")).probe(HOST, candidate)
    assert candidate.obstacle.startswith(f"nothing accepts a connection at {host}:1")


# --- file -----------------------------------------------------------------------------------------


async def test_a_file_that_comes_late_is_found(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        check = Check(nursery, "file", path=str(tmp_path / "ready"))
        with trio.move_on_after(0.1):
            await check.passed.wait()
        assert not check.passed.is_set()
        (tmp_path / "ready").touch()
        await check.passed.wait()
    assert (tmp_path / "ready").exists()


async def test_a_file_that_is_there_is_found_at_once(tmp_path: Path) -> None:
    await wait("file", replace(HOST, check_interval_sec=1000), path=str(tmp_path))


# --- pipe -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fds_kept")
async def test_the_word_in_a_pipe_is_read_and_the_pipe_removed(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    async with trio.open_nursery() as nursery:
        check = Check(nursery, "pipe", path=str(path))
        await trio.testing.wait_all_tasks_blocked()
        os.mkfifo(path)
        for word in (b"not yet, rea", b"d", b"y\n"):
            assert not check.passed.is_set()
            await trio.to_thread.run_sync(path.write_bytes, word)  # each time opened and closed
            await trio.testing.wait_all_tasks_blocked(0.02)
        await check.passed.wait()
    assert not path.exists()


async def test_somebody_else_who_reads_the_pipe_as_well_does_no_harm(
    tmp_path: Path, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read, reads = os.read, 0

    def read_too_late(fd: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        data = read(fd, size)
        if reads == 1:
            raise BlockingIOError
        return data

    monkeypatch.setattr(os, "read", read_too_late)
    async with trio.open_nursery() as nursery:
        check = Check(nursery, "pipe", path=str(path))
        await trio.to_thread.run_sync(path.write_bytes, b"ready")
        await look.true(lambda: reads == 1)  # or it would read both at once
        assert not check.passed.is_set()
        await trio.to_thread.run_sync(path.write_bytes, b"ready")
        await check.passed.wait()
    assert reads == 2


class HangingDisk:
    """Calls of the system that do not come back before they may, where something is at that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, path: Path) -> None:
        self.hangs, self.may_go_on, self.came_back = (threading.Event() for _ in range(3))
        owner = Path if call == "unlink" else os
        made = getattr(owner, call)

        def hang(*args: Any, **options: Any) -> Any:
            # (What is read is a plain file, as nothing else is read in a thread.)
            if threading.current_thread() is not threading.main_thread() and (
                call == "read" or args[0] == path
            ):
                self.hangs.set()
                self.may_go_on.wait(20)
                self.came_back.set()
            return made(*args, **options)

        monkeypatch.setattr(owner, call, hang)


@pytest.mark.parametrize("call", ["open", "read", "unlink"])
async def test_a_pipe_on_a_disk_that_hangs_holds_up_neither_the_loop_nor_a_stop(
    tmp_path: Path, look: Any, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before, path = look.fds(), tmp_path / "pipe"
    path.write_text("read" if call == "read" else "ready")
    disk = HangingDisk(monkeypatch, call, path)
    try:
        async with trio.open_nursery() as nursery:
            check = Check(nursery, "pipe", path=str(path))
            await look.true(disk.hangs.is_set)
            if call == "unlink":  # that is given up soon
                await check.passed.wait()
            assert check.passed.is_set() == (call == "unlink")
            nursery.cancel_scope.cancel()
        assert not disk.came_back.is_set()
    finally:
        disk.may_go_on.set()
    await look.true(lambda: look.fds() == before)  # what the thread had to end is ended


async def test_a_check_that_is_cancelled_removes_the_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    async with trio.open_nursery() as nursery:
        Check(nursery, "pipe", path=str(path))
        await trio.to_thread.run_sync(path.write_bytes, b"not yet")  # waits for who opens it
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not path.exists()


@pytest.mark.usefixtures("fds_kept")
async def test_a_plain_file_in_the_place_of_the_pipe_is_taken_as_well(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    async with trio.open_nursery() as nursery:
        check = Check(nursery, "pipe", path=str(path))
        path.write_text("so far so good, ")
        with trio.move_on_after(0.05):
            await check.passed.wait()
        assert not check.passed.is_set()
        with path.open("a") as file:
            file.write("ready")
        await check.passed.wait()
    assert not path.exists()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("mkfifo pipe; echo ready > pipe; exec sleep 60", id="made by the process"),
        pytest.param("echo ready > pipe; exec sleep 60", id="made by nobody"),
        pytest.param("echo ready > there; exec sleep 60", id="made by somebody before"),
    ],
)
async def test_a_process_reports_by_a_pipe_whoever_makes_it(
    make_pilot: Any, sh: Any, tmp_path: Path, script: str
) -> None:
    os.mkfifo(tmp_path / "there")
    path = "there" if "there" in script else "pipe"
    definition = sh(
        script, working_directory=".", ready_strategy="pipe", ready_params={"path": path}
    )
    async with make_pilot(definition) as pilot:
        assert pilot.supervisor.status("p").ready
        assert not (tmp_path / path).exists()
        await pilot.restart_processes("p") if path == "pipe" else None


async def test_a_pipe_that_cannot_be_opened_is_told(make_pilot: Any, sh: Any) -> None:
    definition = sh(
        "exec sleep 60",
        ready_strategy="pipe",
        ready_params={"path": "."},
        shutdown_strategy="do_not_restart",
    )
    pilot = make_pilot(definition)
    await pilot.start()
    assert "Is a directory" in pilot.supervisor.status("p").reason


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("fds_kept")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ticks", range(0, 40, 3))
async def test_a_check_that_is_cancelled_leaves_nothing_open(
    make_port: Callable[..., Port], tmp_path: Path, strategy: str, ticks: int
) -> None:
    port = make_port(socket.AF_INET, "127.0.0.1")
    if ticks % 2:
        port.open()  # and nobody answers there
    os.mkfifo(tmp_path / "pipe")
    params: dict[str, dict[str, Any]] = {
        "tcp": {"unix": "missing"},
        "http": {"url": f"http://localhost:{port.number}"},
        "exec": {"command": ["sh", "-c", "sleep 0.02; exit 1"]},
        "file": {"path": "missing"},
        "pipe": {"path": "pipe"},
        "log": {"pattern": "never"},
        "notify": {},
    }
    check, candidate = bind(strategy, params[strategy], tmp_path), Candidate()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check.wait, HOST, candidate)
            for _ in range(ticks):
                await trio.testing.wait_all_tasks_blocked(0.0005)
            scope.cancel()
    assert scope.cancelled_caught
    assert candidate.output.listeners == {}
    port.close()


async def test_the_caller_owns_the_deadline() -> None:
    async def never() -> bool:
        await trio.sleep_forever()
        raise AssertionError

    async def at_once() -> bool:
        return True

    async def refused() -> bool:
        return False

    assert not await wait_ready(never(), 0.01)
    assert await wait_ready(at_once(), 1000)
    assert not await wait_ready(refused(), 1000)


# --- what becomes of a process that is not ready --------------------------------------------------

ONCE: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}
WAITS_FOR_A_FILE: dict[str, Any] = {
    "ready_strategy": "file",
    "ready_params": {"path": "never"},
    **ONCE,
}


async def test_a_process_that_is_not_ready_in_time_is_stopped_and_the_setting_named(
    make_pilot: Any, sh: Any, tmp_path: Path
) -> None:
    pilot = make_pilot(sh("exec sleep 60", ready_timeout_sec=1, **WAITS_FOR_A_FILE))
    await pilot.start()
    status = pilot.supervisor.status("p")
    assert status.stage is Stage.FAILED
    assert status.reason == (
        "not ready within 1 s by its file check (the limit is ready_timeout_sec):"
        f" {tmp_path / 'never'} is not there"
    )
    assert pilot.get_process_by_name("p").get_status().return_code == -15


async def test_a_process_that_ends_before_it_is_ready_says_so_and_nobody_waits_any_longer(
    make_pilot: Any, sh: Any
) -> None:
    pilot = make_pilot(sh("exit 7", ready_timeout_sec=1000, **WAITS_FOR_A_FILE))
    await pilot.start()
    status = pilot.supervisor.status("p")
    assert status.reason.startswith("exited with 7 before it was ready after ")


async def test_an_end_with_0_before_ready_is_a_failure_as_well(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(sh("exit 0", ready_timeout_sec=1000, **WAITS_FOR_A_FILE))
    await pilot.start()
    status = pilot.supervisor.status("p")
    assert status.stage is Stage.FAILED
    assert status.reason.startswith("exited with 0 before it was ready after ")


@pytest.mark.usefixtures("fds_kept")
async def test_a_process_can_be_stopped_while_its_readiness_is_checked(
    make_pilot: Any, sh: Any
) -> None:
    pilot = make_pilot(sh("exec sleep 60", ready_timeout_sec=1000, **WAITS_FOR_A_FILE))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await pilot.supervisor.wait_until("p", Stage.STARTING)
        await pilot.stop_process("p")
        assert pilot.supervisor.status("p").stage is Stage.IDLE
        await pilot.stop()


async def test_a_port_that_opens_late_makes_the_process_ready(
    make_pilot: Any, py: Any, free_port: Callable[[], int]
) -> None:
    port = free_port()
    code = """
import socket, sys, time
time.sleep(0.1)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
time.sleep(60)
"""
    definition = py(
        code, port, ready_strategy="tcp", ready_params={"port": port}, ready_timeout_sec=20
    )
    async with make_pilot(definition) as pilot:
        lines = pilot.get_process_by_name("p").output.lines
        assert pilot.supervisor.status("p").ready
        assert lines.last <= 1  # its word may still be on the way


# --- the process's own face -----------------------------------------------------------------------


async def test_a_process_can_be_asked_whether_it_gets_ready(tmp_path: Path) -> None:
    params = {"path": str(tmp_path / "ready")}
    process = Process(
        name="p", path="p", ready_strategy="file", ready_params=params, ready_timeout_sec=0.05
    )
    function = process.ready_strategy_function
    assert function is not None
    assert not await process.wait_until_ready()
    assert not await function(process, 0.01)  # type: ignore[misc]
    (tmp_path / "ready").touch()
    process.ready_timeout_sec = 60  # a look takes its time on a busy machine
    assert await process.wait_until_ready()
    assert await function(process, 0.01)  # type: ignore[misc]


async def test_without_a_strategy_a_process_is_ready_at_once() -> None:
    process = Process(name="p", path="p")
    assert process.ready_strategy_function is None
    assert await process.wait_until_ready()


async def test_a_strategy_of_a_plugin_is_the_function_and_takes_precedence() -> None:
    def refuses(process: Process, interval_sec: float) -> bool:
        return False

    process = Process(name="p", path="p", ready_strategy="tcp", ready_params={"port": 1})
    process.provide_ready_strategy(refuses)
    assert process.ready_strategy_function is refuses
    assert not await process.wait_until_ready()
