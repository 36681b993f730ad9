"""The client, against a real server, under Trio and under asyncio."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
import trio
import trustme

from runtime import Service, ServiceManager
from runtime.service import register_service_class
from runtime.service.models import ServiceState
from runtime.service.registry import _classes
from runtime.supervision.events import EventKind, UnitEvent
from runtime_http import Client, ClientError, NotReachedError, RefusedError

from .conftest import TOKEN, Serve, answering, script, sleeper

T = TypeVar("T")


class PlainManager(ServiceManager):
    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


class PlainService(Service):
    def create_manager(self) -> PlainManager:
        return PlainManager(self.logger)

    def requires_configuration(self) -> bool:
        return False


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    register_service_class(PlainService)
    yield
    del _classes["plain"]


MANIFEST: dict[str, Any] = {
    "processes": [
        sleeper("db"),
        script("api", "echo hello; echo oh >&2; exec sleep 1000", dependencies=["db"], replicas=2),
        script(
            "job",
            "exit 3",
            shutdown_strategy="do_not_restart",
            ready_strategy="file",  # it ends before
            ready_params={"path": "never"},
            ready_timeout_sec=60,
        ),
    ],
    "groups": [{"name": "all", "strategy": "one_for_all", "members": ["db", "api"]}],
    "version": "1.2.3",
}

Run = Callable[[Callable[[], Awaitable[T]]], Awaitable[T]]


async def run_here(act: Callable[[], Awaitable[T]]) -> T:
    return await act()


async def run_in_asyncio(act: Callable[[], Awaitable[T]]) -> T:
    async def wrapped() -> T:
        return await act()

    return await trio.to_thread.run_sync(lambda: asyncio.run(wrapped()))


@pytest.fixture(params=[run_here, run_in_asyncio], ids=["trio", "asyncio"])
def run(request: pytest.FixtureRequest) -> Any:
    """Run the client in the loop of the test, or in one of asyncio's in a thread."""
    return request.param


async def test_what_it_asks_comes_as_models(serve: Serve, run: Any) -> None:
    async with serve(MANIFEST) as site:

        async def ask() -> None:
            async with Client(site.address) as client:
                assert (await client.application()).version == "1.2.3"
                tree = await client.tree()
                processes = {unit.name for unit in tree.units if unit.kind == "process"}
                assert processes == {"db", "api-0", "api-1", "job"}
                assert tree.names == {
                    "api": ["api-0", "api-1"],
                    "all": ["db", "api-0", "api-1"],
                }
                assert (await client.unit("db")).pid
                assert (await client.process("db")).ready is True
                assert len(await client.processes()) == 4
                assert (await client.why("job")).name == "job"
                assert (await client.stats())["db"].family_size == 1
                used = await client.process_stats("db")
                assert (used.name, used.history[-1].family_size) == ("db", 1)
                assert await client.services() == []
                assert await client.is_ready() is False  # the job has failed

        await run(ask)


async def test_it_steers_processes_with_the_token(serve: Serve, run: Any) -> None:
    async with serve(MANIFEST) as site:

        async def steer() -> None:
            async with Client(site.address, TOKEN) as client:
                before = (await client.process("db")).pid
                after = await client.change_process("db", "restart")
                assert after.ready
                assert after.pid not in (0, before)
                assert (await client.change_process("db", "stop")).pid == 0
                assert (await client.change_process("db", "start")).ready

        await run(steer)


async def test_it_steers_services(serve: Serve, run: Any) -> None:
    async with serve() as site:

        async def steer() -> None:
            async with Client(site.address, TOKEN) as client:
                made = await client.register_service("plain", "mine")
                assert (made.service, made.type) == ("mine", "PlainService")
                assert (await client.configure_service("mine", {})).status == "configured"
                assert (await client.change_service("mine", "start")).status == "started"
                assert (await client.service("mine")).state is ServiceState.RUNNING
                assert await client.is_ready()
                assert (await client.change_service("mine", "restart")).status == "restarted"
                assert (await client.change_service("mine", "stop")).status == "stopped"
                again = await client.configure_service("mine", {}, start=True)
                assert again.status == "configured and started"
                assert [each.name for each in await client.services()] == ["mine"]
                assert (await client.deregister_service("mine")).status == "deregistered"
                assert await client.services() == []

        await run(steer)


