"""HTTP/1.1 as Hypercorn speaks it, and nothing else.

Neither HTTP/2 over plain TCP nor websockets: no route needs them, and each is a further way in.
What h11 refuses is answered with a problem document like everything else.
"""

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

_DETAILS = {431: "the head of the request is too large"}


class _Protocol(H11Protocol):
    """One connection; an upgrade is not taken, as the standard allows.

    The head of an answer whose length is known waits for the body, which comes at once: both are
    one send then, and sends are dear.
    """

    _head = b""

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self._head + (self.connection.send(event) or b"")
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        waits = isinstance(event, h11.Response) and any(
            name == b"content-length" for name, _ in event.headers
        )
        self._head = data if waits else b""
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
                state=self.connection_state,
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
                )
                await self.idle_task.restart(group, self._idle_timeout)
                await self._read_data()
        except OSError:
            pass  # the client has gone
        finally:
            await self._close()
