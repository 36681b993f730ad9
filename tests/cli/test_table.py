from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from runtime.cli._table import render_table
from runtime.supervision.graph import Stage
from runtime.supervision.unit import UnitStatus


def status(name: str, stage: Stage, **fields: object) -> UnitStatus:
    facts = {"kind": "process", "state": "stopped", "generation": 1, "restarts": 0}
    return UnitStatus(
        name=name, stage=stage, **{**facts, "reason": "", "requirements": (), **fields}
    )


def render(
    *statuses: UnitStatus, coloured: bool = False, width: int | None = 80, **pids: int
) -> str:
    return render_table(statuses, pids, coloured=coloured, width=width)


def test_what_runs_has_a_pid_and_the_time_that_it_took() -> None:
    ready = status("db", Stage.READY, state="running", ready_after_sec=1.234, reason="ready after")
    heading, row = render(ready, db=4321).splitlines()
    assert heading.split() == ["NAME", "STATE", "PID", "READY", "AFTER"]
    assert row.split() == ["db", "running", "4321", "1.23", "s"]


@pytest.mark.parametrize(
    "stage", [Stage.BACKOFF, Stage.FAILED, Stage.HELD, Stage.WAITING, Stage.STARTING, Stage.IDLE]
)
def test_what_does_not_run_has_a_reason(stage: Stage) -> None:
    (_, row) = render(status("a", stage, reason="said why")).splitlines()
    assert row.split() == ["a", stage.value, "said", "why"]


def test_what_has_completed_needs_none_and_has_the_time_that_it_ran() -> None:
    completed = status(
        "a", Stage.COMPLETED, reason="completed after 1.3 s", ready_after_sec=0, ran_sec=1.25
    )
    (_, row) = render(completed).splitlines()
    assert row.split() == ["a", "completed", "1.25", "s"]


def test_what_runs_may_say_something_of_itself_until_it_fails_its_health_checks() -> None:
    running = {"state": "running", "status_text": "serving", "ready_after_sec": 1, "reason": "sick"}
    (_, row) = render(status("a", Stage.READY, healthy=True, **running)).splitlines()
    assert row.split()[-1] == "serving"
    (_, row) = render(status("a", Stage.READY, healthy=False, **running)).splitlines()
    assert row.split()[-1] == "sick"


def test_a_name_is_never_broken_and_a_long_reason_is() -> None:
    name = "a-name-of-some-length"
    text = render(status(name, Stage.FAILED, reason="words " * 20), width=60)
    assert re.search(rf"^{name} +failed", text, re.MULTILINE)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert text.count("words") == 20


@pytest.mark.parametrize(
    ("stage", "colour"),
    [(Stage.READY, 32), (Stage.FAILED, 31), (Stage.HELD, 31), (Stage.BACKOFF, 33)],
)
def test_colours_tell_how_it_stands(
    stage: Stage, colour: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert f"\n\x1b[{colour}ma" in render(status("a", stage), coloured=True)
    assert "\x1b" not in render(status("a", stage))


def test_brackets_and_colons_in_a_name_or_a_reason_mean_nothing() -> None:
    failed = status("[/red]", Stage.FAILED, reason="[Errno 2] no [bold] :smile:")
    (_, row) = render(failed).splitlines()
    assert row.split() == ["[/red]", "failed", "[Errno", "2]", "no", "[bold]", ":smile:"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3_661, "1 h 1 min"),
        (3_600 * 50, "2 d 2 h"),
        (-5, "0 s"),
    ],
)
def test_at_a_later_time_it_tells_how_long_each_has_been_up(seconds: float, words: str) -> None:
    now = datetime.now(UTC)
    ready = status(
        "a", Stage.READY, state="running", restarts=2, started_at=now - timedelta(seconds=seconds)
    )
    over = status("b", Stage.COMPLETED, started_at=now)
    text = render_table([ready, over], {"a": 7}, coloured=False, width=80, now=now)
    heading, *rows = (row.split() for row in text.splitlines())
    assert heading == ["NAME", "STATE", "PID", "UP", "RESTARTS"]
    assert rows == [["a", "running", "7", *words.split(), "2"], ["b", "completed"]]


def test_for_a_program_nothing_is_folded_and_no_blanks_are_added() -> None:
    long = status("a", Stage.FAILED, reason="words " * 100)
    lines = render(long, status("b", Stage.READY, state="running"), width=None).split("\n")
    assert lines.pop() == ""
    assert len(lines) == 3
    assert lines[1].count("words") == 100
    assert [line for line in lines if line.endswith(" ")] == []
