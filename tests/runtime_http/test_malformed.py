"""Requests that are none: each gets a 4xx or a closed connection, and the tree goes on."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio

from runtime_http import gate

from .conftest import TOKEN, Serve, Site, sleeper

MANIFEST: dict[str, Any] = {"processes": [sleeper("db")]}
BEARER = b"authorization: Bearer " + TOKEN.encode() + b"\r\n"
HEAD = b"host: localhost\r\n" + BEARER


def get(target: bytes, more: bytes = b"") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nhost: localhost\r\n" + more + b"\r\n"


def post(more: bytes, body: bytes = b"", target: bytes = b"/services/register") -> bytes:
    return b"POST " + target + b" HTTP/1.1\r\n" + HEAD + more + b"\r\n" + body


def sized(body: bytes, target: bytes = b"/services/register") -> bytes:
    return post(b"content-length: %d\r\n" % len(body), body, target)


CHUNKED = b"transfer-encoding: chunked\r\n"
KEY = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
UPGRADE = b"connection: upgrade\r\nupgrade: websocket\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"

REQUESTS: dict[str, bytes] = {
    "nothing but ends of lines": b"\r\n" * 100,
    "noise": bytes(range(256)) * 8,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "no version": b"GET /\r\n\r\n",
    "a version that is none": b"GET / HTTP/x.y\r\nhost: localhost\r\n\r\n",
    "a version to come": b"GET / HTTP/9.9\r\nhost: evil.example\r\n\r\n",
    "no method": b" / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a method with a bracket": b"G(T / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a method of 10 kB": b"G" * 10_000 + b" /tree HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a blank in the target": get(b"/tree ee"),
    "a tab in the target": get(b"/tr\tee"),
    "a null byte in the target": get(b"/tree\0"),
    "a null byte in the target, quoted": get(b"/tree/%00"),
    "bytes of no encoding in the target": get(b"/tree/\xff\xfe"),
    "bytes of no encoding in the target, quoted": get(b"/tree/%ff%fe"),
    "half a quote": get(b"/tree/%"),
    "a surrogate in the target": get(b"/tree/%ed%a0%80"),
    "dots that lead out": get(b"/ui/../../../../etc/passwd"),
    "dots that lead out, quoted": get(b"/ui/%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
    "double slashes": get(b"//evil.example/tree"),
    "no target": b"GET ?x HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "an absolute target": get(b"http://evil.example/tree"),
    "an absolute target that is none": get(b"http://[bad/tree"),
    "an authority as the target": b"CONNECT localhost:80 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a star as the target": get(b"*"),
    "a target of 100 kB": get(b"/tree/" + b"x" * 100_000),
    "a query of 20 kB": get(b"/processes/db/logs?lines=" + b"9" * 20_000),
    "a number that is too large": get(b"/processes/db/logs?lines=" + b"9" * 400),
    "a number of another script": get("/events?after=٣".encode()),
    "a number of another script, quoted": get(b"/events?after=%D9%A3"),
    "an id that is none": get(b"/events", b"last-event-id: -1\r\n"),
    "an id that is too large": get(b"/events", b"last-event-id: " + b"9" * 30 + b"\r\n"),
    "no host": b"GET /tree HTTP/1.1\r\n\r\n",
    "no host in HTTP/1.0": b"GET /tree HTTP/1.0\r\n\r\n",
    "two hosts": get(b"/tree", b"host: evil.example\r\n"),
    "a host with a null byte": b"GET /tree HTTP/1.1\r\nhost: local\0host\r\n\r\n",
    "a header without a colon": get(b"/tree", b"nonsense\r\n"),
    "a header without a name": get(b"/tree", b": x\r\n"),
    "a blank before the colon": get(b"/tree", b"x : y\r\n"),
    "a header over two lines at once": b"GET /tree HTTP/1.1\r\n folded\r\nhost: localhost\r\n\r\n",
    "a header with a null byte": get(b"/tree", b"x: a\0b\r\n"),
    "a header of 100 kB": get(b"/tree", b"x: " + b"y" * 100_000 + b"\r\n"),
    "five hundred headers": get(b"/tree", b"x: y\r\n" * 500),
    "ten thousand headers": get(b"/tree", b"x: y\r\n" * 10_000),
    "a head without an end": b"GET /tree HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 9_000,
    "lengths that differ": post(b"content-length: 2\r\ncontent-length: 3\r\n", b"{}"),
    "a list of lengths": post(b"content-length: 2, 3\r\n", b"{}"),
    "a length below zero": post(b"content-length: -1\r\n", b"{}"),
    "a length with a sign": post(b"content-length: +2\r\n", b"{}"),
    "a length in words": post(b"content-length: two\r\n", b"{}"),
    "a length of 30 digits": post(b"content-length: " + b"9" * 30 + b"\r\n", b"{}"),
    "a length of another script": post("content-length: ٢\r\n".encode(), b"{}"),
    "a length and chunks": post(b"content-length: 2\r\n" + CHUNKED, b"2\r\n{}\r\n0\r\n\r\n"),
    "an unknown coding": post(b"transfer-encoding: gzip\r\n", b"{}"),
    "chunks twice": post(b"transfer-encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    "a chunk whose size is none": post(CHUNKED, b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk of a size below zero": post(CHUNKED, b"-1\r\n{}\r\n0\r\n\r\n"),
    "a chunk of 17 digits and more": post(CHUNKED, b"f" * 25 + b"\r\n{}\r\n"),
    "a chunk longer than it says": post(CHUNKED, b"1\r\n{}{}\r\n0\r\n\r\n"),
    "chunks with long remarks": post(CHUNKED, b"1;" + b"x" * 100_000 + b"\r\n{\r\n0\r\n\r\n"),
    "chunks with a broken end": post(CHUNKED, b"2\r\n{}\r\n0\r\nx\r\n\r\n"),
    "chunks in HTTP/1.0": b"POST /services/register HTTP/1.0\r\n"
    + HEAD
    + CHUNKED
    + b"\r\n0\r\n\r\n",
    "a body that is too large": sized(b" " * (gate.MOST_BODY_BYTES + 1)),
    "no body": post(b"content-length: 0\r\n"),
    "a body that is no JSON": sized(b"{'service_name'}"),
    "a body of no encoding": sized(b'{"service_name": "\xff\xfe"}'),
    "a body in UTF-16": sized('{"service_name": "echo"}'.encode("utf-16")),
    "a body with a mark of bytes": sized(b"\xef\xbb\xbf{}"),
    "half a character": sized(b'{"service_name": "\\ud800"}'),
    "half a character as a setting": sized(b'{"a": "\\udfff"}', b"/services/none/configure"),
    "deep arrays": sized(b"[" * 500_000),
    "deep objects": sized(b'{"a":' * 100_000),
    "deep and well formed": sized(b"[" * 100_000 + b"]" * 100_000),
    "no number": sized(b'{"service_name": NaN}'),
    "a number of 100,000 digits": sized(b'{"service_name": ' + b"9" * 100_000 + b"}"),
    "a string where an object is due": sized(b'"echo"'),
    "null": sized(b"null"),
    "a list as a name": sized(b'{"service_name": ["echo"]}'),
    "a null byte in a name": sized(b'{"service_name": "\\u0000"}'),
    "an unknown key": sized(b'{"service_name": "echo", "x": 1}'),
    "expects something strange": post(b"expect: 200-maybe\r\ncontent-length: 2\r\n", b"[]"),
    "expects a go-ahead": post(b"expect: 100-continue\r\ncontent-length: 2\r\n", b"[]"),
    "a websocket": get(b"/events", UPGRADE + KEY),
    "a websocket without a key": get(b"/events", UPGRADE),
    "a websocket by POST": post(UPGRADE + KEY + b"content-length: 0\r\n", target=b"/events"),
    "HTTP/2 with prior knowledge": PREFACE,
    "HTTP/2 with broken frames": PREFACE + b"\xff" * 100,
    "HTTP/2 with broken settings": get(
        b"/nothing", b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: !\r\n"
    ),
    "a good one and a bad one": get(b"/nothing") + b"nonsense\r\n\r\n",
    "a smuggled one": sized(b"{}") + b"GPOST / HTTP/1.1\r\n\r\n",
}


async def exchange(site: Site, request: bytes) -> bytes:
    """Send *request*, say that there is no more, and return all that comes."""
    stream = await site.connect()
    got = b""

    async def send() -> None:
        try:
            await stream.send_all(request)
            await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it was refused before its end

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            async for piece in stream:
                got += piece
        except trio.BrokenResourceError:
            pass  # a closed connection, too
        nursery.cancel_scope.cancel()
    return got


def statuses(answer: bytes) -> list[int]:
    """Return the statuses of all answers in *answer*."""
    parts = answer.split(b"HTTP/1.1 ")[1:]
    return [status for part in parts if (status := int(part[:3])) != 100]


async def check_that_the_tree_goes_on(site: Site, last: int) -> None:
    assert (await site.get("/processes/db")).json()["status"] == "running"
    assert (await site.get("/healthz")).status_code == 200
    assert site.application.supervisor.events.last == last


@pytest.mark.parametrize("group", range(6))
async def test_what_is_no_request_is_refused(
    serve: Serve, group: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(REQUESTS) >= 60
    async with serve(MANIFEST) as site:
        last = site.application.supervisor.events.last
        for name, request in list(REQUESTS.items())[group::6]:
            with trio.fail_after(60):
                answer = await exchange(site, request)
            found = statuses(answer)
            assert all(400 <= status < 500 for status in found), (name, answer[:300])
            for body in answer.split(b"\r\n\r\n")[1:]:
                assert b"Traceback" not in body
            if found:
                assert b"content-type: application/problem+json" in answer, (name, answer[:300])
                assert b"x-content-type-options: nosniff" in answer
            await check_that_the_tree_goes_on(site, last)
    worst = [r for r in caplog.records if r.levelno >= logging.WARNING or r.exc_info]
    assert not [record.getMessage() for record in worst]


async def test_requests_sent_at_once_are_answered_in_turn(serve: Serve) -> None:
    async with serve(MANIFEST) as site:
        answer = await exchange(site, get(b"/healthz") * 20 + get(b"/tree") + get(b"/nothing"))
        assert statuses(answer) == [200] * 21 + [404]


async def test_a_go_ahead_is_given_to_who_asks_for_it(serve: Serve) -> None:
    async with serve(MANIFEST) as site, await site.connect() as stream:
        await stream.send_all(post(b"expect: 100-continue\r\ncontent-length: 2\r\n"))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"[]")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 422 ")


async def test_an_upgrade_to_http_2_is_not_taken(serve: Serve) -> None:
    asked = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    async with serve(MANIFEST) as site:
        assert statuses(await exchange(site, get(b"/tree", asked))) == [200]


async def test_requests_of_http_1_0_are_answered(serve: Serve) -> None:
    async with serve(MANIFEST) as site:
        answer = await exchange(site, b"GET /tree HTTP/1.0\r\nhost: localhost\r\n\r\n")
        assert statuses(answer) == [200]


@pytest.mark.parametrize(
    "sent", [b"", b"GET", get(b"/tree")[:-2], post(b"content-length: 9\r\n", b"{")]
)
async def test_a_client_that_goes_away_is_forgotten(
    serve: Serve, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(MANIFEST) as site:
        for _ in range(20):
            stream = await site.connect()
            if sent:
                await stream.send_all(sent)
            await trio.aclose_forcefully(stream)
        await check_that_the_tree_goes_on(site, site.application.supervisor.events.last)
    assert not [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
