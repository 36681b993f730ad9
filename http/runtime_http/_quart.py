"""The one place that knows that Quart runs on Trio by quart-trio, and how its errors are told."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from functools import partial, wraps
from inspect import isgenerator
from math import inf
from types import AsyncGeneratorType, TracebackType
from typing import Any, ParamSpec, TypeVar, cast

import trio
from pydantic import ValidationError
from pydantic_core import from_json
from quart import Blueprint as Blueprint
from quart import Response
from quart import request as request
from quart_schema import Info, QuartSchema, RequestSchemaValidationError
from quart_trio import QuartTrio
from quart_trio.utils import run_sync_iterable
from werkzeug.exceptions import HTTPException

from runtime._secrets import Secrets

from ._http1 import WRITER
from ._serving import GRACE_SEC
from .openapi import SECURITY_SCHEMES, Provider
from .problems import CONTENT_TYPE, HttpProblem, explain

EVENT_STREAM = "text/event-stream"
P = ParamSpec("P")
T = TypeVar("T")


class _App(QuartTrio):
    """An application whose plain functions hold up no stop."""

    def sync_to_async(self, func: Callable[P, T]) -> Callable[P, Awaitable[T]]:
        """Return *func* as a coroutine function, run in a thread; cancelled, that is left alone."""

        @wraps(func)
        async def call(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 - what it returns
            run = partial(copy_context().run, func, *args, **kwargs)
            result = await trio.to_thread.run_sync(run, abandon_on_cancel=True)
            if isgenerator(result):
                return run_sync_iterable(cast("Generator[Any, None, None]", result))
            return result

        return call


@asynccontextmanager
async def serving(app: QuartTrio) -> AsyncGenerator[None]:
    """Have *app* serve during the block, as its lifespan would: its hooks are run around it.

    ``before_serving`` and the first part of ``while_serving`` come before the block, which raises
    what they raise; ``after_serving`` and the rest of ``while_serving`` behind it. What is begun by
    `add_background_task` has `GRACE_SEC` seconds more. What is raised by one of them or the block,
    a cancellation too, is raised in the generators of ``while_serving`` at their ``yield``. To be
    entered and left in one task: the nurseries of these stay open in between.
    """
    async with trio.open_nursery() as app.nursery, AsyncExitStack() as generators:
        for generator in app.while_serving_gens:
            generators.push_async_exit(partial(_leave, generator))
        await app.startup()
        yield
        app.shutdown_event.set()
        await app.shutdown()
        app.nursery.cancel_scope.deadline = trio.current_time() + GRACE_SEC


def make_app(name: str, secrets: Secrets, *, title: str = "", version: str = "0") -> QuartTrio:
    """Return an application whose errors are problem documents, without *secrets*."""
    app = _App(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = None  # the gate bounds it
    app.config["BODY_TIMEOUT"] = None
    app.config["RESPONSE_TIMEOUT"] = None  # a stream of events has no end
    # It would bound the hooks as well, and nobody would hear of those that it cuts off.
    app.config["BACKGROUND_TASK_SHUTDOWN_TIMEOUT"] = inf
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # it would lead elsewhere
    QuartSchema(
        app,
        openapi_path=None,
        swagger_ui_path=None,
        redoc_ui_path=None,
        scalar_ui_path=None,
        openapi_provider_class=Provider,
        security_schemes=SECURITY_SCHEMES,
        info=Info(title=title, version=version),
    )

    async def tell_error(error: Exception) -> Response:
        problem = explain(error, secrets) or _explain_web(error)
        if problem is None:
            raise error
        return problem_response(problem)

    app.register_error_handler(Exception, tell_error)
    return app


async def _leave(
    generator: AsyncGenerator[None],
    kind: type[BaseException] | None,  # noqa: ARG001 - the protocol of an exit stack
    error: BaseException | None,
    traceback: TracebackType | None,  # noqa: ARG001
) -> bool:
    """Let *generator* see *error*; return whether it was a cancellation by a scope of its own."""
    if error is None:
        await generator.aclose()
    has_ended = isinstance(generator, AsyncGeneratorType) and generator.ag_frame is None
    if error is None or has_ended:
        return False
    try:
        await generator.athrow(error)
    except StopAsyncIteration:
        return isinstance(error, trio.Cancelled)
    except BaseException as raised:
        if raised is not error:
            raise
    return False


async def read_json() -> object:
    """Return the body of the request, whatever type it says it has; it has to be JSON.

    A client is told what is wrong with it; so it is with what no JSON can say again: a number that
    is none, half of a character.
    """
    try:
        return from_json(await request.get_data(cache=False), allow_inf_nan=False)
    except ValueError as error:
        raise HttpProblem(422, f"the body is no JSON: {error}") from error


def _explain_web(error: Exception) -> HttpProblem | None:
    if isinstance(error, ValidationError):
        return _explain_validation(error)
    if isinstance(error, RequestSchemaValidationError):
        return _explain_validation(error.validation_error)
    if isinstance(error, HTTPException):
        status = error.code or 500
        # What cannot be read as JSON is input as bad as what does not fit.
        status = 422 if status in (400, 415) else status
        headers = {}
        allowed = getattr(error, "valid_methods", None)
        if allowed:
            headers["allow"] = ", ".join(sorted(allowed))
        return HttpProblem(status, error.description or error.name, headers=headers)
    return None


def _explain_validation(error: Any) -> HttpProblem:  # noqa: ANN401 - of pydantic, or a TypeError
    errors = getattr(error, "errors", None)
    if errors is None:
        return HttpProblem(422, f"the body does not fit: {error}")
    problems = [
        {"where": ".".join(map(str, each["loc"])), "problem": each["msg"]}
        for each in errors(include_url=False, include_context=False, include_input=False)
    ]
    words = "; ".join(f"{p['where'] or 'the body'}: {p['problem']}" for p in problems)
    return HttpProblem(422, words, {"problems": problems})


def problem_response(problem: HttpProblem) -> Response:
    """Return *problem* as an answer."""
    response = Response(problem.body(), status=problem.status, content_type=CONTENT_TYPE)
    response.headers.update(problem.headers)
    return response


def last_event_id() -> int | None:
    """Return the number of the event that a reader of a stream has seen last, if it says so."""
    given = request.headers.get("last-event-id") or request.args.get("after")
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal()) or len(given) > 18:
        raise HttpProblem(422, f"Last-Event-ID must be the number of an event, not {given!r}")
    return int(given)


def body_writer() -> Callable[[bytes], bool] | None:
    """Return what writes pieces of the answer's body without waiting, where the server has that."""
    writer: Callable[[bytes], bool] | None = request.scope.get("state", {}).get(WRITER)
    return writer


def stream_response(
    events: AsyncIterator[bytes], headers: Mapping[str, str] | None = None
) -> Response:
    """Return server-sent events as an answer, without any where only its head was asked for."""
    body = b"" if request.method == "HEAD" else events
    response = Response(body, content_type=EVENT_STREAM)
    response.headers.update(headers or {})
    return response
