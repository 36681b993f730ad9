"""How a tool is put on, looked at from outside, and cleared away.

The bench runs below the runtime's own guard. Whatever loses its parent there becomes the guard's
child, so that nothing a tool leaves behind can hide from us, and when we end, however that comes
about, the guard ends all of it.
"""

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.children import BenchError, Reports, Workshop
from bench.tools.base import Child, Tool
from runtime import Guard
from runtime._procfs import list_descendants, read_stat

START_SEC = 30.0  #: Within which everything has started, or a tool has failed.
_STOP_SEC = 60.0
_CLEAR_SEC = 10.0
_LOOK_AGAIN_SEC = 0.01
# What is measured is installed, and not under coverage.
_NOT_HANDED_DOWN = ("PYTHONDONTWRITEBYTECODE", "COVERAGE_PROCESS_CONFIG")


class Act:
    """One tool on stage with its children: it can be launched, more than once in turn."""

    def __init__(
        self, guard: Guard, tool: Tool, folder: Path, reports: Reports, count: int
    ) -> None:
        self._guard = guard
        self._folder = folder
        self.tool = tool
        self.reports = reports
        self.count = count
        self._programs: list[subprocess.Popen[bytes]] = []

    @property
    def pid(self) -> int:
        """The process that was launched last."""
        return self._programs[-1].pid

    def launch(self) -> int:
        """Start the tool; return the monotonic clock's nanoseconds just before."""
        environment = {k: v for k, v in os.environ.items() if k not in _NOT_HANDED_DOWN}
        with (self._folder / "output").open("ab") as output:
            began_ns = time.monotonic_ns()
            program = subprocess.Popen(
                self.tool.command(self._folder),
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._programs.append(program)
        return began_ns

    def start(self) -> float:
        """Launch the tool; return the ms until its last child has said that it runs."""
        began_ns = self.launch()
        reports = self.reports.wait(self.count, START_SEC)
        return (max(report.at_ns for report in reports) - began_ns) / 1e6

    def stop(self) -> float:
        """Ask the tool to stop; return the ms until it, its helpers and its children are gone."""
        with _open_watches(reversed(self.list_pids())) as watches:
            began_ns = time.monotonic_ns()
            os.kill(self.pid, self.tool.stop_signal)
            for watch in watches:  # in an order that mostly wakes us up for the last end only
                if not watch.poll(_STOP_SEC * 1000):
                    raise BenchError(f"some of it still runs {_STOP_SEC:g} s after its stop")
            return (time.monotonic_ns() - began_ns) / 1e6

    def list_pids(self) -> list[int]:
        """Return what runs of it, parents first: the tool, helpers, children, what it has left."""
        # Who started us may have given the guard children of its own; they are in its session.
        not_ours = os.getsid(self._guard.pid)
        return [
            stat.pid
            for stat in list_descendants([self._guard.pid])
            if stat.alive and stat.session != not_ours and stat.pid != os.getpid()
        ]

    def list_children(self) -> list[int]:
        """Return those that have reported and still run."""
        stats = (read_stat(report.pid) for report in self.reports.all)
        return [stat.pid for stat in stats if stat is not None and stat.alive]

    def list_own(self) -> list[int]:
        """Return the tool and its helpers."""
        children = {report.pid for report in self.reports.all}
        return [pid for pid in self.list_pids() if pid not in children]

    def last_words(self) -> str:
        """Return the end of what it has printed."""
        output = self._folder / "output"
        return output.read_text(errors="replace")[-800:].strip() if output.exists() else ""

    def clear(self) -> None:
        """Kill all of it until nothing is left."""
        deadline = time.monotonic() + _CLEAR_SEC
        while pids := self.list_pids():
            for pid in pids:  # parents first: nobody is left to restart anything
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise BenchError(f"processes {pids} could not be killed")
            time.sleep(_LOOK_AGAIN_SEC)
        for program in self._programs:
            program.wait()


@contextmanager
def _open_watches(pids: Iterable[int]) -> Generator[list[select.poll]]:
    """Yield something to poll for each of *pids*: it becomes readable when the process ends."""
    with ExitStack() as stack:
        watches = []
        for pid in pids:
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                stack.callback(os.close, descriptor)
                watch = select.poll()
                watch.register(descriptor, select.POLLIN)
                watches.append(watch)
        yield watches


class Stage:
    """Where tools are put on, one at a time."""

    def __init__(self, guard: Guard, workshop: Workshop) -> None:
        self._guard = guard
        self._workshop = workshop

    @contextmanager
    def open_act(self, tool: Tool, count: int, *, chain: bool = False) -> Generator[Act]:
        """Yield *tool*, configured for *count* children; whatever it leaves is killed afterwards.

        In a *chain* each child waits until the one before it is ready.
        """
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            with Reports(folder / "reports") as reports:
                children = list(self._cast(folder, reports, count, chain=chain))
                tool.write_config(folder, children)
                act = Act(self._guard, tool, folder, reports, count)
                try:
                    yield act
                except BenchError as error:
                    raise BenchError(f"{error}\n{act.last_words()}") from error
                finally:
                    act.clear()

    def _cast(self, folder: Path, reports: Reports, count: int, *, chain: bool) -> Iterable[Child]:
        before: str | None = None
        for index in range(count):
            program = self._workshop.program(index)
            ready = folder / f"ready-{index}" if chain else None
            argv = [program, reports.path, *([ready] if ready else [])]
            yield Child(
                name=program.name, argv=tuple(map(str, argv)), ready_file=ready, after=before
            )
            before = program.name if chain else None
