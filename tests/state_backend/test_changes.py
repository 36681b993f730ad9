"""Who waits for an invocation, or listens to a store, misses nothing and hears nothing twice."""

from __future__ import annotations

import anyio
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime.invocation import ErrorRecord, InvocationStatus, Outcome
from runtime.state_backend import Change, Changes

S = InvocationStatus
DONE = Outcome("i", S.SUCCESS, "1")

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def test_a_wake_while_one_looks_is_not_lost() -> None:
    changes = Changes()
    with changes.watch("i") as watch, trio.fail_after(9):
        changes.look_again(["i"])  # by another process, while we read the store
        await watch.wait()
        assert watch.outcome is None
        with trio.move_on_after(1) as scope:
            await watch.wait()  # that was one
        assert scope.cancelled_caught


async def test_an_end_that_is_told_says_how() -> None:
    changes = Changes()
    with changes.watch("i") as watch, trio.fail_after(9):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.wait)
            await wait_all_tasks_blocked()
            changes.publish([Change("i", S.SUCCESS, outcome=DONE)])
        assert watch.outcome == DONE


@pytest.mark.parametrize(
    ("steps", "woken"),
    [
        ([S.RUNNING], False),
        ([S.RUNNING, S.SUCCESS], True),
        ([S.KILLED], True),
        ([S.KILLED, S.REROUTED], False),
        ([S.KILLED, S.REROUTED, S.PENDING, S.KILLED], True),
    ],
)
async def test_what_comes_last_of_one_commit_counts(steps: list[S], woken: bool) -> None:
    changes = Changes()
    with changes.watch("i") as watch:
        mine = [Change("i", status, outcome=DONE) for status in steps]
        changes.publish([*mine, Change("j", S.FAILED)])
        with trio.move_on_after(1) as scope:
            await watch.wait()
    assert scope.cancelled_caught is not woken
    assert watch.outcome == (DONE if woken else None)


def standing(changes: Changes, invocation_id: str = "i") -> tuple[Outcome | None, bool]:
    """Return what is known of one without looking: how it has ended, and that it has not."""
    with changes.watch(invocation_id) as watch:
        return watch.outcome, watch.not_over


NOT_KNOWN = (None, False)
LONG = Outcome("i", S.SUCCESS, "1" * 1_001)
FAILED = Outcome("i", S.FAILED, error=ErrorRecord.of(ValueError("no")))


@pytest.mark.parametrize(
    ("change", "known"),
    [
        (Change("i", S.REGISTERED), (None, True)),
        (Change("i", S.RUNNING, cancel=True), (None, True)),
        (Change("i", S.SUCCESS, outcome=DONE), (DONE, False)),
        (Change("i", S.SUCCESS, elsewhere=True), NOT_KNOWN),
        (Change("i", S.SUCCESS, outcome=LONG), NOT_KNOWN),
        (Change("i", S.FAILED, outcome=FAILED), NOT_KNOWN),
        (Change("j", S.RUNNING), NOT_KNOWN),
    ],
)
def test_how_one_stands_is_known_from_what_was_told(
    change: Change, known: tuple[Outcome | None, bool]
) -> None:
    changes = Changes()
    changes.publish([change])
    assert standing(changes) == known
    changes.publish([Change("i", S.REROUTED)])
    assert standing(changes) == (None, True)


def test_nothing_is_known_any_more_where_nobody_knows_what_has_changed() -> None:
    for forget in (Changes.publish_unknown, Changes.look_again, lambda each: each.forget("i")):
        changes = Changes()
        changes.publish([Change("i", S.SUCCESS, outcome=DONE)])
        forget(changes)
        assert standing(changes) == NOT_KNOWN


def test_those_that_have_changed_last_are_remembered() -> None:
    changes = Changes()
    for number in range(10_000):
        changes.publish([Change(str(number), S.RUNNING)])
    changes.publish([Change("0", S.PAUSED), Change("i", S.RUNNING)])
    assert standing(changes, "0") == standing(changes, "2") == standing(changes) == (None, True)
    assert standing(changes, "1") == NOT_KNOWN


async def test_all_look_again_where_nobody_knows_what_has_changed() -> None:
    changes, woken = Changes(), []

    async def wait(name: str) -> None:
        with changes.watch(name) as watch:
            await watch.wait()
        woken.append(name)

    async with anyio.create_task_group() as group:
        for name in ("a", "a", "b"):
            group.start_soon(wait, name)
        await wait_all_tasks_blocked()
        assert sorted(changes.watched) == ["a", "b"]
        changes.look_again(["a", "nobody waits for this"])
        await wait_all_tasks_blocked()
        assert woken == ["a", "a"]
        changes.look_again()
    assert woken == ["a", "a", "b"]
    assert changes.watched == []


async def test_ends_are_told_to_all_who_wait_and_what_is_gone_is_looked_for() -> None:
    changes = Changes()
    with changes.watch("i") as one, changes.watch("i") as other, changes.watch("j") as gone:
        changes.tell_ends({"i": DONE, "j": None, "nobody waits for this": DONE})
        for watch in (one, other, gone):
            with trio.fail_after(9):
                await watch.wait()
        assert (one.outcome, other.outcome, gone.outcome) == (DONE, DONE, None)
    assert standing(changes) == NOT_KNOWN


def test_a_listener_may_stop_while_it_is_told() -> None:
    changes, heard = Changes(), []
    change = Change("i", S.SUCCESS)
    one = changes.listen(lambda _: (heard.append("one"), one.__exit__(None, None, None)))  # type: ignore[func-returns-value]
    one.__enter__()
    with changes.listen(lambda _: heard.append("other")):
        changes.publish([change])
        changes.publish([change])
    changes.publish([change])
    assert heard == ["one", "other", "other"]


def test_a_listener_that_fails_keeps_nothing_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    changes: Changes = Changes()
    heard: list[list[Change]] = []

    def fail(_: object) -> None:
        raise KeyError("mine")

    with changes.listen(fail), changes.listen(heard.append):
        changes.publish([Change("i", S.RUNNING)])
        changes.publish_unknown()
    assert heard == [[Change("i", S.RUNNING)], []]
    assert caplog.text.count("a listener for changes of the store has failed") == 2
