"""What a process prints is read as fast as it comes, cut into lines, and kept as a bounded tail."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.process import output as module
from runtime.process.output import Line, LineSplitter, Output, read_lines

SHORT = 8  # bytes of the longest line, where a test wants to see many overlong ones


@pytest.fixture
def short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_LINE", SHORT)


def split(*chunks: bytes) -> list[str]:
    splitter = LineSplitter()
    return [*(text for chunk in chunks for text in splitter.feed(chunk)), *splitter.finish()]


def split_simply(data: bytes) -> list[str]:
    """Return the lines in the plainest way: what the splitter has to find, whatever the chunks."""
    *lines, last = data.split(b"\n")
    lines += [last] if last else []
    return [line.removesuffix(b"\r").decode(errors="replace") for line in lines]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"no end", ["no end"]),
        (b"one\n\n\nend", ["one", "", "", "end"]),
        (b"windows\r\nends\r\n", ["windows", "ends"]),
        (b"a\rb\r\r\n", ["a\rb\r"]),
        ("grüße\n".encode(), ["grüße"]),
        (b"\xff\xfe\nfine\n", ["\N{REPLACEMENT CHARACTER}" * 2, "fine"]),
        (b"\0\x1b[1m\n", ["\0\x1b[1m"]),
    ],
)
def test_lines_end_at_each_newline_and_at_the_end(data: bytes, lines: list[str]) -> None:
    assert split(data) == lines
    assert split(*(data[i : i + 1] for i in range(len(data)))) == lines


def chunked(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


streams = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.text(max_size=12).map(lambda text: text.encode(errors="surrogatepass")),
        st.sampled_from([b"\n", b"\r", b"\r\n", b"x" * SHORT, b"y" * (SHORT - 1), "€".encode()]),
    ),
    max_size=12,
).map(b"".join)
cuts = st.lists(st.integers(0, 1000), max_size=12)


@settings(deadline=None)
@given(streams, cuts)
def test_the_lines_are_the_same_in_whatever_chunks_they_come(data: bytes, cuts: list[int]) -> None:
    assert split(*chunked(data, cuts)) == split_simply(data)


@pytest.mark.usefixtures("short_lines")
@settings(deadline=None)
@given(streams, cuts)
def test_so_are_the_pieces_of_overlong_lines(data: bytes, cuts: list[int]) -> None:
    assert split(*chunked(data, cuts)) == split(data)


@pytest.mark.usefixtures("short_lines")
@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1))
def test_the_pieces_are_the_line_and_never_tear_a_character(text: str) -> None:
    pieces = split(text.encode() + b"\r\n")
    assert "".join(pieces) == text
    assert all(0 < len(piece.encode()) <= SHORT for piece in pieces)


@pytest.mark.usefixtures("short_lines")
def test_a_line_of_just_the_longest_length_is_one_piece() -> None:
    for data in (b"x" * SHORT + b"\n", b"x" * SHORT + b"\r\n", b"x" * SHORT):
        assert split(data) == split(*chunked(data, range(20))) == ["x" * SHORT]


def test_a_line_of_10_mb_comes_in_pieces_and_is_never_held_as_a_whole() -> None:
    splitter, size, held = LineSplitter(), 0, 0
    chunk = b"x" * 50_000
    for _ in range(210):
        size += sum(map(len, splitter.feed(chunk)))
        held = max(held, len(splitter._rest))
    assert held < module.LONGEST_LINE + 2
    assert size + sum(map(len, splitter.feed(b"\n"))) == 210 * len(chunk)
    assert splitter.finish() == []


# --- the tail ---------------------------------------------------------------------------------


def test_the_tail_is_bounded_in_lines_and_in_size() -> None:
    output = Output()
    output.add([Line("stdout", str(n), 0.0) for n in range(5000)])
    assert [entry.item.text for entry in output.lines.tail()] == [str(n) for n in range(4000, 5000)]
    output.add([Line("stdout", "x" * 65_536, 0.0)] * 50)
    kept = output.lines.tail()
    assert sum(len(entry.item.text) for entry in kept) == 262_144
    assert [entry.sequence for entry in kept] == [5047, 5048, 5049, 5050]
    assert output.lines.last == 5050


def test_new_lines_are_handed_on_as_they_come() -> None:
    handed: list[Sequence[Line]] = []
    output = Output()
    output.listeners["echo"] = handed.append
    lines = [Line("stderr", "a", 1.0), Line("stderr", "b", 1.0)]
    output.add(lines)
    output.add([])
    assert handed == [lines]


@pytest.fixture
def pipe() -> Generator[tuple[int, int]]:
    """A non-blocking end to read from, and one to write to that tests may close."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    with suppress(OSError):
        os.close(writer)


