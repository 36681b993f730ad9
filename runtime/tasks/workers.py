"""The worker processes of a runner, each a unit of a supervisor within the runner's own unit."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from signal import SIGKILL
from typing import Any

import trio

from runtime.process._exceptions import ProcessExitedError, exit_in_words
from runtime.process.child import Child, StopPlan, open_child
from runtime.process.host import Host
from runtime.process.output import Line, Output
from runtime.process.spawn import Command
from runtime.supervision.events import Journal, UnitEvent
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitHandle, current_unit

from ._frames import Unpacker, pack
from .task import Task

_logger = logging.getLogger(__name__)
_PROGRAM = "runtime.tasks._worker"
# Others wait for what a worker could do: what kills one after the other is to hold them up little.
_RESTART = RestartPolicy(
    when=RestartWhen.ALWAYS, first_at_once=True, max_delay_sec=5, forgive_after_sec=5
)
_CHUNK = 65_536
# From the end of the connection to that of the process; one that has only closed it is killed.
_EXIT_SEC = 5.0


#: Answers what a worker asks while it makes a call.
Serve = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class WorkerDiedError(Exception):
    """A worker process has ended, *how* says how, while it ran a task."""

    def __init__(self, name: str, pid: int, how: str) -> None:
        super().__init__(name, pid, how)
        self.name: str = name
        self.pid: int = pid
        self.how: str = how

    def __str__(self) -> str:
        return f"its worker {self.name} (pid {self.pid}) {self.how}"


class WorkerProcess:
    """One live worker process, which makes one call at a time."""

    def __init__(self, name: str, child: Child, connection: trio.SocketStream) -> None:
        self.name: str = name
        self.pid: int = child.pid
        self.ended: trio.Event = trio.Event()  #: set when nothing of it is there any more
        self.calls: int = 0
        self._exited, self._returncode = trio.Event(), 0
        self._connection = connection
        self._unpacker = Unpacker()

    async def call(self, message: dict[str, Any], serve: Serve | None = None) -> dict[str, Any]:
        """Return the answer; raise `WorkerDiedError` when there is to be none.

        *serve* answers what the worker asks meanwhile. Cancelled, it is of no more use, for an
        answer may come still.
        """
        try:
            await self._connection.send_all(pack(message))
            while piece := await self._connection.receive_some(_CHUNK):
                said = self._unpacker.feed(piece)
                if said is None:
                    continue
                if serve is None or "ask" not in said:
                    return said
                await self._connection.send_all(pack(await serve(said)))
        except trio.BrokenResourceError:
            pass
        raise WorkerDiedError(self.name, self.pid, await self._how())

    async def _how(self) -> str:
        with trio.move_on_after(_EXIT_SEC):
            await self._exited.wait()
            return exit_in_words(self._returncode)
        return "has closed its connection"

    @property
    def exited(self) -> bool:
        """Whether the process has ended by itself."""
        return self._exited.is_set()

    def note_exit(self, returncode: int) -> None:
        """Note that the process has ended; only the body of its unit can wait for that."""
        self._returncode = returncode
        self._exited.set()


class WorkerPool:
    """A number of worker processes for the *tasks* that are cpu-bound.

    ``supervisor`` runs them; it is the *inner* of the runner's unit. One that has ended is started
    again. *recycle_after* calls a worker is replaced by a new one; None: never.

    What they print goes to the *echo* of *host*, without one to the logger of this module (level
    INFO), behind the worker's name.
    """

    def __init__(
        self,
        tasks: Callable[[], Iterable[Task[..., Any]]],
        host: Host,
        *,
        number: int,
        path: str,
        events: Journal[UnitEvent] | None = None,
        recycle_after: int | None = None,
    ) -> None:
        self._tasks, self._host, self._path, self._recycle_after = tasks, host, path, recycle_after
        self._idle: deque[WorkerProcess] = deque()
        self._freed = trio.lowlevel.ParkingLot()
        #: How many are ready, idle or not.
        self.ready: int = 0
        #: Called when one has become ready.
        self.on_ready: Callable[[], None] = lambda: None
        self.supervisor: Supervisor = Supervisor(
            [self._unit(f"cpu-{index}") for index in range(number)],
            path=path,
            events=events,
            keep=True,
            mask=host.secrets.mask,
        )

    def _unit(self, name: str) -> Unit:
        path = f"{self._path}/{name}"
        output = Output(self._host.secrets)
        output.listeners["echo"] = partial(self._host.echo or _log_lines, path)
        body = partial(self._run, name, path, output)
        return Unit(name=name, body=body, kind="worker", restart=_RESTART)

    async def call(self, message: dict[str, Any], what: str, serve: Serve) -> dict[str, Any]:
        """Have a worker answer *message*, and answer by *serve* what it asks; `WorkerDiedError`.

        Cancelled, the worker is killed, with all that it has started, before this returns; another
        one takes its place. *what* says what it did then.
        """
        while not self._idle:
            await self._freed.park()
        worker = self._idle.popleft()
        try:
            answer = await worker.call(message, serve)
        except BaseException:
            # Whatever it was, nobody knows what it is at now. Who has died is restarted anyway.
            if not worker.exited:
                self._ask_another(worker, f"{what} was cut off")
            with current_unit().budget.to_the_end():
                await worker.ended.wait()
            raise
        worker.calls += 1
        if self._recycle_after is not None and worker.calls >= self._recycle_after:
            self._ask_another(worker, f"it has made {worker.calls} calls")
        else:
            self._give_back(worker)
        return answer

    def _give_back(self, worker: WorkerProcess) -> None:
        self._idle.append(worker)
        self._freed.unpark()

    def _ask_another(self, worker: WorkerProcess, reason: str) -> None:
        if not worker.ended.is_set() and self.supervisor.stopping is None:
            self.supervisor.ask_restart(worker.name, reason=reason)

    # --- one worker -------------------------------------------------------------------------------

    async def _run(self, name: str, path: str, output: Output, *, task_status: UnitHandle) -> None:
        """Run a worker process: the body of its unit."""
        ours, childs = socket.socketpair()
        ended = trio.Event()
        try:
            async with AsyncExitStack() as stack:
                connection = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
                await stack.enter_async_context(connection)
                child = await stack.enter_async_context(
                    open_child(
                        self._command(path, childs.fileno()),
                        self._host,
                        output,
                        StopPlan(signum=SIGKILL),
                        task_status,
                    )
                )
                childs.close()
                task_status.report_pid(child.pid)
                worker = WorkerProcess(name, child, connection)
                ended = worker.ended
                await self._attend(worker, child, ours, task_status)
        finally:
            childs.close()
            ended.set()

    def _command(self, path: str, fd: int) -> Command:
        # What finds our own program; the worker itself is told the rest, and forgets this.
        places = os.pathsep.join(filter(None, sys.path))
        return Command(
            name=path,
            argv=[sys.executable, "-P", "-m", _PROGRAM, str(fd)],
            working_directory=None,
            env={**os.environ, **self._host.marker(path), "PYTHONPATH": places},
            pass_fds=(fd,),
        )

    async def _attend(
        self, worker: WorkerProcess, child: Child, ours: socket.socket, unit: UnitHandle
    ) -> None:
        """Get a worker ready, and wait for its end, which nobody has asked for."""
        began = trio.current_time()
        is_ready = False

        async def get_ready() -> None:
            nonlocal is_ready
            try:
                await worker.call(self._hello())
            except WorkerDiedError:  # its exit is seen below
                return
            is_ready = True
            self.ready += 1
            unit.started()
            self._give_back(worker)
            self.on_ready()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(get_ready)
                returncode = await child.wait_exit()
                worker.note_exit(returncode)
                nursery.cancel_scope.cancel()
        finally:
            if is_ready:
                self.ready -= 1
            if worker in self._idle:
                self._idle.remove(worker)
            # Who waits for its answer gets what it has sent, and then sees the end: also where
            # something that it has started holds the other end of the connection.
            ours.shutdown(socket.SHUT_RD)
        uptime = trio.current_time() - began
        raise ProcessExitedError(worker.name, returncode, uptime, ready=is_ready)

    def _hello(self) -> dict[str, Any]:
        main = sys.modules["__main__"]
        return {
            "sys_path": sys.path,
            "pythonpath": os.environ.get("PYTHONPATH"),
            "main_path": getattr(main, "__file__", None),
            "modules": sorted({task.module for task in self._tasks() if task.options.cpu_bound}),
        }


def _log_lines(name: str, lines: Sequence[Line]) -> None:
    for line in lines:
        _logger.info("%s: %s", name, line.text)
