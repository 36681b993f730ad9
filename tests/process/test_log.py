"""No line that makes a process ready is missed, whenever and however it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.process.host import Host
from runtime.process.output import LONGEST_LINE, Line
from runtime.process.readiness import Candidate, bind
from runtime.process.readiness.log import SEARCHED
from runtime.supervision.graph import Stage

ONCE: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}


def by_log(pattern: str, **fields: object) -> dict[str, Any]:
    return {
        "ready_strategy": "log",
        "ready_params": {"pattern": pattern},
        "ready_timeout_sec": 20,
        **fields,
    }


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("echo listening on 80; exec sleep 60", id="stdout"),
        pytest.param("echo listening on 80 >&2; exec sleep 60", id="stderr"),
        pytest.param("printf list; sleep 0.05; echo ening on 80; exec sleep 60", id="split"),
        pytest.param("seq 50000; echo listening on 80; seq 50000; exec sleep 60", id="among many"),
        pytest.param("(sleep 0.05; echo listening on 80) & wait; sleep 60", id="by a child"),
    ],
)
async def test_a_line_makes_a_process_ready(make_pilot: Any, sh: Any, script: str) -> None:
    async with make_pilot(sh(script, **by_log(r"listening on \d+$"))) as pilot:
        assert pilot.supervisor.status("p").ready
        assert pilot.get_process_by_name("p").output.listeners == {}


@pytest.mark.parametrize("end", ["\\n", ""], ids=["whole line", "no end"])
async def test_what_is_printed_at_the_very_end_counts(make_pilot: Any, sh: Any, end: str) -> None:
    for number in range(10):
        pilot = make_pilot(sh(f"printf 'done{end}'", f"p{number}", **by_log("^done$", **ONCE)))
        await pilot.start()
        assert pilot.supervisor.status(f"p{number}").stage is Stage.COMPLETED


async def test_an_end_without_the_line_is_one_before_it_was_ready(make_pilot: Any, sh: Any) -> None:
    # Its output is held open, by one that will not say anything.
    script = "sleep 60 & echo almost; exit 0"
    pilot = make_pilot(sh(script, **by_log("^done$", **ONCE)))
    await pilot.start()
    reason = pilot.supervisor.status("p").reason
    assert reason.startswith("exited with 0 before it was ready after ")
    assert reason.endswith(": no line matches '^done$'")


async def test_the_generation_before_does_not_count(
    make_pilot: Any, sh: Any, tmp_path: Path
) -> None:
    script = "if [ -e again ]; then exec sleep 60; fi; echo > again; echo listening; exit 1"
    restart = {"when": "always", "delay_sec": 0, "max_restarts": 1}
    fields = by_log("listening", ready_timeout_sec=0.3, restart=restart, working_directory=".")
    pilot = make_pilot(sh(script, **fields))
    await pilot.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.supervisor.wait_until, "p", Stage.FAILED)
    assert "not ready within 0.3 s" in pilot.supervisor.status("p").reason
    await pilot.stop()


async def test_what_is_printed_while_a_hook_runs_is_not_missed(make_pilot: Any, sh: Any) -> None:
    pilot = make_pilot(sh("echo listening; seq 3000; exec sleep 60", **by_log("listening")))
    process = pilot.get_process_by_name("p")

    async def hook(*_: object) -> None:
        async for entry in process.output.lines.read(after=0):
            if entry.item.text == "3000":
                return

    process.lifecycle_hook_functions["post_start"].append(hook)
    async with pilot:
        assert pilot.supervisor.status("p").ready


def say(candidate: Candidate, *texts: str) -> None:
    candidate.output.add([Line("stdout", text, 0.0) for text in texts])


async def test_outside_of_a_block_only_what_comes_is_searched() -> None:
    candidate, check = Candidate(), bind("log", {"pattern": "b"}, Path("/"))
    say(candidate, "b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(check.wait, Host(), candidate)
        await trio.testing.wait_all_tasks_blocked()
        assert candidate.obstacle == "no line matches 'b'"
        say(candidate, "a", "c")
        await trio.testing.wait_all_tasks_blocked()
        say(candidate, "a", "b", "c")
        say(candidate, "b")
    assert candidate.output.listeners == {}
    assert candidate.heard == {}


async def test_within_a_block_nothing_is_missed_and_it_can_be_waited_for_again() -> None:
    candidate, check = Candidate(), bind("log", {"pattern": "b"}, Path("/"))
    assert check.listens
    assert not check.can_probe
    with check.attend(candidate):
        say(candidate, "b")
        say(candidate, *map(str, range(5_000)))
        for _ in range(2):
            await check.wait(Host(), candidate)
    assert candidate.output.listeners == {}
    with pytest.raises(TypeError, match="a log check waits for a moment"):
        await check.probe(Host(), candidate)


def test_a_bounded_part_of_a_line_is_searched() -> None:
    candidate, check = Candidate(), bind("log", {"pattern": "b"}, Path("/"))
    with check.attend(candidate):
        (event,) = candidate.heard.values()
        say(candidate, "a" * SEARCHED + "b" + "a" * (LONGEST_LINE - SEARCHED - 1))
        assert not event.is_set()
        say(candidate, "a" * (SEARCHED - 1) + "b")
        assert event.is_set()


def test_an_unlucky_pattern_sees_no_more_of_a_line_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[int] = []

    class Pattern:
        def search(self, text: str) -> None:
            searched.append(len(text))

    candidate, check = Candidate(), bind("log", {"pattern": "a.*a.*b"}, Path("/"))
    monkeypatch.setattr(re, "compile", lambda _: Pattern())
    with check.attend(candidate):
        say(candidate, "a" * LONGEST_LINE, "a")
    assert searched == [SEARCHED, 1]