async def test_a_stream_is_read_to_its_end_with_times(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = Output()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_lines, reader, "stdout", output)
        for chunk in (b"a\nb", b"c\nd"):
            os.write(writer, chunk)
            await trio.testing.wait_all_tasks_blocked()
        os.close(writer)
    lines = [entry.item for entry in output.lines.tail()]
    assert [line.text for line in lines] == ["a", "bc", "d"]
    assert 0 < lines[0].timestamp <= lines[-1].timestamp


async def test_a_reader_that_is_cancelled_keeps_what_it_has_read(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = Output()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_lines, reader, "stdout", output)
        os.write(writer, b"a\nno end")
        with trio.fail_after(10):
            while not output.lines.last:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert [entry.item.text for entry in output.lines.tail()] == ["a", "no end"]


async def test_what_somebody_else_has_read_is_not_waited_for(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output, other = Output(), os.dup(reader)

    async def steal() -> None:
        while True:
            await trio.lowlevel.wait_readable(other)
            with suppress(BlockingIOError):
                os.read(other, 100)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(steal)
        async with trio.open_nursery() as reading:
            reading.start_soon(read_lines, reader, "stdout", output)
            for _ in range(30):  # each is for the one who comes first, and nothing for the other
                await trio.testing.wait_all_tasks_blocked()
                os.write(writer, b"a line\n")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    os.close(other)
    assert {entry.item.text for entry in output.lines.tail()} == {"a line"}


# --- real processes -------------------------------------------------------------------------------

# So many seconds, and many more bytes than a pipe holds: who is blocked for ever never ends.
WRITE = """
import os, sys, time
data = {data}
end, written = time.monotonic() + {seconds}, 0
while time.monotonic() < end or written < 100_000:
    written += os.write(1, data)
"""


async def test_what_is_printed_last_is_there_when_the_process_has_ended(room: Any) -> None:
    for _ in range(20):
        room.output = Output()
        script = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; printf last"
        async with room.open(room.sh(script)) as child:
            await child.wait_exit()
        assert room.lines() == [*(f"line {n}" for n in range(500)), "last"]


async def test_a_line_of_10_mb_without_end_from_a_real_process(room: Any) -> None:
    size = 10 * 1024 * 1024
    before = room.output.lines.last
    await room.run(room.py(f"import sys; sys.stdout.write('x' * {size})"))
    assert room.output.lines.last - before == size // module.LONGEST_LINE
    assert sum(map(len, room.lines())) == 262_144


@pytest.mark.parametrize(
    ("data", "seconds"),
    [(b"x" * 99 + b"\n", 2.1), (b"\n", 0.2), (b"x" * 64, 0.2)],
    ids=["lines", "empty lines", "no end"],
)
async def test_a_flood_neither_blocks_the_child_nor_us_nor_fills_the_memory(
    room: Any, look: Any, data: bytes, seconds: float
) -> None:
    lines_before, ticks = room.output.lines.last, 0
    code = WRITE.format(data=f"{data!r} * {65_536 // len(data)}", seconds=seconds)
    async with room.open(room.py(code)) as child, trio.open_nursery() as nursery:

        async def tick() -> None:
            nonlocal ticks
            while True:
                await trio.sleep(0.01)
                ticks += 1

        nursery.start_soon(tick)
        before = look.rss_mb()
        assert await child.wait_exit() == 0
        grown = look.rss_mb() - before
        nursery.cancel_scope.cancel()
    assert room.output.lines.last - lines_before >= 100_000 // module.LONGEST_LINE
    assert ticks >= 2, "other tasks did not run"
    assert grown < 50


async def test_what_nobody_reads_is_neither_kept_for_ever_nor_lost_without_a_word(
    room: Any,
) -> None:
    reader = room.output.lines.read()
    await room.run(room.py("for n in range(3000): print(n)"))
    entry = await anext(reader)
    assert (entry.item.text, entry.missed) == ("2000", 2000)
