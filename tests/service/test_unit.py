"""How a service runs: ready, deaths of its tasks, its stop and what that costs."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime.service import Service, ServiceFailedError, ServiceStopError, service_unit
from runtime.supervision._exceptions import UnitFailedError
from runtime.supervision.budget import StopBudget
from runtime.supervision.graph import Requirement, Stage
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.unit import Unit, UnitHandle, current_unit

pytestmark = pytest.mark.usefixtures("autojump_clock")
MakeTree = Callable[..., Any]
IN_A_SECOND = RestartPolicy(when=RestartWhen.FAILURE, delay_sec=1, factor=1)


async def bystander(*, task_status: UnitHandle) -> None:
    task_status.started()
    await trio.sleep_forever()


# --- ready -------------------------------------------------------------------------------------


async def test_a_manager_may_say_itself_that_it_is_ready_and_go_on(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    service = t.add(kit.TellingService("a", kit.Script(start_sec=2)))
    async with t.running() as supervisor:
        begin = trio.current_time()
        await service.start()
        assert trio.current_time() - begin == 2
        await wait_all_tasks_blocked()
        assert service.script.log == ["start", "started", "goes on"]
        await service.stop()
        assert service.status.state == "stopped"
        assert supervisor.status("a").reason == "stopped"
    # stop() runs first, with the start still going on.
    assert service.script.log[3:] == ["stop", "stopped", "went on"]
    assert service.script.seen_at_stop == [1]


async def test_a_start_that_could_say_so_and_does_not_is_ready_when_it_returns(
    kit: Any, tree: MakeTree
) -> None:
    class Returns(kit.ScriptedManager):  # type: ignore[misc]
        async def start(self, *, task_status: trio.TaskStatus[None]) -> None:
            await super().start()

    class Returning(kit.ScriptedService):  # type: ignore[misc]
        manager_class = Returns

    t = tree()
    service = t.add(Returning("a", kit.Script(start_sec=1)))
    async with t.running():
        await service.start()
        assert service.status.state == "running"
        await service.stop()
    assert service.script.log == ["start", "started", "stop", "stopped"]


async def test_a_start_that_ends_behind_its_ready_lets_the_service_run(
    kit: Any, tree: MakeTree
) -> None:
    class Twice(kit.ScriptedManager):  # type: ignore[misc]
        async def start(self, *, task_status: trio.TaskStatus[None]) -> None:
            await super().start()
            task_status.started()
            task_status.started()  # harmless: it is ready
            await trio.sleep(1)

    class Telling(kit.ScriptedService):  # type: ignore[misc]
        manager_class = Twice

    t = tree()
    service = t.add(Telling("a"))
    async with t.running():
        await service.start()
        await trio.sleep(10)
        assert service.status.state == "running"


async def test_a_start_that_dies_behind_its_ready_is_a_death(kit: Any, tree: MakeTree) -> None:
    class Dies(kit.ScriptedManager):  # type: ignore[misc]
        async def start(self, *, task_status: trio.TaskStatus[None]) -> None:
            await super().start()
            task_status.started()
            await trio.sleep(1)
            raise OSError("socket gone")

    class Telling(kit.ScriptedService):  # type: ignore[misc]
        manager_class = Dies

    t = tree()
    service = t.add(Telling("a"))
    async with t.running() as supervisor:
        await service.start()
        await supervisor.wait_until("a", Stage.FAILED)
        assert service.status.error == "a background task died: OSError: socket gone"
    assert service.script.log == ["start", "started", "stop", "stopped"]


@pytest.mark.parametrize("telling", [False, True])
async def test_a_start_that_never_gets_ready_can_be_stopped_at_once(
    kit: Any, tree: MakeTree, *, telling: bool
) -> None:
    t = tree()
    script = kit.Script(start_sec=float("inf"))
    service = t.add((kit.TellingService if telling else kit.ScriptedService)("a", script))
    async with t.running() as supervisor, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(UnitFailedError, match="a did not become ready: stopped"):
                await service.start()

        nursery.start_soon(start)
        await supervisor.wait_until("a", Stage.STARTING)
        await wait_all_tasks_blocked()
        begin = trio.current_time()
        await service.stop()
        assert trio.current_time() == begin
        assert (service.status.state, service.status.error) == ("stopped", None)
    assert script.log == ["start"]
    assert script.background == 0


@pytest.mark.parametrize("telling", [False, True])
async def test_a_start_that_fails_raises_the_same_and_leaves_nothing(
    kit: Any, tree: MakeTree, *, telling: bool
) -> None:
    error = ExceptionGroup("all of it", [ValueError("first"), OSError("second")])
    t = tree()
    script = kit.Script(start_error=error, start_sec=1)
    service = t.add((kit.TellingService if telling else kit.ScriptedService)("a", script))
    async with t.running():
        with pytest.raises(ExceptionGroup) as caught:
            await service.start()
        assert caught.value is error
        assert service.status.error == "first"
    assert (script.log, script.background) == (["start"], 0)


async def test_a_start_that_is_stopped_and_then_fails_is_an_error(kit: Any, tree: MakeTree) -> None:
    class Stubborn(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise OSError("could not undo it")

    t = tree()
    service = t.add(Stubborn("a"))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await supervisor.wait_until("a", Stage.STARTING)
        await wait_all_tasks_blocked()
        await service.stop()
        assert (service.status.state, service.status.error) == ("error", "could not undo it")
        assert supervisor.status("a").reason == "stopped, but could not undo it"
    assert t.moves("a") == ["starting", "stopping", "error"]


async def test_the_current_unit_of_a_service_is_its_own(kit: Any, tree: MakeTree) -> None:
    paths: list[str] = []

    class Looks(kit.ScriptedManager):  # type: ignore[misc]
        async def work(self) -> None:
            paths.append(current_unit().path)

    class Looking(kit.ScriptedService):  # type: ignore[misc]
        manager_class = Looks

    t = tree(path="host")
    service = t.add(Looking("a"))
    async with t.running():
        await service.start()
        await wait_all_tasks_blocked()
    assert paths == ["host/a"]


# --- deaths ------------------------------------------------------------------------------------


async def test_a_background_task_that_dies_puts_the_service_into_error(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(stop_sec=1, background_tasks=3)))
    other = t.add(kit.ScriptedService("b"))
    t.supervisor.add(Unit(name="c", body=bystander))
    async with t.running() as supervisor:
        await service.start()
        await other.start()
        death = ValueError("boom")
        service.script.crash(death)
        await supervisor.wait_until("a", Stage.STOPPING)
        # Never "running" with nothing running, also while stop() clears up.
        assert service.status.state == "error"
        assert service.status.error == "a background task died: ValueError: boom"
        await supervisor.wait_until("a", Stage.FAILED)
        status = supervisor.status("a")
        assert status.reason == "a background task died: ValueError: boom"
        assert isinstance(status.error, ServiceFailedError)
        group = status.error.__cause__
        assert isinstance(group, ExceptionGroup)
        assert group.exceptions == (death,)
        assert [other.status.state, supervisor.status("c").state] == ["running", "running"]
    assert service.script.log == ["start", "started", "stop", "stopped"]
    assert t.moves("a") == ["starting", "running", "error"]


async def test_a_death_follows_the_restart_policy(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a"), restart=IN_A_SECOND)
    user = t.add(kit.ScriptedService("b"), requirements=[Requirement("a")])
    async with t.running() as supervisor:
        await user.start()
        for generation in (2, 3, 4):
            service.script.crash(OSError())
            await supervisor.wait_until("a", Stage.BACKOFF)
            assert service.status.error == "a background task died: OSError"
            status = supervisor.status("a")
            assert status.reason == "a background task died: OSError; restart in 1 s"
            await supervisor.wait_until("a", Stage.READY)
            assert (service.status.state, service.status.error) == ("running", None)
            assert supervisor.status("a").generation == generation
        assert user.script.log == ["start", "started"]
    assert t.moves("a")[:6] == ["starting", "running", "error"] * 2


async def test_a_death_with_restart_dependents_restarts_them_in_order(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    log: list[str] = []
    base = t.add(
        kit.ScriptedService("a", kit.Script(log=log)), restart=IN_A_SECOND, restart_dependents=True
    )
    user = t.add(kit.ScriptedService("b", kit.Script(log=log)), requirements=[Requirement("a")])
    async with t.running() as supervisor:
        await user.start()
        log.clear()
        base.script.crash(OSError("gone"))
        await supervisor.wait_until("b", Stage.STOPPING)
        await supervisor.wait_until("b", Stage.READY)
        reasons = [(event.unit, event.reason) for event in supervisor.why("b")]
    assert log[:8] == ["stop", "stopped"] * 2 + ["start", "started"] * 2
    assert ("a", "a background task died: OSError: gone") in reasons


async def test_several_deaths_in_one_tick_are_one_error(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(background_tasks=3)))
    async with t.running() as supervisor:
        await service.start()
        await wait_all_tasks_blocked()  # its tasks among them, whose beginning is the scheduler's
        service.script.crash(ValueError("x"), ValueError("x"), ValueError("x"))
        await supervisor.wait_until("a", Stage.FAILED)
        assert service.status.error == "a background task died: ValueError: x (and 2 more)"
        status = supervisor.status("a")
        assert status.error is not None
        assert isinstance(status.error.__cause__, ExceptionGroup)
        assert len(status.error.__cause__.exceptions) == 3
    assert service.script.log.count("stop") == 1


async def test_a_task_that_dies_of_a_group_is_told_by_its_first(kit: Any, tree: MakeTree) -> None:
    group = ExceptionGroup("", [ExceptionGroup("", [KeyError("k"), OSError()]), ValueError()])
    t = tree()
    service = t.add(kit.ScriptedService("a"))
    async with t.running() as supervisor:
        await service.start()
        service.script.crash(group)
        await supervisor.wait_until("a", Stage.FAILED)
        assert service.status.error == "a background task died: KeyError: 'k' (and 2 more)"


async def test_a_death_while_it_starts_ends_the_start(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(start_sec=5)))
    async with t.running() as supervisor, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(ServiceFailedError, match="a background task died: OSError: gone"):
                await service.start()

        nursery.start_soon(start)
        await supervisor.wait_until("a", Stage.STARTING)
        await wait_all_tasks_blocked()
        service.script.crash(OSError("gone"))
    assert service.script.log == ["start"]
    assert t.moves("a") == ["starting", "error"]


async def test_a_death_while_it_stops_is_told_and_the_stop_goes_on(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(stop_sec=2)))
    async with t.running() as supervisor, trio.open_nursery() as nursery:
        await service.start()
        nursery.start_soon(service.stop)
        await trio.sleep(1)
        service.script.crash(OSError("late"))
        await supervisor.wait_until("a", Stage.IDLE)
        assert service.status.error == "a background task died: OSError: late"
        assert supervisor.status("a").reason == "stopped, but " + service.status.error
    assert service.script.log == ["start", "started", "stop", "stopped"]
    assert t.moves("a") == ["starting", "running", "stopping", "error"]


async def test_a_task_that_fails_when_it_is_cancelled_is_an_error_too(
    kit: Any, tree: MakeTree
) -> None:
    class Sore(kit.ScriptedManager):  # type: ignore[misc]
        async def work(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("not flushed")

    class Sorely(kit.ScriptedService):  # type: ignore[misc]
        manager_class = Sore

    t = tree()
    service = t.add(Sorely("a"))
    async with t.running():
        await service.start()
        await service.stop()
        assert service.status.error == "a background task died: OSError: not flushed"
    assert service.script.log == ["start", "started", "stop", "stopped"]


async def test_a_failure_of_the_clearing_up_is_told_beside_the_first(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(stop_error=LookupError("no lock file"))))
    async with t.running() as supervisor:
        await service.start()
        service.script.crash(OSError("gone"))
        await supervisor.wait_until("a", Stage.FAILED)
        assert service.status.error == "a background task died: OSError: gone"
        assert "no lock file" in [event.reason for event in t.events("a")]


class Fatal(BaseException):
    pass


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Fatal])
@pytest.mark.parametrize("where", ["background", "start", "stop"])
async def test_what_nobody_may_catch_stops_the_tree_in_order_and_travels_on(
    kit: Any, tree: MakeTree, kind: type[BaseException], where: str
) -> None:
    t = tree()
    log: list[str] = []
    script = kit.Script(
        start_error=kind() if where == "start" else None,
        stop_error=kind() if where == "stop" else None,
    )
    base = t.add(kit.ScriptedService("base", kit.Script(stop_sec=1)))
    middle = t.add(
        kit.ScriptedService("middle", kit.Script(stop_sec=1)), requirements=[Requirement("base")]
    )
    service = t.add(kit.ScriptedService("a", script), requirements=[Requirement("middle")])
    begin = trio.current_time()

    async def live() -> None:
        async with t.running() as supervisor:
            await middle.start()
            supervisor.ask_start("a")
            if where != "start":
                await supervisor.wait_until("a", Stage.READY)
            if where == "background":
                script.crash(kind())
            if where == "stop":
                supervisor.ask_stop("a")
            await trio.sleep_forever()

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - three kinds of it
        await live()
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, kind)
    words = f"cut off by {kind.__name__}"
    assert t.supervisor.stopping == f"a {words}"
    assert t.supervisor.ended_by == "a"
    assert (service.status.state, service.status.error) == ("error", words)
    assert t.supervisor.status("a").reason == words
    # The others had their stops, one behind the other.
    assert [base.status.state, middle.status.state] == ["stopped", "stopped"]
    assert trio.current_time() - begin == 2
    assert base.script.log == middle.script.log == ["start", "started", "stop", "stopped"]
    assert script.log.count("stop") == (0 if where == "start" else 1)
    assert (script.background, log) == (0, [])


async def test_two_of_them_at_once_both_travel_on(kit: Any, tree: MakeTree) -> None:
    t = tree()
    services = [t.add(kit.ScriptedService(name)) for name in "ab"]

    async def live() -> None:
        async with t.running():
            for service in services:
                await service.start()
            for service in services:
                service.script.crash(Fatal(service.name))
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await live()
    text = repr(caught.value.exceptions)
    assert "Fatal('a')" in text
    assert "Fatal('b')" in text


# --- stops -------------------------------------------------------------------------------------


async def test_a_stop_that_hangs_costs_its_own_timeout_and_is_named(
    kit: Any, tree: MakeTree, caplog: pytest.LogCaptureFixture
) -> None:
    t = tree()
    base = t.add(kit.ScriptedService("base", kit.Script(stop_sec=1)))
    hangs = t.add(
        kit.ScriptedService("hangs", kit.Script(stop_sec=float("inf"))),
        requirements=[Requirement("base")],
        timeout=3,
    )
    other = t.add(kit.ScriptedService("other", kit.Script(stop_sec=1)))
    async with t.running() as supervisor:
        await hangs.start()
        await other.start()
        begin = trio.current_time()
        ended: dict[str, float] = {}

        async def note_end(name: str) -> None:
            await supervisor.wait_until(name, Stage.IDLE)
            ended[name] = trio.current_time() - begin

        async with trio.open_nursery() as nursery:
            for name in supervisor.names:
                nursery.start_soon(note_end, name)
            supervisor.ask_stop_tree("enough")
    assert ended == {"other": 1, "hangs": 3, "base": 4}
    words = "stop() was still running after 3.0 s and was cut off"
    assert (hangs.status.state, hangs.status.error) == ("error", words)
    status = t.supervisor.status("hangs")
    assert status.reason == f"stopped, but {words}"
    assert isinstance(status.error, ServiceStopError)
    assert (status.error.name, status.error.within_sec) == ("hangs", 3)
    (event,) = [event for event in t.events("hangs") if words in event.reason]
    assert (event.unit, event.new) == ("hangs", "error")
    assert ("runtime.services.hangs", logging.ERROR, words) in caplog.record_tuples
    assert [base.status.state, other.status.state] == ["stopped", "stopped"]
    assert hangs.script.background == 0


@pytest.mark.parametrize("whole", [True, False])
async def test_a_stop_without_a_timeout_has_what_the_tree_has(
    kit: Any, tree: MakeTree, *, whole: bool
) -> None:
    t = tree(stop_within_sec=10)
    service = t.add(kit.ScriptedService("a", kit.Script(stop_sec=float("inf"))), timeout=None)
    async with t.running() as supervisor:
        await service.start()
        begin = trio.current_time()
        if whole:
            supervisor.ask_stop_tree("enough")
            await supervisor.wait_ended()
        else:
            await service.stop()
    assert trio.current_time() - begin == pytest.approx(9)  # a second is kept back
    assert "still running after 9.0 s" in service.status.error


async def test_clearing_up_after_a_death_is_bounded_as_well(kit: Any, tree: MakeTree) -> None:
    t = tree(stop_within_sec=10)
    service = t.add(kit.ScriptedService("a", kit.Script(stop_sec=float("inf"))), timeout=None)
    async with t.running() as supervisor:
        await service.start()
        begin = trio.current_time()
        service.script.crash(OSError("gone"))
        await supervisor.wait_until("a", Stage.FAILED)
        assert trio.current_time() - begin == pytest.approx(9)
        assert service.status.error == "a background task died: OSError: gone"
        reasons = [event.reason for event in t.events("a")]
        assert "stop() was still running after 9.0 s and was cut off" in reasons


async def test_a_stop_that_raises_ends_in_error(kit: Any, tree: MakeTree) -> None:
    t = tree()
    base = t.add(kit.ScriptedService("base"))
    service = t.add(
        kit.ScriptedService("a", kit.Script(stop_error=OSError("busy"))),
        requirements=[Requirement("base")],
    )
    async with t.running() as supervisor:
        await service.start()
        supervisor.ask_stop_tree("enough")
    assert (service.status.state, service.status.error) == ("error", "busy")
    assert t.supervisor.status("a").reason == "stopped, but busy"
    assert base.status.state == "stopped"
    assert t.moves("a") == ["starting", "running", "stopping", "error"]


async def test_a_stop_that_is_cut_off_and_fails_of_that_is_named_first(
    kit: Any, tree: MakeTree
) -> None:
    class Sore(kit.ScriptedService):  # type: ignore[misc]
        async def stop(self) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise OSError("half way")

    t = tree()
    service = t.add(Sore("a"), timeout=1)
    async with t.running():
        await service.start()
        await service.stop()
        assert service.status.error == "stop() was still running after 1.0 s and was cut off"
        assert "half way" in [event.reason for event in t.events("a")]


async def test_a_forced_stop_waits_for_no_stop(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(stop_sec=1)))
    async with t.running() as supervisor:
        await service.start()
        begin = trio.current_time()
        supervisor.force()
        await supervisor.wait_ended()
        assert trio.current_time() == begin
    assert service.script.log == ["start", "started", "stop"]
    assert service.status.state == "error"


async def test_one_whose_turn_never_came_is_stopped_all_the_same(kit: Any, tree: MakeTree) -> None:
    async def deaf(*, task_status: UnitHandle) -> None:
        task_status.started()
        with trio.CancelScope(shield=True):  # nothing bounds this
            await trio.sleep(1000)

    t = tree(stop_within_sec=10)
    base = t.add(kit.ScriptedService("base", kit.Script(stop_sec=1)), autostart=True)
    t.supervisor.add(Unit(name="deaf", body=deaf, requirements=(Requirement("base"),)))
    async with t.running() as supervisor:
        supervisor.ask_stop_tree("enough")
        await trio.sleep(20)
        assert base.script.log == ["start", "started", "stop"]
        assert base.status.state == "error"
        assert base.status.error is not None
        assert base.script.background == 0


async def test_the_stop_of_the_tree_is_heard_while_one_clears_up(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(stop_sec=2)), restart=IN_A_SECOND)
    async with t.running() as supervisor:
        await service.start()
        service.set_error("gone")
        await wait_all_tasks_blocked()
        supervisor.ask_stop_tree("enough")
        await supervisor.wait_ended()
    assert service.script.log == ["start", "started", "stop", "stopped"]
    assert t.moves("a") == ["starting", "running", "error", "stopping", "error"]
    assert t.supervisor.status("a").reason == "stopped, but gone"


# --- without a supervisor ------------------------------------------------------------------------


async def test_the_body_runs_by_itself_and_stops_when_cancelled(kit: Any) -> None:
    service: Service = kit.ScriptedService("a", kit.Script(stop_sec=1))
    script = service.script  # type: ignore[attr-defined]
    ready = trio.Event()

    async def run() -> None:
        handle = UnitHandle("a", StopBudget(), on_started=ready.set)
        await service_unit(service).body(task_status=handle)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await ready.wait()
        nursery.cancel_scope.cancel()
    assert script.log == ["start", "started", "stop", "stopped"]
    assert script.seen_at_stop == [1]


async def test_cut_off_without_a_failure_the_cancellation_travels_on(kit: Any) -> None:
    async def cut(body: Callable[[], Awaitable[object]], ask_to_stop: Callable[[], object]) -> None:
        await body()

    service: Service = kit.ScriptedService("a", kit.Script(start_sec=5))
    with trio.move_on_after(1) as scope:
        handle = UnitHandle("a", StopBudget(), hold=cut)
        await service_unit(service).body(task_status=handle)
    assert scope.cancelled_caught
    assert service.script.log == ["start"]  # type: ignore[attr-defined]
    assert not service.is_live
    assert service.script.background == 0  # type: ignore[attr-defined]
