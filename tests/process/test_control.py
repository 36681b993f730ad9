"""A control server runs beside the processes, and stops when they are down."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime._control import ControlServerError, OnTheLoopError, TreeEndedError
from runtime.application import Application
from runtime.manifest import Manifest
from runtime.plugin import Plugin
from runtime.process import ProcessManifest, ProcessState
from runtime.supervision._exceptions import UnitFailedError, UnknownUnitError
from runtime.supervision.graph import Stage

SLEEP = "exec sleep 60"
ONCE: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}


class Provides(Plugin):
    """Provides one control server by the name of ``control``."""

    def __init__(self, factory: Callable[[Any], Any]) -> None:
        self.factory = factory

    def get_control_servers(self) -> Any:
        return {"control": self.factory}


@pytest.fixture
def run_with(make_pilot: Any, sh: Any) -> Callable[..., Any]:
    """Make a pilot with a process ``p`` and a control server of this factory."""

    def make(factory: Callable[[Any], Any], *more: Any, **fields: Any) -> Any:
        pilot = make_pilot(sh(SLEEP), *more, control_server="control", **fields)
        pilot.register_plugins([Provides(factory)])
        return pilot

    return make


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Let threads go on that a test has left."""
    event = threading.Event()
    yield event
    event.set()


class Async:
    """Writes down what happens to it; it serves until it is cancelled."""

    def __init__(self, pilot: Any) -> None:
        self.pilot, self.log = pilot, []  # type: tuple[Any, list[str]]
        self.thread = threading.current_thread()

    async def start(self) -> None:
        self.log.append("start")
        try:
            await trio.sleep_forever()
        finally:
            self.log.append("cancelled")

    async def stop(self) -> None:
        running = self.pilot.get_running_process()
        self.log.append(f"stop with {len(running)} running")


class Plain:
    """Writes down what happens to it, and in which threads; `start` returns when it is stopped."""

    def __init__(self, pilot: Any) -> None:
        self.pilot, self.log = pilot, [f"made in {self.where()}"]
        self.stopped = threading.Event()
        self.started = threading.Event()

    @staticmethod
    def where() -> str:
        name = threading.current_thread().name
        return "main" if threading.current_thread() is threading.main_thread() else name

    def start(self) -> None:
        self.log.append(f"start in {self.where()}")
        self.started.set()
        self.stopped.wait(20)
        self.log.append("start returns")

    def stop(self) -> None:
        running = self.pilot.get_running_process()
        self.log.append(f"stop in {self.where()} with {len(running)} running")
        self.stopped.set()


class Keeps:
    """A factory that remembers what it has made."""

    def __init__(self, kind: Callable[[Any], Any]) -> None:
        self.kind, self.made = kind, []  # type: tuple[Any, list[Any]]

    def __call__(self, pilot: Any) -> Any:
        self.made.append(self.kind(pilot))
        return self.made[-1]


# --- its life -------------------------------------------------------------------------------------


async def test_an_asynchronous_one_runs_on_the_loop_and_is_stopped_last(run_with: Any) -> None:
    made: list[Async] = []

    class Server(Async):
        def __init__(self, pilot: Any) -> None:
            super().__init__(pilot)
            made.append(self)

    pilot = run_with(Server)
    async with pilot:
        (server,) = made
        assert server.pilot is pilot
        assert server.thread is threading.main_thread()
        status = pilot.supervisor.status("control")
        assert (status.kind, status.stage) == ("control server", Stage.READY)
    assert server.log == ["start", "stop with 0 running", "cancelled"]


async def test_a_plain_one_runs_in_threads_of_its_own_and_is_stopped_last(run_with: Any) -> None:
    made = Keeps(Plain)
    pilot = run_with(made)
    async with pilot:
        assert pilot.supervisor.status("control").stage is Stage.READY
    thread = "control server control"
    assert made.made[0].log == [
        f"made in {thread}",
        f"start in {thread}",
        f"stop in {thread} with 0 running",
        "start returns",
    ]


