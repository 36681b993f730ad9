"""What everything that runs a tree of units has in common: to be a block, or a task."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from types import TracebackType
from typing import Self

import trio

from runtime.supervision._exceptions import UnitFailedError
from runtime.supervision.supervisor import Supervisor

#: What runs beside a tree, from its start to its end, and is cancelled then.
Companion = Callable[[], Awaitable[object]]


class TreeBlock:
    """Runs the tree of *supervisor*, once.

    ``async with x:`` returns control when all is ready, and stops it in order at the end of the
    block. ``await x.start()`` runs until the tree has ended instead, and can be given to
    ``nursery.start``.
    """

    supervisor: Supervisor

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self._started = False
        self._over = trio.Event()
        self._block: AbstractAsyncContextManager[None] | None = None

    def _prepare(self) -> None:
        """Get ready to start; what is raised here keeps the tree from starting."""

    def _companions(self) -> Sequence[Companion]:
        """Return what is to run beside the tree."""
        return []

    def _surroundings(self) -> AbstractAsyncContextManager[object]:
        """Return the block that is around the tree: what its units use, from first to last."""
        return nullcontext()

    async def start(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until everything has ended or `stop` is called; cancelled, stop in order.

        Reports started when each unit is ready, over, or known to be held up. Raises `RuntimeError`
        when it has been started before, and `ProblemsError`, a `ValueError`, when it cannot start
        as it is.
        """
        self._begin()
        await self._run(task_status=task_status)

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        ended_by: BaseException | None = None
        try:
            async with self._surroundings(), trio.open_nursery() as nursery:
                for companion in self._companions():
                    nursery.start_soon(companion)
                try:
                    await self.supervisor.run(task_status=task_status)
                except BaseException as error:  # noqa: BLE001 - raised below, and in no group
                    ended_by = error
                nursery.cancel_scope.cancel()
        finally:
            self._over.set()
            if ended_by is not None:
                try:
                    raise ended_by
                finally:
                    del ended_by

    def _begin(self) -> None:
        if self._started:
            raise RuntimeError(f"this {type(self).__name__} has been started before")
        self._prepare()
        self._started = True

    async def stop(self) -> None:
        """Stop everything in reverse order and return when nothing is left of it.

        While it is only about to start, it starts nothing.
        """
        if self._started and not self._over.is_set():
            self.supervisor.ask_stop_tree("asked to stop")
            await self._over.wait()

    def is_running(self) -> bool:
        """Return whether the tree runs."""
        return self.supervisor.running

    async def __aenter__(self) -> Self:
        self._begin()  # before there is a nursery, which would make a group of what is raised
        self._block = self._open()
        await self._block.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._block is None:
            raise RuntimeError(f"this {type(self).__name__} has not been entered")
        return await self._block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        left_by: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await nursery.start(self._run)
                    yield
                except BaseException as error:  # noqa: BLE001 - raised below
                    left_by = error  # the nursery is no business of the block's: it makes no group
                finally:
                    self.supervisor.ask_stop_tree("the block that it belongs to was left")
        finally:
            if left_by is not None:
                try:
                    raise left_by
                finally:
                    del left_by


async def act_on_all(names: Iterable[str], act: Callable[[str], Awaitable[object]]) -> None:
    """Await *act* for each of *names*, side by side, and return when all of them are over.

    A `UnitFailedError` keeps none of the others from that. It is raised then as it is, several of
    them as a group.
    """
    failures: list[Exception] = []

    async def act_on(name: str) -> None:
        try:
            await act(name)
        except UnitFailedError as failure:
            failures.append(failure)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(act_on, name)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("units that did not become ready", failures)
