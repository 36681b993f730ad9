"""What processes use, measured for as long as somebody goes on asking over HTTP."""

from collections.abc import Mapping
from dataclasses import asdict

import trio

from runtime.pilot import ProcessPilot
from runtime.process import Process
from runtime.process.stats import ProcessSample

from .models import ProcessUsage, Usage

#: Seconds after a question for which statistics go on being taken.
ASKED_AGAIN_SEC = 10.0
# A first look takes a moment; who asks does not wait for longer than this.
_FIRST_LOOK_SEC = 2.0


class UsageWatch:
    """Wants statistics of the *pilot*'s processes while it is asked for them; `run` does that."""

    def __init__(self, pilot: ProcessPilot | None) -> None:
        self._pilot = pilot
        self._until = 0.0
        self._details: dict[str, float] = {}
        self._asked = trio.Event()
        self._changed = trio.CancelScope()
        self._looked = trio.Event()

    async def run(self) -> None:
        """Take statistics while they are asked for, until cancelled."""
        if self._pilot is None:
            return
        while True:
            if trio.current_time() >= self._until:
                self._asked, self._looked = trio.Event(), trio.Event()
                await self._asked.wait()
            self._forget_details()
            with (
                trio.CancelScope(deadline=self._until) as self._changed,
                self._pilot.sampler.watch(details=self._details) as passes,
            ):
                begun_before = True  # the first one may have been
                async for entry in passes:
                    if self._has_details(entry.item.samples) or not begun_before:
                        self._looked.set()
                    begun_before = False

    async def newest(self) -> Mapping[str, Usage]:
        """Return the newest sample of each process that runs."""
        await self._ask()
        processes = [] if self._pilot is None else self._pilot.get_manifest_processes()
        samples = {p.name: p.runtime_info.samples[-1:] for p in processes if p.pid}
        return {name: make_usage(found[0]) for name, found in samples.items() if found}

    async def history(self, process: Process) -> ProcessUsage:
        """Return what *process* has used lately, with its open files and listening ports."""
        if process.name not in self._details:
            looked, self._looked = self._looked, trio.Event()
            looked.set()  # who waits for it goes on with the next one
            self._changed.cancel()
        self._details[process.name] = trio.current_time() + ASKED_AGAIN_SEC
        await self._ask()
        info = process.runtime_info
        return ProcessUsage(
            name=process.name,
            max_cpu_percent=info.max_cpu_usage,
            max_memory_mb=info.max_memory_usage_mb,
            history=[make_usage(sample) for sample in info.samples],
        )

    async def _ask(self) -> None:
        self._until = trio.current_time() + ASKED_AGAIN_SEC
        self._changed.deadline = self._until
        self._asked.set()
        with trio.move_on_after(_FIRST_LOOK_SEC):
            while not self._looked.is_set():
                await self._looked.wait()

    def _has_details(self, samples: Mapping[str, ProcessSample]) -> bool:
        """Return whether a pass was begun after the last one was asked for; no is no proof."""
        wanted = [samples[name] for name in self._details if name in samples]
        return all(sample.open_files is not None for sample in wanted)

    def _forget_details(self) -> None:
        now = trio.current_time()
        self._details = {name: until for name, until in self._details.items() if until > now}


def make_usage(sample: ProcessSample) -> Usage:
    """Return a sample as JSON has it."""
    return Usage.model_validate(asdict(sample))
