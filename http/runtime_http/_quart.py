"""The one place that knows that Quart runs on Trio by quart-trio, and how its errors are told."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json
from quart import Blueprint as Blueprint
from quart import Response
from quart import request as request
from quart_schema import Info, QuartSchema, RequestSchemaValidationError
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from runtime._secrets import Secrets

from ._http1 import WRITER
from .openapi import SECURITY_SCHEMES, Provider
from .problems import CONTENT_TYPE, HttpProblem, explain

EVENT_STREAM = "text/event-stream"


def make_app(name: str, secrets: Secrets, *, title: str = "", version: str = "0") -> QuartTrio:
    """Return an application whose errors are problem documents, without *secrets*."""
    app = QuartTrio(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = None  # the gate bounds it
    app.config["BODY_TIMEOUT"] = None
    app.config["RESPONSE_TIMEOUT"] = None  # a stream of events has no end
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
