"""What goes on beside a child that runs: hooks, readiness, whatever watches it; and its end.

Each is a *watch*, a coroutine that returns what is wrong with the child, or None once it has
nothing more to say. The first that finds something ends the generation, and so does the child's
own end, whatever the watches are doing then.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from functools import partial

import trio

from runtime.supervision._exceptions import in_words
from runtime.supervision.unit import UnitHandle

from ._exceptions import (
    CeilingError,
    NotReadyError,
    ProcessExitedError,
    RunLimitError,
    exit_in_words,
)
from .ceilings import Since, judge_sample
from .child import Child
from .host import Host
from .models import Process, call_hooks
from .popen import PopenView
from .readiness import Candidate

# What a child has printed is read as soon as it has ended, unless a descendant holds its output.
_LAST_WORDS_SEC = 0.05

Watch = Callable[[], Awaitable[Exception | None]]


class Attendance:
    """The time from the start of one child to its end."""

    def __init__(self, process: Process, host: Host, child: Child, unit: UnitHandle) -> None:
        self._process, self._host, self._child, self._unit = process, host, child, unit
        self._started = trio.current_time()
        self._ready = False
        self._failure: Exception | None = None
        self._candidate = Candidate(
            child.family, output=process.output, command=child.command, unit=unit
        )

    async def run(self) -> Exception | None:
        """Wait for the end of the child, or for what ends it; return what was wrong about that."""
        check = self._process.check
        with nullcontext() if check is None else check.attend(self._candidate):
            return await self._watch_to_the_end()

    async def _watch_to_the_end(self) -> Exception | None:
        watches = self._watches()
        if self._get_ready not in watches:
            self._report_ready()
        if not watches:
            return self._judge(await self._child.wait_exit())
        returncode: int | None = None
        async with trio.open_nursery() as nursery:
            for watch in watches:
                nursery.start_soon(self._keep, watch, nursery.cancel_scope)
            returncode = await self._child.wait_exit()
            if not self._ready:
                await self._hear_last_words()
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            self._unit.ending(in_words(self._failure))
            return self._failure
        return self._judge(returncode)

    def _watches(self) -> Sequence[Watch]:
        """Return what there is to watch; none that gets it ready where it is so once spawned."""
        process = self._process
        watches: list[Watch] = []
        if process.ready_strategy is not None or process.lifecycle_hook_functions["post_start"]:
            watches.append(self._get_ready)
        if process.max_run_sec is not None:
            watches.append(partial(self._limit_run, process.max_run_sec))
        if process.ceilings is not None:
            watches.append(self._stay_below)
        return watches

    async def _hear_last_words(self) -> None:
        """Let a check hear what the child has printed before its end: it may have been ready."""
        check = self._process.check
        if check is not None and check.listens:
            with trio.move_on_after(_LAST_WORDS_SEC):
                await self._child.output_ended.wait()
            await trio.lowlevel.checkpoint()

    async def _keep(self, watch: Watch, generation: trio.CancelScope) -> None:
        try:
            failure = await watch()
        except Exception as error:  # noqa: BLE001 - of a plugin's function: it is told, and judged
            failure = error
        if failure is not None and self._failure is None:
            self._failure = failure
            generation.cancel()

    async def _limit_run(self, limit_sec: float) -> Exception:
        await trio.sleep_until(self._started + limit_sec)
        return RunLimitError(self._process.name, limit_sec, "max_run_sec")

    async def _get_ready(self) -> Exception | None:
        view = PopenView(self._child)
        await call_hooks(self._process, view, "post_start", self._host, self._unit)
        ready = False
        with trio.move_on_after(self._process.ready_timeout_sec) as patience:
            ready = await self._process.check_ready(self._host, self._candidate)
        if not ready:
            return self._not_ready(gave_up=not patience.cancelled_caught)
        self._report_ready()
        return None

    async def _stay_below(self) -> CeilingError | None:
        """Return the ceiling that the process has exceeded for too long, None if it never does."""
        process, sampler = self._process, self._host.sampler
        if process.ceilings is None or sampler is None:
            return None
        since: Since = {}
        with sampler.watch([process.name]) as passes:
            async for entry in passes:
                sample = entry.item.samples.get(process.name)
                if sample is not None:
                    since, failure = judge_sample(
                        process.name, process.ceilings, since, sample, entry.item.at
                    )
                    if failure is not None:
                        return failure
        return None

    def _report_ready(self) -> None:
        self._ready = True
        self._unit.started()

    def _not_ready(self, *, gave_up: bool) -> NotReadyError:
        process = self._process
        return NotReadyError(
            process.name,
            process.ready_strategy or "plugin's",
            process.ready_timeout_sec,
            "ready_timeout_sec",
            self._candidate.obstacle,
            gave_up=gave_up,
        )

    def _judge(self, returncode: int) -> ProcessExitedError | None:
        self._unit.ending(exit_in_words(returncode))
        if self._process.is_success(returncode) and self._ready:
            if returncode != 0:
                self._unit.ended_well(exit_in_words(returncode))
            return None
        return ProcessExitedError(
            self._process.name,
            returncode,
            trio.current_time() - self._started,
            ready=self._ready,
            obstacle="" if self._ready else self._candidate.obstacle,
        )
