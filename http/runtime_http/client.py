"""A client of the HTTP face, for Trio and asyncio alike."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from runtime.service.models import ApplicationStatus, ServiceStatus

from .models import (
    AllUsage,
    EventList,
    EventView,
    HistoryLine,
    InvocationHistoryView,
    InvocationList,
    InvocationResult,
    InvocationView,
    LogLine,
    LogLines,
    ProcessList,
    ProcessUsage,
    ProcessView,
    ServiceChange,
    ServiceList,
    ServiceRegistration,
    ServiceSummary,
    Submitted,
    TaskList,
    TaskView,
    TreeView,
    UnitView,
    Usage,
    Why,
)

M = TypeVar("M", bound=BaseModel)
_UNIX = "unix:"
#: Seconds to connect; an answer may take as long as what was asked for takes.
CONNECT_SEC = 5.0
#: A stream that says nothing for so many seconds is dead: a server says every 15 that it is there.
SILENCE_SEC = 40.0
_OTHER = "what answers there is no such server"


class ClientError(Exception):
    """The base of what a client raises."""


class NotReachedError(ClientError):
    """Nobody answers at *url*, or somebody else does."""

    url: str
    problem: str

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(url, problem)
        self.url, self.problem = url, problem

    def __str__(self) -> str:
        return f"no tree answers at {self.url}: {self.problem}"


class RefusedError(ClientError):
    """The server has answered that it cannot do what was asked for; *fields* say more."""

    status: int
    detail: str
    fields: Mapping[str, Any]

    def __init__(self, status: int, detail: str, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(status, detail, fields or {})
        self.status, self.detail, self.fields = status, detail, fields or {}

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True)
class Message:
    """One server-sent event: its kind, what it carries, and its number where it has one."""

    kind: str
    data: Any
    number: int | None = None


class Client:
    """Asks a running tree over HTTP, and steers it with its *token*.

    *url* is ``http://HOST:PORT`` or ``unix:PATH``. It is a block: ``async with Client(url) as c:``,
    under Trio or asyncio. Every method raises `NotReachedError` and `RefusedError`, and waits as
    long as what it asks for takes: the caller owns the deadline. Cancelled, that goes on.
    Streams are closed by ``async with aclosing(...)`` around them; they end when the server does,
    and with `NotReachedError` when nothing is heard of it for `SILENCE_SEC` seconds.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url: str = url
        transport = None
        base = url
        if url.startswith(_UNIX):
            transport = httpx.AsyncHTTPTransport(uds=url.removeprefix(_UNIX), verify=False)
            base = "http://localhost"
        headers = {} if token is None else {b"authorization": f"Bearer {token}".encode()}
        try:
            self._http = httpx.AsyncClient(
                base_url=base,
                headers=headers,
                transport=transport,
                timeout=httpx.Timeout(None, connect=CONNECT_SEC),
                # To read the certificates of the world takes 70 ms, and most clients need none.
                verify=not base.startswith("http:"),
                trust_env=False,  # a proxy has no business with this
            )
        except httpx.InvalidURL as error:
            raise NotReachedError(url, str(error)) from error

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    # --- the tree -----------------------------------------------------------------------------

    async def application(self) -> ApplicationStatus:
        """Return how the application stands."""
        return await self._get("/", ApplicationStatus)

    async def tree(self) -> TreeView:
        """Return how every unit stands."""
        return await self._get("/tree", TreeView)

    async def unit(self, name: str) -> UnitView:
        """Return how one unit stands, whatever its kind."""
        return await self._get(f"/tree/{quote(name)}", UnitView)

    async def why(self, name: str) -> Why:
        """Return the chain of events behind the last change of a unit."""
        return await self._get(f"/why/{quote(name)}", Why)

    async def is_ready(self) -> bool:
        """Return whether every unit that must be ready is."""
        try:
            await self._request("GET", "/readyz")
        except RefusedError as refusal:
            if refusal.status == 503:
                return False
            raise
        return True

    async def events(self, *, after: int | None = None) -> AsyncGenerator[Message]:
        """Yield what happens: a snapshot first, or what came after the event of that number."""
        headers = {} if after is None else {"last-event-id": str(after)}
        async with self._stream("/events", headers=headers) as messages:
            async for message in messages:
                yield message

    async def recent_events(self, *, limit: int = 100) -> list[EventView]:
        """Return what has happened last to units, the oldest first; none of invocations."""
        params = {"limit": str(limit)}
        return (await self._get("/events/recent", EventList, params)).events

    # --- processes ----------------------------------------------------------------------------

    async def processes(self) -> list[ProcessView]:
        """Return how all processes stand."""
        return (await self._get("/processes", ProcessList)).processes

    async def process(self, name: str) -> ProcessView:
        """Return how a process stands."""
        return await self._get(f"/processes/{_part(name)}", ProcessView)

    async def change_process(
        self, name: str, verb: Literal["start", "stop", "restart"]
    ) -> ProcessView:
        """Start, stop or restart a process, and return how it stands when that is done."""
        return await self._post(f"/processes/{_part(name)}/{verb}", ProcessView)

    async def logs(
        self, name: str, *, lines: int = 100, stream: str | None = None
    ) -> list[LogLine]:
        """Return the newest lines of a process."""
        params = _log_params(lines, stream)
        return (await self._get(f"/processes/{_part(name)}/logs", LogLines, params)).lines

    async def follow_logs(
        self,
        name: str,
        *,
        lines: int = 100,
        stream: str | None = None,
        after: int | None = None,
        on_missed: Callable[[int], object] | None = None,
    ) -> AsyncGenerator[LogLine]:
        """Yield the newest lines of a process, or those *after* a number, and those that come.

        *on_missed* is called with how many lines came faster than they were read, and are gone.
        """
        params = {**_log_params(lines, stream), "follow": "1"}
        if after is not None:
            params["after"] = str(after)
        path = f"/processes/{_part(name)}/logs"
        async with self._stream(path, params=params) as messages:
            async for message in messages:
                if message.kind == "line":
                    yield LogLine.model_validate(message.data)
                elif message.kind == "missed" and on_missed is not None:
                    on_missed(message.data["lines"])

    async def stats(self) -> dict[str, Usage]:
        """Return what each process that runs uses now, by its name."""
        return (await self._get("/stats", AllUsage)).stats

    async def process_stats(self, name: str) -> ProcessUsage:
        """Return what a process uses now, and has used lately."""
        return await self._get(f"/processes/{_part(name)}/stats", ProcessUsage)

    # --- services -----------------------------------------------------------------------------

    async def services(self) -> list[ServiceSummary]:
        """Return all services."""
        return (await self._get("/services", ServiceList)).services

    async def service(self, name: str) -> ServiceStatus:
        """Return how a service stands."""
        return await self._get(f"/services/{_part(name)}", ServiceStatus)

    async def change_service(
        self, name: str, verb: Literal["start", "stop", "restart"]
    ) -> ServiceChange:
        """Start, stop or restart a service, and return when that is done."""
        return await self._post(f"/services/{_part(name)}/{verb}", ServiceChange)

    async def configure_service(
        self, name: str, configuration: Mapping[str, Any], *, start: bool = False
    ) -> ServiceChange:
        """Give a service a configuration, and with *start* start it."""
        verb = "configure_and_start" if start else "configure"
        return await self._post(f"/services/{_part(name)}/{verb}", ServiceChange, configuration)

    async def register_service(
        self, service_name: str, instance_name: str | None = None
    ) -> ServiceRegistration:
        """Register a service of a class that the server knows by name."""
        body = {"service_name": service_name, "instance_name": instance_name}
        return await self._post("/services/register", ServiceRegistration, body)

    async def deregister_service(self, name: str) -> ServiceChange:
        """Stop a service, and let it be forgotten."""
        response = await self._request("DELETE", f"/services/{_part(name)}")
        return self._read(response, ServiceChange)

    # --- tasks --------------------------------------------------------------------------------

    async def tasks(self) -> list[TaskView]:
        """Return all tasks."""
        return (await self._get("/tasks", TaskList)).tasks

    async def submit(
        self,
        task: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        delay_sec: float = 0,
        due_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        idempotency_key: str | None = None,
    ) -> Submitted:
        """Submit a call of a task, by ``module.function`` or the function's name alone.

        Nobody takes it before *due_at*, which has a time zone, or before *delay_sec* seconds are
        over. Higher *priority* goes first. The task is submitted once for each *idempotency_key*;
        later ones get the first.
        """
        said = {
            "arguments": dict(arguments or {}),
            "delay_sec": delay_sec,
            "due_at": None if due_at is None else due_at.isoformat(),
            "priority": priority,
            "queue": queue,
            "idempotency_key": idempotency_key,
        }
        body = {name: value for name, value in said.items() if value is not None}
        return await self._post(f"/tasks/{_part(task)}", Submitted, body)

    async def invocations(
        self,
        *,
        status: str | Sequence[str] | None = None,
        task: str | None = None,
        workflow: str | None = None,
        parent: str | None = None,
        limit: int = 100,
        after: str | None = None,
        counts: bool = False,
    ) -> InvocationList:
        """Return invocations, the newest first, and the cursor for more.

        Those of one *status*, or of any of several. With *counts* also how many of all in the store
        have which status.
        """
        asked = {
            "status": status,
            "task": task,
            "workflow": workflow,
            "parent": parent,
            "after": after,
            "limit": str(limit),
            "counts": "true" if counts else None,
        }
        params = {name: value for name, value in asked.items() if value is not None}
        return await self._get("/invocations", InvocationList, params)

    async def invocation(self, invocation_id: str) -> InvocationView:
        """Return how an invocation stands."""
        return await self._get(f"/invocations/{_part(invocation_id)}", InvocationView)

    async def history(self, invocation_id: str) -> list[HistoryLine]:
        """Return all that has happened to an invocation, the oldest first."""
        path = f"/invocations/{_part(invocation_id)}/history"
        return (await self._get(path, InvocationHistoryView)).root

    async def result(self, invocation_id: str, *, wait_sec: float = 0) -> InvocationResult:
        """Return how an invocation has ended, or its status while it has not.

        That is waited for up to *wait_sec* seconds, which may be 60. Who waits longer asks again.
        """
        path = f"/invocations/{_part(invocation_id)}/result"
        params = {"wait_sec": str(wait_sec)} if wait_sec else None
        return await self._get(path, InvocationResult, params)

    async def change_invocation(
        self, invocation_id: str, verb: Literal["cancel", "retry"]
    ) -> InvocationView:
        """Cancel an invocation, or try it again; return how the one in question stands then."""
        return await self._post(f"/invocations/{_part(invocation_id)}/{verb}", InvocationView)

    # --- how ----------------------------------------------------------------------------------

    async def _get(
        self,
        path: str,
        model: type[M],
        params: Mapping[str, str | Sequence[str]] | None = None,
    ) -> M:
        response = await self._request("GET", path, params=params)
        return self._read(response, model)

    async def _post(self, path: str, model: type[M], body: Mapping[str, Any] | None = None) -> M:
        response = await self._request("POST", path, json=body)
        return self._read(response, model)

    def _read(self, response: httpx.Response, model: type[M]) -> M:
        try:
            return model.model_validate_json(response.content)
        except ValidationError as error:
            raise NotReachedError(self.url, _OTHER) from error

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        try:
            response = await self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise NotReachedError(self.url, str(error) or type(error).__name__) from error
        if response.is_error:
            raise _refusal(response)
        return response

    @asynccontextmanager
    async def _stream(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[AsyncIterator[Message]]:
        limits = httpx.Timeout(None, connect=CONNECT_SEC, read=SILENCE_SEC)
        try:
            async with self._http.stream(
                "GET", path, params=params, headers=headers, timeout=limits
            ) as response:
                if response.is_error:
                    await response.aread()
                    raise _refusal(response)
                lines = response.aiter_lines()
                try:
                    async with aclosing(self._messages(lines)) as messages:
                        yield messages
                finally:
                    await _finish(response, lines)
        except httpx.TransportError as error:
            raise NotReachedError(self.url, str(error) or type(error).__name__) from error

    async def _messages(self, lines: AsyncIterator[str]) -> AsyncGenerator[Message]:
        kind, data, number = "message", "", None
        async for line in lines:
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "id":
                number = int(value) if value.isdecimal() else None
            elif name == "data":
                data += value
            elif not line:
                if data:
                    yield Message(kind, self._decode(data), number)
                kind, data, number = "message", "", None

    def _decode(self, data: str) -> Any:  # noqa: ANN401 - whatever a message carries
        try:
            return json.loads(data)
        except ValueError as error:
            raise NotReachedError(self.url, _OTHER) from error


async def _finish(response: httpx.Response, lines: AsyncIterator[str]) -> None:
    """Close *response*, and let the generators that httpx reads it by come to their end.

    It closes none of them; one that is left half read is complained of when it is collected.
    """
    await response.aclose()
    with suppress(httpx.TransportError, httpx.StreamError):
        async for _ in lines:
            pass


def _refusal(response: httpx.Response) -> RefusedError:
    try:
        document = response.json()
        detail = str(document.pop("detail"))
    except (ValueError, KeyError, AttributeError, TypeError):  # of somebody in between
        words = f"{response.status_code} {response.reason_phrase}"
        return RefusedError(response.status_code, words)
    return RefusedError(response.status_code, detail, document)


def _part(name: str) -> str:
    return quote(name, safe="")


def _log_params(lines: int, stream: str | None) -> dict[str, str]:
    params = {"lines": str(lines)}
    return params if stream is None else {**params, "stream": stream}