async def test_a_refusal_has_its_status_and_its_fields(serve: Serve, run: Any) -> None:
    async with serve(MANIFEST) as site:

        async def ask() -> None:
            async with Client(site.address) as client:
                with pytest.raises(RefusedError, match="there is no") as unknown:
                    await client.process("none")
                assert unknown.value.status == 404
                assert unknown.value.fields["name"] == "none"
                with pytest.raises(RefusedError, match="token") as refused:
                    await client.change_process("db", "stop")
                assert refused.value.status == 401
                with pytest.raises(RefusedError) as followed:
                    async for _ in client.follow_logs("none"):
                        pass
                assert followed.value.status == 404
            async with Client(site.address, "fälsch") as client:
                with pytest.raises(RefusedError) as refused:
                    await client.change_process("db", "stop")
                assert refused.value.status == 401
            async with Client(site.address, TOKEN) as client:
                with pytest.raises(RefusedError) as failed:
                    await client.change_process("job", "start")
                assert failed.value.status == 409
            assert isinstance(failed.value, ClientError)

        await run(ask)


async def test_an_answer_that_is_no_problem_document_has_its_phrase(run: Any) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        head = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\nconnection: close"
        await stream.send_all(head + b"\r\n\r\n[]")

    async with answering(answer) as url:

        async def ask() -> None:
            async with Client(url) as client:
                with pytest.raises(RefusedError, match="502 Bad Gateway"):
                    await client.tree()
                with pytest.raises(RefusedError, match="502"):
                    await client.is_ready()

        await run(ask)


async def test_nobody_there_is_told_with_the_address(
    tmp_path: Path, run: Any, free_port: Callable[[], int]
) -> None:
    async def ask() -> None:
        for url in (f"http://127.0.0.1:{free_port()}", f"unix:{tmp_path}/none"):
            async with Client(url) as client:
                with pytest.raises(NotReachedError) as nobody:
                    await client.tree()
                assert str(nobody.value).startswith(f"no tree answers at {url}: ")
                with pytest.raises(NotReachedError):
                    async for _ in client.events():
                        pass

    await run(ask)


async def test_somebody_else_who_answers_is_no_tree(run: Any) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        request = bytes(await stream.receive_some())
        body = b"data: {\n\n" if b"/events" in request else b"<html>welcome</html>"
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        await stream.send_all(head % len(body) + body)

    async with answering(answer) as url:

        async def ask() -> None:
            async with Client(url) as client:
                with pytest.raises(NotReachedError, match="no such server"):
                    await client.tree()
                with pytest.raises(NotReachedError, match="no such server"):
                    await client.deregister_service("x")
                with pytest.raises(NotReachedError, match="no such server"):
                    async for _ in client.events():
                        pass

        await run(ask)


@pytest.mark.parametrize("url", ["http://[", "http://x:port", "localhost:8410"])
async def test_an_address_that_is_none_is_told_like_one_where_nobody_is(url: str) -> None:
    with pytest.raises(NotReachedError, match="no tree answers at "):
        async with Client(url) as client:
            await client.tree()


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
async def test_a_certificate_that_nobody_vouches_for_is_not_believed(scheme: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)

    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.do_handshake()

    async with trio.open_nursery() as nursery:
        serve_here = functools.partial(trio.serve_ssl_over_tcp, answer, 0, context)
        (listener,) = await nursery.start(functools.partial(serve_here, host="127.0.0.1"))
        port = listener.transport_listener.socket.getsockname()[1]
        async with Client(f"{scheme}://localhost:{port}") as client:
            with pytest.raises(NotReachedError) as caught:
                await client.tree()
        error: BaseException | None = caught.value
        while not isinstance(error, ssl.SSLCertVerificationError):  # below all that httpx says
            assert error is not None
            error = error.__cause__ or error.__context__
        nursery.cancel_scope.cancel()


async def test_a_unix_socket_takes_no_token(serve: Serve, run: Any) -> None:
    async with serve({"processes": [sleeper("db")]}, bind="unix:sock", base=Path("/tmp")) as site:

        async def ask() -> None:
            async with Client(site.address) as client:
                assert (await client.change_process("db", "restart")).ready

        await run(ask)


