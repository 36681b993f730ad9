"""The bundled control server answers JSON lines, within bounds and to those who may ask."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.application import Application
from runtime.manifest import Manifest
from runtime.plugin import Plugin
from runtime.plugins import tcp_control
from runtime.plugins.tcp_control import (
    ControlRequestError,
    ListenError,
    open_listeners,
    parse_bind,
    parse_line,
    parse_request,
)
from runtime.process.host import Host
from runtime.supervision.graph import Stage

SLEEP = "exec sleep 60"
ONCE: dict[str, Any] = {"restart": {"when": "never"}}
NEVER_READY: dict[str, Any] = {
    "ready_strategy": "file",
    "ready_params": {"path": "never"},
    "ready_timeout_sec": 60,
}


class Client:
    """Says lines, and reads answers."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream, self._rest = stream, b""

    async def say(self, data: bytes | dict[str, Any]) -> None:
        if isinstance(data, dict):
            data = json.dumps(data).encode() + b"\n"
        await self.stream.send_all(data)

    async def hear(self) -> Any:
        """Return the next answer, None at the end."""
        while b"\n" not in self._rest:
            try:
                chunk = await self.stream.receive_some()
            except trio.BrokenResourceError:
                chunk = b""
            if not chunk:
                assert self._rest == b""
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    async def ask(self, action: str, *processes: str, **more: Any) -> Any:
        names = {"processes": list(processes)} if processes else {}
        await self.say({"action": action, **names, **more})
        return await self.hear()


