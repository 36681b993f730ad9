"""What goes on while it does: events, lines, statistics."""

from __future__ import annotations

import re
import socket
import zlib
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime.invocation import InvocationStatus
from runtime.invocation.events import InvocationEvent
from runtime.supervision.events import Entry, EventKind, Journal, UnitEvent, is_passing
from runtime.supervision.unit import Unit, UnitHandle
from runtime_http import _serving, feed, usage
from runtime_http._compress import deflated
from runtime_http.feed import EventFeed

from .conftest import Serve, Site, follow, script, sleeper

MANIFEST: dict[str, Any] = {"processes": [sleeper("db")]}


def append_news(journal: Journal[UnitEvent]) -> None:
    journal.append(
        InvocationEvent(
            timestamp=datetime.now(UTC),
            unit="",
            kind=EventKind.INVOCATION,
            reason="",
            status=InvocationStatus.SUCCESS,
        )
    )


def append(journal: Journal[UnitEvent], count: int) -> None:
    for _ in range(count):
        journal.append(
            UnitEvent(
                timestamp=datetime.now(UTC),
                unit="db",
                kind=EventKind.NOTED,
                reason=str(journal.last + 1),
            )
        )


def make_feed(journal: Journal[UnitEvent]) -> EventFeed:
    def describe(entry: Entry[UnitEvent], newest: bool) -> object:
        return {"number": entry.sequence}

    return EventFeed(journal, lambda: {"last": journal.last}, describe)


async def collect(stream: Any, got: list[bytes]) -> None:
    async for data in stream:
        got.extend(part + b"\n\n" for part in data.split(b"\n\n")[:-1])


# --- the stream, with a clock of our own ---------------------------------------------------------


async def test_readers_get_every_event_once(autojump_clock: Any) -> None:
    journal = Journal[UnitEvent](100)
    append(journal, 5)
    feeding, shutdown = make_feed(journal), trio.Event()
    got: dict[int | None, list[bytes]] = {after: [] for after in (None, 0, 3, 5, 99)}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        for after, pieces in got.items():
            nursery.start_soon(collect, feeding.stream(after), pieces)
        await wait_all_tasks_blocked()
        for _ in range(10):
            append(journal, 7)
            await trio.sleep(0.03)
        await trio.sleep(1)
        append(journal, 1)  # what happens last is told as well
        shutdown.set()
    assert journal.last == 76

    def numbered(first: int) -> list[bytes]:
        return [feed.encode("noted", {"number": n}, n) for n in range(first, 77)]

    snapshot = feed.encode("snapshot", {"last": 5}, 5)
    assert got[0] == numbered(1)
    assert got[3] == numbered(4)
    assert got[5] == numbered(6)
    assert got[None] == got[99] == [snapshot, *numbered(6)]


async def test_who_comes_too_late_gets_a_snapshot(autojump_clock: Any) -> None:
    journal = Journal[UnitEvent](10)
    append(journal, 25)
    feeding, shutdown = make_feed(journal), trio.Event()
    got: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        nursery.start_soon(collect, feeding.stream(3), got)
        await trio.sleep(1)
        append(journal, 1)
        await trio.sleep(1)
        shutdown.set()
    assert got == [
        feed.encode("resync", {"missed": 12, "snapshot": {"last": 25}}, 25),
        feed.encode("noted", {"number": 26}, 26),
    ]


async def test_who_misses_events_of_invocations_alone_is_told_how_many(
    autojump_clock: Any,
) -> None:
    journal = Journal[UnitEvent](10, passing=is_passing)
    append(journal, 2)
    for _ in range(25):
        append_news(journal)
    append(journal, 1)
    feeding, shutdown = make_feed(journal), trio.Event()
    got: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        nursery.start_soon(collect, feeding.stream(0), got)
        await trio.sleep(1)
        shutdown.set()
    whole = b"".join(got)
    missed = feed.encode("missed", {"missed": 16})
    assert whole.startswith(b"id: 1\nevent: noted\n")
    assert whole.partition(missed)[0].count(b"id: ") == 2
    assert whole.partition(missed)[2].startswith(b"id: 19\nevent: invocation\n")
    assert whole.partition(missed)[2].count(b"id: ") == 10
    assert b"resync" not in whole


