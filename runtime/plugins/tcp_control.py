"""The control server ``tcp``: JSON lines over TCP, or over a unix socket.

A request is a line such as ``{"action": "restart", "processes": ["api"], "token": "…"}``, an answer
is a line as well: ``{"ok": true, "processes": […]}`` or ``{"ok": false, "error": {…}}``. Over TCP
each request needs the token of the run directory; who may open the unix socket needs none.
"""

from __future__ import annotations

import json
import logging
import select
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from pathlib import Path
from secrets import compare_digest
from typing import Any, Final, NoReturn, Protocol, cast

import trio

from runtime._listening import ListenError, open_listeners, parse_bind
from runtime._problems import Problem, did_you_mean
from runtime.process import Process
from runtime.run_directory import CONTROL_FILE, forget_file, note_in_file, read_token
from runtime.supervision._exceptions import SupervisionError
from runtime.supervision.supervisor import Supervisor

_logger = logging.getLogger(__name__)

#: What a manifest gives as ``control_server``, unless a plugin has the name.
NAME: Final = "tcp"
DEFAULT_BIND: Final = "127.0.0.1:0"
#: Bytes of a request, without the end of its line.
LONGEST_LINE: Final = 64 * 1024
#: Connections at the same time; one more is told so and closed.
MOST_CONNECTIONS: Final = 64
#: Seconds from the first byte of a line to its last one.
LINE_SEC: Final = 10.0
#: Seconds that a client may say nothing while it waits for nothing.
IDLE_SEC: Final = 60.0
#: Seconds that a client may take to read an answer.
SEND_SEC: Final = 10.0

_CHUNK = 16 * 1024
_REQUESTS_READ_AHEAD = 8
_LAST_ANSWER_SEC = 1.0
_KEYS = ("action", "processes", "token", "id")
_ACTIONS = ("status", "start", "stop", "restart", "shutdown")


class ControlledPilot(Protocol):
    """What the server needs to know of a `ProcessPilot`."""

    supervisor: Supervisor

    @property
    def control_params(self) -> Mapping[str, Any]:
        """The ``control_params`` of the manifest."""
        ...

    @property
    def base_directory(self) -> Path:
        """Where a relative path of a socket starts."""
        ...

    @property
    def run_directory(self) -> Path | None:
        """Where the token is, and where the address is to be told."""
        ...

    def get_manifest_processes(self) -> list[Process]:
        """Return all processes."""
        ...

    def unit_names(self, names: Sequence[str] | str) -> list[str]:
        """Return the names of the units behind *names*; `UnknownUnitError`."""
        ...

    async def start_processes(self, process_names: list[str]) -> None:
        """Start these, and wait for it."""
        ...

    async def stop_processes(self, process_names: list[str]) -> None:
        """Stop these, and wait for it."""
        ...

    async def restart_processes(self, process_names: list[str]) -> None:
        """Restart these, and wait for it."""
        ...


class ControlRequestError(ValueError):
    """A request is not one; *problem* says what is wrong with it, and nothing was changed."""

    problem: str

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class ControlTokenError(ControlRequestError):
    """A request over TCP came without the token, or with another one."""


# --- where it listens -----------------------------------------------------------------------------


def find_param_problems(
    params: Mapping[str, Any], base: Path, *, has_run_directory: bool
) -> list[Problem]:
    """Return what is wrong with the ``control_params`` of a manifest that names this server."""
    here = ("control_params",)
    problems = [
        Problem((*here, key), f"unknown key{did_you_mean(key, ['bind'])}")
        for key in params
        if key != "bind"
    ]
    try:
        bind = parse_bind(params.get("bind", DEFAULT_BIND), base)
    except ValueError as error:
        return [*problems, Problem((*here, "bind"), str(error))]
    if bind.path is None and not has_run_directory:
        words = "over TCP a run directory is needed, where the token is: use unix:PATH, or give the"
        problems.append(Problem((*here, "bind"), f"{words} pilot a Host with a folder"))
    return problems


# --- requests -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants; without *processes* it named none."""

    action: str
    processes: tuple[str, ...]


