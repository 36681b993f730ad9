"""A service is stopped by a cancellation, at any moment: nothing is left, nothing done twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from runtime.supervision._exceptions import UnitFailedError
from runtime.supervision.graph import Requirement, Stage
from runtime.supervision.restart import RestartPolicy, RestartWhen

pytestmark = pytest.mark.usefixtures("autojump_clock")
MakeTree = Callable[..., Any]
AT_ONCE = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=0, factor=1)
#: More than a start, or a stop, of the services below takes.
TICKS = range(24)
AT_REST = {"initialized", "stopped", "error"}


class Slow:
    """Mixed into a scripted manager: some more checkpoints in each of its steps."""

    async def start(self, **options: Any) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        await super().start(**options)  # type: ignore[misc]

    async def stop(self) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        await super().stop()  # type: ignore[misc]
        for _ in range(3):
            await trio.lowlevel.checkpoint()


@pytest.fixture(params=["returns", "tells"])
def make(request: pytest.FixtureRequest, kit: Any) -> Callable[..., Any]:
    """Return a service whose start returns when ready, or says so and goes on."""
    telling = request.param == "tells"

    class SlowTelling(Slow, kit.TellingManager):  # type: ignore[misc]
        async def start(self, *, task_status: trio.TaskStatus[None]) -> None:
            await super().start(task_status=task_status)

    class SlowReturning(Slow, kit.ScriptedManager):  # type: ignore[misc]
        async def start(self) -> None:
            await super().start()

    def make(name: str, **fields: Any) -> Any:
        service_class: Any = kit.TellingService if telling else kit.ScriptedService

        class Made(service_class):  # type: ignore[misc]
            manager_class = SlowTelling if telling else SlowReturning

        return Made(name, kit.Script(background_tasks=2, **fields))

    return make


async def pass_ticks(ticks: int) -> None:
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()


def assert_at_rest(t: Any, service: Any) -> None:
    """Whatever was begun has ended, and each start that succeeded had its one stop."""
    script = service.script
    assert (script.live, script.background) == (0, 0)
    assert script.log.count("stop") == script.log.count("started")
    assert script.log.count("went on") == script.log.count("goes on")
    assert set(script.seen_at_stop) <= {2}  # the background tasks were there to drain
    assert service.status.state in AT_REST
    assert not service.is_live
    assert not service.manager.is_taken
    moves = t.moves(service.name)
    assert moves[-1:] == [] or moves[-1] == service.status.state


@pytest.mark.parametrize("ticks", TICKS)
async def test_stopped_at_any_tick_of_its_start(
    make: Callable[..., Any], tree: MakeTree, ticks: int
) -> None:
    t = tree()
    service = t.add(make("a"))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await pass_ticks(ticks)
        await supervisor.stop_unit("a")
        assert_at_rest(t, service)
        assert service.status.state != "error"
        assert supervisor.status("a").stage is Stage.IDLE
        await service.start()
        assert service.status.state == "running"
    assert_at_rest(t, service)


@pytest.mark.parametrize("ticks", TICKS)
async def test_the_whole_tree_cancelled_from_outside_at_any_tick_of_its_start(
    make: Callable[..., Any], tree: MakeTree, ticks: int
) -> None:
    t = tree()
    base = t.add(make("base"))
    service = t.add(make("a"), requirements=[Requirement("base")], autostart=True)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(t.supervisor.run)
            await pass_ticks(ticks)
            scope.cancel()
    assert not t.supervisor.running
    for each in (base, service):
        assert_at_rest(t, each)
        assert each.status.state in ("stopped", "initialized")


@pytest.mark.parametrize("ticks", TICKS)
async def test_cancelled_from_outside_at_any_tick_of_its_stop(
    make: Callable[..., Any], tree: MakeTree, ticks: int
) -> None:
    t = tree()
    service = t.add(make("a", stop_sec=1), autostart=True)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(t.supervisor.run)
            t.supervisor.ask_stop("a")
            await pass_ticks(ticks)
            scope.cancel()
    assert_at_rest(t, service)
    assert service.script.log.count("stopped") == 1
    assert service.status.state == "stopped"


@pytest.mark.parametrize("ticks", TICKS)
async def test_a_caller_cancelled_at_any_tick_changes_nothing_of_it(
    make: Callable[..., Any], tree: MakeTree, ticks: int
) -> None:
    t = tree()
    service = t.add(make("a"))
    async with t.running() as supervisor:
        for command, stage in ((service.start, Stage.READY), (service.stop, Stage.IDLE)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(command)
                await pass_ticks(ticks)
                nursery.cancel_scope.cancel()
            if f"asked to {command.__name__}" not in [event.reason for event in t.events("a")]:
                await command()  # it had not even begun
            await supervisor.wait_until("a", stage)
        assert_at_rest(t, service)
        assert service.script.log.count("start") == 1


@pytest.mark.parametrize("ticks", range(60))
async def test_restarts_deaths_and_errors_at_any_tick(
    make: Callable[..., Any], tree: MakeTree, ticks: int
) -> None:
    t = tree()
    base = t.add(make("base"), restart=AT_ONCE, restart_dependents=True)
    service = t.add(make("a"), requirements=[Requirement("base")], restart=AT_ONCE, autostart=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(t.supervisor.run)
        for tick in range(ticks):
            await trio.lowlevel.checkpoint()
            if tick == 15:
                base.script.crash(OSError("gone"))
            if tick == 25:
                base.script.deaths.clear()
                service.set_error("enough")
            if tick == 40:
                t.supervisor.ask_restart("a")
        nursery.cancel_scope.cancel()
    for each in (base, service):
        each.script.seen_at_stop = [n for n in each.script.seen_at_stop if n]  # the dead are gone
        assert_at_rest(t, each)


@pytest.mark.parametrize("after", [0, 0.5, 1, 1.5, 2, 2.5, 3.5])
async def test_a_time_limit_around_the_whole(
    make: Callable[..., Any], tree: MakeTree, after: float
) -> None:
    """Start takes a second, stop too; the limit comes before, on and behind each of them."""
    t = tree()
    service = t.add(make("a", start_sec=1, stop_sec=1), autostart=True)
    begin = trio.current_time()
    with trio.move_on_after(after) as scope:
        async with t.running():
            await trio.sleep(1)
    assert_at_rest(t, service)
    started = service.script.log.count("started")
    assert scope.cancelled_caught is (after < 3)
    assert trio.current_time() - begin == pytest.approx(min(after, 2) + started)


@pytest.mark.parametrize("ticks", TICKS)
async def test_removed_at_any_tick(make: Callable[..., Any], tree: MakeTree, ticks: int) -> None:
    t = tree()
    service = t.add(make("a"))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await pass_ticks(ticks)
        await supervisor.remove("a")
        assert supervisor.names == []
        assert_at_rest(t, service)


@pytest.mark.parametrize("ticks", TICKS)
async def test_stopped_at_any_tick_while_an_override_goes_on_behind_the_manager(
    kit: Any, tree: MakeTree, ticks: int
) -> None:
    class Behind(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            await super().start()
            await trio.sleep_forever()

    t = tree()
    service = t.add(Behind("a", kit.Script(background_tasks=2)))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await pass_ticks(ticks)
        await supervisor.stop_unit("a")
        assert_at_rest(t, service)
        assert service.status.state != "error"


async def test_a_cancellation_in_the_very_tick_in_which_start_returns(
    kit: Any, tree: MakeTree
) -> None:
    class Last(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            await super().start()
            t.supervisor.ask_stop("a")  # and no checkpoint behind it

    t = tree()
    service = t.add(Last("a", kit.Script(background_tasks=2)))
    async with t.running() as supervisor:
        with pytest.raises(UnitFailedError, match="a did not become ready: stopped"):
            await supervisor.start_unit("a")
        assert t.moves("a") == ["starting", "stopping", "stopped"]
    assert service.script.log == ["start", "started", "stop", "stopped"]
    assert_at_rest(t, service)


async def test_told_to_stop_before_it_begins_it_does_nothing(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a"))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        supervisor.ask_stop("a")
        await supervisor.wait_until("a", Stage.IDLE)
        await trio.sleep(10)
    assert service.script.log == []
