"""HTTP/1.1 as Hypercorn speaks it, and nothing else.

Neither HTTP/2 over plain TCP nor websockets: no route needs them, and each is a further way in.
What h11 refuses is answered with a problem document like everything else.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import h11
from hypercorn.events import RawData
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ConnectionState, H11SendableEvent
from hypercorn.utils import parse_socket_addr

from .gate import complete_headers
from .problems import CONTENT_TYPE, HttpProblem

#: Under this name a request's state has what writes pieces of its answer's body at once.
WRITER = "runtime_http.write_nowait"
_DETAILS = {431: "the head of the request is too large"}


class _Protocol(H11Protocol):
    """One connection; an upgrade is not taken, as the standard allows.

    The head of an answer whose length is known waits for the body, which comes at once: both are
    one send then, and sends are dear.
    """

    _held = b""  #: what goes before the next send

    def __init__(
        self,
        *of_hypercorn: Any,  # noqa: ANN401 - as it makes one itself
        send_nowait: Callable[[Sequence[bytes]], int],
    ) -> None:
        super().__init__(*of_hypercorn)
        self._send_nowait = send_nowait

    def write_nowait(self, data: bytes) -> bool:
        """Send a piece of the body as far as the kernel takes it; return whether that was all.

        What is left goes before whatever is sent next. To be called between two pieces that the
        application sends as usual, and never before the first of them has been sent.
        """
        connection = cast("h11.Connection", self.connection)  # of the two that Hypercorn knows
        try:
            framed = connection.send_with_data_passthrough(h11.Data(data=data))
        except h11.LocalProtocolError:  # it has come to its end; who sends as usual is told so
            return False
        pieces = [self._held, *(framed or ())]
        taken = self._send_nowait(pieces)
        self._held = b"" if taken == sum(map(len, pieces)) else b"".join(pieces)[taken:]
        return not self._held

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self._held + (self.connection.send(event) or b"")
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        waits = isinstance(event, h11.Response) and any(
            name == b"content-length" for name, _ in event.headers
        )
        self._held = data if waits else b""
        if data and not waits:
            await self.send(RawData(data=data))

    async def _check_protocol(self, event: h11.Request) -> None:
        """Let every request be one of HTTP/1.1."""

    async def _create_stream(self, request: h11.Request) -> None:
        stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        self.stream = stream
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=ConnectionState({**self.connection_state, WRITER: self.write_nowait}),
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def _send_error_response(self, status_code: int) -> None:
        status = status_code if status_code < 500 else 400  # an unknown coding is their mistake
        problem = HttpProblem(status, _DETAILS.get(status, "this is no request of HTTP/1.1"))
        body = problem.body()
        own = [
            (b"content-type", CONTENT_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        headers = [*complete_headers(own), *self.config.response_headers("h11")]
        await self._send_h11_event(h11.Response(status_code=status, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class Connection(TCPServer):
    """A connection from its first byte to its end; to be awaited once."""

    async def run(self) -> None:
        """Answer the requests of this connection, one after the other."""
        try:
            family = self.stream.socket.family
            client = parse_socket_addr(family, self.stream.socket.getpeername())
            server = parse_socket_addr(family, self.stream.socket.getsockname())
            async with TaskGroup() as group:
                self._task_group = group
                self.protocol = _Protocol(  # type: ignore[assignment]
                    self.app,
                    self.config,
                    self.context,
                    group,
                    ConnectionState(self.state),
                    False,
                    client,
                    server,
                    self.protocol_send,
                    send_nowait=self.stream.send_nowait,
                )
                await self.idle_task.restart(group, self._idle_timeout)
                await self._read_data()
        except OSError:
            pass  # the client has gone
        finally:
            await self._close()
