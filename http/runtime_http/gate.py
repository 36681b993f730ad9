"""The gate in front of everything: host, token, size and time; and answers that it has ready."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import trio
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
)

from .access import READING, Access
from .openapi import PROBES
from .problems import CONTENT_TYPE, HttpProblem

MOST_BODY_BYTES = 1024 * 1024
MOST_HEADERS = 200
#: Seconds within which the body of a request has to be there.
BODY_SEC = 20.0
_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
_POLICY = (
    b"content-security-policy",
    b"; ".join(
        [
            *(b"default-src 'none'", b"script-src 'self'", b"style-src 'self'"),
            *(b"img-src 'self' data:", b"connect-src 'self'"),
            *(b"base-uri 'none'", b"form-action 'none'", b"frame-ancestors 'none'"),
        ]
    ),
)
_ON_EVERY_ANSWER = [*_ALWAYS, (b"cache-control", b"no-store"), _POLICY]

Headers = Iterable[tuple[bytes, bytes]]
#: The status and the body of an answer that is ready.
Ready = Callable[[], tuple[int, bytes]]


class Gate:
    """An ASGI application before *app*: what it refuses never comes there.

    *ready* are the answers that it gives itself, by path.
    """

    def __init__(self, app: ASGIFramework, access: Access, ready: Mapping[str, Ready]) -> None:
        self._app, self._access, self._ready = app, access, ready

    async def __call__(
        self,
        scope: Any,  # noqa: ANN401 - one of several, by its type
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        """Answer a request, or let *app* do so."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(
        self,
        scope: Any,  # noqa: ANN401 - one of several, by its type
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        path, method = scope["path"], scope["method"]
        headers = _first_of_each(scope["headers"])
        answer = _Answer(send)
        made = self._answer_at_once(path, method, headers, len(scope["headers"]))
        if made is not None:
            if _has_body(headers):
                await _send_and_drain(made, receive, answer)
            else:
                await made(answer)
            return
        body = _Body(receive, answer)
        try:
            await self._app(scope, body.receive, answer.send)
        except HttpProblem as problem:
            body.problem = body.problem or problem
        except Exception:
            if body.problem is None:
                raise
        if body.problem is not None and not answer.begun:
            await _send_and_drain(partial(_send_problem, body.problem), receive, answer)

    def _answer_at_once(
        self, path: str, method: str, headers: Mapping[bytes, bytes], count: int
    ) -> Callable[["_Answer"], Awaitable[None]] | None:
        """Return what answers a request without the application, None when that is to do it."""
        problem = _judge_form(path, headers, count) or self._judge_host(path, method, headers)
        if problem is None and method == "GET" and _is_browser(path, headers):
            return _send_to_page  # that asks for the token itself
        problem = problem or self._refuse(path, method, headers)
        if problem is not None:
            return partial(_send_problem, problem)
        ready = self._ready.get(path)
        if ready is None or method not in ("GET", "HEAD"):
            return None
        status, body = ready()
        return partial(
            _send, status=status, content_type=b"application/json", body=body, whole=method == "GET"
        )

    def _judge_host(
        self, path: str, method: str, headers: Mapping[bytes, bytes]
    ) -> HttpProblem | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if _is_probe(path, method) or self._access.admits_host(host):
            return None
        return HttpProblem(421, f"this server does not answer for the host {host!r}")

    def _refuse(self, path: str, method: str, headers: Mapping[bytes, bytes]) -> HttpProblem | None:
        if _is_probe(path, method):
            return None
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        if not self._access.admits(method, path, authorization):
            detail = "this takes the token of the run directory: Authorization: Bearer TOKEN"
            return HttpProblem(401, detail, headers={"www-authenticate": "Bearer"})
        if method not in READING and _is_of_another_site(headers):
            return HttpProblem(403, "a page of another site may change nothing here")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > MOST_BODY_BYTES:
            return _too_large()
        return None


def _is_probe(path: str, method: str) -> bool:
    return path in PROBES and method in ("GET", "HEAD")