async def test_a_reader_that_is_slow_gets_what_is_kept_or_a_snapshot(autojump_clock: Any) -> None:
    journal = Journal[UnitEvent](10)
    feeding, shutdown = make_feed(journal), trio.Event()
    slow: list[bytes] = []

    async def read_slowly() -> None:
        async for data in feeding.stream(0):
            slow.append(data)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        nursery.start_soon(read_slowly)
        await wait_all_tasks_blocked()
        append(journal, 1)
        await trio.sleep(0.2)
        append(journal, 5)
        await trio.sleep(1)
        append(journal, 50)
        await trio.sleep(5)
        shutdown.set()
    first, second, third = slow
    assert first.count(b"id: ") == 1
    assert second.count(b"id: ") == 5
    assert third.startswith(b"id: 56\nevent: resync\n")


async def test_a_comment_comes_when_nothing_happens(autojump_clock: Any) -> None:
    journal = Journal[UnitEvent](10)
    feeding, shutdown = make_feed(journal), trio.Event()
    got: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        nursery.start_soon(collect, feeding.stream(0), got)
        await trio.sleep(feed.ALIVE_SEC * 3.5)
        shutdown.set()
    assert got == [feed.ALIVE] * 3


async def test_who_takes_all_he_is_written_is_not_woken(autojump_clock: Any) -> None:
    journal = Journal[UnitEvent](1_000)
    feeding, shutdown = make_feed(journal), trio.Event()
    got: list[bytes] = []
    written: list[bytes] = []

    def write(data: bytes) -> bool:
        written.append(data)
        return True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        nursery.start_soon(collect, feeding.stream(None, write), got)
        await wait_all_tasks_blocked()
        for _ in range(300):  # longer than a comment would take to come
            append(journal, 2)
            await trio.sleep(0.1)
        assert len(got) == 1  # the snapshot
        numbers = [int(n) for n in re.findall(rb"^id: (\d+)$", b"".join(written), re.MULTILINE)]
        assert numbers == list(range(1, journal.last + 1))
        await trio.sleep(feed.ALIVE_SEC + 1)
        assert got[1:] == [feed.ALIVE]
        append(journal, 1)
        shutdown.set()
    assert len(got) == 3  # what happens last goes the long way


