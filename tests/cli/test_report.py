from __future__ import annotations

from typing import Any

import trio
import trio.testing

from runtime.cli._report import Report
from runtime.supervision.events import Journal
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitHandle


class Heard:
    """Takes what a report says in the place of a console."""

    is_terminal = False
    coloured = False

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str, *, bad: bool = False) -> None:
        self.sentences.append(sentence)

    def progress(self, words: str) -> None:
        pass


class Pilot:
    """As much of a pilot as a report looks at."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor


async def stay(*, task_status: UnitHandle) -> None:
    task_status.started()
    await trio.sleep_forever()


async def test_events_that_came_too_fast_are_counted(autojump_clock: Any) -> None:
    units = [Unit(name=f"u{number}", body=stay) for number in range(4)]
    supervisor = Supervisor(units, events=Journal(3))
    heard = Heard()
    report = Report(Pilot(supervisor), heard)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)  # each has two events: starting, ready
        nursery.start_soon(report.run)
        await trio.testing.wait_all_tasks_blocked()
        assert heard.sentences[0] == "5 events came too fast to be told"
        assert len(heard.sentences) == 3
        supervisor.ask_stop_tree("enough")
        await supervisor.wait_ended()
        supervisor.events.close()
