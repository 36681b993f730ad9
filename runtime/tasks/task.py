"""A function that is a task: called as ever, or submitted to be run by a runner."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property, update_wrapper
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

import anyio

from runtime.invocation.models import NewInvocation, Registered, due_in_utc, new_invocation_id

from ._exceptions import TaskDefinitionError
from .arguments import Signature, digest
from .invocation import Home, Invocation, call_from_plain, waiting_in
from .options import ConcurrencyControl, TaskOptions, check_delay, check_key, check_place

#: The name of the program that was started, where a worker process runs it: nothing under an
#: ``if __name__ == "__main__"`` is run again.
MAIN_AGAIN = "__runtime_worker__"

P = ParamSpec("P")
R = TypeVar("R")


class Call(NamedTuple):
    """The arguments of one of several submissions."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}


class Task(Generic[P, R]):
    """A function that can be submitted; called, it is still the plain function.

    ``async def`` runs on the loop of the runner, a plain function in a thread, one that is
    *cpu_bound* in a worker process. Made by the decorator of an application, as an `AsyncTask` or a
    `PlainTask`: these say what a call returns.
    """

    name: str
    module: str  #: the module that it was defined in, by which a worker process finds it
    qualname: str
    home: Home
    #: Where it was made, whoever has adopted it since.
    origin: Home
    options: TaskOptions
    function: Callable[P, Any]
    is_async: bool  #: whether it is a coroutine function

    def __init__(self, home: Home, function: Callable[P, Any], options: TaskOptions) -> None:
        self.home = self.origin = home
        self.function, self.options = function, options
        self.module, self.qualname = _module_of(function), function.__qualname__
        self.name = f"{self.module}.{self.qualname}"
        self._check()
        update_wrapper(self, function)

    def _check(self) -> None:
        """Raise `TaskDefinitionError` where the options do not go with the function."""
        known = inspect.signature(self.function).parameters
        if unknown := [name for name in self.options.key_arguments if name not in known]:
            problem = f"key_arguments: it has no parameter {unknown[0]!r}"
            raise TaskDefinitionError(self.name, problem)
        if self.options.cpu_bound and self.is_async:
            problem = "cpu_bound is for plain functions; this one is async"
            raise TaskDefinitionError(self.name, problem)
        if self.options.cpu_bound and not all(map(str.isidentifier, self.qualname.split("."))):
            problem = "a worker process cannot import it; define it at the top of a module"
            raise TaskDefinitionError(self.name, problem)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 - what the function returns, a coroutine where it is async
        """Call the function, here and now."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    @cached_property
    def signature(self) -> Signature:
        """What it takes and returns; raises `TaskDefinitionError` where JSON cannot hold that."""
        return Signature(self.name, self.function)

    def load_result(self, text: str) -> R:
        """Return a result that was stored as JSON."""
        return cast("R", self.signature.load_result(text))

    # --- submitting -------------------------------------------------------------------------------

    @cached_property
    def _as_is(self) -> Submission[P, R]:
        return self.with_options()

    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> Invocation[R]:
        """Submit a call of it; when this returns it is in the store, and will be run.

        Raises `TaskArgumentsError` for what it cannot be called with, `NotOpenError` while the
        application does not run. Cancelled, it may have been submitted.
        """
        return await self._as_is.submit(*args, **kwargs)

    def with_options(
        self,
        *,
        delay_sec: float = 0,
        due_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        idempotency_key: str | None = None,
    ) -> Submission[P, R]:
        """Return what submits as this task does, but later, before others, elsewhere, or once.

        Nobody takes it before *due_at*, or before *delay_sec* seconds are over. The task has one
        invocation for each *idempotency_key*: a second submission returns the first one. Raises
        `ValueError` for both times, for a *delay_sec* that is no number of seconds or more than ten
        years, for a *due_at* that has no time zone, for a *priority* or a *queue* that is none, and
        for a key that is empty.
        """
        if due_at is not None:
            if delay_sec:
                raise ValueError("due_at goes without delay_sec")
            due_at = due_in_utc(due_at)
        check_delay("delay_sec", delay_sec)
        check_place(
            self.options.queue if queue is None else queue,
            self.options.priority if priority is None else priority,
        )
        check_key(idempotency_key)
        return Submission(self, _Wishes(delay_sec, due_at, priority, queue, idempotency_key))

    async def submit_many(self, calls: Iterable[Call | Sequence[Any]]) -> list[Invocation[R]]:
        """Submit several calls in one step, all of them or none; see `submit`.

        Each is the sequence of its positional arguments, or a `Call`.
        """
        return await self._as_is.submit_many(calls)

    @asynccontextmanager
    async def map(self, calls: Iterable[Call | Sequence[Any]]) -> AsyncGenerator[AsyncGenerator[R]]:
        """Submit several calls; the block gets their results as they finish, to iterate over.

        The iteration raises the first error that one of them raises. Leaving the block cancels
        nothing but the wait.
        """
        invocations = await self.submit_many(calls)
        send, receive = anyio.create_memory_object_stream[Invocation[R]](len(invocations))

        async def wait(invocation: Invocation[R]) -> None:
            # What goes wrong with that is raised where its result is asked for, and not beside it.
            with suppress(Exception):
                await invocation.wait()
            await send.send(invocation)

        async def results() -> AsyncGenerator[R]:
            for _ in invocations:
                finished = await receive.receive()
                yield await finished.result()

        left_by: BaseException | None = None
        try:
            with send, receive:
                async with anyio.create_task_group() as waits, aclosing(results()) as finished:
                    for invocation in invocations:
                        waits.start_soon(wait, invocation)
                    try:
                        yield finished
                    except BaseException as error:  # noqa: BLE001 - raised below
                        left_by = error  # the task group is no business of the block's
                    waits.cancel_scope.cancel()
        finally:
            if left_by is not None:
                try:
                    raise left_by
                finally:
                    del left_by

    def submit_from_thread(self, *args: P.args, **kwargs: P.kwargs) -> Invocation[R]:
        """Submit from a plain function of a task, or another thread that the loop has started."""
        return call_from_plain(lambda: self.submit(*args, **kwargs))

    def invocation(self, invocation_id: str) -> Invocation[R]:
        """Return the invocation of this id; whether there is one is seen when it is asked."""
        return Invocation(self, invocation_id)


class AsyncTask(Task[P, R]):
    """A task that is an ``async def``; called, it returns the coroutine."""

    is_async = True

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function, here and now."""
        made: Coroutine[Any, Any, R] = self.function(*args, **kwargs)
        return made


