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
from ._liveness import wait_announced_end, watch_process_health, watch_signs_of_life
from ._notify import NotifySocket
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

    def __init__(
        self,
        process: Process,
        host: Host,
        child: Child,
        unit: UnitHandle,
        notify: NotifySocket | None = None,
    ) -> None:
        self._process, self._host, self._child, self._unit = process, host, child, unit
        self._notify = notify
        self._started = trio.current_time()
        self._ready = trio.Event()
        self._stops = False  # it says so
        self._duties: list[trio.CancelScope] = []  # what is no longer expected then
        self._failure: Exception | None = None
        self._candidate = Candidate(
            child.family,
            output=process.output,
            command=child.command,
            unit=unit,
            notices=None if notify is None else notify.notices,
        )

    async def run(self) -> Exception | None:
        """Wait for the end of the child, or for what ends it; return what was wrong about that."""
        check = self._process.check
        with nullcontext() if check is None else check.attend(self._candidate):
            return await self._watch_to_the_end()

    async def _watch_to_the_end(self) -> Exception | None:
        watches = self._watches()
        if not self._takes_time:
            self._report_ready()
        if not watches:
            return self._judge(await self._child.wait_exit())
        returncode: int | None = None
        async with trio.open_nursery() as nursery:
            for watch in watches:
                nursery.start_soon(self._keep, watch, nursery.cancel_scope)
            returncode = await self._child.wait_exit()
            if not self._ready.is_set():
                await self._hear_last_words()
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            self._unit.ending(in_words(self._failure))
            return self._failure
        return self._judge(returncode)

    @property
    def _takes_time(self) -> bool:
        """Whether it is not ready as soon as it is spawned."""
        process = self._process
        has_hooks = bool(process.lifecycle_hook_functions["post_start"])
        return process.ready_strategy is not None or has_hooks

    def _watches(self) -> Sequence[Watch]:
        process = self._process
        watches: list[Watch] = [] if self._notify is None else [self._hear_stopping]
        if self._takes_time:
            watches.append(partial(self._while_it_runs, self._get_ready))
        if process.watchdog_sec is not None:
            watches.append(partial(self._while_it_runs, self._see_signs_of_life))
        if process.health is not None:
            watches.append(partial(self._while_it_runs, self._see_health))
        if process.max_run_sec is not None:
            watches.append(partial(self._limit_run, process.max_run_sec))
        if process.ceilings is not None:
            watches.append(self._stay_below)
        return watches

    async def _hear_last_words(self) -> None:
        """Let a check hear what the child has told before its end: it may have been ready."""
        if self._notify is not None:
            self._notify.take_all_waiting(self._child.family)
            if self._has_said_ready:
                with trio.move_on_after(_LAST_WORDS_SEC):
                    await self._ready.wait()
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

    async def _while_it_runs(self, watch: Watch) -> Exception | None:
        """Do what *watch* does until the process says that it stops."""
        with trio.CancelScope() as scope:
            self._duties.append(scope)
            if not self._stops:
                return await watch()
        return None

    async def _hear_stopping(self) -> Exception | None:
        if self._notify is None:
            return None
        await self._notify.notices.stopping.wait()
        if self._has_said_ready:  # both at once: it is ready first
            await self._ready.wait()
        self._stops = True
        self._unit.ending("it says that it stops")
        for scope in self._duties:
            scope.cancel()
        return await wait_announced_end(self._process, self._notify)

    @property
    def _has_said_ready(self) -> bool:
        if self._notify is None or self._process.ready_strategy != "notify":
            return False
        return self._notify.notices.ready.is_set()

    async def _see_signs_of_life(self) -> Exception | None:
        await self._ready.wait()
        limit, notify = self._process.watchdog_sec, self._notify
        if limit is None or notify is None:
            return None
        return await watch_signs_of_life(self._process, limit, notify, self._child.family)

    async def _see_health(self) -> Exception | None:
        await self._ready.wait()
        return await watch_process_health(self._process, self._host, self._candidate, self._unit)

    async def _get_ready(self) -> Exception | None:
        view = PopenView(self._child)
        await call_hooks(self._process, view, "post_start", self._host, self._unit)
        ready = False
        with trio.move_on_after(self._process.ready_timeout_sec) as patience:
            if self._notify is not None:
                self._notify.notices.patience = patience
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
        self._ready.set()
        self._unit.started()

    def _not_ready(self, *, gave_up: bool) -> NotReadyError:
        process, notify = self._process, self._notify
        within, setting = process.ready_timeout_sec, "ready_timeout_sec"
        if notify is not None and notify.notices.extended:
            within, setting = trio.current_time() - self._started, "its own EXTEND_TIMEOUT_USEC"
        return NotReadyError(
            process.name,
            process.ready_strategy or "plugin's",
            within,
            setting,
            self._candidate.obstacle,
            gave_up=gave_up,
        )

    def _judge(self, returncode: int) -> ProcessExitedError | None:
        self._unit.ending(exit_in_words(returncode))
        ready = self._ready.is_set()
        if self._process.is_success(returncode) and ready:
            if returncode != 0:
                self._unit.ended_well(exit_in_words(returncode))
            return None
        return ProcessExitedError(
            self._process.name,
            returncode,
            trio.current_time() - self._started,
            ready=ready,
            obstacle="" if ready else self._candidate.obstacle,
        )
