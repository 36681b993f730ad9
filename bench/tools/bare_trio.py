"""The floor, a program of its own: children in a loop around `open_process`, by a plan in JSON."""

import json
import signal
import sys
from pathlib import Path
from typing import TypedDict

import trio

_FIRST_INTERVAL_SEC, _GROWTH, _LONGEST_INTERVAL_SEC = 0.001, 1.5, 0.1  # those of the runtime


class Child(TypedDict):
    argv: list[str]
    ready_file: str | None


class Keeper:
    def __init__(self) -> None:
        self.processes: dict[int, trio.Process] = {}
        self.stopping = False

    async def run(self, children: list[Child]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                for index, child in enumerate(children):
                    await self.spawn(index, child)
                    nursery.start_soon(self.keep, index, child)
                    await until_ready(child)
                await anext(signals)
                self.stopping = True
                for process in self.processes.values():
                    process.terminate()

    async def spawn(self, index: int, child: Child) -> None:
        self.processes[index] = await trio.lowlevel.open_process(
            child["argv"], start_new_session=True
        )

    async def keep(self, index: int, child: Child) -> None:
        while True:
            await self.processes[index].wait()
            if self.stopping:
                return
            await self.spawn(index, child)


async def until_ready(child: Child) -> None:
    if child["ready_file"] is None:
        return
    path, interval_sec = trio.Path(child["ready_file"]), _FIRST_INTERVAL_SEC
    while not await path.exists():
        await trio.sleep(interval_sec)
        interval_sec = min(interval_sec * _GROWTH, _LONGEST_INTERVAL_SEC)


if __name__ == "__main__":
    trio.run(Keeper().run, json.loads(Path(sys.argv[1]).read_text()))