class PlainTask(Task[P, R]):
    """A task that is a plain function; called, it returns what the function returns."""

    is_async = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now."""
        result: R = self.function(*args, **kwargs)
        return result


class _Wishes(NamedTuple):
    delay_sec: float
    due_at: datetime | None
    priority: int | None
    queue: str | None
    idempotency_key: str | None


class Submission(Generic[P, R]):
    """A task with what is said of one submission; made by `Task.with_options`."""

    def __init__(self, task: Task[P, R], wishes: _Wishes) -> None:
        self._task, self._wishes = task, wishes

    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> Invocation[R]:
        """Submit a call, see `Task.submit`."""
        arguments = self._task.signature.dump(args, kwargs)
        return (await self._register([arguments]))[0]

    async def submit_arguments(self, arguments: Mapping[str, Any]) -> Invocation[R]:
        """Submit a call with arguments by name, as JSON has them."""
        return (await self._register([self._task.signature.check(arguments)]))[0]

    async def submit_many(self, calls: Iterable[Call | Sequence[Any]]) -> list[Invocation[R]]:
        """Submit several calls in one step, see `Task.submit_many`."""
        dump = self._task.signature.dump
        texts = [
            dump(call.args, call.kwargs) if isinstance(call, Call) else dump(tuple(call), {})
            for call in calls
        ]
        return await self._register(texts) if texts else []

    async def _register(self, texts: list[str]) -> list[Invocation[R]]:
        task, backend = self._task, self._task.home.state_backend
        now = backend.now()
        new = [self._new(text, now) for text in texts]
        registered: list[Registered] = await backend.register(new)
        invocations: list[Invocation[R]] = []
        for done, each in zip(registered, new, strict=True):
            if done.created:
                mine = Invocation(task, done.invocation_id, each.arguments, created=True)
                invocations.append(mine)
            else:
                invocations.append(Invocation(task, done.invocation_id))
                await invocations[-1].stored()  # it may have been called with others
        return invocations

    def _new(self, arguments: str, now: datetime) -> NewInvocation:
        task, options, wishes = self._task, self._task.options, self._wishes
        due_at = wishes.due_at
        if due_at is None and wishes.delay_sec > 0:
            due_at = now + timedelta(seconds=wishes.delay_sec)
        parent = waiting_in.get()
        return NewInvocation(
            invocation_id=new_invocation_id(now),
            task=task.name,
            arguments=arguments,
            queue=options.queue if wishes.queue is None else wishes.queue,
            priority=options.priority if wishes.priority is None else wishes.priority,
            due_at=due_at,
            idempotency_key=wishes.idempotency_key,
            registration_key=_key(task, options.registration_concurrency, arguments),
            on_duplicate=options.on_duplicate,
            running_key=_key(task, options.running_concurrency, arguments),
            parent_id=None if parent is None else parent.invocation_id,
        )


def _key(task: Task[..., Any], control: ConcurrencyControl, arguments: str) -> str | None:
    """Return the text that is the same for calls that are in each other's way."""
    if control is ConcurrencyControl.DISABLED:
        return None
    if control is ConcurrencyControl.TASK:
        return task.name
    if control is ConcurrencyControl.ARGUMENTS:
        return f"{task.name}:{digest(arguments)}"
    return f"{task.name}:{digest(task.signature.pick(arguments, task.options.key_arguments))}"


def _module_of(function: Callable[..., Any]) -> str:
    """Return the module's name, also of a function of the program that was started."""
    if function.__module__ == MAIN_AGAIN:
        return "__main__"
    if function.__module__ != "__main__":
        return function.__module__
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec is not None else "__main__"