async def test_a_start_may_return_once_it_serves(run_with: Any) -> None:
    log: list[str] = []

    class Server:
        def __init__(self, pilot: Any) -> None:
            """Take what it is given."""

        def start(self) -> None:
            log.append("start")

        def stop(self) -> None:
            log.append("stop")

    async with run_with(Server) as pilot:
        await pilot.restart_processes("control")
        assert pilot.supervisor.status("control").stage is Stage.READY
    assert log == ["start", "stop", "start", "stop"]


async def test_one_may_say_itself_when_it_serves(run_with: Any) -> None:
    go_on = trio.Event()

    class Server(Async):
        async def start(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED):  # type: ignore[no-untyped-def]
            await go_on.wait()
            task_status.started()
            await super().start()

    pilot = run_with(Server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await pilot.supervisor.wait_until("p", Stage.READY)
        with trio.move_on_after(0.3):  # longer than others are waited for
            await pilot.supervisor.wait_until("control", Stage.READY)
        assert pilot.supervisor.status("control").stage is Stage.STARTING
        go_on.set()
        await pilot.supervisor.wait_until("control", Stage.READY)
        await pilot.stop()


async def test_it_keeps_no_tree_alive(make_pilot: Any, sh: Any) -> None:
    made = Keeps(Async)
    pilot = make_pilot(sh("exit 0", **ONCE), control_server="control")
    pilot.register_plugins([Provides(made)])
    await pilot.start()
    assert pilot.supervisor.stopping == "everything has ended"
    assert made.made[0].log[-1] == "cancelled"


async def test_it_is_restarted_with_growing_delays_and_nothing_else_is(run_with: Any) -> None:
    attempts: list[float] = []

    class Server(Plain):
        def start(self) -> None:
            attempts.append(trio.from_thread.run_sync(trio.current_time))
            if len(attempts) < 4:
                raise OSError("the port is taken")
            super().start()

    async with run_with(Server) as pilot:
        await pilot.supervisor.wait_until("control", Stage.READY)
        events = [e.item for e in pilot.supervisor.events.tail()]
        told = [e.reason for e in events if e.unit == "control" and e.new == "failed"]
        assert told == [f"the port is taken; restart in {delay} s" for delay in (0.1, 0.2, 0.4)]
        assert pilot.supervisor.status("p").generation == 1
        assert pilot.supervisor.status("control").restarts == 3
        gaps = [b - a for a, b in pairwise(attempts)]
        assert all(gap >= delay for gap, delay in zip(gaps, (0.1, 0.2, 0.4), strict=True))


async def test_one_that_dies_later_is_restarted(run_with: Any) -> None:
    die, made = trio.Event(), 0

    class Server(Async):
        async def start(self) -> None:
            nonlocal made
            made += 1
            if made == 1:
                await die.wait()
                raise ValueError("broken")
            await super().start()

    async with run_with(Server) as pilot:
        die.set()
        await pilot.supervisor.wait_until("control", Stage.BACKOFF)
        assert pilot.supervisor.status("control").reason == "broken; restart in 0.1 s"
        await pilot.supervisor.wait_until("control", Stage.READY)
        assert pilot.supervisor.status("p").generation == 1


@pytest.mark.parametrize("missing", ["start", "stop"])
async def test_what_is_no_control_server_is_told(run_with: Any, missing: str) -> None:
    class Server:
        """Has one of the two."""

    def nothing(self: object) -> None:
        raise AssertionError

    setattr(Server, "stop" if missing == "start" else "start", nothing)
    async with run_with(lambda _: Server()) as pilot:
        await pilot.supervisor.wait_until("control", Stage.BACKOFF)
        words = f"the control server 'control' has no method {missing}; restart in"
        assert pilot.supervisor.status("control").reason.startswith(words)
        error = pilot.supervisor.status("control").error
        assert isinstance(error, ControlServerError)
        assert error.name == "control"


async def test_a_factory_that_raises_is_tried_again(run_with: Any) -> None:
    calls: list[int] = []

    def factory(pilot: Any) -> Any:
        calls.append(1)
        return Async(pilot) if len(calls) > 1 else 1 / 0

    async with run_with(factory) as pilot:
        await pilot.supervisor.wait_until("control", Stage.READY)
        assert len(calls) == 2


# --- its end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hangs", ["the factory", "start", "stop"])
async def test_a_thread_that_does_not_end_is_named_and_left(
    run_with: Any, release: threading.Event, hangs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime._control.STOP_SEC", 0.2)
    inside = threading.Event()

    class Server(Plain):
        def __init__(self, pilot: Any) -> None:
            super().__init__(pilot)
            if hangs == "the factory":
                inside.set()
                release.wait(20)

        def start(self) -> None:
            if hangs == "start":
                inside.set()
                release.wait(20)
            else:
                super().start()

        def stop(self) -> None:
            if hangs == "stop":
                release.wait(20)
            super().stop()

    pilot = run_with(Server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await pilot.supervisor.wait_until("p", Stage.READY)
        if hangs != "stop":
            await trio.to_thread.run_sync(inside.wait, 20)
        else:
            await pilot.supervisor.wait_until("control", Stage.READY)
        await pilot.stop()
    status = pilot.supervisor.status("control")
    who = "its factory" if hangs == "the factory" else f"{hangs}()"
    words = f"does not end: {who} goes on; its thread is left"
    assert status.reason == f"stopped, but the control server 'control' {words}"
    release.set()


async def test_an_asynchronous_stop_that_hangs_is_cancelled(
    run_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime._control.STOP_SEC", 0.2)

    class Server(Async):
        async def stop(self) -> None:
            await trio.sleep_forever()

    async with run_with(Server) as pilot:
        pass
    reason = pilot.supervisor.status("control").reason
    assert reason == "stopped, but the control server 'control' does not end: stop() goes on"


async def test_a_stop_that_raises_is_told_and_ends_it_all_the_same(run_with: Any) -> None:
    class Server(Async):
        async def stop(self) -> None:
            raise ValueError("no")

    async with run_with(Server) as pilot:
        pass
    assert pilot.supervisor.status("control").reason == "stopped, but no"


async def test_what_blocks_a_stop_can_be_asked_for(run_with: Any, sh: Any, look: Any) -> None:
    made = Keeps(Plain)
    slow = sh("trap '' TERM; echo ready; exec sleep 60", name="slow", timeout=20)
    pilot = run_with(made, slow)
    async with pilot:
        await look.line(pilot.get_process_by_name("slow").output, "ready")
        pilot.supervisor.ask_stop_tree("asked to")
        await pilot.supervisor.wait_until("slow", Stage.STOPPING)
        (server,) = made.made
        statuses = await trio.to_thread.run_sync(server.pilot.get_running_process)
        assert ("slow", ProcessState.STOPPING) in [(s.name, s.status) for s in statuses]
        pilot.supervisor.force()


async def test_forced_its_stop_is_called_too(run_with: Any) -> None:
    made = Keeps(Plain)
    async with run_with(made) as pilot:
        pilot.supervisor.force()
        await pilot.supervisor.wait_ended()
    assert made.made[0].log[-1] == "start returns"


# --- what it gets of the pilot --------------------------------------------------------------------


class Probe(Plain):
    """Lets a test call what it likes in a thread that the server has made itself."""

    def ask(self, function: Callable[[Any], Any]) -> Any:
        got: list[Any] = []

        def call() -> None:
            try:
                got.append(function(self.pilot))
            except Exception as error:  # noqa: BLE001 - whatever it is is looked at
                got.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join(20)
        return got[0]


async def ask(made: Keeps, function: Callable[[Any], Any]) -> Any:
    return await trio.to_thread.run_sync(made.made[-1].ask, function)


@pytest.mark.parametrize(
    "wrap", [lambda kept: kept, lambda kept: functools.partial(lambda k, p: k(p), kept)]
)
async def test_a_plain_one_simply_calls_the_methods_of_the_pilot(
    run_with: Any, sh: Any, wrap: Any, tmp_path: Path
) -> None:
    made = Keeps(Probe)
    async with run_with(wrap(made), sh(SLEEP, name="q")) as pilot:
        before = pilot.get_running_process("p")
        assert await ask(made, lambda p: p.get_running_process("p")) == before
        assert await ask(made, lambda p: p.get_running_process(before.pid)) == before
        running = await ask(made, lambda p: p.get_running_process())
        assert [status.name for status in running] == ["p", "q"]
        processes = await ask(made, lambda p: p.get_manifest_processes())
        assert processes == pilot.get_manifest_processes()
        assert await ask(made, lambda p: p.get_process_by_name("q")) is processes[1]
        assert await ask(made, lambda p: p.is_running()) is True
        assert await ask(made, lambda p: p.manifest) is pilot.manifest
        assert await ask(made, lambda p: p.restart_processes("p")) is None
        after = pilot.get_running_process("p")
        assert after.pid not in (0, before.pid)
        assert await ask(made, lambda p: p.restart_processes(["p", "q"])) is None
        assert await ask(made, lambda p: p.stop_process("q")) is None
        assert pilot.get_running_process("q") is None
        assert await ask(made, lambda p: p.start_process("q")) is None
        assert pilot.get_running_process("q").pid
        await ask(made, lambda p: p.set_process_affinity(after, None))
        await ask(made, lambda p: p.register_plugins([]))
        (tmp_path / "plugins").mkdir()
        await ask(made, lambda p: p.load_plugins(tmp_path / "plugins"))
        error = await ask(made, lambda p: p.restart_processes(["p", "x"]))
        assert isinstance(error, UnknownUnitError)
        assert isinstance(error, ValueError)
        error = await ask(made, lambda p: p.nothing)
        assert isinstance(error, AttributeError)
        error = await ask(made, lambda p: p._host)
        assert isinstance(error, AttributeError)
        error = await ask(made, lambda p: p.start())
        assert isinstance(error, RuntimeError)


async def test_a_stop_from_there_returns_when_all_others_are_down(run_with: Any, sh: Any) -> None:
    made = Keeps(Probe)
    pilot = run_with(made, sh(SLEEP, name="q", dependencies=["p"]))
    async with trio.open_nursery() as nursery:
        await nursery.start(pilot.start)
        left = await ask(made, lambda p: (p.stop(), p.get_running_process()))
        assert left == (None, [])
    assert pilot.supervisor.stopping == "asked to stop by a control server"
    assert made.made[0].log[-1] == "start returns"


async def test_after_the_end_of_the_tree_it_is_refused(run_with: Any) -> None:
    made = Keeps(Probe)
    async with run_with(made) as pilot:
        pass
    for name, arguments in [("restart_processes", ["p"]), ("start_process", ["p"]), ("stop", [])]:
        error = await ask(made, lambda p, n=name, a=arguments: getattr(p, n)(*a))
        assert isinstance(error, TreeEndedError)
        assert str(error) == f"{name}() has come too late: the tree has ended"
    assert await ask(made, lambda p: p.is_running()) is False
    assert pilot.get_running_process() == []


def test_after_the_end_of_the_loop_it_is_refused_as_well(run_with: Any) -> None:
    made = Keeps(Probe)
    pilot = run_with(made)

    async def run() -> None:
        async with pilot:
            pass

    trio.run(run)
    for function in (lambda p: p.restart_processes("p"), lambda p: p.is_running()):
        assert isinstance(made.made[0].ask(function), TreeEndedError)


def test_who_waits_when_the_loop_ends_gets_that_error(run_with: Any, sh: Any) -> None:
    made = Keeps(Probe)
    pilot = run_with(made)
    got: list[Any] = []
    waits = threading.Event()

    async def never() -> None:
        waits.set()
        await trio.sleep_forever()

    async def run() -> threading.Thread:
        pilot.never = never
        async with pilot:
            thread = threading.Thread(
                target=lambda: got.append(made.made[0].ask(lambda p: p.never()))
            )
            thread.start()
            await trio.to_thread.run_sync(waits.wait, 20)
        return thread

    trio.run(run).join(20)
    assert isinstance(got[0], TreeEndedError)


async def test_on_the_thread_of_the_loop_a_plain_one_is_refused_what_would_block(
    run_with: Any,
) -> None:
    for kind in (Probe, Keeps(Probe)):  # known before, and only when it was made
        views: list[Any] = []

        class Server(Probe):
            def __init__(self, pilot: Any, views: list[Any] = views) -> None:
                super().__init__(pilot)
                views.append(pilot)

        async with run_with(Server if kind is Probe else (lambda p: Server(p))):  # noqa: PLW0108
            (view,) = views
            for name in ("restart_processes", "stop"):
                with pytest.raises(OnTheLoopError, match=f"{name}.. blocks"):
                    getattr(view, name)()
            assert view.is_running() is True


@pytest.mark.parametrize(
    ("wrap", "same"),
    [
        (lambda cls: cls, True),
        (functools.partial, True),
        (lambda cls: lambda pilot: cls(pilot), False),  # noqa: PLW0108 - that is the case
    ],
    ids=["class", "partial", "lambda"],
)
async def test_an_asynchronous_one_awaits_the_methods_of_the_pilot(
    run_with: Any, wrap: Any, same: bool
) -> None:
    done = trio.Event()
    pilots: list[Any] = []

    class Server(Async):
        async def start(self) -> None:
            pilots.append(self.pilot)
            await self.pilot.restart_processes("p")
            with pytest.raises(UnitFailedError):
                await self.pilot.start_process("q")
            assert self.pilot.get_running_process("p").pid
            done.set()
            await super().start()

    pilot = run_with(wrap(Server), {**Q, "restart": {"when": "never"}})
    async with pilot:
        await done.wait()
        assert (pilots[0] is pilot) is same
        assert pilot.supervisor.status("p").generation == 2


Q: dict[str, Any] = {"name": "q", "path": "/bin/sh", "args": ["-c", "exit 3"]}
Q |= {"ready_strategy": "file", "ready_params": {"path": "never"}}


async def test_a_coroutine_function_may_make_it(run_with: Any) -> None:
    pilots: list[Any] = []

    async def make(pilot: Any) -> Async:
        await trio.lowlevel.checkpoint()
        pilots.append(pilot)
        return Async(pilot)

    async with run_with(make) as pilot:
        assert pilots == [pilot]


async def test_an_asynchronous_one_can_stop_everything(run_with: Any) -> None:
    class Server(Async):
        async def start(self) -> None:
            await self.pilot.stop()

    pilot = run_with(Server)
    await pilot.start()
    assert pilot.supervisor.stopping == "asked to stop"


# --- the manifest ---------------------------------------------------------------------------------


async def test_an_application_has_it_too(tmp_path: Path, sh: Any) -> None:
    made = Keeps(Plain)
    manifest = Manifest.model_validate(
        {"base_directory": tmp_path, "processes": [sh(SLEEP)], "control_server": "control"}
    )
    application = Application(manifest)
    assert application.pilot is not None
    application.pilot.register_plugins([Provides(made)])
    async with application:
        assert application.supervisor.status("control").stage is Stage.READY
    assert made.made[0].log[-1] == "start returns"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"control_server": "p"}, "there is already a process 'p', and the control server is"),
        ({"control_server": "many"}, "there is already a process 'many'"),
        ({"control_params": {"bind": "x"}}, "there is no control server to read this"),
    ],
)
def test_a_name_that_is_taken_and_settings_of_nobody_are_problems(
    sh: Any, fields: Any, words: str, tmp_path: Path
) -> None:
    processes = [sh(SLEEP), sh(SLEEP, name="many", replicas=2)]
    with pytest.raises(ValueError, match=words):
        ProcessManifest.model_validate(
            {"base_directory": tmp_path, "processes": processes, **fields}
        )
