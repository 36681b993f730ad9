"""The supervisor drives units of any kind through the same life."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime.supervision._exceptions import (
    DependencyCycleError,
    DuplicateUnitError,
    IllegalTransitionError,
    UnitFailedError,
    UnitInUseError,
    UnitNameError,
    UnknownUnitError,
)
from runtime.supervision.graph import Condition, Requirement, Stage
from runtime.supervision.lifecycle import Lifecycle, Stages
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import UNIT_TABLE, Unit, UnitHandle, UnitState, current_unit

pytestmark = pytest.mark.usefixtures("autojump_clock")
MakeTree = Callable[..., Any]
AT_ONCE = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=0, factor=1)
IN_A_SECOND = RestartPolicy(when=RestartWhen.FAILURE, delay_sec=1, factor=2)


async def test_units_start_after_what_they_need_and_stop_before_it(tree: MakeTree) -> None:
    t = tree()
    t.add("db", start_sec=2, stop_sec=1)
    t.add("api", "db", start_sec=1, stop_sec=1)
    t.add("web", "api", stop_sec=1)
    start = trio.current_time()
    async with t.running():
        assert trio.current_time() - start == 3
    assert t.log == [
        *("db starts", "db ready", "api starts", "api ready", "web starts", "web ready"),
        *("web down", "api down", "db down"),
    ]


async def test_independent_units_start_side_by_side(tree: MakeTree) -> None:
    t = tree()
    for name in "abc":
        t.add(name, start_sec=5, stop_sec=5)
    start = trio.current_time()
    async with t.running():
        assert trio.current_time() - start == 5
    assert trio.current_time() - start == 10


@pytest.mark.parametrize("delay_sec", [1e12, float("inf")])
async def test_a_restart_that_comes_later_than_all_dates_stops_nobody_else(
    tree: MakeTree, delay_sec: float
) -> None:
    t = tree()
    policy = RestartPolicy(when=RestartWhen.FAILURE, delay_sec=delay_sec, max_delay_sec=delay_sec)
    body = t.add("a", restart=policy)
    t.add("b")
    async with t.running() as supervisor:
        body.crash()
        await supervisor.wait_until("a", Stage.BACKOFF)
        assert supervisor.status("a").next_restart_at == datetime.max.replace(tzinfo=UTC)
        await supervisor.start_unit("a")
        assert supervisor.status("b").generation == 1


async def test_a_crash_is_restarted_by_its_policy_and_nobody_else_is(tree: MakeTree) -> None:
    t = tree()
    body = t.add("a", restart=IN_A_SECOND)
    t.add("b")
    async with t.running() as supervisor:
        for delay in (1, 2, 4):
            body.crash()
            await supervisor.wait_until("a", Stage.BACKOFF)
            before = trio.current_time()
            status = supervisor.status("a")
            assert status.next_restart_at is not None
            assert status.reason == f"boom; restart in {delay} s"
            await supervisor.wait_until("a", Stage.READY)
            assert trio.current_time() - before == pytest.approx(delay)
        assert supervisor.status("a").restarts == 3
        assert supervisor.status("a").generation == 4
        assert supervisor.status("b").generation == 1


async def test_a_unit_that_keeps_dying_is_given_up_and_says_so(tree: MakeTree) -> None:
    t = tree(keep=True)
    policy = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=1, max_restarts=2)

    async def dies(*, task_status: UnitHandle) -> None:
        raise OSError("no disk")

    t.supervisor.add(Unit(name="a", body=dies, restart=policy))
    t.add("b", "a")
    t.add("c", "b")
    async with t.running() as supervisor:
        await supervisor.wait_until("c", Stage.HELD)
        assert supervisor.status("a").stage is Stage.FAILED
        assert supervisor.status("a").reason == "no disk; given up after 2 restarts in 3.0 s"
        assert isinstance(supervisor.status("a").error, OSError)
        assert (
            supervisor.status("b").reason
            == "not started: a no disk; given up after 2 restarts in 3.0 s"
        )
        assert supervisor.status("c").reason == (
            "not started: needs b, and a no disk; given up after 2 restarts in 3.0 s"
        )
        assert t.log == []


async def test_of_a_long_chain_that_is_held_back_both_ends_are_told(tree: MakeTree) -> None:
    t = tree(keep=True)

    async def dies(*, task_status: UnitHandle) -> None:
        raise OSError("exited with 1")

    t.supervisor.add(Unit(name="a", body=dies))
    for name, needed in ("ba", "cb", "dc"):
        t.add(name, needed)
    async with t.running() as supervisor:
        await supervisor.wait_until("d", Stage.HELD)
        assert [supervisor.status(name).reason for name in "bcd"] == [
            "not started: a exited with 1",
            "not started: needs b, and a exited with 1",
            "not started: needs c, and a exited with 1",
        ]
        causes = [event.unit for event in supervisor.why("d")]
        assert causes[:4] == ["d", "c", "b", "a"]


async def test_the_time_that_a_unit_ran_is_known_once_it_has_ended(tree: MakeTree) -> None:
    t = tree(keep=True)

    async def works(*, task_status: UnitHandle) -> None:
        task_status.started()
        await trio.sleep(2.5)

    t.supervisor.add(Unit(name="a", body=works))
    done = Requirement("a", Condition.COMPLETED)
    t.supervisor.add(Unit(name="b", body=works, requirements=(done,)))
    supervisor = t.supervisor
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await supervisor.wait_until("a", Stage.READY)
        assert supervisor.status("a").ran_sec is None
        await supervisor.wait_until("a", Stage.COMPLETED)
        assert supervisor.status("a").ran_sec == 2.5
        assert supervisor.status("a").reason == "completed after 2.5 s"
        assert supervisor.is_awaited("a", Condition.READY, Condition.COMPLETED)
        assert not supervisor.is_awaited("a", Condition.READY)
        assert not supervisor.is_awaited("b", *Condition)
        nursery.cancel_scope.cancel()


async def test_waiting_dependents_keep_waiting_across_restarts(tree: MakeTree) -> None:
    t = tree()
    db = t.add("db", start_sec=10, restart=IN_A_SECOND)
    t.add("api", "db")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(t.supervisor.run)
        await trio.sleep(5)
        assert t.supervisor.status("api").reason == "waiting for db to be ready"
        assert t.supervisor.status("api").waiting_for == ("db",)
        t.supervisor.ask_restart("db")
        await trio.sleep(5)
        assert t.supervisor.status("api").stage is Stage.WAITING
        t.supervisor.ask_restart("api")  # while it waits
        await t.supervisor.wait_until("api", Stage.READY)
        assert t.log.count("db starts") == 2
        assert t.log.index("db ready") < t.log.index("api starts")
        assert db.live == 1
        nursery.cancel_scope.cancel()


async def test_a_one_shot_completes_before_its_dependent_starts(tree: MakeTree) -> None:
    t = tree()
    migrate = t.add("migrate")
    t.add("api", "migrate:completed_successfully")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(t.supervisor.run)
        await t.supervisor.wait_until("migrate", Stage.READY)
        await wait_all_tasks_blocked()
        assert t.supervisor.status("api").stage is Stage.WAITING
        migrate.finish()
        await t.supervisor.wait_until("api", Stage.READY)
        assert t.supervisor.status("migrate").stage is Stage.COMPLETED
        nursery.cancel_scope.cancel()


async def test_a_dependent_of_started_does_not_wait_for_ready(tree: MakeTree) -> None:
    t = tree()
    t.add("slow", start_sec=100)
    t.add("fast", "slow:started")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(t.supervisor.run)
        await t.supervisor.wait_until("fast", Stage.READY)
        assert t.supervisor.status("slow").stage is Stage.STARTING
        nursery.cancel_scope.cancel()


async def test_when_everything_has_completed_the_tree_ends(tree: MakeTree) -> None:
    t = tree()
    one, two = t.add("one"), t.add("two")
    t.add("http", keeps_alive=False, stop_sec=1)
    async with trio.open_nursery() as nursery:
        await nursery.start(t.supervisor.run)
        one.finish()
        await wait_all_tasks_blocked()
        assert t.supervisor.running
        two.crash("bad")
    assert not t.supervisor.running
    assert t.supervisor.stopping == "everything has ended"
    assert t.supervisor.status("two").stage is Stage.FAILED
    assert t.log[-1] == "http down"


async def test_keep_keeps_a_tree_whose_units_have_all_ended(tree: MakeTree) -> None:
    t = tree(keep=True)
    body = t.add("one")
    async with t.running() as supervisor:
        body.finish()
        await supervisor.wait_until("one", Stage.COMPLETED)
        await trio.sleep(1000)
        assert supervisor.running


async def test_a_unit_stopped_by_hand_keeps_the_tree_alive(tree: MakeTree) -> None:
    t = tree()
    t.add("one")
    async with t.running() as supervisor:
        await supervisor.stop_unit("one")
        assert supervisor.status("one").stage is Stage.IDLE
        await trio.sleep(1000)
        assert supervisor.running
        await supervisor.start_unit("one")
        assert supervisor.status("one").stage is Stage.READY


async def test_an_end_that_ends_the_tree_stops_everything_in_order(tree: MakeTree) -> None:
    t = tree()
    t.add("db")
    api = t.add("api", "db", ends_tree=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(t.supervisor.run)
        api.crash("exit 7")
    assert t.supervisor.ended_by == "api"
    assert t.supervisor.stopping == "api exit 7"
    assert t.log[-2:] == ["api down", "db down"]


async def test_stopping_in_backoff_and_while_waiting_is_immediate(tree: MakeTree) -> None:
    t = tree()
    body = t.add("a", restart=RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=1000))
    async with t.running() as supervisor:
        body.crash()
        await supervisor.wait_until("a", Stage.BACKOFF)
        t.add("b", "a")
        await wait_all_tasks_blocked()
        before = trio.current_time()
        await supervisor.stop_unit("b")
        await supervisor.stop_unit("a")
        assert supervisor.status("a").stage is Stage.IDLE
        assert supervisor.status("a").reason == "stopped before it was started"
        assert trio.current_time() == before
    assert trio.current_time() == before


async def test_a_start_in_backoff_does_not_wait_for_the_delay(tree: MakeTree) -> None:
    t = tree()
    body = t.add("a", restart=RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=1000))
    async with t.running() as supervisor:
        body.crash()
        await supervisor.wait_until("a", Stage.BACKOFF)
        before = trio.current_time()
        await supervisor.start_unit("a")
        assert trio.current_time() == before


async def test_a_restart_is_a_new_generation_and_never_two_at_once(tree: MakeTree) -> None:
    t = tree()
    t.add("a", start_sec=1, stop_sec=3)
    async with t.running() as supervisor:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(supervisor.restart_unit, "a")
        assert supervisor.status("a").stage is Stage.READY
        assert supervisor.status("a").generation == 2


async def test_restart_dependents_go_down_in_reverse_and_come_back_in_order(
    tree: MakeTree,
) -> None:
    t = tree()
    db = t.add("db", restart=AT_ONCE, restart_dependents=True, start_sec=1)
    t.add("api", "db", stop_sec=1)
    t.add("web", "api", stop_sec=1)
    t.add("aside")
    async with t.running() as supervisor:
        t.log.clear()
        db.crash()
        await supervisor.wait_until("web", Stage.STOPPING)
        await supervisor.wait_until("web", Stage.READY)
        assert [line for line in t.log if not line.startswith("db")] == [
            *("web down", "api down", "api starts", "api ready", "web starts", "web ready"),
        ]
        t.log.clear()
        await supervisor.restart_unit("db")
        await supervisor.wait_until("web", Stage.READY)
        assert t.log == [
            *("web down", "api down", "db down"),
            *("db starts", "db ready", "api starts", "api ready", "web starts", "web ready"),
        ]
        reasons = [event.reason for event in supervisor.why("web")]
        assert "asked to restart" in reasons


async def test_why_leads_from_a_restart_back_to_the_crash(tree: MakeTree) -> None:
    t = tree()
    db = t.add("db", restart=IN_A_SECOND, restart_dependents=True)
    t.add("api", "db")
    async with t.running() as supervisor:
        db.crash("disk full")
        await supervisor.wait_until("api", Stage.STOPPING)
        await supervisor.wait_until("api", Stage.READY)
        chain = [(event.unit, event.reason) for event in supervisor.why("api")]
    assert chain[0][0] == "api"
    assert ("db", "disk full; restart in 1 s") in chain
    assert chain[-1][0] == "db"


async def test_why_a_unit_started_is_what_it_waited_for_last(tree: MakeTree) -> None:
    t = tree()
    t.add("slow", start_sec=5)
    t.add("quick", start_sec=1)
    t.add("api", "slow", "quick")
    async with t.running() as supervisor:
        chain = [(event.unit, event.new) for event in supervisor.why("api")]
    assert chain == [
        ("api", "running"),
        ("api", "starting"),
        ("slow", "running"),
        ("slow", "starting"),
    ]


async def test_stopping_one_unit_leaves_its_dependents_alone(tree: MakeTree) -> None:
    t = tree()
    t.add("db")
    t.add("api", "db")
    async with t.running() as supervisor:
        await supervisor.stop_unit("db")
        assert supervisor.status("api").stage is Stage.READY
        await supervisor.restart_unit("db")
        assert t.log.count("api starts") == 1


async def test_starting_a_unit_starts_what_it_needs(tree: MakeTree) -> None:
    t = tree()
    t.add("db", autostart=False)
    t.add("api", "db", autostart=False)
    t.add("other")
    async with t.running() as supervisor:
        assert supervisor.status("db").stage is Stage.IDLE
        await supervisor.start_unit("api")
        assert supervisor.status("db").stage is Stage.READY


async def test_what_an_autostarted_unit_needs_is_started_too(tree: MakeTree) -> None:
    t = tree()
    t.add("base", autostart=False)
    t.add("db", "base", autostart=False)
    t.add("api", "db")
    async with t.running() as supervisor:
        assert supervisor.status("base").stage is Stage.READY
        assert supervisor.status("api").stage is Stage.READY


async def test_units_come_and_go_while_the_tree_runs(tree: MakeTree) -> None:
    t = tree()
    t.add("db")
    async with t.running() as supervisor:
        t.add("api", "db")
        await supervisor.wait_until("api", Stage.READY)
        with pytest.raises(DuplicateUnitError):
            t.add("api")
        with pytest.raises(UnknownUnitError):
            t.add("x", "nobody")
        with pytest.raises(UnitInUseError, match="needed by api"):
            await supervisor.remove("db")
        assert supervisor.names == ["db", "api"]
        await supervisor.remove("api")
        assert supervisor.names == ["db"]
        assert t.log[-1] == "api down"
        with pytest.raises(UnknownUnitError):
            supervisor.status("api")
        await supervisor.stop_unit("db")
        await supervisor.remove("db")
        assert supervisor.names == []


async def test_units_can_be_removed_before_the_tree_runs(tree: MakeTree) -> None:
    t = tree()
    t.add("a")
    await t.supervisor.remove("a")
    assert t.supervisor.names == []


async def test_a_failing_start_raises_for_the_one_who_waits(tree: MakeTree) -> None:
    async def dies(*, task_status: UnitHandle) -> None:
        raise OSError("no disk")

    t = tree(keep=True)
    t.supervisor.add(Unit(name="a", body=dies, autostart=False))
    async with t.running() as supervisor:
        with pytest.raises(UnitFailedError, match="a did not become ready: no disk"):
            await supervisor.start_unit("a")


async def test_a_body_that_never_reports_ready_has_failed(tree: MakeTree) -> None:
    async def forgets(*, task_status: UnitHandle) -> None:
        await trio.sleep(1)

    t = tree(keep=True)
    t.supervisor.add(Unit(name="a", body=forgets))
    async with t.running() as supervisor:
        assert supervisor.status("a").stage is Stage.FAILED
        assert supervisor.status("a").reason == "a ended without ever reporting that it was ready"


async def test_a_body_that_reports_ready_twice_has_failed(tree: MakeTree) -> None:
    async def twice(*, task_status: UnitHandle) -> None:
        task_status.started()
        task_status.started()

    t = tree(keep=True)
    t.supervisor.add(Unit(name="a", body=twice))
    async with t.running() as supervisor:
        await supervisor.wait_until("a", Stage.FAILED)
        assert "twice" in supervisor.status("a").reason


async def test_a_group_of_failures_is_told_by_its_first(tree: MakeTree) -> None:
    async def dies(*, task_status: UnitHandle) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 5)
            raise KeyError

    t = tree(keep=True)
    t.supervisor.add(Unit(name="a", body=dies))
    async with t.running() as supervisor:
        assert supervisor.status("a").reason == "KeyError"


async def test_a_body_may_say_that_only_clearing_up_remains(tree: MakeTree) -> None:
    async def body(*, task_status: UnitHandle) -> None:
        task_status.started()
        await trio.sleep(1)
        current_unit().ending("the leader is gone")
        current_unit().ending("still")
        await trio.sleep(1)
        raise OSError("exited")

    t = tree(keep=True)
    t.supervisor.add(Unit(name="a", body=body))
    async with t.running() as supervisor:
        await supervisor.wait_until("a", Stage.STOPPING)
        assert supervisor.status("a").reason == "the leader is gone"
        await supervisor.wait_until("a", Stage.FAILED)
        assert supervisor.status("a").reason == "exited"


async def test_a_stop_that_fails_is_a_failure_with_its_reason(tree: MakeTree) -> None:
    async def body(*, task_status: UnitHandle) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("could not unmount")

    t = tree(keep=True)
    t.supervisor.add(Unit(name="a", body=body))
    async with t.running() as supervisor:
        await supervisor.stop_unit("a")
        assert supervisor.status("a").state == "failed"
        assert supervisor.status("a").reason == "stopped, but could not unmount"


async def test_a_unit_whose_table_forbids_a_start_fails_and_hurts_nobody(tree: MakeTree) -> None:
    stages = Stages(*[UnitState.FAILED] * 5)
    cell = Lifecycle("a", UNIT_TABLE, stages, UnitState.STOPPED)
    t = tree(keep=True)
    t.add("a", lifecycle=cell)
    t.add("b")
    async with t.running() as supervisor:
        assert supervisor.status("a").stage is Stage.FAILED
        assert isinstance(supervisor.status("a").error, IllegalTransitionError)
        assert supervisor.status("b").stage is Stage.READY


async def test_a_crash_looping_unit_does_not_hold_up_the_end_of_start_up(tree: MakeTree) -> None:
    async def dies(*, task_status: UnitHandle) -> None:
        raise OSError("no disk")

    t = tree()
    policy = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=1, factor=1)
    t.supervisor.add(Unit(name="a", body=dies, restart=policy))
    t.add("b", "a")
    t.add("c", "b")
    start = trio.current_time()
    async with t.running():
        assert trio.current_time() == start


async def test_start_up_goes_on_while_what_waits_for_a_completed_unit_starts(
    tree: MakeTree,
) -> None:
    t = tree()
    migrate = t.add("migrate")
    t.add("db", "migrate:completed_successfully", start_sec=5)
    t.add("api", "db", start_sec=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(t.supervisor.run)
        await t.supervisor.wait_until("migrate", Stage.READY)
        before = trio.current_time()
        migrate.finish()
        await t.supervisor.wait_settled()
        assert trio.current_time() - before == 10
        assert t.supervisor.status("api").stage is Stage.READY
        nursery.cancel_scope.cancel()


async def test_a_tree_told_to_stop_before_it_runs_starts_nothing(tree: MakeTree) -> None:
    t = tree()
    t.add("a")
    t.supervisor.ask_stop_tree("changed my mind")
    await t.supervisor.run()
    assert t.log == []


async def test_an_empty_tree_waits_for_its_first_unit(tree: MakeTree) -> None:
    t = tree()
    async with t.running() as supervisor:
        await trio.sleep(1000)
        t.add("late")
        await supervisor.wait_until("late", Stage.READY)


async def test_a_supervisor_runs_again_once_it_has_ended(tree: MakeTree) -> None:
    t = tree()
    body = t.add("a")
    async with t.running() as supervisor:
        with pytest.raises(RuntimeError, match="runs already"):
            await supervisor.run()
    async with trio.open_nursery() as nursery:
        await nursery.start(t.supervisor.run)
        assert t.supervisor.stopping is None
        assert t.supervisor.status("a").stage is Stage.READY
        body.finish()
    assert t.supervisor.stopping == "everything has ended"
    t.add("late")
    with pytest.raises(UnitFailedError, match="the tree stops"):
        t.supervisor.ask_start("late")


async def test_waiting_for_the_end(tree: MakeTree) -> None:
    t = tree()
    body = t.add("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(t.supervisor.run)
        await t.supervisor.wait_settled()
        body.finish()
        await t.supervisor.wait_ended()


async def test_the_whole_stop_ends_within_its_budget(tree: MakeTree) -> None:
    t = tree(stop_within_sec=10)
    t.add("db", stop_sec=1000)
    t.add("api", "db", stop_sec=1000)
    async with t.running():
        before = trio.current_time()
    assert trio.current_time() - before == pytest.approx(10, abs=1)
    assert t.supervisor.stop_left_sec <= 1


async def test_force_ends_a_stop_under_way_at_once(tree: MakeTree) -> None:
    t = tree()
    t.add("db", stop_sec=1000)
    t.add("api", "db", stop_sec=1000)
    async with trio.open_nursery() as nursery:
        await nursery.start(t.supervisor.run)
        t.supervisor.ask_stop_tree("enough")
        await trio.sleep(3)
        assert t.supervisor.status("db").stage is Stage.READY
        before = trio.current_time()
        t.supervisor.force()
    assert trio.current_time() == before


async def test_a_cancelled_block_is_not_shielded_and_the_tree_stops(tree: MakeTree) -> None:
    t = tree(stop_within_sec=10)
    t.add("db", stop_sec=4)
    start = trio.current_time()
    with trio.move_on_after(5) as scope:
        async with t.running():
            try:
                await trio.sleep_forever()
            finally:
                assert trio.current_time() - start == 5
    assert scope.cancelled_caught
    assert trio.current_time() - start == 9
    assert t.log[-1] == "db down"


async def test_supervisors_nest_in_one_namespace_and_one_budget(tree: MakeTree) -> None:
    outer = tree(stop_within_sec=10)
    inner = tree(path="worker", events=outer.supervisor.events)
    cpu = inner.add("cpu-0", start_sec=2, stop_sec=3, restart=IN_A_SECOND)
    outer.add("db")
    outer.supervisor.add(
        Unit(
            name="worker",
            body=inner.supervisor.run,
            inner=inner.supervisor,
            requirements=(Requirement("db"),),
        )
    )
    outer.add("web", "worker")
    async with outer.running() as supervisor:
        assert [s.name for s in supervisor.statuses()] == ["db", "worker", "worker/cpu-0", "web"]
        where, name = supervisor.locate("worker/cpu-0")
        assert (where, name) == (inner.supervisor, "cpu-0")
        assert supervisor.locate("db") == (supervisor, "db")
        for unknown in ("db/x", "worker/x", "x"):
            with pytest.raises(UnknownUnitError):
                supervisor.locate(unknown)
        cpu.crash()
        await where.wait_until("cpu-0", Stage.BACKOFF)
        await where.wait_until("cpu-0", Stage.READY)
        assert supervisor.status("worker").generation == 1
        units = {entry.item.unit for entry in supervisor.events.tail()}
        assert {"db", "worker", "worker/cpu-0", "web"} <= units
        before = trio.current_time()
    assert trio.current_time() - before == 3
    assert inner.log[-1] == "cpu-0 down"


async def test_a_nested_tree_that_cannot_stop_is_bounded_by_the_outer_budget(
    tree: MakeTree,
) -> None:
    outer = tree(stop_within_sec=5)
    inner = tree(path="worker", events=outer.supervisor.events, stop_within_sec=1000)
    inner.add("cpu-0", stop_sec=10_000)
    outer.supervisor.add(Unit(name="worker", body=inner.supervisor.run, inner=inner.supervisor))
    async with outer.running():
        before = trio.current_time()
    assert trio.current_time() - before <= 5


def test_outside_every_unit_the_current_one_has_no_name() -> None:
    handle = current_unit()
    assert handle.path == ""
    handle.started()
    handle.ending("x")


@pytest.mark.parametrize("ticks", range(40))
async def test_cancelled_at_any_tick_every_body_is_down_and_every_state_at_rest(
    tree: MakeTree, ticks: int
) -> None:
    t = tree()
    db = t.add("db", restart=AT_ONCE, restart_dependents=True)
    t.add("api", "db")
    inner = Supervisor(path="in", events=t.supervisor.events)
    inner.add(t.unit("deep"))
    t.supervisor.add(
        Unit(name="in", body=inner.run, inner=inner, requirements=(Requirement("db"),))
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(t.supervisor.run)
        for tick in range(ticks):
            await trio.lowlevel.checkpoint()
            if tick == 12:
                db.crash()
            if tick == 20:
                t.supervisor.ask_restart("api")
        nursery.cancel_scope.cancel()
    assert [body.live for body in t.bodies.values()] == [0, 0, 0]
    assert {s.state for s in t.supervisor.statuses()} <= {"stopped", "failed"}
    assert {s.stage for s in t.supervisor.statuses()} <= {Stage.IDLE, Stage.HELD}


# --- what services brought along ------------------------------------------------------------------


async def test_a_unit_may_refuse_to_start(tree: MakeTree) -> None:
    reasons = ["not configured"]

    def admit() -> None:
        if reasons:
            raise LookupError(reasons[0])

    t = tree(keep=True)
    t.add("a", admit=admit, restart=AT_ONCE)
    t.add("b", "a")
    async with t.running() as supervisor:
        status = supervisor.status("a")
        assert (status.stage, status.state, status.generation) == (Stage.FAILED, "stopped", 0)
        assert status.reason == "not configured"
        assert isinstance(status.error, LookupError)
        assert supervisor.status("b").reason == "not started: a not configured"
        with pytest.raises(UnitFailedError) as caught:
            await supervisor.start_unit("a")
        assert caught.value.__cause__ is supervisor.status("a").error
        reasons.clear()
        await supervisor.start_unit("b")
        assert supervisor.status("a").error is None


async def test_a_body_may_say_that_it_has_failed_already(tree: MakeTree) -> None:
    async def body(*, task_status: UnitHandle) -> None:
        task_status.started()
        await trio.sleep(1)
        task_status.failing("the link is down")
        await trio.sleep(1)
        raise OSError("the link is down")

    t = tree(keep=True, stop_within_sec=10)
    t.supervisor.add(Unit(name="a", body=body, restart=IN_A_SECOND))
    async with t.running() as supervisor:
        await supervisor.wait_until("a", Stage.STOPPING)
        assert supervisor.status("a").state == "failed"
        assert supervisor.status("a").reason == "the link is down"
        await supervisor.wait_until("a", Stage.BACKOFF)
        assert supervisor.status("a").reason == "the link is down; restart in 1 s"
        # That it failed is said once, and why it starts again leads back to it.
        await supervisor.wait_until("a", Stage.READY)
        chain = [(event.new, event.reason) for event in supervisor.why("a")]
        assert chain == [
            ("running", "ready after 0.00 s"),
            ("starting", "starting"),
            (None, "restart in 1 s"),
            ("failed", "the link is down"),
        ]


async def test_the_clearing_up_of_what_has_failed_is_bounded(tree: MakeTree) -> None:
    async def body(*, task_status: UnitHandle) -> None:
        task_status.started()
        task_status.failing("gone")
        with task_status.budget.polite(None):
            await trio.sleep_forever()
        raise OSError("gone")

    t = tree(keep=True, stop_within_sec=5)
    t.supervisor.add(Unit(name="a", body=body))
    begin = trio.current_time()
    async with t.running() as supervisor:
        await supervisor.wait_until("a", Stage.FAILED)
        assert trio.current_time() - begin == 4


async def test_a_body_that_holds_is_asked_to_stop_and_not_cancelled(tree: MakeTree) -> None:
    log: list[str] = []

    async def body(*, task_status: UnitHandle) -> None:
        over = trio.Event()

        async def live() -> None:
            task_status.started()
            await over.wait()
            await trio.sleep(1)
            log.append("left by itself")

        await task_status.hold(live, ask_to_stop=over.set)

    t = tree()
    t.supervisor.add(Unit(name="a", body=body))
    async with t.running() as supervisor:
        await supervisor.restart_unit("a")
        assert log == ["left by itself"]
        begin = trio.current_time()
    assert trio.current_time() - begin == 1  # cancelled from outside: likewise
    assert log == ["left by itself"] * 2


async def test_one_that_holds_late_is_told_at_once_what_it_missed(tree: MakeTree) -> None:
    told: list[float] = []

    async def body(*, task_status: UnitHandle) -> None:
        over = trio.Event()

        def stop() -> None:
            told.append(trio.current_time())
            over.set()

        task_status.started()
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        await task_status.hold(over.wait, ask_to_stop=stop)

    t = tree()
    t.supervisor.add(Unit(name="a", body=body))
    async with t.running() as supervisor:
        begin = trio.current_time()
        await supervisor.stop_unit("a")
        assert [moment - begin for moment in told] == [2]
        assert supervisor.status("a").state == "stopped"


async def test_a_unit_holds_in_one_task_only(tree: MakeTree) -> None:
    async def body(*, task_status: UnitHandle) -> None:
        async def hold_again() -> None:
            await current_unit().hold(trio.sleep_forever, ask_to_stop=lambda: None)

        await task_status.hold(hold_again, ask_to_stop=lambda: None)

    t = tree(keep=True)
    t.supervisor.add(Unit(name="a", body=body))
    async with t.running() as supervisor:
        assert supervisor.status("a").reason == "a holds already; a unit does so in one task"


async def test_many_units_are_added_at_once_or_not_at_all(tree: MakeTree) -> None:
    t = tree()
    t.add("db")
    async with t.running() as supervisor:
        web, api = t.unit("web", "api"), t.unit("api", "db")
        for wrong, error in (
            ([web, api, t.unit("db")], DuplicateUnitError),
            ([web, api, api], DuplicateUnitError),
            ([web, api, t.unit("x", "nobody")], UnknownUnitError),
            ([t.unit("x", "y"), t.unit("y", "x")], DependencyCycleError),
            ([web, api, t.unit("a/b")], UnitNameError),
            ([web, api, t.unit("")], UnitNameError),
        ):
            with pytest.raises(error):
                supervisor.add(*wrong)
            assert supervisor.names == ["db"]
        supervisor.add(web, api)  # in whatever order
        await supervisor.wait_until("web", Stage.READY)
        assert supervisor.names == ["db", "web", "api"]
        supervisor.add()


async def test_settled_says_whether_start_up_is_over(tree: MakeTree) -> None:
    t = tree()
    t.add("a", start_sec=1)
    assert not t.supervisor.settled
    async with trio.open_nursery() as nursery:
        nursery.start_soon(t.supervisor.run)
        await wait_all_tasks_blocked()
        assert not t.supervisor.settled
        await t.supervisor.wait_settled()
        assert t.supervisor.settled
        nursery.cancel_scope.cancel()


async def test_a_kind_may_move_the_states_of_what_is_not_live(tree: MakeTree) -> None:
    async def dies(*, task_status: UnitHandle) -> None:
        raise OSError("no disk")

    t = tree(keep=True)
    t.supervisor.add(Unit(name="a", body=dies))
    t.add("b")
    async with t.running() as supervisor:
        assert supervisor.status("a").stage is Stage.FAILED
        with pytest.raises(IllegalTransitionError, match="failed cannot become running"):
            supervisor.move("a", "running", "wish")
        assert supervisor.status("a").reason == "no disk"
        supervisor.move("a", "starting", "dealt with")
        status = supervisor.status("a")
        assert (status.state, status.reason, status.stage) == ("starting", "dealt with", Stage.IDLE)
        supervisor.move("a", "stopped", "and back")
        with pytest.raises(RuntimeError, match="b is live; only its body can say where it is"):
            supervisor.move("b", "stopped", "wish")
        await trio.sleep(100)
        assert supervisor.status("a").generation == 1  # nobody has asked for it again


async def test_a_start_asked_for_while_a_unit_ends_by_itself_is_not_lost(tree: MakeTree) -> None:
    t = tree(keep=True)
    body = t.add("a", start_sec=1)

    async def ends(*, task_status: UnitHandle) -> None:
        task_status.started()
        if supervisor.status("b").generation == 1:
            task_status.ending("exited with 1")
            await trio.sleep(5)
            raise OSError("exited with 1")
        await trio.sleep_forever()

    supervisor = t.supervisor
    supervisor.add(Unit(name="b", body=ends, ends_tree=True))
    async with t.running():
        assert supervisor.status("b").stage is Stage.STOPPING
        await supervisor.start_unit("b")
        assert supervisor.status("b").generation == 2
        assert supervisor.stopping is None
        assert [event.reason for event in supervisor.why("b")][-1] == "asked to start"
        # The same for what another unit needs.
        supervisor.ask_stop("a")
        t.add("c", "a", autostart=False)
        await supervisor.start_unit("c")
        assert body.live == 1


async def test_a_start_that_is_taken_back_while_a_unit_ends_is_none(tree: MakeTree) -> None:
    async def ends(*, task_status: UnitHandle) -> None:
        task_status.started()
        task_status.ending("exited with 1")
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        raise OSError("exited with 1")

    t = tree(keep=True)
    t.supervisor.add(Unit(name="a", body=ends))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await supervisor.stop_unit("a")
        await trio.sleep(100)
        assert supervisor.status("a").generation == 1


async def test_a_unit_can_be_removed_while_the_tree_stops(tree: MakeTree) -> None:
    t = tree()
    t.add("slow", stop_sec=5)
    t.add("quick")
    async with trio.open_nursery() as nursery:
        await nursery.start(t.supervisor.run)
        t.supervisor.ask_stop_tree("enough")
        await trio.sleep(1)
        t.add("late")
        with trio.fail_after(1):
            await t.supervisor.remove("quick")
            await t.supervisor.remove("late")
        assert t.supervisor.names == ["slow"]
        await t.supervisor.remove("slow")
        assert t.log[-1] == "slow down"


class Fatal(BaseException):
    pass


async def test_what_nobody_may_catch_stops_the_tree_in_order_first(tree: MakeTree) -> None:
    async def dies(*, task_status: UnitHandle) -> None:
        task_status.started()
        await trio.sleep(1)
        raise Fatal

    outer = tree()
    outer.add("db", stop_sec=2)
    outer.add("api", "db", stop_sec=2)
    inner = Supervisor(path="in", events=outer.supervisor.events)
    inner.add(outer.unit("deep", stop_sec=1), Unit(name="fatal", body=dies))
    outer.supervisor.add(
        Unit(name="in", body=inner.run, inner=inner, requirements=(Requirement("api"),))
    )
    begin = trio.current_time()
    with pytest.raises(BaseExceptionGroup) as caught:
        await outer.supervisor.run()
    assert caught.value.split(Fatal)[1] is None
    assert trio.current_time() - begin == 6
    assert outer.log[-3:] == ["deep down", "api down", "db down"]
    assert inner.stopping == "fatal cut off by Fatal"
    assert outer.supervisor.stopping == "in cut off by Fatal"
    assert outer.supervisor.ended_by == "in"
    assert inner.status("fatal").reason == "cut off by Fatal"
    assert inner.status("fatal").state == "failed"
    assert outer.supervisor.status("db").reason == "stopped"
    # And it can be run again.
    async with trio.open_nursery() as nursery:
        await nursery.start(outer.supervisor.run)
        assert outer.supervisor.status("api").stage is Stage.READY
        nursery.cancel_scope.cancel()


async def test_what_is_cut_off_at_the_end_of_the_budget_says_so(tree: MakeTree) -> None:
    async def deaf(*, task_status: UnitHandle) -> None:
        task_status.started()
        with trio.CancelScope(shield=True):
            await trio.sleep(100)

    t = tree(stop_within_sec=5)
    t.add("db")
    t.supervisor.add(Unit(name="deaf", body=deaf, requirements=(Requirement("db"),)))
    with trio.move_on_after(1):
        await t.supervisor.run()
    assert t.supervisor.status("db").reason == "cut off"
    assert t.supervisor.status("db").state == "failed"