async def test_who_does_not_take_what_was_left_goes_on_by_himself(autojump_clock: Any) -> None:
    journal = Journal[UnitEvent](1_000)
    feeding, shutdown = make_feed(journal), trio.Event()
    taking = iter([True, False, True, False, False])
    written: list[tuple[bytes, bool]] = []
    pieces: list[bytes] = []

    def write(data: bytes) -> bool:
        written.append((data, next(taking)))
        return written[-1][1]

    async def read() -> None:
        pieces.extend([piece async for piece in feeding.stream(None, write)])

    def told(number: int) -> bytes:
        return feed.encode("noted", {"number": number}, number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        nursery.start_soon(read)
        for _ in range(3):
            await trio.sleep(1)
            append(journal, 1)
        await trio.sleep(1)
        shutdown.set()
    # The second was left in part, and taken at the next look; the third was not.
    assert written == [
        (told(1), True),
        (told(2), False),
        (b"", True),
        (told(3), False),
        (b"", False),
    ]
    assert pieces[1:] == [b":\n"]


async def test_the_end_of_the_journal_ends_nobody_before_the_shutdown(autojump_clock: Any) -> None:
    journal = Journal[UnitEvent](10)
    feeding, shutdown = make_feed(journal), trio.Event()
    got: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        nursery.start_soon(collect, feeding.stream(0), got)
        await wait_all_tasks_blocked()
        append(journal, 1)
        journal.close()
        await trio.sleep(1)
        assert len(got) == 1
        shutdown.set()


async def test_events_are_encoded_once_and_snapshots_shared(autojump_clock: Any) -> None:
    journal = Journal[UnitEvent](100)
    described: list[int] = []
    taken: list[int] = []
    feeding = EventFeed(
        journal,
        lambda: taken.append(journal.last),
        lambda entry, _: described.append(entry.sequence),
    )
    shutdown = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        for _ in range(50):
            nursery.start_soon(collect, feeding.stream(None), [])
        await wait_all_tasks_blocked()
        append(journal, 30)
        await trio.sleep(1)
        shutdown.set()
    assert described == list(range(1, 31))
    assert taken == [0]


async def test_readers_that_take_gzip_are_sent_the_same_whenever_they_came(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[bytes] = []

    def deflate(piece: bytes) -> bytes:
        packed.append(piece)
        return deflated(piece)

    monkeypatch.setattr(feed, "deflated", deflate)
    journal = Journal[UnitEvent](1_000)
    append(journal, 5)
    feeding, shutdown = make_feed(journal), trio.Event()
    got: list[list[bytes]] = [[], [], []]

    async def read(pieces: list[bytes], after: int | None) -> None:
        gunzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
        stream = feeding.stream(after, packed=True)
        pieces.extend([gunzip.decompress(piece) async for piece in stream])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        nursery.start_soon(read, got[0], 0)
        nursery.start_soon(read, got[1], 5)
        await wait_all_tasks_blocked()
        append(journal, 7)
        await trio.sleep(1)
        nursery.start_soon(read, got[2], None)
        await wait_all_tasks_blocked()
        append(journal, 7)
        await trio.sleep(feed.ALIVE_SEC + 1)
        shutdown.set()

    def told(first: int, last: int) -> bytes:
        numbers = range(first, last + 1)
        return b"".join(feed.encode("noted", {"number": n}, n) for n in numbers)

    news = told(13, 19)
    snapshot = feed.encode("snapshot", {"last": 12}, 12)
    assert got == [
        [b"", told(1, 5), told(6, 12), news, feed.ALIVE],
        [b"", told(6, 12), news, feed.ALIVE],
        [b"", snapshot, news, feed.ALIVE],
    ]
    assert packed.count(news) == 1


async def test_many_readers_are_told_at_once_after_a_quiet_and_then_have_to_wait(
    autojump_clock: Any,
) -> None:
    readers = 200
    rest = readers * feed._REST_PER_READER_SEC
    journal = Journal[UnitEvent](1_000)
    feeding, shutdown = make_feed(journal), trio.Event()
    told: list[tuple[float, int]] = []  # when one had how many events

    def write(data: bytes) -> bool:
        told.append((trio.current_time() - began, data.count(b"id: ")))
        return True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        for number in range(readers):
            stream = feeding.stream(None, write if number == 0 else lambda _: True)
            nursery.start_soon(collect, stream, [])
        await trio.sleep(1)
        began = trio.current_time()
        for _ in range(10):
            append(journal, 1)
            await trio.sleep(rest / 10)
        await trio.sleep(3 * rest)
        append(journal, 1)
        await trio.sleep(rest)
        shutdown.set()
    gather = feed._GATHER_SEC
    assert [count for _, count in told] == [1, 9, 1]
    assert [when for when, _ in told] == pytest.approx(
        [gather, gather + rest, 4 * rest + gather], abs=1e-6
    )


async def test_what_is_kept_encoded_is_bounded(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_KEPT", 20)
    journal = Journal[UnitEvent](1_000)
    append(journal, 900)
    feeding, shutdown = make_feed(journal), trio.Event()
    got: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeding.run, shutdown)
        nursery.start_soon(collect, feeding.stream(0), got)
        await trio.sleep(1)
        shutdown.set()
    assert len(got) == 900
    assert len(feeding._encoded) == 20


# --- over sockets --------------------------------------------------------------------------------


async def test_a_stream_begins_with_a_snapshot_and_goes_on(serve: Serve) -> None:
    async with serve(MANIFEST) as site, follow(site, "/events") as events:
        assert b"content-type: text/event-stream" in events.head
        snapshot = await anext(events)
        assert snapshot["event"] == "snapshot"
        assert [unit["name"] for unit in snapshot["data"]["units"]] == ["db", "http"]
        first = snapshot["id"]
        assert first == snapshot["data"]["last_event"]
        await site.post("/processes/db/restart")
        seen = [await anext(events)]
        while seen[-1]["data"]["new"] != "running":
            seen.append(await anext(events))
        assert [event["id"] for event in seen] == list(range(first + 1, first + 1 + len(seen)))
        assert seen[-1]["data"]["now"]["name"] == "db"


async def test_a_stream_is_resumed_by_the_number_of_an_event(serve: Serve) -> None:
    async with serve(MANIFEST) as site:
        await site.post("/processes/db/restart")
        last = site.application.supervisor.events.last
        for path, headers in (("/events", {"last_event_id": "2"}), ("/events?after=2", {})):
            async with follow(site, path, **headers) as events:
                numbers = [(await anext(events))["id"] for _ in range(last - 2)]
                assert numbers == list(range(3, last + 1))
        async with follow(site, "/events", last_event_id=str(last + 1_000)) as events:
            assert (await anext(events))["event"] == "snapshot"


async def test_a_stream_is_compressed_for_who_takes_that(serve: Serve) -> None:
    async with (
        serve(MANIFEST) as site,
        follow(site, "/events") as plain,
        follow(site, "/events", accept_encoding="gzip") as packed,
    ):
        assert b"content-encoding" not in plain.head
        assert b"content-encoding: gzip" in packed.head
        assert b"vary: accept-encoding" in plain.head
        assert [(await anext(each))["event"] for each in (plain, packed)] == ["snapshot"] * 2
        for _ in range(2):  # each piece is whole when it comes, without what comes next
            await site.post("/processes/db/restart")
            last = site.application.supervisor.events.last
            seen = [await anext(packed)]
            while seen[-1]["id"] < last:
                seen.append(await anext(packed))
            assert [await anext(plain) for _ in seen] == seen


async def test_streams_end_with_the_tree_and_tell_of_its_stop(serve: Serve) -> None:
    ends: list[list[dict[str, Any]]] = []
    connected: list[str] = []
    everybody = trio.Event()

    async def read(site: Site, path: str) -> None:
        async with follow(site, path) as events:
            connected.append(path)
            if len(connected) == 6:
                everybody.set()
            ends.append([event async for event in events])

    async with trio.open_nursery() as nursery:
        async with serve(units=[chatterbox()]) as site:
            for _ in range(6):
                nursery.start_soon(read, site, "/events")
            await everybody.wait()
            started = trio.current_time()
            await site.application.stop()
        took = trio.current_time() - started
    assert took < _serving.SLOW_CLIENT_SEC / 2
    assert len(ends) == 6
    for events in ends:
        assert events[-1]["data"]["stopping"]
        assert "chatterbox" in {event["data"].get("unit") for event in events}


async def test_a_reader_that_stops_reading_is_given_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_serving, "SLOW_CLIENT_SEC", 2)
    async with serve(units=[chatterbox()]) as site, await site.connect() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await deaf.send_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
        async with follow(site, "/events") as events:
            seen = [await anext(events) for _ in range(20_000)]
        # Who reads, and is late on a slow machine, is told what was missed.
        for one, next_one in pairwise(seen):
            assert next_one["id"] == one["id"] + 1 or next_one["event"] == "resync"
        got = 0
        with suppress(trio.BrokenResourceError):  # cut off in the midst of it
            while piece := await deaf.receive_some():
                got += len(piece)
        assert got < 20_000 * 200  # less than what there was


async def test_what_is_taken_in_part_arrives_whole(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, in_part, go = _serving._Stream.send_nowait, trio.Event(), trio.Event()

    def watch(stream: _serving._Stream, pieces: Sequence[bytes]) -> int:
        taken = write(stream, pieces)
        if 0 < taken < sum(map(len, pieces)):
            in_part.set()
        return taken

    monkeypatch.setattr(_serving._Stream, "send_nowait", watch)

    async def talk(*, task_status: UnitHandle) -> None:
        task_status.started()
        await go.wait()
        for _ in range(400):
            task_status.note("something" * 1_000)
        task_status.note("the end")
        await trio.sleep_forever()

    async with serve(units=[Unit(name="talker", body=talk)]) as site:
        client, text = h11.Connection(h11.CLIENT), bytearray()  # it minds the chunks
        async with await site.connect() as stream:
            request = h11.Request(method="GET", target="/events", headers=[("host", "localhost")])
            await stream.send_all((client.send(request) or b"") + client.send(h11.EndOfMessage()))
            while b"the end" not in text[-1_000:]:
                event = client.next_event()
                if event is h11.NEED_DATA:
                    client.receive_data(await stream.receive_some())
                elif isinstance(event, h11.Data):
                    text += event.data
                    if not go.is_set():
                        go.set()
                        await in_part.wait()  # until then nothing is read
    numbers = [int(number) for number in re.findall(rb"^id: (\d+)$", text, re.MULTILINE)]
    assert len(numbers) > 400
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_events_that_come_together_say_once_how_their_unit_stands(serve: Serve) -> None:
    async with serve(MANIFEST) as site, follow(site, "/events") as events:
        await anext(events)
        await site.post("/processes/db/restart")
        seen = [(await anext(events))["data"]]
        while seen[-1]["new"] != "running":
            seen.append((await anext(events))["data"])
        shown = [event["now"]["state"] for event in seen if "now" in event]
        assert 1 <= len(shown) < len(seen)
        assert shown[-1] == "running"
        assert all(("now" in event) == ("stopping" in event) for event in seen)


async def test_a_reader_that_stops_reading_holds_up_no_stop(serve: Serve) -> None:
    async with serve(units=[chatterbox()]) as site:
        deaf = await site.connect()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await deaf.send_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
        async with follow(site, "/events") as events:
            for _ in range(20_000):  # more than fits between us and the deaf one
                await anext(events)
        started = trio.current_time()
    assert trio.current_time() - started < _serving.SLOW_CLIENT_SEC / 2
    await trio.aclose_forcefully(deaf)


def chatterbox() -> Unit:
    """Return a unit that notes things without end."""

    async def talk(*, task_status: UnitHandle) -> None:
        task_status.started()
        while True:
            for _ in range(100):
                task_status.note("something" * 20)
            await trio.sleep(0.01)

    return Unit(name="chatterbox", body=talk)


async def test_lines_are_followed(serve: Serve, tmp_path: Path) -> None:
    code = "for i in 1 2 3; do echo out$i; echo err$i >&2; done; read x; echo more"
    manifest = {
        "processes": [
            script("api", f"mkfifo {tmp_path}/go; exec < {tmp_path}/go; {code}; exec sleep 1000")
        ]
    }
    async with serve(manifest) as site:
        path = "/processes/api/logs?follow=1&lines=2&stream=stdout"
        go = trio.Path(tmp_path) / "go"
        while not await go.exists():  # noqa: ASYNC110 - of another process
            await trio.sleep(0.01)
        async with await trio.open_file(go, "w") as writer:
            lines: list[Any] = []
            while len(lines) < 6:
                lines = (await site.get("/processes/api/logs")).json()["lines"]
            async with follow(site, path) as events:
                first = [(await anext(events))["data"]["text"] for _ in range(2)]
                assert first == ["out2", "out3"]
                await writer.write("x\n")
                await writer.flush()
                assert (await anext(events))["data"]["text"] == "more"


async def test_lines_are_resumed_by_the_number_of_one(serve: Serve) -> None:
    speaker = script("speaker", "for i in 1 2 3 4; do echo $i; done; exec sleep 1000")
    async with serve({"processes": [speaker]}) as site:
        pilot = site.application.pilot
        assert pilot is not None
        process = pilot.get_process_by_name("speaker")
        assert process is not None
        while process.output.lines.last < 4:
            await process.output.lines.wait_next(process.output.lines.last)
        path = "/processes/speaker/logs?follow=1"
        for seen, headers, expected in (
            ("", {}, ["1", "2", "3", "4"]),
            ("&after=2", {}, ["3", "4"]),
            ("", {"last_event_id": "3"}, ["4"]),
            ("&after=99&lines=2", {}, ["3", "4"]),  # of a tree before this one
        ):
            async with follow(site, f"{path}{seen}", **headers) as events:
                assert [(await anext(events))["data"]["text"] for _ in expected] == expected
        assert (await site.get(path, headers={"last-event-id": "x"})).status_code == 422
        assert (await site.get(f"{path}&after=-1")).status_code == 422


async def test_statistics_are_taken_while_somebody_asks(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "ASKED_AGAIN_SEC", 2.0)
    async with serve(MANIFEST) as site:
        pilot = site.application.pilot
        assert pilot is not None
        assert not pilot.sampler.watched
        stats = (await site.get("/stats")).json()["stats"]
        assert stats["db"]["memory_mb"] > 0
        detail = (await site.get("/processes/db/stats")).json()
        assert detail["name"] == "db"
        assert detail["history"][-1]["open_files"] >= 3
        assert detail["max_memory_mb"] > 0
        while pilot.sampler.watched:  # noqa: ASYNC110 - it tells nobody
            await trio.sleep(0.05)
        assert (await site.get("/stats")).json()["stats"].keys() == {"db"}


async def test_statistics_are_waited_for_in_vain_by_nobody(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open files may be hidden from us, and others may ask for more while somebody waits."""
    monkeypatch.setattr(usage, "_FIRST_LOOK_SEC", 600)
    monkeypatch.setattr("runtime._procfs.count_open", lambda _: None)
    answers: list[str] = []

    async with serve({"processes": [sleeper("a"), sleeper("b")]}) as site:

        async def ask(path: str) -> None:
            answers.append((await site.get(path)).text)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for path in ("/stats", "/processes/a/stats", "/stats", "/processes/b/stats"):
                    nursery.start_soon(ask, path)
    assert len(answers) == 4
    assert any('"open_files":null' in each for each in answers)


async def test_without_processes_there_are_no_statistics(serve: Serve) -> None:
    async with serve() as site:
        assert (await site.get("/stats")).json() == {"stats": {}}