def _refuse_constant(text: str) -> NoReturn:
    raise ControlRequestError(f"{text} is no number of JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ControlRequestError("there is a number that is too large")
    return number


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the object that a line says; raise `ControlRequestError`."""
    try:
        data = json.loads(
            line.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_parse_float
        )
    except ControlRequestError:
        raise
    except UnicodeDecodeError as error:
        raise ControlRequestError(f"the request is no UTF-8: {error.reason}") from None
    except json.JSONDecodeError as error:
        raise ControlRequestError(f"the request is no JSON: {error}") from None
    except RecursionError:
        raise ControlRequestError("the request is too deep") from None
    except ValueError:  # an integer of thousands of digits
        raise ControlRequestError("there is a number that is too large") from None
    if not isinstance(data, dict):
        raise ControlRequestError('a request is an object, such as {"action": "status"}')
    return cast("dict[str, Any]", data)


def parse_request(data: Mapping[str, Any]) -> Request:
    """Return the request that *data* is; raise `ControlRequestError`."""
    for key in data:
        if key not in _KEYS:
            raise ControlRequestError(f"unknown key {key!r}{did_you_mean(key, _KEYS)}")
    if "action" not in data:
        raise ControlRequestError(f"there is no action; it is one of {', '.join(_ACTIONS)}")
    action, names = data["action"], data.get("processes")
    if action not in _ACTIONS:
        hint = did_you_mean(action, _ACTIONS) if isinstance(action, str) else ""
        hint = hint or f"; it is one of {', '.join(_ACTIONS)}"
        raise ControlRequestError(f"there is no action {action!r}{hint}")
    named = () if names is None else _parse_names(names)
    if action in ("start", "stop", "restart") and not named:
        raise ControlRequestError(f'{action} needs names: {{"processes": ["…"]}}')
    if action == "shutdown" and named:
        raise ControlRequestError("shutdown stops everything; to stop some of it, use stop")
    return Request(action, named)


def _parse_names(names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ControlRequestError("processes must be a list of names")
    return tuple(names)


def _error(error: Exception) -> dict[str, Any]:
    return {"ok": False, "error": {"type": type(error).__name__, "message": str(error)}}


# --- the server -----------------------------------------------------------------------------------


class TCPControlServer:
    """Serves requests to a *pilot* at the ``bind`` of its manifest's ``control_params``."""

    def __init__(self, pilot: ControlledPilot) -> None:
        self._pilot = pilot
        self._bind = parse_bind(
            pilot.control_params.get("bind", DEFAULT_BIND), pilot.base_directory
        )
        self._token: bytes | None = None
        self._connections: set[_Connection] = set()
        self._stop_asked, self._ended = trio.Event(), trio.Event()

    async def start(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` is called; report started once clients can come."""
        try:
            async with open_listeners(self._bind) as (address, listeners):
                if self._bind.path is None:
                    self._token = await trio.to_thread.run_sync(self._read_token)
                async with self._tell_address(address):
                    await self._serve(listeners, task_status)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """End it: idle clients at once, the others when they have their answers, or in a second."""
        self._stop_asked.set()
        await self._ended.wait()

    def _read_token(self) -> bytes:
        folder = self._pilot.run_directory
        if folder is None:
            raise ListenError(str(self._bind), "there is no run directory for the token")
        return read_token(folder).encode()

    @asynccontextmanager
    async def _tell_address(self, address: str) -> AsyncGenerator[None]:
        folder = self._pilot.run_directory
        if folder is None:
            yield
            return
        await trio.to_thread.run_sync(note_in_file, folder, CONTROL_FILE, address)
        try:
            yield
        finally:
            forget_file(folder, CONTROL_FILE)

    async def _serve(self, listeners: list[Any], task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as doors:
                serve = partial(trio.serve_listeners, handler_nursery=clients)
                await doors.start(serve, self._attend, listeners)
                task_status.started()
                await self._stop_asked.wait()
                doors.cancel_scope.cancel()
            clients.cancel_scope.deadline = trio.current_time() + _LAST_ANSWER_SEC
            for connection in self._connections:
                connection.end_if_idle()

    async def _attend(self, stream: trio.SocketStream) -> None:
        connection = _Connection(stream, self.answer, self._stop_asked.is_set)
        if len(self._connections) >= MOST_CONNECTIONS:
            words = f"there are {MOST_CONNECTIONS} connections already; close one"
            await connection.refuse(ControlRequestError(words))
            return
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def answer(self, line: bytes) -> tuple[bytes, bool]:
        """Return the answer to a request, and whether the client may ask on."""
        said: dict[str, Any] = {}
        goes_on = True
        try:
            data = parse_line(line)
            said = {"id": data["id"]} if "id" in data else {}
            self._check_token(data.get("token"))
            answer = {"ok": True, **await self._act(parse_request(data))}
        except ControlTokenError as error:
            answer, goes_on = _error(error), False
        except (ControlRequestError, SupervisionError) as error:
            answer = _error(error)
        except ExceptionGroup as group:  # of several processes several have failed
            answer = _error(group.exceptions[0])
            answer["error"]["message"] = "; ".join(map(str, group.exceptions))
        except Exception as error:  # the edge of a request: a fault of ours is no client's business
            _logger.exception("a request to the control server failed")
            answer = {"ok": False, "error": {"type": type(error).__name__, "message": "it failed"}}
        return _line({**answer, **said}), goes_on

    def _check_token(self, given: object) -> None:
        if self._token is None:
            return
        text = given.encode("utf-8", "replace") if isinstance(given, str) else b""
        if not compare_digest(text, self._token):
            raise ControlTokenError(
                'over TCP a request needs the right token, {"token": "…"}; it is in the file'
                " `token` of the run directory"
            )

    async def _act(self, request: Request) -> dict[str, Any]:
        pilot, names = self._pilot, list(request.processes)
        if request.action == "shutdown":
            pilot.supervisor.ask_stop_tree("asked to stop by a control server")
            await pilot.supervisor.wait_last_ones()
        elif request.action == "start":
            await pilot.start_processes(names)
        elif request.action != "status":
            self._refuse_itself(request)
            stops = request.action == "stop"
            await (pilot.stop_processes if stops else pilot.restart_processes)(names)
        return self._describe(pilot.unit_names(names) if names else pilot.supervisor.names)

    def _refuse_itself(self, request: Request) -> None:
        if NAME in request.processes:
            words = f"{NAME!r} is this control server, which cannot wait for its own end"
            raise ControlRequestError(f"{words}; leave it out, or use shutdown")

    def _describe(self, names: Iterable[str]) -> dict[str, Any]:
        processes = {process.name: process for process in self._pilot.get_manifest_processes()}
        shown: dict[str, Any] = {"processes": []}
        for name in names:
            if name in processes:
                status = processes[name].get_status()
                shown["processes"].append(status.model_dump(mode="json"))
                continue
            unit = self._pilot.supervisor.status(name)
            told = {"name": name, "kind": unit.kind, "status": str(unit.state)}
            shown.setdefault("units", []).append(told)
        return shown


def _line(answer: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(answer, allow_nan=False).encode() + b"\n"
    except (ValueError, RecursionError):  # an id that can be read, but not be written
        return _line({key: value for key, value in answer.items() if key != "id"})


Answer = Callable[[bytes], Awaitable[tuple[bytes, bool]]]


class _Connection:
    """One client: its lines are read while an answer is being made, so that its going is seen."""

    def __init__(
        self, stream: trio.SocketStream, answer: Answer, is_stopping: Callable[[], bool]
    ) -> None:
        self._stream, self._answer, self._is_stopping = stream, answer, is_stopping
        self._scope = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._rest = b""
        self._rest_since = 0.0
        self._in_hand = 0  # lines that were read and not answered

    def end_if_idle(self) -> None:
        """End it unless the client waits for an answer."""
        if not self._in_hand:
            self._scope.cancel()

    async def refuse(self, error: ControlRequestError) -> None:
        """Say that, and nothing else."""
        await self._send(_line(_error(error)))
        await trio.aclose_forcefully(self._stream)

    async def run(self) -> None:
        """Answer one request after the other until the client, or the server, goes."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    send, receive = trio.open_memory_channel[bytes | ControlRequestError](
                        _REQUESTS_READ_AHEAD
                    )
                    nursery.start_soon(self._read, send)
                    await self._answer_all(receive)
                    nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _answer_all(
        self, lines: trio.MemoryReceiveChannel[bytes | ControlRequestError]
    ) -> None:
        async for line in lines:
            if isinstance(line, ControlRequestError):  # where its end is cannot be told any more
                await self._send(_line(_error(line)))
                return
            answer, goes_on = await self._answer(line)
            sent = await self._send(answer)
            self._in_hand -= 1
            if not (sent and goes_on) or (self._is_stopping() and not self._in_hand):
                return
            self._reading.deadline = self._limit()

    async def _send(self, data: bytes) -> bool:
        with trio.move_on_after(SEND_SEC):
            with suppress(trio.BrokenResourceError):
                await self._stream.send_all(data)
                return True
        return False

    # --- reading ----------------------------------------------------------------------------------

    async def _read(self, lines: trio.MemorySendChannel[bytes | ControlRequestError]) -> None:
        async with lines:
            try:
                while chunk := await self._receive():
                    await self._take(chunk, lines)
                if self._rest:  # the last line of a client that closes behind it
                    self._in_hand += 1
                    await lines.send(self._rest)
            except ControlRequestError as error:
                await lines.send(error)
        if self._has_hung_up():
            self._scope.cancel()

    async def _receive(self) -> bytes:
        """Return what the client says next, nothing at its end; it has a limit of time."""
        with trio.CancelScope(deadline=self._limit()) as self._reading:
            try:
                return bytes(await self._stream.receive_some(_CHUNK))
            except trio.BrokenResourceError:  # nobody is there for an answer
                self._scope.cancel()
        if self._reading.cancelled_caught and self._rest:
            raise ControlRequestError(f"the line did not end within {LINE_SEC:g} s")
        return b""

    def _limit(self) -> float:
        if self._rest:
            return self._rest_since + LINE_SEC
        return inf if self._in_hand else trio.current_time() + IDLE_SEC

    async def _take(
        self, chunk: bytes, lines: trio.MemorySendChannel[bytes | ControlRequestError]
    ) -> None:
        if not self._rest:
            self._rest_since = trio.current_time()
        *whole, rest = (self._rest + chunk).split(b"\n")
        if whole:
            self._rest_since = trio.current_time()
        self._rest = rest
        for line in whole:
            _check_length(line)
            if line.strip():
                self._in_hand += 1
                await lines.send(line)
        _check_length(rest)

    def _has_hung_up(self) -> bool:
        """Return whether the client can read no answer; over TCP that is seen only by sending."""
        poll = select.poll()
        poll.register(self._stream.socket, 0)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


def _check_length(line: bytes) -> None:
    if len(line) > LONGEST_LINE:
        raise ControlRequestError(f"the line is longer than {LONGEST_LINE} bytes")
