"""The tasks of an application by name, and the store that they are submitted to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from runtime.state_backend._exceptions import NotOpenError
from runtime.state_backend.base import BaseStateBackend

from ._exceptions import DuplicateTaskError, TaskDefinitionError, UnknownTaskError
from .options import TaskKeywords, TaskOptions
from .task import AsyncTask, PlainTask, Task

if TYPE_CHECKING:
    from .running import RunningInvocation

P = ParamSpec("P")
R = TypeVar("R")


#: In a worker process, while it makes a call: where its runner has its store.
store_of_runner: ContextVar[BaseStateBackend | None] = ContextVar("store_of_runner", default=None)


class TaskDecorator(Protocol):
    """Makes a task of the function that it decorates."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # what is async goes first
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> PlainTask[P, R]: ...


class TaskHome:
    """What the tasks of one application have in common."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}
        self._adopted: list[TaskHome] = []
        self._backend: BaseStateBackend | None = None
        self._in_flight: dict[str, Collection[RunningInvocation]] = {}

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """All tasks, by ``module.function``."""
        return self._tasks

    @overload
    def task(  # type: ignore[overload-overlap]  # what is async goes first
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> PlainTask[P, R]: ...
    @overload
    def task(self, **options: Unpack[TaskKeywords]) -> TaskDecorator: ...
    def task(self, *functions: Callable[..., Any], **options: Any) -> Any:
        """Make a task of a function: ``@app.task``, or ``@app.task(max_retries=3)``.

        The options are those of `TaskOptions`. Raises `TaskDefinitionError` for others, or for
        values that they cannot have, and `DuplicateTaskError`.
        """

        def make(function: Callable[..., Any]) -> Task[..., Any]:
            try:
                wanted = TaskOptions(**options)
            except (TypeError, ValueError) as error:
                raise TaskDefinitionError(function.__qualname__, str(error)) from None
            kind = AsyncTask if iscoroutinefunction(function) else PlainTask
            task: Task[..., Any] = kind(self, function, wanted)
            self.add(task)
            return task

        return make(*functions) if functions else make

    def add(self, task: Task[..., Any]) -> None:
        """Add a task; raises `DuplicateTaskError`."""
        if task.name in self._tasks:
            raise DuplicateTaskError(task.name)
        self._tasks[task.name] = task

    def adopt(self, other: TaskHome) -> None:
        """Take the tasks of *other* in: they are submitted to this store from now on.

        Twice is as good as once.
        """
        if other not in self._adopted:
            self._adopted.append(other)
            for task in list(other._tasks.values()):
                self.add(task)
                task.home = self

    def check(self) -> None:
        """Raise `TaskDefinitionError` for a task that takes or returns what JSON cannot hold."""
        for task in self._tasks.values():
            _ = task.signature

    def find(self, name: str) -> Task[..., Any]:
        """Return the task ``module.function``, or the only one of that function's name.

        Raises `UnknownTaskError`.
        """
        if name in self._tasks:
            return self._tasks[name]
        found = [each for each in self._tasks if each.rpartition(".")[2] == name]
        if len(found) == 1:
            return self._tasks[found[0]]
        raise UnknownTaskError(name, found or self._tasks, ambiguous=bool(found))

    @property
    def state_backend(self) -> BaseStateBackend:
        """The open store; raises `NotOpenError` while there is none."""
        backend = self._backend or store_of_runner.get()
        if backend is None:
            raise NotOpenError("(none)", "tasks are submitted while their application runs")
        return backend

    @contextmanager
    def using(self, backend: BaseStateBackend) -> Iterator[None]:
        """Submit to *backend*, which is open, during the block."""
        self._backend = backend
        try:
            yield
        finally:
            self._backend = None

    @property
    def in_flight(self) -> Mapping[str, Collection[RunningInvocation]]:
        """What the runners of this process run now, by their names, paused ones included."""
        return self._in_flight

    @contextmanager
    def showing(self, runner: str, running: Collection[RunningInvocation]) -> Iterator[None]:
        """Have *running*, which goes on to change, be what *runner* runs during the block."""
        self._in_flight[runner] = running
        try:
            yield
        finally:
            if self._in_flight.get(runner) is running:  # not of another one of that name
                del self._in_flight[runner]
