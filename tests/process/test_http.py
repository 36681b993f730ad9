"""A web server is ready by its right answer; a broken one is an obstacle, and no error."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from runtime.process.host import Host
from runtime.process.readiness import BoundCheck, Candidate, bind
from runtime.process.readiness import http as module

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MIB = 1024 * 1024

Handler = Callable[[trio.abc.Stream], Awaitable[None]]


class Server:
    """Answers each connection by the next of *answers*, the last of them for ever."""

    def __init__(self, answers: Sequence[bytes | Handler]) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []

    async def serve(self, stream: trio.abc.Stream) -> None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        request = b""
        try:
            while b"\r\n\r\n" not in request:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                request += chunk
            self.requests.append(request)
            if callable(answer):
                await answer(stream)
            else:
                await stream.send_all(answer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # who asked has seen enough
        finally:
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def serving(
    *answers: bytes | Handler, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Server, int]]:
    server = Server(answers)
    (listener,) = await trio.open_tcp_listeners(0, host=host)
    wrapped: Any = listener if tls is None else trio.SSLListener(listener, tls)
    port = listener.socket.getsockname()[1]

    async def handle(stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):  # a handshake that the other side did not like
            await server.serve(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [wrapped])
        yield server, port
        nursery.cancel_scope.cancel()


def by_http(url: str, **params: object) -> BoundCheck:
    return bind("http", {"url": url, **params}, Path("/"))


async def look(url: str, **params: object) -> str:
    """Return what keeps it from being ready, nothing when it is."""
    candidate = Candidate()
    if await by_http(url, **params).probe(Host(), candidate):
        return ""
    assert candidate.obstacle
    return candidate.obstacle


# --- the right answer -----------------------------------------------------------------------------


@pytest.mark.usefixtures("fds_kept")
async def test_an_answer_is_right_or_its_status_is_named() -> None:
    statuses = [200, 204, 301, 404, 503]
    answers = [b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % each for each in statuses]
    async with serving(*answers) as (server, port):
        url = f"http://localhost:{port}/healthz?deep=1"
        told = [await look(url) for _ in statuses]
    assert told == ["", "", "", f"{url} answers 404", f"{url} answers 503"]
    assert server.requests[0].startswith(b"GET /healthz?deep=1 HTTP/1.1\r\n")
    assert f"\r\nHost: localhost:{port}\r\n".encode() in server.requests[0]
    assert b"\r\nConnection: close\r\n" in server.requests[0]


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, ""), ([200, "404"], ""), (200, "answers 404, not 200"), ([200, 204], "not 200 or 204")],
)
async def test_which_status_is_right_may_be_said(status: object, words: str) -> None:
    async with serving(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n") as (_, port):
        told = await look(f"http://127.0.0.1:{port}", status=status)
    assert told.endswith(words)
    assert bool(told) == bool(words)


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4\r\nstat\r\n7\r\nus: fin\r\n1\r\ne\r\n0\r\n\r\n"
)
TO_THE_END = b"HTTP/1.0 200 OK\r\n\r\nstatus: fine"
ANNOUNCED = b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nstatus: fine"


@pytest.mark.parametrize("answer", [CHUNKED, TO_THE_END, ANNOUNCED])
@pytest.mark.parametrize("in_pieces", [False, True], ids=["at once", "in pieces"])
async def test_the_text_is_searched_however_it_comes(answer: bytes, in_pieces: bool) -> None:
    async def byte_by_byte(stream: trio.abc.Stream) -> None:
        for n in range(len(answer)):
            await stream.send_all(answer[n : n + 1])
            await trio.lowlevel.checkpoint()

    async with serving(byte_by_byte if in_pieces else answer) as (_, port):
        url = f"http://127.0.0.1:{port}/"
        assert await look(url, body="^status: fine$") == ""
        told = await look(url, body="sick")
    assert told == f"{url} answers 200, and its text does not match 'sick'"


async def test_only_the_first_mib_of_the_text_is_searched_or_taken() -> None:
    sent = 0

    async def flood(stream: trio.abc.Stream) -> None:
        nonlocal sent
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(b"x" * MIB)
            sent += 1

    text = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MIB - 1) + b"yz"
    async with serving(text, text, flood) as (_, port):
        url = f"http://127.0.0.1:{port}/"
        assert await look(url, body="xy") == ""
        assert "does not match" in await look(url, body="z")
        assert "does not match" in await look(url, body="y")
    assert sent < 30  # what the system takes in between, not what it would have sent


async def test_headers_are_sent_in_the_place_of_the_usual_ones() -> None:
    async with serving(OK) as (server, port):
        headers = {"host": "shop.example", "Authorization": "Bearer x"}
        assert await look(f"http://127.0.0.1:{port}", headers=headers) == ""
    (request,) = server.requests
    assert request.lower().count(b"\r\nhost:") == 1
    assert b"host: shop.example\r\n" in request
    assert b"Authorization: Bearer x\r\n" in request
    assert request.startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.usefixtures("fds_kept")
async def test_a_unix_socket_takes_the_place_of_the_host(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    check = bind("http", {"url": "http://api/healthz", "unix": "api.sock"}, tmp_path)
    candidate, server = Candidate(), Server([OK])
    assert not await check.probe(Host(), candidate)
    assert candidate.obstacle.endswith("api.sock accepts no connection (No such file or directory)")
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(str(path))
        assert not await check.probe(Host(), candidate)
        assert candidate.obstacle.endswith("(Connection refused)")
        listening.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, server.serve, [trio.SocketListener(listening)])
            assert await check.probe(Host(), candidate)
            nursery.cancel_scope.cancel()
    assert b"\r\nHost: api\r\n" in server.requests[0]


async def test_an_ipv6_address_is_a_host_in_brackets() -> None:
    try:
        async with serving(OK, host="::1") as (server, port):
            assert await look(f"http://[::1]:{port}/") == ""
            assert await look(f"http://localhost:{port}/") == ""
    except OSError:
        pytest.skip("needs IPv6")
    assert f"\r\nHost: [::1]:{port}\r\n".encode() in server.requests[0]


# --- https ----------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """One that this machine trusts, as long as the test lasts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    module._tls.cache_clear()
    return made


