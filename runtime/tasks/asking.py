"""What a body in a worker process asks its runner for: to submit calls, and who it is itself.

The worker asks, over the connection that the call came by, and waits; the runner answers. That is
all that it can ask for: while it waited for another invocation, no worker might be left for that.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

from runtime.invocation.errors import ErrorRecord
from runtime.invocation.models import NewInvocation, Registered, StoredInvocation
from runtime.state_backend.base import BaseStateBackend

from ._exceptions import OnlySubmitsError
from .running import CurrentInvocation
from .task import Task

T = TypeVar("T")
#: Sends a question and returns the answer.
Ask = Callable[[dict[str, Any]], dict[str, Any]]


@cache
def _kinds() -> dict[str, tuple[TypeAdapter[Any], TypeAdapter[Any]]]:
    """Return what may be asked for: methods of the store, what they take, and what they return."""
    return {
        "register": (TypeAdapter(list[NewInvocation]), TypeAdapter(list[Registered])),
        "get_invocation": (TypeAdapter(str), TypeAdapter(StoredInvocation)),
    }


async def answer(backend: BaseStateBackend, question: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a worker: of the store, or the error that it has raised."""
    takes, returns = _kinds()[question["ask"]]
    try:
        found = await getattr(backend, question["ask"])(takes.validate_json(question["with"]))
    except Exception as error:  # noqa: BLE001 - whatever it was, it is raised in the worker
        return {"error": ErrorRecord.of(error).to_json()}
    return {"answer": returns.dump_json(found).decode()}


class AskingStore:
    """The part of a store that a worker process has: it registers invocations, at its runner's."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def as_store(self) -> BaseStateBackend:
        """Return it in the place of a whole one; what it lacks raises `OnlySubmitsError`."""
        return cast("BaseStateBackend", self)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - nothing is returned
        raise OnlySubmitsError(name)

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC)

    async def register(self, invocations: Sequence[NewInvocation]) -> list[Registered]:
        """See `BaseStateBackend.register`."""
        done: list[Registered] = self._call("register", list(invocations))
        return done

    async def get_invocation(self, invocation_id: str) -> StoredInvocation:
        """See `BaseStateBackend.get_invocation`."""
        found: StoredInvocation = self._call("get_invocation", invocation_id)
        return found

    def _call(self, name: str, value: object) -> Any:  # noqa: ANN401 - what the adapter returns
        takes, returns = _kinds()[name]
        told = self._ask({"ask": name, "with": takes.dump_json(value).decode()})
        if "error" in told:
            raise ErrorRecord.from_json(told["error"]).to_exception()
        return returns.validate_json(told["answer"])


class InvocationInWorker(CurrentInvocation):
    """The invocation whose body runs in this worker process."""

    def __init__(self, task: Task[..., Any], call: dict[str, Any]) -> None:
        super().__init__(task, call["invocation_id"], call["arguments"])
        self.attempt: int = call["attempt"]
        self.retries: int = call["retries"]

    def pausing(self, awaited: str) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - as elsewhere
        """Raise `OnlySubmitsError`."""
        raise OnlySubmitsError("wait")

    def call_from_plain(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what *function* returns, which waits for nothing but the runner's answers."""
        steps: Generator[Any, Any, T] = function().__await__()
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        steps.close()
        raise OnlySubmitsError("wait")