def _is_of_another_site(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a browser says that a page of somebody else has sent this.

    It brings along what the browser knows of a login, for which a proxy may add the token. (To
    compare the origin with the host would not do: behind a proxy they differ.)
    """
    return headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none")


def _judge_form(path: str, headers: Mapping[bytes, bytes], count: int) -> HttpProblem | None:
    if not path.startswith("/"):
        return HttpProblem(400, "the target of a request is a path here, such as /tree")
    if headers.get(b"upgrade", b"").lower() == b"websocket":
        return HttpProblem(400, "there are no websockets here; events are server-sent")
    if count > MOST_HEADERS:
        return HttpProblem(431, f"the request has more than {MOST_HEADERS} headers")
    return None


class _Body:
    """The body of a request, bounded in size and time."""

    def __init__(self, receive: ASGIReceiveCallable, answer: "_Answer") -> None:
        self._receive, self._answer = receive, answer
        self._size = 0
        self._deadline = trio.current_time() + BODY_SEC
        self._whole = False
        self.problem: HttpProblem | None = None

    async def receive(self) -> ASGIReceiveEvent:
        message = await self._receive_in_time()
        if self._answer.ended:
            # Told that the request is over, Quart would cancel the end of its own answer, and with
            # it what Hypercorn does then: to close the connection, or to wait for the next request.
            await _drain(self._receive, None if self.problem else message)
            await trio.sleep_forever()
        return message

    async def _receive_in_time(self) -> ASGIReceiveEvent:
        if self._whole:
            return await self._receive()
        message: ASGIReceiveEvent | None = None
        with trio.move_on_at(self._deadline):
            message = await self._receive()
        if message is None:
            self.problem = HttpProblem(408, f"the body was not there within {BODY_SEC:g} s")
        elif message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._size > MOST_BODY_BYTES:
                self.problem = _too_large()
        if message is None or self.problem is not None:
            return {"type": "http.disconnect"}
        return message


class _Answer:
    """The answer of the application, with the headers that every answer has."""

    def __init__(self, send: ASGISendCallable) -> None:
        self._send = send
        self.begun = self.ended = False

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            message = {**message, "headers": complete_headers(message["headers"])}
        elif message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
        await self._send(message)


def complete_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return *headers* with those that every answer has."""
    given = [(name.lower(), value) for name, value in headers]
    names = {name for name, _ in given}
    return [*given, *(header for header in _ON_EVERY_ANSWER if header[0] not in names)]


def _first_of_each(headers: Headers) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found.setdefault(bytes(name).lower(), bytes(value))
    return found


def _is_browser(path: str, headers: Mapping[bytes, bytes]) -> bool:
    return path == "/" and b"text/html" in headers.get(b"accept", b"")


def _too_large() -> HttpProblem:
    return HttpProblem(413, f"the body is larger than {MOST_BODY_BYTES} bytes")


def _has_body(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


async def _send_and_drain(
    made: Callable[[_Answer], Awaitable[None]], receive: ASGIReceiveCallable, answer: _Answer
) -> None:
    """Answer while what still comes of the body is thrown away.

    Hypercorn hands the body over through a short queue: while that is full it can neither close
    the connection nor read from it. The last thing in it is that the request is over.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_drain, receive)
        await made(answer)


async def _drain(receive: ASGIReceiveCallable, message: ASGIReceiveEvent | None = None) -> None:
    while message is None or message["type"] != "http.disconnect":
        message = await receive()


async def _send_problem(problem: HttpProblem, answer: _Answer) -> None:
    more = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
    # What is left of the request is not read, so the connection is of no further use.
    await _send(
        answer,
        status=problem.status,
        content_type=CONTENT_TYPE.encode(),
        body=problem.body(),
        more=[*more, (b"connection", b"close")],
    )


async def _send_to_page(answer: _Answer) -> None:
    more = [(b"location", b"./ui/"), (b"vary", b"accept")]
    await _send(answer, status=303, content_type=b"text/plain", body=b"", more=more)


async def _send(
    answer: _Answer,
    *,
    status: int,
    content_type: bytes,
    body: bytes,
    more: Headers = (),
    whole: bool = True,
) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        *more,
    ]
    await answer.send({"type": "http.response.start", "status": status, "headers": headers})
    await answer.send(
        {"type": "http.response.body", "body": body if whole else b"", "more_body": False}
    )
