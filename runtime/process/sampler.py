"""Takes the statistics of a tree's processes, as long as somebody wants them.

Who wants them says so for the length of a block: `Sampler.watch`. While nobody does, the sampler
waits for the first who does, without a timer, a thread, or psutil. One pass is one look at all
processes that somebody watches, in one call of a worker thread. A watcher that is slower than the
passes gets the newest and never holds up anybody.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol, TypeVar, final

import trio

from runtime.supervision._exceptions import UnknownUnitError, in_words
from runtime.supervision.events import Journal, Reader

from .hooks import call_plugin
from .meter import Meter
from .stats import ProcessRuntimeInfo, ProcessSample, ProcessStats, make_sample
from .usage import Reading

_logger = logging.getLogger(__name__)

#: The period of a manifest that does not say one.
DEFAULT_STATS_INTERVAL_SEC: Final = 1.0

T = TypeVar("T")
StatHandlerType = Callable[[list[ProcessStats]], Awaitable[None] | None]
#: Looks at processes, by name and pid, at some of them in detail; called in a worker thread.
Take = Callable[[Mapping[str, int], Collection[str]], Mapping[str, Reading]]


class Sampled(Protocol):
    """What a sampler needs of a process."""

    @property
    def name(self) -> str:
        """Its name, which no other has."""
        ...

    @property
    def pid(self) -> int:
        """Its pid, 0 while nothing of it runs."""
        ...

    @property
    def runtime_info(self) -> ProcessRuntimeInfo:
        """Where its samples go."""
        ...

    @property
    def stats_handler_functions(self) -> list[StatHandlerType]:
        """What is to be called with its statistics."""
        ...

    def get_stats(self) -> ProcessStats:
        """Return what it used when it was last looked at."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One look at all processes that were watched: a sample of each that ran, by name.

    *at* is when it was over, on Trio's clock.
    """

    at: float
    samples: Mapping[str, ProcessSample]


@dataclass(frozen=True, slots=True, eq=False)
class _Watcher:
    names: frozenset[str]
    details: frozenset[str]


@final
class Sampler:
    """Takes the statistics of *processes* every *period_sec* seconds while somebody wants them.

    Statistics handlers of the processes are called under the limiter *plugins*. `run` does the
    work; a pilot has one sampler and runs it beside its tree.
    """

    #: The newest pass; `watch` gives a reader of it.
    passes: Journal[Pass]
    period_sec: float

    def __init__(
        self,
        processes: Sequence[Sampled],
        period_sec: float = DEFAULT_STATS_INTERVAL_SEC,
        *,
        plugins: trio.CapacityLimiter | None = None,
        take: Take | None = None,
    ) -> None:
        if not period_sec > 0:
            raise ValueError(f"statistics need a period above 0 seconds, not {period_sec}")
        self.passes = Journal(1)
        self.period_sec = period_sec
        self._processes = {process.name: process for process in processes}
        self._plugins = plugins or trio.CapacityLimiter(40)
        self._take = take or Meter().read
        self._thread = trio.CapacityLimiter(1)
        self._watchers: set[_Watcher] = set()
        self._wanted = trio.Event()
        self._earlier: Mapping[str, Reading] = {}
        self._failing = False

    @property
    def watched(self) -> bool:
        """Whether anybody wants statistics now."""
        return bool(self._watchers)

    @contextmanager
    def watch(
        self, names: Iterable[str] | None = None, *, details: Iterable[str] = ()
    ) -> Generator[Reader[Pass]]:
        """Want statistics of the processes *names* (None: all) for the length of the block.

        Open files and listening ports, which cost more, are taken of those in *details*. Yields an
        async iterator of passes, each as the ``item`` of an entry: of those that come while its
        user is busy the newest is kept, and ``missed`` counts the others. It ends with the tree.
        Raises `UnknownUnitError`, a `ValueError`, for a name that no process has.
        """
        inspected = frozenset(details)
        wanted = frozenset(self._processes if names is None else names) | inspected
        for name in wanted:
            if name not in self._processes:
                raise UnknownUnitError(name, self._processes)
        watcher = _Watcher(wanted, inspected)
        self._watchers.add(watcher)
        self._wanted.set()
        try:
            yield self.passes.read()
        finally:
            self._watchers.discard(watcher)

    async def run(self) -> None:
        """Take passes while somebody watches, and call the handlers, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                for handler, processes in _by_handler(self._processes.values()):
                    nursery.start_soon(self._serve, handler, processes)
                await self._take_passes()
        finally:
            self.passes.close()

    async def _take_passes(self) -> None:
        while True:
            if not self._watchers:
                self._earlier = {}  # cpu since then would be an average of a time nobody meant
                self._wanted = trio.Event()
                await self._wanted.wait()
            began = trio.current_time()
            await self._take_pass()
            await trio.sleep_until(max(began + self.period_sec, trio.current_time()))

    async def _take_pass(self) -> None:
        names = {name for watcher in self._watchers for name in watcher.names}
        pids = {n: p.pid for n, p in self._processes.items() if n in names and p.pid}
        details = {name for watcher in self._watchers for name in watcher.details} & pids.keys()
        look = partial(self._look, pids, details, self._earlier)
        try:
            readings, samples = await self._off_loop(look) if pids else look()
        except Exception as error:  # the edge of a pass: it is told, and tried again
            if not self._failing:
                _logger.warning("no statistics can be taken: %s", in_words(error), exc_info=error)
            self._failing = True
            return
        self._failing = False
        self._earlier = readings
        # One that has ended meanwhile may have a successor already, whose values these are not.
        samples = {n: s for n, s in samples.items() if self._processes[n].pid == pids[n]}
        for name in names:
            info = self._processes[name].runtime_info
            if name in samples:
                info.record(samples[name])
            else:
                info.rest()
        self.passes.append(Pass(at=trio.current_time(), samples=samples))

    async def _off_loop(self, look: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(look, limiter=self._thread, abandon_on_cancel=True)

    def _look(
        self, pids: Mapping[str, int], details: Collection[str], earlier: Mapping[str, Reading]
    ) -> tuple[Mapping[str, Reading], Mapping[str, ProcessSample]]:
        readings = self._take(pids, details) if pids else {}
        now = datetime.now(UTC)
        return readings, {n: make_sample(earlier.get(n), r, now) for n, r in readings.items()}

    async def _serve(self, handler: StatHandlerType, processes: Sequence[Sampled]) -> None:
        """Call a handler once for each pass, or for the newest one when it was busy meanwhile."""
        failing = False
        with self.watch(process.name for process in processes) as passes:
            async for entry in passes:
                stats = [p.get_stats() for p in processes if p.name in entry.item.samples]
                if not stats:
                    continue
                try:
                    await call_plugin(handler, stats, limiter=self._plugins)
                except Exception as error:  # noqa: BLE001 - a plugin's: it is told, once in a row
                    if not failing:
                        _warn(handler, error)
                    failing = True
                else:
                    failing = False


def _by_handler(
    processes: Iterable[Sampled],
) -> list[tuple[StatHandlerType, list[Sampled]]]:
    """Return each handler once, with the processes that name it."""
    found: list[tuple[StatHandlerType, list[Sampled]]] = []
    for process in processes:
        for handler in process.stats_handler_functions:
            # Compared, not hashed: a callable need not be hashable.
            named = next((named for known, named in found if known == handler), None)
            if named is None:
                found.append((handler, [process]))
            elif process not in named:
                named.append(process)
    return found


def _warn(handler: StatHandlerType, error: Exception) -> None:
    name = getattr(handler, "__qualname__", type(handler).__qualname__)
    _logger.warning(
        "the statistics handler %s raised %s: %s; it is called all the same, and told again once it"
        " has worked in between",
        name,
        type(error).__name__,
        error,
        exc_info=error,
    )
