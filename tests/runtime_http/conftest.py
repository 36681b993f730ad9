"""A real server on a real socket of this host, over a real tree."""

from __future__ import annotations

import functools
import inspect
import json
import socket
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from runtime.application import Application
from runtime.manifest import Manifest
from runtime.supervision.unit import Unit
from runtime_http import HttpSettings, http_unit

from .browser import TOKEN, Visitor, open_browser

LIMIT_SEC = 140.0
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Let no coroutine test of this folder wait for ever."""
    test = pyfuncitem.obj
    if inspect.iscoroutinefunction(test):

        @functools.wraps(test)
        async def limited(**arguments: object) -> None:
            with trio.fail_after(LIMIT_SEC):
                await test(**arguments)

        pyfuncitem.obj = limited


@dataclass
class Site:
    """A tree, the address of its server, and a client of no other kind than anybody has."""

    application: Application
    address: str
    http: httpx.AsyncClient

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.get(path, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        """Send a request that bears the token."""
        return await self.http.post(path, headers=AUTHORIZED, **options)

    async def delete(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.delete(path, headers=AUTHORIZED, **options)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


Serve = Callable[..., AbstractAsyncContextManager[Site]]


@asynccontextmanager
async def _run(application: Application, *, settled: bool) -> AsyncGenerator[None]:
    """Run a tree for as long as the block; without *settled* the block begins at once."""
    if settled:
        async with application:
            yield
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application.start)
        yield
        await application.stop()


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Run a manifest with its server; the address is that of a free port, unless said otherwise.

    *set_up* is given the application before it runs: it registers tasks, for example, whose calls
    are kept in *state_backend*.
    """

    @asynccontextmanager
    async def open_site(
        manifest: dict[str, Any] | Manifest | None = None,
        *,
        bind: str | None = "127.0.0.1:0",
        settled: bool = True,
        units: Iterable[Unit] = (),
        set_up: Callable[[Application], object] | None = None,
        state_backend: str = "memory://",
        **settings: Any,
    ) -> AsyncGenerator[Site]:
        addresses: list[str | None] = []
        announced = trio.Event()

        def announce(address: str | None) -> None:
            addresses.append(address)
            if address is not None:
                trio.from_thread.run_sync(announced.set)

        made = HttpSettings(token=TOKEN, bind=bind, announce=announce, **settings)
        config = None
        if isinstance(manifest, Manifest):
            config = manifest
        elif manifest is not None:
            config = Manifest.model_validate({"base_directory": str(tmp_path), **manifest})
        face = functools.partial(http_unit, settings=made)
        application = Application(
            config, faces=[face], keep=True, units=units, state_backend=state_backend
        )
        if set_up is not None:
            set_up(application)
        async with _run(application, settled=settled):
            await announced.wait()
            address = addresses[-1]
            assert address is not None
            transport = None
            if address.startswith("unix:"):
                transport = httpx.AsyncHTTPTransport(uds=address.removeprefix("unix:"))
            base = "http://localhost" if transport else address
            async with httpx.AsyncClient(base_url=base, transport=transport, timeout=30) as http:
                yield Site(application, address, http)
        assert addresses[-1] is None  # nobody is told of a server that is gone

    return open_site


@asynccontextmanager
async def answering(
    answer: Callable[[trio.SocketStream], Awaitable[object]],
) -> AsyncGenerator[str]:
    """Have *answer* deal with each connection in the place of our server; yield the address.

    The connection is closed when it returns.
    """
    async with trio.open_nursery() as nursery:
        serve_here = functools.partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve_here)
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.fixture(scope="package")
def visit() -> Iterator[Visitor]:
    """Return what looks at pages, in one browser for all tests that do."""
    with open_browser() as visitor:
        yield visitor


def own_address() -> str | None:
    """Return an address of this machine that is not of the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address = probe.getsockname()[0]
        return None if address.startswith("127.") else str(address)


def sleeper(name: str, **fields: Any) -> dict[str, Any]:
    """Define a process that does nothing, for long."""
    return {"name": name, "path": "/bin/sleep", "args": ["1000"], **fields}


def script(name: str, code: str, **fields: Any) -> dict[str, Any]:
    """Define a process that is a script of the shell."""
    return {"name": name, "path": "/bin/sh", "args": ["-c", code], **fields}


class Stream:
    """Server-sent events as they come, each with what stands in its lines, comments as such."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""
        self._decode: Callable[[bytes], bytes] = bytes
        self.head = b""

    async def _read_to(self, end: bytes) -> bytes | None:
        while end not in self._buffer:
            piece = await self._stream.receive_some()
            if not piece:
                return None
            self._buffer += self._decode(piece)
        found, _, self._buffer = self._buffer.partition(end)
        return found

    async def read_head(self) -> None:
        self.head = await self._read_to(b"\r\n\r\n") or b""
        if b"content-encoding: gzip" in self.head:
            self._decode = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress
            self._buffer = self._decode(self._buffer)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> dict[str, Any]:
        text = await self._read_to(b"\n\n")
        if text is None:
            raise StopAsyncIteration
        event: dict[str, Any] = {}
        for line in text.decode().splitlines():
            key, _, value = line.partition(": ")
            event[key or "comment"] = json.loads(value) if key in ("data", "id") else value
        return event


@asynccontextmanager
async def follow(site: Site, path: str, **headers: str) -> AsyncGenerator[Stream]:
    """Follow the events at *path*, on a connection of its own."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    async with await site.connect() as stream:
        # HTTP/1.0, whose answers come without chunks.
        await stream.send_all(f"GET {path} HTTP/1.0\r\nhost: localhost\r\n{lines}\r\n".encode())
        made = Stream(stream)
        await made.read_head()
        yield made
