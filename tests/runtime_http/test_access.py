"""Who is let in: hosts, tokens, methods; and what every answer has."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from runtime_http import gate
from runtime_http.access import Access

from .conftest import AUTHORIZED, TOKEN, Serve, own_address, sleeper

MANIFEST: dict[str, Any] = {"processes": [sleeper("db")]}
BROWSER = {"accept": "text/html,*/*"}
EVIL = {"host": "evil.example"}
#: What tells of the tree, and what is the same for every one.
TELLING = [
    *("/", "/tree", "/tree/db", "/why/db", "/events", "/metrics", "/stats", "/services"),
    *("/processes", "/processes/db", "/processes/db/logs", "/processes/db/stats"),
]
OPEN = ["/ui/", "/ui/main.js", "/ui/icon.svg", "/docs/", "/docs/docs.js", "/openapi.json"]
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("localhost", True),
        ("LocalHost:8410", True),
        ("127.0.0.1:1", True),
        ("192.0.2.7", True),
        ("[::1]", True),
        ("[::1]:8410", True),
        ("[fe80::1%25eth0]:80", True),
        ("shop.example", True),
        ("SHOP.example:443", True),
        ("evil.example", False),
        ("evil.example:8410", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("evil.example#127.0.0.1", False),
        ("[evil.example]", False),
        ("shop.example.", False),
        ("", False),
        ("127.0.0.1, evil.example", False),
    ],
)
async def test_a_request_is_for_this_host_or_for_none(
    serve: Serve, host: str, *, fine: bool
) -> None:
    async with serve(hosts=("shop.example",)) as site:
        answer = await site.get("/services", headers={"host": host})
        assert answer.status_code == (200 if fine else 421), answer.text
        # Whether somebody else's page was led here does not matter to a probe.
        assert (await site.get("/healthz", headers={"host": host})).status_code == 200
        assert (await site.get("/", headers={"host": host})).status_code == answer.status_code


async def test_a_host_that_is_wrong_is_told_before_the_token(serve: Serve) -> None:
    async with serve(MANIFEST) as site:
        for headers in ({}, AUTHORIZED):
            answer = await site.http.post(
                "/processes/db/stop", headers={**headers, "host": "evil.example"}
            )
            assert answer.status_code == 421
        assert (await site.get("/processes/db")).json()["status"] == "running"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW"])
async def test_each_method_that_may_change_takes_the_token(serve: Serve, method: str) -> None:
    async with serve(MANIFEST) as site:
        target = "localhost:1" if method == "CONNECT" else "/processes/db/stop"
        for headers in ({}, {"authorization": "Bearer nonsense"}, {"authorization": "Bearer é"}):
            raw = {name: value.encode() for name, value in headers.items()}
            answer = await site.http.request(method, target, headers=raw)
            assert answer.status_code == 401
        answer = await site.http.request(method, target, headers=AUTHORIZED)
        assert answer.status_code in ((200,) if method == "POST" else (404, 405))


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr("runtime_http.access.hmac.compare_digest", compare)
    access = Access(token="right")  # noqa: S106 - no real one
    assert access.admits("POST", "/tree", "bearer right")
    assert not access.admits("POST", "/tree", "Bearer wrong")
    assert compared == [(b"right", b"right"), (b"wrong", b"right")]


@pytest.mark.parametrize("host", ["0.0.0.0", "own"])  # noqa: S104 - that is what is tested
async def test_other_addresses_tell_of_the_tree_by_the_token_alone(serve: Serve, host: str) -> None:
    address = own_address() if host == "own" else host
    if address is None:
        pytest.skip("this machine has no address but the loopback's")
    async with serve(MANIFEST, bind=f"{address}:0") as site:
        reached = "127.0.0.1" if host == "0.0.0.0" else address  # noqa: S104
        async with httpx.AsyncClient(base_url=f"http://{reached}:{site.port}", timeout=30) as http:
            for path in (*TELLING, "/nothing", "/uix", "/openapi.jsonx", "//ui/"):
                assert (await http.get(path)).status_code == 401, path
                assert (await http.head(path)).status_code == 401, path
                assert (await http.options(path)).status_code == 401, path
            for path in ("/healthz", "/readyz"):
                assert (await http.get(path)).status_code == 200
            assert (await http.get("/", headers=BROWSER)).headers["location"] == "./ui/"
            for path in OPEN:
                assert (await http.get(path)).status_code == 200, path
                assert (await http.post(path)).status_code == 401, path
                assert (await http.get(path, headers=EVIL)).status_code == 421, path
            assert (await http.get("/", headers={**BROWSER, **EVIL})).status_code == 421
            # No way leads from these to what tells of the tree.
            for path in ("/ui/../tree", "/ui/%2e%2e/tree", "/ui/..%2ftree", "/docs/nothing"):
                answer = await http.get(path)
                assert answer.status_code in (401, 404), path
                assert "db" not in answer.text
            assert (await http.get("/tree", headers=AUTHORIZED)).status_code == 200
            assert (await http.get("/", headers=AUTHORIZED)).status_code == 200


@pytest.mark.parametrize("bind", ["[::1]:0", "localhost:0"])
async def test_other_names_of_the_loopback_are_read_freely(serve: Serve, bind: str) -> None:
    if bind.startswith("[") and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    async with serve(MANIFEST, bind=bind) as site:
        assert (await site.get("/tree")).status_code == 200
        assert (await site.http.post("/processes/db/stop")).status_code == 401


async def test_a_socket_file_is_for_its_owner_and_takes_no_token(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(MANIFEST, bind="unix:run/http.sock", base=tmp_path) as site:
        path = tmp_path / "run" / "http.sock"
        assert site.address == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        assert (await site.http.post("/processes/db/stop")).json()["status"] == "stopped"
        assert (await site.get("/tree", headers={"host": "whatever"})).status_code == 200
    assert not path.exists()


async def test_other_sites_get_nothing_and_are_told_nothing(serve: Serve) -> None:
    origin = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    async with serve(MANIFEST) as site:
        asked = {**origin, "access-control-request-method": "POST"}
        answers = [
            await site.http.options("/processes/db/stop", headers=asked),
            await site.get("/tree", headers=origin),
            await site.http.post("/processes/db/stop", headers=origin),
            await site.http.post(
                "/services/register",
                headers={**origin, "content-type": "text/plain"},
                content='{"service_name": "echo"}',
            ),
            await site.http.post("/processes/db/restart", headers=origin, data={"a": "b"}),
        ]
        for answer in answers:
            assert not [name for name in answer.headers if name.startswith("access-control")]
        assert [a.status_code for a in answers[2:]] == [401, 401, 401]
        assert (await site.get("/processes/db")).json()["restarts"] == 0


@pytest.mark.parametrize(
    ("site_of", "fine"),
    [("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False)],
)
async def test_a_page_of_another_site_changes_nothing_although_a_proxy_adds_the_token(
    serve: Serve, site_of: str, *, fine: bool
) -> None:
    headers = {**AUTHORIZED, "sec-fetch-site": site_of}
    async with serve(MANIFEST) as site:
        answer = await site.http.post("/processes/db/stop", headers=headers)
        assert answer.status_code == (200 if fine else 403)
        assert (await site.get("/processes/db")).json()["ready"] is not fine
        assert (await site.get("/tree", headers=headers)).status_code == 200


async def test_every_answer_has_the_headers_that_protect(serve: Serve) -> None:
    async with serve(MANIFEST) as site:
        paths = ["/", "/tree", "/healthz", "/ui/", "/ui", "/ui/main.js", "/docs/", "/nothing"]
        answers = [await site.get(path) for path in [*paths, "/openapi.json", "/metrics"]]
        answers += [
            await site.get("/", headers={"accept": "text/html"}),
            await site.http.post("/processes/db/stop"),
            await site.http.put("/tree", headers=AUTHORIZED),
            await site.get("/tree", headers={"host": "evil.example"}),
        ]
        async with site.http.stream("GET", "/events") as stream:
            answers.append(stream)
    for answer in answers:
        assert answer.headers.items() >= HEADERS.items(), answer.url
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "server" not in answer.headers
        assert answer.headers["cache-control"] in ("no-store", "no-cache")


async def test_a_browser_is_led_to_the_page(serve: Serve) -> None:
    async with serve() as site:
        answer = await site.get("/", headers={"accept": "text/html,*/*"})
        assert (answer.status_code, answer.headers["location"]) == (303, "./ui/")
        page = await site.get("/ui/")
        assert page.headers["content-type"].startswith("text/html")
        assert (await site.get("/ui")).headers["location"] == "./ui/"


class Pieces(httpx.AsyncByteStream):
    """A body in chunks."""

    def __init__(self, count: int) -> None:
        self._left = count

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return b" " * 65_536


# httpx leaves the iterator of a body that it could not send to the end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused(serve: Serve, *, chunked: bool) -> None:
    def body(size: int) -> Any:
        return Pieces(size // 65_536 + 1) if chunked else b" " * (size + 1)

    async with serve() as site:
        answer = await site.post("/services/register", content=body(gate.MOST_BODY_BYTES))
        assert answer.status_code == 413
        assert answer.json()["status"] == 413
        for path in ("/nothing", "/services/none/start"):  # where nobody reads it
            answer = await site.post(path, content=body(3 * gate.MOST_BODY_BYTES))
            assert answer.status_code in ((413, 404) if chunked else (413,)), path
        fitting = body(gate.MOST_BODY_BYTES - 1)
        assert (await site.post("/services/register", content=fitting)).status_code == 422
        # Who is refused for another reason is so at once, however much he sends.
        much = body(3 * gate.MOST_BODY_BYTES)
        assert (await site.http.post("/tree", content=much)).status_code == 401
        assert (await site.get("/healthz")).status_code == 200


async def test_a_body_has_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_SEC", 0.1)
    async with serve() as site, await site.connect() as stream:
        await stream.send_all(
            b"POST /services/register HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n"
            b"authorization: Bearer " + TOKEN.encode() + b'\r\n\r\n{"a"'
        )
        answer = b"".join([piece async for piece in stream])  # and the connection ends
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in answer
        assert b"not there within 0.1 s" in answer


async def test_a_head_has_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime_http._serving.HEAD_SEC", 1)  # the last request has it as well
    async with serve() as site, await site.connect() as slow, await site.connect() as silent:
        await slow.send_all(b"GET /tree HTTP/1.1\r\nhost: loc")
        assert await slow.receive_some() == b""
        assert await silent.receive_some() == b""
        assert (await site.get("/healthz")).status_code == 200


async def test_the_token_is_told_to_nobody(
    serve: Serve, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serve(MANIFEST) as site:
        process = site.application.pilot
        assert process is not None
        pid = (await site.get("/processes/db")).json()["pid"]
        answers = [
            await site.post("/processes/db/restart"),
            await site.post("/processes/none/restart"),
            await site.post("/services/register", content="{"),
            await site.get("/nothing", headers=AUTHORIZED),
            await site.get("/tree", headers={**AUTHORIZED, "host": "evil.example"}),
            await site.get("/tree"),
            await site.get("/why/db"),
            await site.get("/why/http"),
            await site.get("/openapi.json"),
        ]
        events = [repr(entry) for entry in site.application.supervisor.events.tail()]
        for of in (os.getpid(), pid):
            for file in ("cmdline", "environ"):
                path = trio.Path(f"/proc/{of}/{file}")
                if await path.exists():
                    assert TOKEN.encode() not in await path.read_bytes()
    for answer in answers:
        assert TOKEN not in answer.text
        assert TOKEN not in str(answer.headers)
    assert not [event for event in events if TOKEN in event]
    ours = [r for r in caplog.records if not r.name.startswith(("httpcore", "httpx"))]
    assert not [record for record in ours if TOKEN in record.getMessage()]
    assert TOKEN not in repr(site.application)
