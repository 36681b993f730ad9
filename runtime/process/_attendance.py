"""What goes on beside a child that runs: hooks, readiness, whatever watches it; and its end.

Each is a *watch*, a coroutine that returns what is wrong with the child, or None once it has
nothing more to say. The first that finds something ends the generation, and so does the child's
own end, whatever the watches are doing then.
"""

from collections.abc import Awaitable, Callable, Sequence

import trio

from runtime.supervision._exceptions import in_words
from runtime.supervision.unit import UnitHandle

from ._exceptions import CeilingError, NotReadyError, ProcessExitedError, exit_in_words
from .ceilings import Since, judge_sample
from .child import Child
from .host import Host
from .models import Process, call_hooks
from .popen import PopenView
from .readiness import Candidate

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
        if not (watches := self._watches()):
            self._report_ready()
            return self._judge(await self._child.wait_exit())
        returncode: int | None = None
        async with trio.open_nursery() as nursery:
            for watch in watches:
                nursery.start_soon(self._keep, watch, nursery.cancel_scope)
            returncode = await self._child.wait_exit()
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            self._unit.ending(in_words(self._failure))
            return self._failure
        return self._judge(returncode)

    def _watches(self) -> Sequence[Watch]:
        """Return what there is to watch; none where a process is ready once it is spawned."""
        process = self._process
        needs_time = process.ready_strategy is not None
        needs_time = needs_time or bool(process.lifecycle_hook_functions["post_start"])
        if process.ceilings is not None:
            return [self._get_ready, self._stay_below]
        return [self._get_ready] if needs_time else []

    async def _keep(self, watch: Watch, generation: trio.CancelScope) -> None:
        try:
            failure = await watch()
        except Exception as error:  # noqa: BLE001 - of a plugin's function: it is told, and judged
            failure = error
        if failure is not None and self._failure is None:
            self._failure = failure
            generation.cancel()

    async def _get_ready(self) -> Exception | None:
        await call_hooks(self._process, PopenView(self._child), "post_start", self._host)
        ready = self._process.ready_strategy is None
        if not ready:
            with trio.move_on_after(self._process.ready_timeout_sec):
                ready = await self._process.check_ready(self._host, self._candidate)
        if not ready:
            return self._not_ready()
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

    def _not_ready(self) -> NotReadyError:
        process = self._process
        return NotReadyError(
            process.name,
            process.ready_strategy or "plugin's",
            process.ready_timeout_sec,
            "ready_timeout_sec",
            self._candidate.obstacle,
        )

    def _judge(self, returncode: int) -> ProcessExitedError | None:
        self._unit.ending(exit_in_words(returncode))
        if returncode == 0 and self._ready:
            return None
        return ProcessExitedError(
            self._process.name,
            returncode,
            trio.current_time() - self._started,
            ready=self._ready,
            obstacle="" if self._ready else self._candidate.obstacle,
        )
