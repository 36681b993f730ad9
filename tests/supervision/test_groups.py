"""Groups: who is restarted together, and who is left alone."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime.supervision.graph import Stage
from runtime.supervision.restart import GroupStrategy, RestartPolicy, RestartWhen, restarted_with
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitHandle

pytestmark = pytest.mark.usefixtures("autojump_clock")
MakeTree = Callable[..., Any]
AT_ONCE = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=0, factor=1)
IN_A_SECOND = RestartPolicy(when=RestartWhen.FAILURE, delay_sec=1, factor=2)
ALL, REST = GroupStrategy.ONE_FOR_ALL, GroupStrategy.REST_FOR_ONE


def make_group(t: Any, strategy: GroupStrategy, **members: dict[str, Any]) -> None:
    """Add units that are one group; *needs* among their fields is what they depend on."""
    companions = restarted_with(strategy, [[name] for name in members])
    t.supervisor.add(
        *(
            t.unit(name, *fields.pop("needs", ()), restarts_also=companions[name], **fields)
            for name, fields in members.items()
        )
    )


def generations(supervisor: Supervisor) -> list[int]:
    return [status.generation for status in supervisor.statuses()]


def stages(supervisor: Supervisor) -> list[Stage]:
    return [status.stage for status in supervisor.statuses()]


@pytest.mark.parametrize(
    ("strategy", "crashes", "after"),
    [
        (ALL, "a", [2, 2, 2, 1]),
        (ALL, "b", [2, 2, 2, 1]),
        (ALL, "c", [2, 2, 2, 1]),
        (REST, "a", [2, 2, 2, 1]),
        (REST, "b", [1, 2, 2, 1]),
        (REST, "c", [1, 1, 2, 1]),
    ],
)
async def test_a_crash_takes_along_whom_the_strategy_says(
    tree: MakeTree, strategy: GroupStrategy, crashes: str, after: list[int]
) -> None:
    t = tree()
    make_group(t, strategy, a={"restart": AT_ONCE}, b={"restart": AT_ONCE}, c={"restart": AT_ONCE})
    t.add("aside")
    async with t.running() as supervisor:
        t.bodies[crashes].crash()
        await wait_all_tasks_blocked()
        assert generations(supervisor) == after
        assert stages(supervisor) == [Stage.READY] * 4
        await supervisor.restart_unit(crashes)
        await wait_all_tasks_blocked()
        assert generations(supervisor) == [2 * n - 1 for n in after]


async def test_nobody_starts_again_before_all_are_down(tree: MakeTree) -> None:
    t = tree()
    make_group(t, ALL, a={"restart": AT_ONCE}, b={"stop_sec": 3}, c={"stop_sec": 1})
    async with t.running() as supervisor:
        t.log.clear()
        t.bodies["a"].crash()
        await wait_all_tasks_blocked()
        assert supervisor.status("a").reason == "waiting for b to be down and c to be down"
        assert supervisor.status("a").waiting_for == ("b", "c")
        await trio.sleep(2)
        assert supervisor.status("c").reason == "waiting for b to be down"
        await supervisor.wait_until("b", Stage.READY)
        await wait_all_tasks_blocked()
        assert t.log[:3] == ["a down", "c down", "b down"]
        assert generations(supervisor) == [2, 2, 2]


async def test_they_go_down_and_come_back_in_the_order_of_their_dependencies(
    tree: MakeTree,
) -> None:
    t = tree()
    make_group(t, ALL, a={"stop_sec": 1}, b={"needs": ["a"], "stop_sec": 1}, c={"needs": ["b"]})
    async with t.running() as supervisor:
        t.log.clear()
        await supervisor.restart_unit("a")
        await supervisor.wait_until("c", Stage.READY)
        assert t.log == [
            *("c down", "b down", "a down"),
            *("a starts", "a ready", "b starts", "b ready", "c starts", "c ready"),
        ]


async def test_why_leads_back_to_the_crash_of_the_other(tree: MakeTree) -> None:
    t = tree()
    make_group(t, ALL, a={"restart": IN_A_SECOND}, b={})
    async with t.running() as supervisor:
        t.bodies["a"].crash("disk full")
        await wait_all_tasks_blocked()
        chain = [(event.unit, event.reason) for event in supervisor.why("b")]
    assert ("b", "to restart with a") in chain
    assert chain[-1][0] == "a"
    assert ("a", "disk full; restart in 1 s") in chain


async def test_two_that_crash_together_make_one_round(tree: MakeTree) -> None:
    t = tree()
    make_group(t, ALL, a={"restart": AT_ONCE}, b={"restart": AT_ONCE}, c={})
    async with t.running() as supervisor:
        for round_ in range(2, 30):  # in whichever order they are judged
            t.bodies["a"].crash()
            t.bodies["b"].crash()
            await wait_all_tasks_blocked()
            assert generations(supervisor) == [round_] * 3
            assert stages(supervisor) == [Stage.READY] * 3


async def test_who_is_ending_already_is_judged_by_its_own_policy(tree: MakeTree) -> None:
    t = tree()
    crash = trio.Event()

    async def ends_slowly(*, task_status: UnitHandle) -> None:
        task_status.started()
        if not crash.is_set():
            await crash.wait()
            task_status.ending("exited with 1")
            await trio.sleep(2)
            raise OSError("exited with 1")
        await trio.sleep_forever()

    t.supervisor.add(
        t.unit("a", restart=AT_ONCE, restarts_also=("b",)),
        Unit(name="b", body=ends_slowly, restart=IN_A_SECOND, restarts_also=("a",)),
    )
    async with t.running() as supervisor:
        crash.set()
        await wait_all_tasks_blocked()
        t.bodies["a"].crash()
        await wait_all_tasks_blocked()
        assert stages(supervisor) == [Stage.WAITING, Stage.STOPPING]
        await supervisor.wait_until("b", Stage.BACKOFF)
        assert supervisor.status("b").reason == "exited with 1; restart in 1 s"
        await supervisor.wait_until("b", Stage.READY)
        assert generations(supervisor) == [2, 2]


async def test_one_that_is_given_up_or_has_finished_concerns_itself_alone(tree: MakeTree) -> None:
    t = tree(keep=True)
    never = RestartPolicy(when=RestartWhen.ALWAYS, max_restarts=0)
    make_group(t, ALL, a={"restart": never}, b={"restart": IN_A_SECOND}, c={})
    async with t.running() as supervisor:
        t.bodies["a"].crash()
        t.bodies["b"].finish()
        await wait_all_tasks_blocked()
        assert stages(supervisor) == [Stage.FAILED, Stage.COMPLETED, Stage.READY]
        assert generations(supervisor) == [1, 1, 1]
        await supervisor.restart_unit("a")
        await wait_all_tasks_blocked()
        assert generations(supervisor) == [2, 1, 2], "what has finished is not started again"


async def test_who_was_stopped_by_request_stays_so_and_who_backs_off_is_left_to_that(
    tree: MakeTree,
) -> None:
    t = tree()
    slowly = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=100)
    make_group(t, ALL, a={"restart": AT_ONCE}, b={}, c={"restart": slowly}, d={"autostart": False})
    async with t.running() as supervisor:
        await supervisor.stop_unit("b")
        t.bodies["c"].crash()
        await wait_all_tasks_blocked()
        before = supervisor.status("c")
        t.bodies["a"].crash()
        await wait_all_tasks_blocked()
        assert stages(supervisor) == [Stage.READY, Stage.IDLE, Stage.BACKOFF, Stage.IDLE]
        assert supervisor.status("c").next_restart_at == before.next_restart_at


async def test_who_is_asked_to_stop_while_it_is_restarted_stays_down(tree: MakeTree) -> None:
    t = tree()
    make_group(t, ALL, a={"restart": AT_ONCE}, b={"stop_sec": 3})
    async with t.running() as supervisor:
        t.bodies["a"].crash()
        await wait_all_tasks_blocked()
        await supervisor.stop_unit("b")
        await wait_all_tasks_blocked()
        assert stages(supervisor) == [Stage.READY, Stage.IDLE]


async def test_who_is_taken_along_takes_its_own_dependents_along(tree: MakeTree) -> None:
    t = tree()
    make_group(t, REST, a={"restart": AT_ONCE}, b={"restart_dependents": True})
    t.add("c", "b")
    t.add("d", "a")
    async with t.running() as supervisor:
        t.bodies["a"].crash()
        await wait_all_tasks_blocked()
        assert generations(supervisor) == [2, 2, 2, 1]


async def test_a_companion_that_is_removed_is_missed_by_nobody(tree: MakeTree) -> None:
    t = tree()
    make_group(t, ALL, a={"restart": AT_ONCE}, b={"stop_sec": 1})
    async with t.running() as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.remove, "b")
        await wait_all_tasks_blocked()
        t.bodies["a"].crash()
        await supervisor.wait_until("a", Stage.BACKOFF, Stage.WAITING)
        await supervisor.wait_until("a", Stage.READY)
        t.bodies["a"].crash()
        await wait_all_tasks_blocked()
        assert generations(supervisor) == [3]


# --- what does not start by itself ----------------------------------------------------------------


async def test_without_autostart_it_starts_when_something_needs_it_or_asks(tree: MakeTree) -> None:
    t = tree()
    t.add("manual", autostart=False)
    t.add("tools", autostart=False)
    t.add("api", "tools")
    async with t.running() as supervisor:
        assert stages(supervisor) == [Stage.IDLE, Stage.READY, Stage.READY]
        await supervisor.start_unit("manual")
        assert supervisor.status("manual").ready


async def test_what_was_never_started_does_not_keep_the_tree(tree: MakeTree) -> None:
    t = tree()
    t.add("manual", autostart=False)
    body = t.add("job")
    async with t.running() as supervisor:
        body.finish()
        await supervisor.wait_ended()
    assert supervisor.stopping == "everything has ended"


async def test_what_was_started_after_all_keeps_the_tree_until_it_has_ended(
    tree: MakeTree,
) -> None:
    t = tree()
    manual = t.add("manual", autostart=False)
    body = t.add("job")
    for _ in range(2):  # a second run knows nothing of the first
        async with t.running() as supervisor:
            await supervisor.start_unit("manual")
            body.finish()
            await wait_all_tasks_blocked()
            assert supervisor.running
            manual.finish()
            await supervisor.wait_ended()


async def test_a_second_run_does_not_count_what_the_first_has_started(tree: MakeTree) -> None:
    t = tree()
    t.add("manual", autostart=False)
    body = t.add("job")
    async with t.running() as supervisor:
        await supervisor.start_unit("manual")
    async with t.running() as supervisor:
        body.finish()
        await supervisor.wait_ended()


async def test_where_nothing_starts_by_itself_the_tree_waits_to_be_asked(tree: MakeTree) -> None:
    t = tree()
    body = t.add("manual", autostart=False)
    async with t.running() as supervisor:
        await trio.sleep(3600)
        assert supervisor.running
        await supervisor.start_unit("manual")
        body.finish()
        await supervisor.wait_ended()


async def test_a_tree_ends_when_the_last_that_went_on_is_removed(tree: MakeTree) -> None:
    t = tree()
    t.add("done")
    t.add("last")
    async with t.running() as supervisor:
        t.bodies["done"].finish()
        await wait_all_tasks_blocked()
        assert supervisor.running
        await supervisor.remove("last")
        await supervisor.wait_ended()


async def test_a_tree_ends_when_the_last_is_no_more_wanted_before_it_has_started(
    tree: MakeTree,
) -> None:
    t = tree()
    done = t.add("done")
    t.add("manual", "done:completed_successfully", autostart=False)
    async with t.running() as supervisor:
        supervisor.ask_start("manual")
        supervisor.ask_stop("manual")
        done.finish()
        await supervisor.wait_ended()
