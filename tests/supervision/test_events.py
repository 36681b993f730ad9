"""A journal is bounded, ordered, and never waits for a reader."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime.supervision.events import Entry, EventKind, Journal
from runtime.supervision.supervisor import Supervisor


def test_items_are_numbered_from_one_and_the_oldest_go_first() -> None:
    journal: Journal[str] = Journal(3)
    assert [journal.append(c) for c in "abcde"] == [1, 2, 3, 4, 5]
    assert journal.tail() == [Entry(3, "c"), Entry(4, "d"), Entry(5, "e")]
    assert journal.tail(2) == [Entry(4, "d"), Entry(5, "e")]
    assert journal.tail(-1) == []
    assert journal.last == 5
    assert journal.entry(3) == Entry(3, "c")
    assert journal.entry(2) is None
    assert journal.entry(6) is None


def test_the_weight_is_bounded_too_but_the_newest_item_stays() -> None:
    journal: Journal[str] = Journal(100, weight_limit=5, weigh=len)
    for item in ("aaa", "bb", "c"):
        journal.append(item)
    assert [e.item for e in journal.tail()] == ["bb", "c"]
    journal.append("x" * 50)
    assert [e.item for e in journal.tail()] == ["x" * 50]


async def test_a_reader_gets_what_is_there_and_what_comes(autojump_clock: object) -> None:
    journal: Journal[int] = Journal(10)
    journal.append(1)
    got: list[int] = []

    async def read() -> None:
        async for entry in journal.read(after=0):
            got.append(entry.item)  # noqa: PERF401 - seen one by one from outside

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert got == [1]
        journal.append(2)
        journal.append(3)
        await wait_all_tasks_blocked()
        assert got == [1, 2, 3]
        journal.append(4)
        journal.close()
    assert got == [1, 2, 3, 4]


async def test_a_slow_reader_is_told_how_much_it_missed() -> None:
    journal: Journal[int] = Journal(2)
    reader = journal.read()
    for i in range(5):
        journal.append(i)
    assert await anext(reader) == Entry(4, 3, missed=3)
    assert await anext(reader) == Entry(5, 4)


async def test_a_reader_that_is_cancelled_has_lost_nothing(autojump_clock: object) -> None:
    journal: Journal[int] = Journal(2)
    reader = journal.read()
    with trio.move_on_after(1) as scope:
        await anext(reader)
    assert scope.cancelled_caught
    journal.append(7)
    assert (await anext(reader)).item == 7


async def test_events_of_a_nested_supervisor_carry_its_path() -> None:
    events = Supervisor(path="worker").events
    inner = Supervisor(path="worker", events=events)
    inner.ask_stop_tree("enough")
    (entry,) = events.tail()
    assert (entry.item.unit, entry.item.kind) == ("worker", EventKind.ASKED)


def test_a_journal_without_room_for_a_second_item_keeps_the_newest() -> None:
    journal: Journal[str] = Journal(1)
    journal.append("a")
    journal.append("b")
    with pytest.raises(IndexError):
        journal.tail()[1]
    assert journal.tail()[0].item == "b"


def test_what_passes_drives_nothing_else_out() -> None:
    journal: Journal[int] = Journal(4, passing=lambda item: item < 0)
    for item in (1, -1, 2, -2, -3, -4, -5, 3):
        journal.append(item)
    assert journal.tail() == [
        *(Entry(number, item) for number, item in ((1, 1), (3, 2))),
        *(Entry(number, item) for number, item in ((5, -3), (6, -4), (7, -5), (8, 3))),
    ]
    assert journal.tail(2, where=lambda item: item > 0) == [Entry(3, 2), Entry(8, 3)]
    assert [(each.sequence, each.missed) for each in journal.after(0, 10)] == [
        *((1, 0), (3, 1), (5, 1), (6, 0), (7, 0), (8, 0))
    ]
    assert [each.sequence for each in journal.after(1, 2)] == [3, 5]
    assert journal.after(3, 1) == [Entry(5, -3, missed=1)]
    assert (journal.entry(1), journal.entry(2), journal.entry(3)) == (
        Entry(1, 1),
        None,
        Entry(3, 2),
    )
    assert journal.lost == 0
    for item in (4, 5, 6):
        journal.append(item)
    assert [each.item for each in journal.tail()] == [3, 4, 5, 6]
    assert journal.lost == 3