async def test_lines_are_followed_until_that_is_left(serve: Serve, run: Any) -> None:
    code = "echo one; echo two >&2; while read -r line; do echo $line; done; exec sleep 1000"
    async with serve({"processes": [script("api", code)]}) as site:

        async def ask() -> None:
            async with Client(site.address) as client:
                lines: list[Any] = []
                while len(lines) < 2:  # it may not have printed them yet
                    lines = await client.logs("api")
                assert {(line.stream, line.text) for line in lines} == {
                    ("stdout", "one"),
                    ("stderr", "two"),
                }
                errors = await client.logs("api", stream="stderr")
                assert [line.text for line in errors] == ["two"]
                async with aclosing(client.follow_logs("api", stream="stderr")) as new:
                    assert (await anext(new)).text == "two"
                assert len(await client.logs("api", lines=1)) == 1  # it serves on

        await run(ask)


async def test_no_text_breaks_a_stream(serve: Serve) -> None:
    # What some take for the end of a line, a NUL, and half of a character.
    text = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\0h\ud800i"
    code = r"printf 'e\302\205f\342\200\250g\n'; exec sleep 1000"
    async with (
        serve({"processes": [script("api", code)]}) as site,
        Client(site.address) as client,
        aclosing(client.events()) as events,
        aclosing(client.follow_logs("api")) as lines,
    ):
        assert (await anext(events)).kind == "snapshot"
        site.application.supervisor.events.append(
            UnitEvent(timestamp=datetime.now(UTC), unit="api", kind=EventKind.NOTED, reason=text)
        )
        async for event in events:
            if event.kind == "noted":
                assert event.data["reason"] == text
                break
        assert (await anext(lines)).text == "e\x85f\u2028g"


async def test_events_begin_with_a_snapshot_or_behind_a_number(serve: Serve, run: Any) -> None:
    async with serve(MANIFEST) as site:

        async def ask() -> None:
            async with Client(site.address, TOKEN) as client:
                async with aclosing(client.events()) as events:
                    first = await anext(events)
                    assert first.kind == "snapshot"
                    assert first.number == first.data["last_event"]
                    await client.change_process("db", "stop")
                    second = await anext(events)
                    assert second.number == first.number + 1
                    assert second.data["unit"] == "db"
                async with aclosing(client.events(after=2)) as events:
                    assert (await anext(events)).number == 3

        await run(ask)


async def test_a_stream_that_is_cancelled_leaves_a_client_that_works(
    serve: Serve, run: Any
) -> None:
    async with serve({"processes": [sleeper("db")]}) as site:

        async def ask() -> None:
            async with Client(site.address, TOKEN) as client:
                begun = anyio.Event()

                async def follow() -> None:
                    async with aclosing(client.events()) as events:
                        async for _ in events:
                            begun.set()

                async with anyio.create_task_group() as group:
                    group.start_soon(follow)
                    await begun.wait()
                    group.cancel_scope.cancel()
                assert (await client.change_process("db", "restart")).ready

        await run(ask)


async def test_streams_end_with_the_server(serve: Serve) -> None:
    kinds: list[str] = []
    async with trio.open_nursery() as nursery, serve({"processes": [sleeper("db")]}) as site:
        begun = trio.Event()

        async def follow() -> None:
            async with Client(site.address) as client, aclosing(client.events()) as events:
                async for message in events:
                    kinds.append(message.kind)
                    begun.set()

        nursery.start_soon(follow)
        await begun.wait()
    assert kinds[0] == "snapshot"
    assert "moved" in kinds  # also of the stop it is told


async def test_a_stream_that_says_nothing_any_more_is_dead(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host at its other end may be gone, and nobody says so."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n: alive\n\n")
        await trio.sleep_forever()

    monkeypatch.setattr("runtime_http.client.SILENCE_SEC", 0.1)
    async with answering(answer) as url:

        async def listen() -> None:
            async with Client(url) as client:
                for stream in (client.events(), client.follow_logs("db")):
                    async with aclosing(stream) as messages:
                        with pytest.raises(NotReachedError, match="ReadTimeout"):
                            await anext(messages)

        await run(listen)