class Site:
    """A folder with a run directory, and who connects to what its `control` says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.run.mkdir(mode=0o700)

    @property
    def address(self) -> str:
        return (self.run / "control").read_text().strip()

    @property
    def token(self) -> str:
        return (self.run / "token").read_text().strip()

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Client]:
        address = self.address
        if address.startswith("unix:"):
            stream = await trio.open_unix_socket(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
        async with stream:
            yield Client(stream)

    async def ask(self, action: str, *processes: str, **more: Any) -> Any:
        async with self.client() as client:
            if not self.address.startswith("unix:"):
                more = {"token": self.token, **more}
            return await client.ask(action, *processes, **more)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def serve(make_pilot: Any, site: Site) -> Callable[..., Any]:
    """Make a pilot with the bundled server; without a *bind* it is the default one."""

    def make(*processes: Any, bind: str | None = None, **options: Any) -> Any:
        host = Host(folder=site.run)
        return make_pilot(
            *processes,
            control_server="tcp",
            control_params={} if bind is None else {"bind": bind},
            options={"host": host, **options},
        )

    return make


UNIX = "unix:sockets/control.sock"
BINDS = [None, "127.0.0.1:0", UNIX]


# --- what it does ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bind", BINDS)
async def test_a_restart_is_asked_for_as_the_page_of_process_pilot_has_it(
    serve: Any, sh: Any, site: Site, bind: str | None
) -> None:
    async with serve(sh(SLEEP, name="api"), sh(SLEEP, name="db"), bind=bind) as pilot:
        before = pilot.get_running_process("api").pid
        answer = await site.ask("restart", "api")
        status = pilot.get_running_process("api")
        assert status.pid not in (0, before)
        shown = {"name": "api", "pid": status.pid, "status": "running", "return_code": None}
        assert answer == {"ok": True, "processes": [status.model_dump(mode="json")]}
        assert shown.items() <= answer["processes"][0].items()
        assert pilot.supervisor.status("db").generation == 1


async def test_processes_are_stopped_started_and_shown(serve: Any, sh: Any, site: Site) -> None:
    processes = sh(SLEEP, name="a"), sh(SLEEP, name="many", replicas=2)
    async with serve(*processes, bind=UNIX), site.client() as client:
        answer = await client.ask("status", id=[1, {"x": None}])
        assert answer["ok"] is True
        assert answer["id"] == [1, {"x": None}]
        assert [s["name"] for s in answer["processes"]] == ["a", "many-0", "many-1"]
        assert answer["units"] == [{"name": "tcp", "kind": "control server", "status": "running"}]
        answer = await client.ask("stop", "many", id="stop")
        assert answer["id"] == "stop"
        told = [(s["name"], s["status"], s["pid"]) for s in answer["processes"]]
        assert told == [("many-0", "stopped", 0), ("many-1", "stopped", 0)]
        answer = await client.ask("start", "many-1", "a", id=None)
        assert answer["id"] is None
        assert [s["status"] for s in answer["processes"]] == ["running"] * 2
        answer = await client.ask("status", "many")
        assert [s["status"] for s in answer["processes"]] == ["stopped", "running"]
        assert "id" not in answer
        assert "units" not in answer


async def test_a_shutdown_is_answered_when_all_else_is_down(
    serve: Any, sh: Any, site: Site
) -> None:
    pilot = serve(sh(SLEEP, name="db"), sh(SLEEP, name="api", dependencies=["db"]), bind=UNIX)
    async with trio.open_nursery() as nursery:
        await nursery.start(pilot.start)
        async with site.client() as idle, site.client() as client:
            answer = await client.ask("shutdown", id=7)
            assert (answer["ok"], answer["id"]) == (True, 7)
            assert [s["status"] for s in answer["processes"]] == ["stopped"] * 2
            assert await client.hear() is None
            assert await idle.hear() is None
    assert pilot.supervisor.stopping == "asked to stop by a control server"
    downs = [
        e.item.unit
        for e in pilot.supervisor.events.tail()
        if e.item.new == "stopped" and e.item.unit
    ]
    assert downs == ["api", "db", "tcp"]


async def test_while_the_tree_stops_it_says_what_blocks_that(
    serve: Any, sh: Any, site: Site, look: Any
) -> None:
    slow = sh("trap '' TERM; echo ready; exec sleep 60", name="slow", timeout=20)
    async with serve(slow, sh(SLEEP), bind=UNIX) as pilot, site.client() as client:
        await look.line(pilot.get_process_by_name("slow").output, "ready")
        pilot.supervisor.ask_stop_tree("asked to")
        await pilot.supervisor.wait_until("p", Stage.IDLE)
        answer = await client.ask("status", "slow")
        assert answer["processes"][0]["status"] == "stopping"
        answer = await client.ask("start", "p")
        assert answer["error"] == {
            "type": "UnitFailedError",
            "message": "p did not become ready: the tree stops: asked to",
        }
        pilot.supervisor.force()


async def test_services_are_units_as_well(site: Site, sh: Any) -> None:
    async def cache() -> None:
        await trio.sleep_forever()

    manifest = Manifest.model_validate(
        {
            "base_directory": site.folder,
            "processes": [sh(SLEEP)],
            "control_server": "tcp",
            "control_params": {"bind": UNIX},
        }
    )
    application = Application(manifest, host=Host(folder=site.run))
    application.register_service(cache, "cache")
    async with application:
        answer = await site.ask("restart", "cache", "p")
        assert answer["units"] == [{"name": "cache", "kind": "service", "status": "running"}]
        assert [s["name"] for s in answer["processes"]] == ["p"]
        assert application.supervisor.status("cache").generation == 2
        assert (await site.ask("stop", "cache"))["units"][0]["status"] == "stopped"
        assert (await site.ask("start", "cache"))["units"][0]["status"] == "running"


async def test_a_plugin_of_the_same_name_wins(serve: Any, sh: Any) -> None:
    class Own:
        def __init__(self, pilot: Any) -> None:
            self.params = pilot.control_params

        async def start(self) -> None:
            assert self.params == {"bind": "nowhere at all"}

        async def stop(self) -> None:
            """Do nothing."""

    class Provides(Plugin):
        def get_control_servers(self) -> Any:
            return {"tcp": Own}

    pilot = serve(sh(SLEEP), bind="nowhere at all")
    pilot.register_plugins([Provides()])
    async with pilot:
        assert pilot.supervisor.status("tcp").stage is Stage.READY


# --- errors ---------------------------------------------------------------------------------------


async def test_errors_are_those_of_the_pilot_by_name(serve: Any, sh: Any, site: Site) -> None:
    fails = {**ONCE, "ready_strategy": "file", "ready_params": {"path": "never"}}
    processes = (
        sh(SLEEP, name="api"),
        sh("exit 3", name="x", **fails),
        sh("exit 4", name="y", **fails),
    )
    async with serve(*processes, bind=UNIX) as pilot, site.client() as client:
        answer = await client.ask("restart", "api", "apo", id=1)
        assert answer == {
            "ok": False,
            "error": {
                "type": "UnknownUnitError",
                "message": "there is no unit 'apo'; did you mean 'api'?",
            },
            "id": 1,
        }
        assert (await client.ask("status", "apo"))["error"]["type"] == "UnknownUnitError"
        assert pilot.supervisor.status("api").generation == 1  # with one unknown nothing is done
        answer = await client.ask("start", "x")
        assert answer["error"]["type"] == "UnitFailedError"
        assert answer["error"]["message"].startswith("x did not become ready: ")
        answer = await client.ask("start", "x", "y")
        assert answer["error"]["type"] == "UnitFailedError"
        told = sorted(answer["error"]["message"].split("; "))
        assert [words.partition(":")[0] for words in told] == [
            *("x did not become ready", "y did not become ready"),
        ]
        for action in ("stop", "restart"):
            answer = await client.ask(action, "tcp")
            assert "which cannot wait for its own end" in answer["error"]["message"]


async def test_a_fault_of_ours_is_no_business_of_a_client(
    serve: Any, sh: Any, site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    async with serve(sh(SLEEP), bind=UNIX) as pilot, site.client() as client:
        monkeypatch.setattr(pilot, "get_manifest_processes", lambda: 1 / 0)
        answer = await client.ask("status")
        assert answer["error"] == {"type": "ZeroDivisionError", "message": "it failed"}
        monkeypatch.undo()
        assert (await client.ask("status"))["ok"] is True
    assert "ZeroDivisionError" in caplog.text


BAD: dict[bytes, str] = {
    b"hello": "the request is no JSON: ",
    b"": "",
    b"\xff\xfe": "the request is no UTF-8: ",
    b"[1]": "a request is an object, such as ",
    b"null": "a request is an object, such as ",
    b"[" * 60_000: "the request is too deep",
    b'{"action": ' + b"[" * 30_000 + b"]" * 30_000 + b"}": "the request is too deep",
    b'{"id": ' + b"9" * 60_000 + b"}": "there is a number that is too large",
    b'{"id": 1e999, "action": "status"}': "there is a number that is too large",
    b'{"id": NaN}': "NaN is no number of JSON",
    b"{}": "there is no action; it is one of status, start, stop, restart, shutdown",
    b'{"action": "restat"}': "there is no action 'restat'; did you mean 'restart'?",
    b'{"action": "zzz"}': "there is no action 'zzz'; it is one of status",
    b'{"action": 5}': "there is no action 5; it is one of status",
    b'{"action": ["status"]}': "there is no action ['status']; it is one of",
    b'{"action": "status", "proceses": []}': "unknown key 'proceses'; did you mean 'processes'?",
    b'{"action": "restart", "processes": "p"}': "processes must be a list of names",
    b'{"action": "restart", "processes": [5]}': "processes must be a list of names",
    b'{"action": "restart", "processes": []}': "restart needs names",
    b'{"action": "start"}': "start needs names",
    b'{"action": "stop", "processes": null}': "stop needs names",
    b'{"action": "shutdown", "processes": ["p"]}': "shutdown stops everything; to stop some",
}


async def test_what_is_no_request_gets_one_error_and_changes_nothing(
    serve: Any, sh: Any, site: Site
) -> None:
    async with serve(sh(SLEEP), bind=UNIX) as pilot, site.client() as client:
        before = pilot.supervisor.events.last
        for line, words in BAD.items():
            await client.say(line + b"\n")
            if line:
                answer = await client.hear()
                assert answer["ok"] is False
                assert answer["error"]["type"] == "ControlRequestError"
                assert answer["error"]["message"].startswith(words), line[:60]
        assert (await client.ask("status"))["ok"] is True
        assert pilot.supervisor.events.last == before


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=80) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))
)
def test_whatever_a_line_says_is_an_object_or_refused(line: bytes) -> None:
    with suppress(ControlRequestError):
        assert isinstance(parse_line(line), dict)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["action", "processes", "token", "id", "x"]), json_values)
    | st.fixed_dictionaries(
        {"action": st.sampled_from(["status", "start", "stop", "restart", "shutdown"])},
        optional={"processes": st.lists(st.text(max_size=3), max_size=3)},
    )
)
def test_whatever_an_object_says_is_a_request_or_refused(data: Any) -> None:
    with suppress(ControlRequestError):
        request = parse_request(data)
        assert request.action == data["action"]
        assert list(request.processes) == (data.get("processes") or [])


# --- who may ask ----------------------------------------------------------------------------------


@pytest.mark.parametrize("brought", [None, "", "wrong", 5, ["x"], "\ud800", "half of it"])
async def test_over_tcp_nobody_is_heard_without_the_token(
    serve: Any, sh: Any, site: Site, brought: Any
) -> None:
    async with serve(sh(SLEEP)) as pilot:
        before = pilot.supervisor.events.last
        token = site.token[:20] if brought == "half of it" else brought
        for request in (
            {"action": "restart", "processes": ["p"]},
            {"action": "status"},
            {"action": "nonsense"},
        ):
            async with site.client() as client:
                await client.say(request if token is None else {**request, "token": token})
                answer = await client.hear()
                assert answer["error"]["type"] == "ControlTokenError"
                assert site.token not in json.dumps(answer)
                assert await client.hear() is None  # and is not heard any more
        assert pilot.supervisor.events.last == before


async def test_the_token_is_nowhere_but_in_its_file(
    serve: Any, sh: Any, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with serve(sh("env; exec sleep 60")) as pilot:
        mode = (site.run / "token").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        assert len(site.token) >= 40
        assert (await site.ask("restart", "p"))["ok"] is True
        assert (await site.ask("status", token="wrong"))["ok"] is False  # noqa: S106 - it is wrong
        token = site.token
        pid = pilot.get_running_process("p").pid
        for file in ("environ", "cmdline"):
            assert token.encode() not in await trio.Path(f"/proc/{pid}/{file}").read_bytes()
        assert token not in repr([e.item for e in pilot.supervisor.events.tail()])
        lines = [e.item.text for e in pilot.get_process_by_name("p").output.lines.tail()]
        assert token not in "\n".join(lines)
    assert token not in caplog.text
    assert token not in os.environ.values()


async def test_a_unix_socket_has_its_mode_at_every_moment_whatever_the_umask(
    serve: Any, sh: Any, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "chmod", lambda *_, **__: None)  # what comes later is not what counts
    for umask in (0, 0o077):
        before = os.umask(umask)
        try:
            async with serve(sh(SLEEP), bind=UNIX):
                path = site.folder / "sockets" / "control.sock"
                status = path.stat()
                assert stat.S_ISSOCK(status.st_mode)
                assert stat.S_IMODE(status.st_mode) == 0o600
                assert [each.name for each in path.parent.iterdir()] == ["control.sock"]
                assert site.address == f"unix:{path}"
                assert not (site.run / "token").exists()
        finally:
            os.umask(before)
        assert not path.exists()
        assert not (site.run / "control").exists()


async def test_a_strict_umask_takes_nothing_of_the_mode(serve: Any, sh: Any, site: Site) -> None:
    (site.folder / "sockets").mkdir()
    before = os.umask(0o777)
    try:
        async with serve(sh(SLEEP), bind=UNIX):
            path = site.folder / "sockets" / "control.sock"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert (await site.ask("status"))["ok"] is True
    finally:
        os.umask(before)


async def test_without_a_run_directory_the_socket_works_and_tcp_says_what_it_lacks(
    make_pilot: Any, sh: Any, site: Site
) -> None:
    fields: dict[str, Any] = {"control_server": "tcp"}
    with pytest.raises(
        ValueError, match=r"control_params.bind: over TCP a run directory is needed"
    ):
        await make_pilot(sh(SLEEP), **fields).start()
    async with make_pilot(sh(SLEEP), control_params={"bind": UNIX}, **fields):
        stream = await trio.open_unix_socket(str(site.folder / "sockets" / "control.sock"))
        async with stream:
            assert (await Client(stream).ask("restart", "p"))["ok"] is True


# --- where it listens -----------------------------------------------------------------------------


async def test_a_stale_socket_gives_way_and_a_live_one_does_not(
    serve: Any, sh: Any, site: Site
) -> None:
    path = site.folder / "sockets" / "control.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with serve(sh(SLEEP), bind=UNIX), site.client() as client:
        second = serve(sh(SLEEP), bind=UNIX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.start)
            await second.supervisor.wait_until("tcp", Stage.BACKOFF)
            words = f"cannot listen at unix:{path}: Address already in use; restart in"
            assert second.supervisor.status("tcp").reason.startswith(words)
            await second.supervisor.wait_until("p", Stage.READY)
            await second.stop()
        assert (await client.ask("status"))["ok"] is True
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            assert (await Client(stream).ask("status"))["ok"] is True
    assert not path.exists()


async def test_a_socket_that_is_too_busy_to_be_asked_is_a_live_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    clients: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        try:
            for _ in range(2):
                client = socket.socket(socket.AF_UNIX)
                clients.append(client)
                client.setblocking(False)
                try:
                    client.connect(str(path))
                except BlockingIOError:
                    break
            with pytest.raises(ListenError, match="Address already in use"):
                async with open_listeners(parse_bind(f"unix:{path}", tmp_path)):
                    raise AssertionError
        finally:
            for client in clients:
                client.close()


async def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ListenError, match="File exists"):
        async with open_listeners(parse_bind("unix:file", tmp_path)):
            raise AssertionError
    assert file.read_text() == "mine"
    with pytest.raises(ListenError, match=r"File exists|Not a directory"):
        async with open_listeners(parse_bind("unix:file/socket", tmp_path)):
            raise AssertionError


async def test_a_socket_that_another_one_has_made_stays(tmp_path: Path) -> None:
    bind = parse_bind("unix:s", tmp_path)
    with socket.socket(socket.AF_UNIX) as other:
        async with open_listeners(bind):
            (tmp_path / "s").unlink()
            other.bind(str(tmp_path / "s"))
            other.listen()
        assert (tmp_path / "s").exists()


async def test_a_port_that_is_taken_is_told(serve: Any, sh: Any, site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        pilot = serve(sh(SLEEP), bind=bind)
        async with pilot:
            await pilot.supervisor.wait_until("tcp", Stage.BACKOFF)
            words = f"cannot listen at {bind}: Address already in use; restart in"
            assert pilot.supervisor.status("tcp").reason.startswith(words)
            assert pilot.supervisor.status("p").stage is Stage.READY


async def test_a_name_of_a_host_is_bound_at_one_free_port(serve: Any, sh: Any, site: Site) -> None:
    async with serve(sh(SLEEP), bind="localhost:0"):
        assert site.address.rpartition(":")[0] in ("127.0.0.1", "[::1]")
        assert (await site.ask("status"))["ok"] is True
    async with serve(sh(SLEEP), bind="nowhere.invalid:0") as pilot:
        await pilot.supervisor.wait_until("tcp", Stage.BACKOFF)
        assert "cannot listen at nowhere.invalid:0: " in pilot.supervisor.status("tcp").reason


@pytest.mark.parametrize(
    ("text", "host", "port", "written"),
    [
        ("127.0.0.1:8409", "127.0.0.1", 8409, "127.0.0.1:8409"),
        ("192.0.2.1:0", "192.0.2.1", 0, "192.0.2.1:0"),
        ("[::1]:1", "::1", 1, "[::1]:1"),
        ("localhost:65535", "localhost", 65535, "localhost:65535"),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int, written: str) -> None:
    bind = parse_bind(text, Path("/"))
    assert (bind.path, bind.host, bind.port, str(bind)) == (None, host, port, written)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (5, "must be text such as"),
        (None, "must be text such as"),
        ("", "must be HOST:PORT, or unix:PATH"),
        ("8409", "must be HOST:PORT, or unix:PATH"),
        (":8409", "must be HOST:PORT, or unix:PATH"),
        ("::1:8409", "needs brackets"),
        ("a\nb:1", "has no host that can be one"),
        (" :1", "has no host that can be one"),
        ("host:", "has no port from 0 to 65535"),
        ("host:65536", "has no port from 0 to 65535"),
        ("host:-1", "has no port from 0 to 65535"),
        ("host:٣", "has no port from 0 to 65535"),
        ("unix:", "must name a file"),
        ("unix:a/", "must name a file"),
        ("unix:a\0", "must name a file"),
        (f"unix:{'x' * 120}", "is too long for a socket"),
        ("unix:\ud800", "has characters that no path has"),
    ],
)
def test_what_is_no_address_is_told(text: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_bind(text, Path("/base"))


def test_a_relative_path_starts_at_the_base_directory() -> None:
    assert parse_bind("unix:run/c", Path("/base")).path == Path("/base/run/c")
    assert parse_bind("unix:/c", Path("/base")).path == Path("/c")


# --- bounds ---------------------------------------------------------------------------------------


async def test_a_line_has_a_longest_length(serve: Any, sh: Any, site: Site) -> None:
    async with serve(sh(SLEEP), bind=UNIX):
        async with site.client() as client:
            start = b'{"action": "status", "id": "'
            rest = tcp_control.LONGEST_LINE - len(start) - 2
            await client.say(start + b"x" * rest + b'"}\n')
            assert (await client.hear())["ok"] is True
            await client.say(start + b"x" * (rest + 1) + b'"}\n')
            words = "the line is longer than 65536 bytes"
            assert (await client.hear())["error"]["message"] == words
            assert await client.hear() is None
        async with site.client() as client:
            with suppress(trio.BrokenResourceError):
                while True:  # a line without an end is not waited for
                    await client.say(b"x" * 65536)
        assert (await site.ask("status"))["ok"] is True


async def test_lines_may_come_in_pieces_or_together(serve: Any, sh: Any, site: Site) -> None:
    async with serve(sh(SLEEP), bind=UNIX), site.client() as client:
        request = b'{"action": "status", "id": %d}\r\n'
        for byte in request % 0:
            await client.say(bytes([byte]))
        assert (await client.hear())["id"] == 0
        await client.say(b"\n \n" + b"".join(request % number for number in range(40)))
        assert [(await client.hear())["id"] for _ in range(40)] == [*range(40)]


@pytest.mark.parametrize("bind", ["127.0.0.1:0", UNIX])
async def test_who_has_said_all_may_close_that_half(
    serve: Any, sh: Any, site: Site, bind: str
) -> None:
    async with serve(sh(SLEEP), bind=bind), site.client() as client:
        token = "" if bind == UNIX else site.token
        requests = [{"action": "restart", "processes": ["p"], "token": token}] * 2
        await client.say("\n".join(map(json.dumps, requests)).encode())  # the last one has no end
        await client.stream.send_eof()
        assert (await client.hear())["ok"] is True
        assert (await client.hear())["ok"] is True
        assert await client.hear() is None


async def test_an_unfinished_line_and_an_idle_client_have_their_time(
    serve: Any, sh: Any, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_control, "LINE_SEC", 0.05)
    monkeypatch.setattr(tcp_control, "IDLE_SEC", 0.2)
    slow = (
        sh(SLEEP, name="slow", autostart=False)
        if False
        else sh("sleep 0.5; touch up; exec sleep 60", name="slow")
    )
    slow |= {
        "working_directory": str(site.folder),
        "ready_strategy": "file",
        "ready_params": {"path": "up"},
    }
    async with serve(sh(SLEEP), slow, bind=UNIX):
        async with site.client() as client:
            await client.say(b'{"action"')
            assert (await client.hear())["error"]["message"] == "the line did not end within 0.05 s"
            assert await client.hear() is None
        async with site.client() as client:
            assert await client.hear() is None
        async with site.client() as client:
            await trio.Path(site.folder / "up").unlink()
            assert (await client.ask("restart", "slow"))["ok"] is True  # it waits, and is not idle
            assert (await client.ask("status"))["ok"] is True
            assert await client.hear() is None


async def test_there_are_so_many_connections_and_no_more(
    serve: Any, sh: Any, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_control, "MOST_CONNECTIONS", 2)
    async with serve(sh(SLEEP), bind=UNIX):
        async with site.client() as one, site.client() as other:
            for client in (one, other):
                assert (await client.ask("status"))["ok"] is True
            async with site.client() as third:
                words = "there are 2 connections already; close one"
                assert (await third.hear())["error"]["message"] == words
                assert await third.hear() is None
            assert (await one.ask("status"))["ok"] is True
        while (await site.ask("status"))["ok"] is not True:  # until both are known to be gone
            await trio.lowlevel.checkpoint()


async def test_who_does_not_read_holds_nothing_up(
    serve: Any, sh: Any, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_control, "SEND_SEC", 0.1)
    async with serve(sh(SLEEP), bind=UNIX), site.client() as lazy, site.client() as client:
        # Each answer repeats the id: more than any buffer holds is soon to be sent.
        request = json.dumps({"action": "status", "id": "x" * 60_000}).encode() + b"\n"
        with suppress(trio.BrokenResourceError):
            while True:
                await lazy.say(request)
        assert (await client.ask("restart", "p"))["ok"] is True


@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_who_goes_in_the_middle_of_a_request_takes_the_wait_along_and_not_the_request(
    serve: Any, sh: Any, site: Site, how: str, look: Any
) -> None:
    bind = UNIX if how == "closes" else "127.0.0.1:0"
    slow = sh("echo up; exec sleep 60", name="slow", **NEVER_READY)
    pilot = serve(sh(SLEEP), slow, bind=bind)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await pilot.supervisor.wait_until("tcp", Stage.READY)
        await pilot.supervisor.wait_until("slow", Stage.STARTING)
        async with site.client() as client:
            token = "" if how == "closes" else site.token
            await client.say({"action": "restart", "processes": ["slow"], "token": token})
            await look.true(lambda: pilot.supervisor.status("slow").generation == 2)
            connections = find_connections()
            assert len(connections) == 1
            if how == "resets":
                option = struct.pack("ii", 1, 0)
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        await look.true(lambda: not find_connections())
        assert pilot.supervisor.status("slow").stage is Stage.STARTING
        await pilot.stop()


def find_connections() -> list[str]:
    """Return the tasks of connections that there are."""
    found: list[str] = []

    def visit(task: trio.lowlevel.Task) -> None:
        if "_run_handler" in task.name:
            found.append(task.name)
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                visit(child)

    root = trio.lowlevel.current_root_task()
    assert root is not None
    visit(root)
    return found


async def never_ends(_: object) -> None:
    await trio.sleep_forever()


async def test_what_is_in_hand_at_the_end_has_a_second(
    serve: Any, sh: Any, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_control, "_LAST_ANSWER_SEC", 0.1)
    async with serve(sh(SLEEP), bind=UNIX) as pilot, site.client() as client:
        monkeypatch.setattr(pilot, "restart_processes", never_ends)
        await client.say({"action": "restart", "processes": ["p"]})
        await trio.testing.wait_all_tasks_blocked()
        await pilot.supervisor.stop_unit("tcp")
        assert await client.hear() is None
        assert pilot.supervisor.status("tcp").reason == "stopped"


async def test_an_id_that_cannot_be_written_is_left_out() -> None:
    value: Any = []
    for _ in range(sys.getrecursionlimit() * 100):
        value = [value]
    assert tcp_control._line({"ok": True, "id": value}) == b'{"ok": true}\n'