def served_by(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_the_certificate_of_https_must_be_valid(authority: trustme.CA) -> None:
    async with serving(OK, tls=served_by(authority, "localhost")) as (_, port):
        assert await look(f"https://localhost:{port}/", body="ok") == ""
        told = await look(f"https://127.0.0.1:{port}/")
        assert "certificate is not valid for '127.0.0.1'" in told
        assert await look(f"https://127.0.0.1:{port}/", verify=False) == ""
    async with serving(OK, tls=served_by(trustme.CA(), "localhost")) as (_, port):
        assert "certificate verify failed" in await look(f"https://localhost:{port}/")
    module._tls.cache_clear()


# --- broken answers -------------------------------------------------------------------------------


@pytest.mark.usefixtures("fds_kept")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the connection was closed without an answer"),
        (b"HTTP/1.1 200 OK\r\n", "the connection was closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "illegal status line"),
        (b"\x00\xff\x00" * 100 + b"\r\n\r\n", "illegal status line"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "illegal header line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "peer closed connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "illegal chunk header"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: %s\r\n" % (b"a" * 70_000), "Receive buffer too long"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: a\r\n" * 20_000, "Receive buffer too long"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, "no end of answers that announce another"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1;%s\r\nx\r\n" % (b"a" * 10_000) * 500,
            "no end within",
        ),
    ],
)
async def test_a_broken_answer_is_an_obstacle(answer: bytes, words: str) -> None:
    async with serving(answer) as (_, port):
        told = await look(f"http://127.0.0.1:{port}/", body="ok")
    assert told.startswith(f"http://127.0.0.1:{port}/: ")
    assert words in told


async def test_who_resets_the_connection_is_not_ready() -> None:
    async def reset(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with serving(reset) as (_, port):
        assert "http" in await look(f"http://127.0.0.1:{port}/")


@pytest.mark.usefixtures("fds_kept")
@pytest.mark.parametrize("accepts", [False, True], ids=["refuses", "never answers"])
async def test_a_look_can_be_cancelled_and_has_the_obstacle(accepts: bool) -> None:
    async def never(_: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    candidate = Candidate()
    async with serving(never) as (server, port):
        check = by_http(f"http://127.0.0.1:{port if accepts else 1}/")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check.wait, Host(), candidate)
            if not accepts:
                await trio.sleep(0.2)
            while accepts and not server.requests:  # noqa: ASYNC110 - a list sets no event
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert len(server.requests) == accepts
    words = ["has not answered yet"]
    if not accepts:  # or the look that was cancelled had not come so far
        words = ["nothing accepts a connection at 127.0.0.1:1", "has not accepted a connection yet"]
    assert any(each in candidate.obstacle for each in words)


async def test_it_is_asked_until_the_answer_is_right() -> None:
    sick = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
    async with serving(sick, b"", b"garbage\r\n\r\n", OK) as (server, port):
        await by_http(f"http://127.0.0.1:{port}/").wait(Host(), Candidate())
    assert len(server.requests) == 4


# --- with processes -------------------------------------------------------------------------------

SERVES = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        self.send_response(503 if Handler.asked < 3 else 200)
        self.end_headers()
        self.wfile.write(b"status: fine")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


async def test_a_process_is_ready_by_its_third_answer(
    make_pilot: Any, py: Any, free_port: Callable[[], int]
) -> None:
    port = free_port()
    params = {"url": f"http://localhost:{port}/", "body": "fine$"}
    definition = py(SERVES, port, ready_strategy="http", ready_params=params, ready_timeout_sec=20)
    async with make_pilot(definition) as pilot:
        assert pilot.supervisor.status("p").ready
        lines = [e.item.text for e in pilot.get_process_by_name("p").output.lines.tail()]
        assert sum('" 503 ' in line for line in lines) == 2


async def test_a_stranger_on_the_port_is_not_asked(room: Any) -> None:
    async with serving(OK) as (server, port), room.open(room.sh("exec sleep 60")) as child:
        candidate = Candidate(child.family)
        assert not await by_http(f"http://localhost:{port}/").probe(room.host, candidate)
        assert candidate.obstacle.startswith(f"port {port} is held by pid {os.getpid()} ")
    assert server.requests == []
