"""What happens to invocations is told in the stream of events, and never in a flood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from runtime import Application
from runtime.invocation.events import InvocationEvent
from runtime.invocation.status import InvocationStatus
from runtime.state_backend.changes import Change, Changes
from runtime.supervision.events import EventKind, Journal, UnitEvent
from runtime.tasks.told import PERIOD_SEC, TOLD_AT_ONCE, InvocationNews

_I = InvocationStatus


def told(journal: Journal[UnitEvent]) -> list[InvocationEvent]:
    return [each.item for each in journal.tail() if isinstance(each.item, InvocationEvent)]


def changes_of(status: InvocationStatus, numbers: Sequence[int]) -> list[Change]:
    return [Change(str(number), status, task="m.f") for number in numbers]


async def test_each_move_is_an_event_in_its_order(autojump_clock: object) -> None:
    app = Application()
    secret = "x" * 1000

    @app.task
    async def fail(words: str) -> None:
        raise ValueError(words)

    async with app:
        invocation = await fail.submit(f"line\none {secret}")
        await invocation.wait()
        events = told(app.supervisor.events)
    assert [each.status for each in events] == ["registered", "pending", "running", "failed"]
    assert {each.invocation_id for each in events} == {invocation.invocation_id}
    assert {(each.unit, each.kind, each.count) for each in events} == {("", "invocation", 1)}
    words = f"{invocation.invocation_id} of {fail.name}: failed, ValueError: line one xxx"
    assert events[-1].reason.startswith(words)
    assert len(events[-1].reason) < 400


async def test_a_flood_is_told_as_a_number_and_nothing_is_left_out(autojump_clock: object) -> None:
    app = Application(runners=[{"concurrency": 100}])
    number = 500

    @app.task
    async def nothing(n: int) -> None:
        """Do nothing."""

    async with app:
        for invocation in await nothing.submit_many([(n,) for n in range(number)]):
            await invocation.wait()
    events = told(app.supervisor.events)
    for status in ("registered", "pending", "running", "success"):
        of_it = [each for each in events if each.status == status]
        assert sum(each.count for each in of_it) == number
        alone = [each for each in of_it if each.invocation_id is not None]
        assert TOLD_AT_ONCE <= len(alone) <= 2 * TOLD_AT_ONCE
    assert len(events) < 100


async def test_a_new_period_begins_after_what_was_held_back_is_told(
    autojump_clock: object,
) -> None:
    journal: Journal[UnitEvent] = Journal(1000)
    changes, news = Changes(), InvocationNews(journal, lambda words: words)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(news.run)
        with news.listening(changes):
            changes.publish(changes_of(_I.SUCCESS, range(TOLD_AT_ONCE + 3)))
            changes.publish(changes_of(_I.FAILED, [100]))  # a flood of others hides no failure
            assert [each.status for each in told(journal)][-1] == "failed"
            await trio.sleep(PERIOD_SEC + 0.1)
            last = told(journal)[-1]
            assert (last.status, last.count, last.invocation_id) == ("success", 3, None)
            assert last.reason == "3 more invocations: success"
            changes.publish(changes_of(_I.SUCCESS, range(TOLD_AT_ONCE + 1)))
            assert told(journal)[-1].count == 1
            assert told(journal)[-1].invocation_id == str(TOLD_AT_ONCE - 1)
        assert told(journal)[-1].invocation_id is None  # the end tells what was held back
        nursery.cancel_scope.cancel()


async def test_a_busy_loop_keeps_the_order(autojump_clock: Any) -> None:
    journal: Journal[UnitEvent] = Journal(1000)
    changes, news = Changes(), InvocationNews(journal, lambda words: words)
    with news.listening(changes):
        changes.publish(changes_of(_I.RUNNING, range(TOLD_AT_ONCE + 5)))
        autojump_clock.jump(2 * PERIOD_SEC)  # and nobody had a turn to tell
        changes.publish(changes_of(_I.RUNNING, [77]))
        assert [each.count for each in told(journal)][-2:] == [5, 1]
        assert told(journal)[-1].invocation_id == "77"


async def test_what_other_processes_do_is_told_once_in_a_while(autojump_clock: object) -> None:
    journal: Journal[UnitEvent] = Journal(1000)
    changes, news = Changes(), InvocationNews(journal, lambda words: words.replace("secret", "***"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(news.run)
        with news.listening(changes):
            for _ in range(100):
                changes.publish_unknown()
                changes.publish([Change("1", _I.RUNNING, elsewhere=True)])
            changes.publish([Change("1", _I.RUNNING, cancel=True, task="m.f")])  # no move
            assert [each.status for each in told(journal)] == [None]
            await trio.sleep(PERIOD_SEC + 0.1)
            assert [each.status for each in told(journal)] == [None, None]
            changes.publish([Change("2", _I.KILLED, task="m.secret")])
            assert told(journal)[-1].reason == "2 of m.***: killed"
        nursery.cancel_scope.cancel()


async def test_it_drives_no_event_of_a_unit_out(autojump_clock: object) -> None:
    app = Application()

    async with app:
        journal = app.supervisor.events
        app.supervisor.ask_stop_tree("enough")
        before = [each for each in journal.tail() if each.item.kind is not EventKind.INVOCATION]
        changes, news = Changes(), InvocationNews(journal, lambda words: words)
        with news.listening(changes):
            for each in InvocationStatus:
                for _ in range(90):
                    changes.publish(changes_of(each, range(TOLD_AT_ONCE)))
                    await trio.sleep(PERIOD_SEC)
        kept = journal.tail(where=lambda event: event.kind is not EventKind.INVOCATION)
        assert kept[: len(before)] == before
        assert all(journal.entry(each.sequence) == each for each in before)
        assert journal.lost == 0
