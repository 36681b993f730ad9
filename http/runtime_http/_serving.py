"""Serves an ASGI application with Hypercorn on listeners of ours, and ends when it is told to.

Hypercorn's own `serve` opens the sockets itself and shields each send without a bound: a client
that stops reading would keep it from ever ending. So the parts that it is made of are put together
here, with streams that give up on such a client.
"""

import logging
import os
from collections.abc import Sequence
from functools import partial

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState

from ._http1 import Connection

logger = logging.getLogger(__name__)

#: Seconds after which a client that takes nothing of what it is sent is given up.
SLOW_CLIENT_SEC = 10.0
#: Seconds that requests under way may take when the server stops.
GRACE_SEC = 0.5
#: Seconds for the head of a request, and for which a connection is kept without one.
HEAD_SEC = 15.0
_MOST_HEADER_BYTES = 32_768


def make_config() -> Config:
    """Return the settings of Hypercorn: little is said, and nothing goes to its own log."""
    config = Config()
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None
    config.h11_max_incomplete_size = _MOST_HEADER_BYTES
    config.keep_alive_timeout = HEAD_SEC
    return config


class _Sends:
    """The sends under way: each has a bound, and all of them a nearer one when the server stops."""

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._deadline = float("inf")

    def end_by(self, deadline: float) -> None:
        self._deadline = deadline
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, deadline)

    async def send(self, stream: trio.SocketStream, data: bytes) -> None:
        deadline = min(trio.current_time() + SLOW_CLIENT_SEC, self._deadline)
        with trio.CancelScope(deadline=deadline) as scope:
            self._scopes.add(scope)
            try:
                await stream.send_all(data)
                return
            finally:
                self._scopes.discard(scope)
        await trio.aclose_forcefully(stream)
        raise trio.BrokenResourceError("the client takes nothing of what it is sent")


class _Stream:
    """A connection as Hypercorn uses it, whose sends are bounded."""

    def __init__(self, stream: trio.SocketStream, sends: _Sends) -> None:
        self._stream, self._sends = stream, sends
        self.socket: trio.socket.SocketType = stream.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes) -> None:
        await self._sends.send(self._stream, data)

    def send_nowait(self, pieces: Sequence[bytes]) -> int:
        """Return how many bytes the kernel has taken; none of a connection that is gone.

        Whoever sends next is told of that.
        """
        try:
            return os.writev(self.socket.fileno(), pieces)
        except OSError:
            return 0

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def serve(
    app: ASGIFramework,
    listeners: list[trio.SocketListener],
    *,
    shutdown: trio.Event,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *app* until *shutdown* is set; then no new connection is taken.

    Requests under way have `GRACE_SEC` seconds from then on, streams of events are to end by
    themselves at *shutdown*. Reports started once connections are accepted. Cancelled, clients are
    cut off.
    """
    config = make_config()
    context = WorkerContext(None)
    wrapped = ASGIWrapper(app)
    lifespan = Lifespan(wrapped, config, {})
    sends = _Sends()

    async def handle(stream: trio.SocketStream) -> None:
        bounded = _Stream(stream, sends)
        try:
            await Connection(wrapped, config, context, ConnectionState({}), bounded)  # type: ignore[arg-type]
        except Exception:
            # Whatever a client has brought about with one connection, the others go on.
            logger.exception("a connection has failed")

    async with trio.open_nursery() as life:
        await life.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(
                    partial(trio.serve_listeners, handle, listeners, handler_nursery=connections)
                )
                task_status.started()
                await shutdown.wait()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            deadline = trio.current_time() + GRACE_SEC
            sends.end_by(deadline)
            connections.cancel_scope.deadline = deadline
        await lifespan.wait_for_shutdown()
        life.cancel_scope.cancel()
