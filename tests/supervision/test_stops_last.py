"""What stops last is there until all others are down, within the same budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from runtime.supervision._exceptions import UnitFailedError
from runtime.supervision.graph import Stage
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitHandle

pytestmark = pytest.mark.usefixtures("autojump_clock")
MakeTree = Callable[..., Any]
LAST: dict[str, Any] = {"stops_last": True, "keeps_alive": False}


def downs(log: list[str]) -> list[str]:
    return [line.removesuffix(" down") for line in log if line.endswith(" down")]


async def test_it_is_stopped_when_all_others_are_down(tree: MakeTree) -> None:
    t = tree()
    t.add("page", **LAST)
    t.add("db", stop_sec=3)
    t.add("api", "db", stop_sec=2)
    t.add("job", stop_sec=1)
    async with t.running() as supervisor:
        supervisor.ask_stop_tree("asked to")
        with trio.move_on_after(4.9):
            await supervisor.wait_ended()
        status = supervisor.status("page")
        assert (status.stage, status.state) == (Stage.READY, "running")
        assert supervisor.status("db").stage is Stage.STOPPING
    assert downs(t.log) == ["job", "api", "db", "page"]


async def test_several_of_them_stop_among_themselves_as_units_do(tree: MakeTree) -> None:
    t = tree()
    t.add("inner", **LAST, stop_sec=1)
    t.add("outer", "inner", **LAST, stop_sec=1)
    t.add("side", **LAST)
    t.add("db", stop_sec=2)
    async with t.running():
        pass
    assert downs(t.log) == ["db", "side", "outer", "inner"]


async def test_what_one_of_them_needs_is_stopped_after_it(tree: MakeTree) -> None:
    t = tree()
    t.add("disk")
    t.add("db", "disk")
    t.add("page", "db", **LAST)
    t.add("api", "db", stop_sec=2)
    t.add("job", stop_sec=1)
    start = trio.current_time()
    async with t.running():
        pass
    assert trio.current_time() - start == 2
    assert downs(t.log) == ["job", "api", "page", "db", "disk"]


async def test_by_itself_it_is_stopped_and_restarted_like_any_other(tree: MakeTree) -> None:
    t = tree()
    t.add("page", **LAST)
    t.add("db")
    async with t.running() as supervisor:
        await supervisor.restart_unit("page")
        assert supervisor.status("page").generation == 2
        await supervisor.stop_unit("page")
        assert supervisor.status("db").stage is Stage.READY
    assert downs(t.log) == ["page", "page", "db"]


async def test_everything_has_ended_although_it_has_not(tree: MakeTree) -> None:
    t = tree()
    t.add("page", **LAST)
    body = t.add("job")
    async with trio.open_nursery() as nursery:
        await nursery.start(t.supervisor.run)
        body.finish()
    assert t.supervisor.stopping == "everything has ended"
    assert downs(t.log) == ["job", "page"]


async def test_others_leave_time_to_it_however_long_they_take(tree: MakeTree) -> None:
    for within_sec, kept_sec in ((30, 1), (5, 0.5)):
        t = tree(stop_within_sec=within_sec)
        t.add("hangs", stop_sec=1_000)
        told: list[float] = []

        async def page(*, task_status: UnitHandle, told: list[float] = told) -> None:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                told.append(task_status.budget.left_sec)
                with task_status.budget.final(None):
                    await trio.sleep(0.4)
                told.append(task_status.budget.left_sec)

        async def insists(*, task_status: UnitHandle) -> None:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                with task_status.budget.final(None):  # longer than politeness lasts
                    await trio.sleep_forever()

        t.supervisor.add(Unit(name="page", body=page, **LAST), Unit(name="insists", body=insists))
        start = trio.current_time()
        async with t.running():
            pass
        assert told[0] == pytest.approx(kept_sec)
        assert told[1] == pytest.approx(kept_sec - 0.4)
        assert trio.current_time() - start == pytest.approx(within_sec - kept_sec + 0.4)


@pytest.mark.parametrize("stopped_before", [False, True])
async def test_a_forced_stop_keeps_the_order_and_its_time(
    tree: MakeTree, stopped_before: bool
) -> None:
    t = tree()
    t.add("page", **LAST)
    t.add("db", stop_sec=1_000)
    t.add("api", "db", stop_sec=1_000)

    async def insists(*, task_status: UnitHandle) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with task_status.budget.final(None):
                await trio.sleep_forever()
            t.log.append("insists down")

    t.supervisor.add(Unit(name="insists", body=insists))
    async with t.running() as supervisor:
        if stopped_before:
            supervisor.ask_stop_tree("asked to")
            await trio.sleep(3)
        start = trio.current_time()
        supervisor.force(1)
        await supervisor.wait_last_ones()
        assert trio.current_time() - start == pytest.approx(0.9)
        assert "page down" not in t.log
        await supervisor.wait_ended()
        assert trio.current_time() - start == pytest.approx(0.9)
    assert downs(t.log)[-2:] == ["insists", "page"]
    assert sorted(downs(t.log)) == ["api", "db", "insists", "page"]


async def test_a_stop_that_is_made_shorter_leaves_time_to_it_as_well(tree: MakeTree) -> None:
    t = tree()
    t.add("page", **LAST)
    t.add("db", stop_sec=1_000)
    async with t.running() as supervisor:
        start = trio.current_time()
        supervisor.ask_stop_tree("asked to")
        supervisor.ask_stop_tree("hurry", within_sec=2)
        await supervisor.wait_ended()
        # Of two seconds a fifth of a second is kept for it, and of the rest a fifth for SIGKILL.
        assert trio.current_time() - start == pytest.approx(1.8 * 0.8)


async def test_it_is_the_last_one_of_its_own_supervisor(tree: MakeTree) -> None:
    outer = tree()
    inner = Supervisor(path="inner")
    parts = tree()
    inner.add(parts.unit("db", stop_sec=2), parts.unit("page", **LAST))
    outer.supervisor.add(Unit(name="inner", body=inner.run, inner=inner))
    outer.add("top", **LAST)
    outer.add("job", stop_sec=1)
    outer.log = parts.log
    for body in (*outer.bodies.values(), *parts.bodies.values()):
        body.log = parts.log
    async with outer.running() as supervisor:
        supervisor.ask_stop_tree("asked to")
        await trio.sleep(1.9)
        assert inner.status("page").stage is Stage.READY
        await inner.wait_ended()
    assert downs(parts.log) == ["job", "db", "page", "top"]


@pytest.mark.parametrize("by", ["db", "page"])
async def test_what_nobody_may_catch_keeps_the_order(tree: MakeTree, by: str) -> None:
    t = tree()
    t.add("slow", stop_sec=2)
    for name in ("db", "page"):

        async def body(*, task_status: UnitHandle, name: str = name) -> None:
            task_status.started()
            try:
                if name == by:
                    await trio.sleep(1)
                    raise KeyboardInterrupt
                await trio.sleep_forever()
            finally:
                t.log.append(f"{name} down")

        t.supervisor.add(Unit(name=name, body=body, stops_last=name == "page"))
    with pytest.RaisesGroup(KeyboardInterrupt):
        await t.supervisor.run()
    expected = {"db": ["db", "slow", "page"], "page": ["page", "db", "slow"]}
    assert downs(t.log) == expected[by]


async def test_one_that_dies_while_it_waits_is_not_started_again(tree: MakeTree) -> None:
    t = tree()
    body = t.add("page", **LAST, restart=RestartPolicy(when=RestartWhen.ALWAYS))
    t.add("db", stop_sec=5)
    async with t.running() as supervisor:
        supervisor.ask_stop_tree("asked to")
        await trio.sleep(1)
        body.crash()
        await supervisor.wait_last_ones()
        with pytest.raises(UnitFailedError, match="the tree stops: asked to"):
            await supervisor.start_unit("page")
    assert downs(t.log) == ["page", "db"]
    assert supervisor.status("page").generation == 1


async def test_a_second_run_has_the_same_order(tree: MakeTree) -> None:
    t = tree()
    t.add("page", **LAST)
    t.add("db", stop_sec=1)
    for _ in range(2):
        async with t.running():
            pass
    assert downs(t.log) == ["db", "page"] * 2


async def test_cancelled_from_outside_it_stops_last_too(tree: MakeTree) -> None:
    t = tree()
    t.add("page", **LAST)
    t.add("db", stop_sec=1)
    with trio.move_on_after(3):
        await t.supervisor.run()
    assert downs(t.log) == ["db", "page"]


# --- and who comes late ---------------------------------------------------------------------------


async def test_who_waits_for_the_others_is_not_waited_for() -> None:
    order: list[str] = []

    async def late(*, task_status: UnitHandle) -> None:
        await supervisor.wait_others_settled("late")
        order.append("late")
        task_status.started()
        await trio.sleep_forever()

    async def slow(*, task_status: UnitHandle) -> None:
        await trio.sleep(5)
        order.append("slow")
        task_status.started()
        await trio.sleep_forever()

    supervisor = Supervisor([Unit(name="late", body=late), Unit(name="slow", body=slow)])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        assert order == ["slow", "late"]
        supervisor.ask_stop_tree("enough")


async def test_a_stop_ends_the_wait_for_the_others() -> None:
    supervisor = Supervisor([Unit(name="late", body=never), Unit(name="slow", body=never)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await trio.sleep(1)
        async with trio.open_nursery() as waiting:
            waiting.start_soon(supervisor.wait_others_settled, "late")
            await trio.sleep(1)
            supervisor.ask_stop_tree("enough")
            asked = trio.current_time()
        assert trio.current_time() == asked  # and not when all is down


async def never(*, task_status: UnitHandle) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with task_status.budget.polite(3):
            await trio.sleep(2)
