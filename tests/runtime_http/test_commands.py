"""The commands of the command line that ask a running tree, and steer it, against a real server."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from runtime.application import Application
from runtime.cli import _remote
from runtime.cli._asking import run_and_tell
from runtime.cli._main import cli
from runtime.cli._whereabouts import NoTreeError, Whereabouts
from runtime.run_directory import HTTP_FILE, TOKEN_FILE, note_in_file, open_run_directory
from runtime.supervision.events import Journal
from runtime_http.models import TreeView, UnitView

from .conftest import TOKEN, Serve, Site, answering, script, sleeper

PROCESSES: dict[str, Any] = {
    "processes": [
        sleeper("db"),
        script("api", "echo hello; echo oh >&2; exec sleep 1000", dependencies=["db"], replicas=2),
    ],
    "groups": [{"name": "all", "strategy": "one_for_all", "members": ["db", "api"]}],
}
FAILS: dict[str, Any] = {
    "processes": [
        sleeper("db"),
        script(
            "job",
            "exit 3",
            shutdown_strategy="do_not_restart",
            ready_strategy="file",  # it ends before
            ready_params={"path": "never"},
            ready_timeout_sec=60,
        ),
    ]
}


@dataclass
class Tree:
    """A tree that runs, with its run directory, and the command line to ask it."""

    site: Site
    folder: Path

    async def __call__(self, command: str, *arguments: str, **env: str) -> Result:
        """Call a command with the run directory; the tree goes on meanwhile."""
        return await call(command, "--run-directory", str(self.folder), *arguments, **env)

    def states(self) -> dict[str, str]:
        return {s.name: str(s.stage) for s in self.site.application.supervisor.statuses()}


async def call(*arguments: str, **env: str) -> Result:
    invoke = functools.partial(CliRunner().invoke, cli, arguments, env=env)
    result = await trio.to_thread.run_sync(invoke)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


Open = Callable[..., Any]


@pytest.fixture
def open_tree(serve: Serve, tmp_path: Path) -> Open:
    """Run a manifest with its server and a run directory that tells of it."""

    @asynccontextmanager
    async def opened(manifest: dict[str, Any] = PROCESSES, **settings: Any) -> AsyncGenerator[Tree]:
        folder = tmp_path / "run"
        with open_run_directory(folder) as directory:
            async with serve(manifest, **settings) as site:
                note_in_file(directory.path, HTTP_FILE, site.address)
                note_in_file(directory.path, TOKEN_FILE, TOKEN)
                yield Tree(site, folder)

    return opened


# --- status ---------------------------------------------------------------------------------------


async def test_status_is_a_table_and_0_when_all_is_well(open_tree: Open) -> None:
    async with open_tree() as ask:
        result = await ask("status")
        heading, *rows = result.stdout.splitlines()
        assert heading.split() == ["NAME", "STATE", "PID", "UP", "RESTARTS"]
        assert {row.split()[0]: row.split()[1] for row in rows} == {
            **dict.fromkeys(("db", "api-0", "api-1", "http"), "running")
        }
        assert result.exit_code == 0
        chosen = await ask("status", "api", "api-1", "db")
        names = [row.split()[0] for row in chosen.stdout.splitlines()[1:]]
        assert names == ["api-0", "api-1", "db"]
        group = json.loads((await ask("status", "all", "--json")).stdout)
        assert [unit["name"] for unit in group] == ["db", "api-0", "api-1"]
        whole = json.loads((await ask("status", "--json")).stdout)
        assert whole["names"]["all"] == ["db", "api-0", "api-1"]


async def test_status_is_1_when_one_is_not_well_and_4_for_a_stranger(open_tree: Open) -> None:
    async with open_tree(FAILS) as ask:
        result = await ask("status")
        assert result.exit_code == 1
        assert "failed" in result.stdout
        assert (await ask("status", "db")).exit_code == 0
        unknown = await ask("status", "dbb")
        assert unknown.exit_code == 4
        assert unknown.stderr == "there is no unit 'dbb'; did you mean 'db'?\n"
        assert unknown.stdout == ""


async def test_status_is_watched_until_the_tree_ends(
    open_tree: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[Result] = []
    show, shown_idle = _remote._show, trio.Event()
    token = trio.lowlevel.current_trio_token()

    def watched(tree: TreeView, *arguments: Any, **options: Any) -> int:
        status = show(tree, *arguments, **options)
        if any(unit.stage == "idle" for unit in tree.units):
            token.run_sync_soon(shown_idle.set)  # of another loop, in a thread
        return status

    monkeypatch.setattr(_remote, "_show", watched)
    async with trio.open_nursery() as nursery, open_tree() as ask:

        async def watch() -> None:
            results.append(await ask("status", "--watch", "--json"))

        nursery.start_soon(watch)
        supervisor = ask.site.application.supervisor
        await _until_read(supervisor.events)
        await supervisor.stop_unit("api-0")
        await shown_idle.wait()
    (result,) = results
    trees = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(trees) >= 2
    assert [u["stage"] for u in trees[0]["units"] if u["name"] == "api-0"] == ["ready"]
    assert any(u["stage"] == "idle" for tree in trees for u in tree["units"])


@pytest.mark.parametrize(("told", "status"), [("enough", 1), (None, 3)])
async def test_a_tree_that_is_gone_while_it_is_watched_has_ended_if_it_was_told_to(
    told: str | None, status: int
) -> None:
    asked: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        request = bytes(await stream.receive_some())
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
        if b"/tree" in request:
            asked.append(request)
            if len(asked) == 1:
                body = _tree("stopping").encode()
                await stream.send_all(b"%scontent-length: %d\r\n\r\n" % (head, len(body)))
                await stream.send_all(body)
            return
        event = json.dumps({"stopping": told}).encode()
        await stream.send_all(head + b"\r\nid: 9\nevent: moved\ndata: %s\n\n" % event)
        await trio.sleep_forever()

    async with answering(answer) as url:
        assert (await call("status", "--watch", "--url", url)).exit_code == status


async def _until_read(journal: Journal[Any]) -> None:
    """Return once somebody has read all of *journal* and waits for more: a stream of the server."""
    while not len(journal._waiting):  # noqa: ASYNC110
        await trio.sleep(0.01)  # the client is in another thread


# --- changes --------------------------------------------------------------------------------------


async def test_units_are_stopped_started_and_restarted_by_name(open_tree: Open) -> None:
    async with open_tree() as ask:
        result = await ask("stop", "api")
        assert (result.exit_code, result.stdout) == (0, "stopped: api-0, api-1\n")
        assert ask.states() == {"db": "ready", "api-0": "idle", "api-1": "idle", "http": "ready"}
        result = await ask("start", "all")
        assert (result.exit_code, result.stdout) == (0, "started: db, api-0, api-1\n")
        assert set(ask.states().values()) == {"ready"}
        before = ask.site.application.supervisor.status("db").generation
        result = await ask("restart", "db", "--json")
        assert json.loads(result.stdout)[0]["generation"] == before + 1


async def test_with_an_unknown_name_nothing_is_done(open_tree: Open) -> None:
    async with open_tree() as ask:
        result = await ask("stop", "db", "none")
        assert result.exit_code == 4
        assert set(ask.states().values()) == {"ready"}


async def test_what_fails_is_1_and_the_rest_is_done(open_tree: Open) -> None:
    async with open_tree(FAILS) as ask:
        result = await ask("restart", "db", "job", "http")
        assert result.exit_code == 1
        assert "restarted: db" in result.stdout
        assert "job: " in result.stderr
        assert "http: only processes and services can be told to restart" in result.stderr


def define_one(application: Application) -> None:
    """Have a task that is run in workers, which none of these tests does."""
    application.task(cpu_bound=True)(textwrap.dedent)


async def test_runners_and_workers_are_no_units_to_be_steered(open_tree: Open) -> None:
    async with open_tree(set_up=define_one) as ask:
        worker = next(name for name in ask.states() if name.startswith("runner/"))
        for verb in ("start", "stop", "restart"):
            result = await ask(verb, "runner", "recovery", worker)
            assert result.exit_code == 1
            words = f"only processes and services can be told to {verb}\n"
            assert sorted(result.stderr.splitlines(keepends=True)) == sorted(
                f"{name}: {words}" for name in ("runner", "recovery", worker)
            )
            for kind in ("processes", "services"):
                answer = await ask.site.post(f"/{kind}/runner/{verb}")
                assert answer.status_code == 404
        statuses = ask.site.application.supervisor.statuses()
        assert {each.generation for each in statuses} == {1}
        result = await ask("logs", worker)
        assert result.exit_code == 4
        assert "its lines are on the console" in result.stderr
        assert (
            "runner is no process (kind: runner), and prints nothing"
            in (await ask("logs", "runner")).stderr
        )


async def test_without_the_right_token_it_is_5(open_tree: Open, tmp_path: Path) -> None:
    wrong, empty = tmp_path / "wrong", tmp_path / "empty"
    wrong.write_text("wrong\n")
    empty.touch()
    async with open_tree() as ask:
        url = ("--url", ask.site.address)
        assert (await call("stop", *url, "db", RUNTIME_TOKEN="")).exit_code == 5
        assert (await ask("stop", "db", "--token-file", str(wrong))).exit_code == 5
        assert (await ask("stop", "db", "--token-file", str(empty))).exit_code == 3
        assert (await call("status", *url)).exit_code == 0
        refused = (await call("stop", *url, "db", RUNTIME_TOKEN="")).stderr
        assert "by --token-file, or with --url have the token in $RUNTIME_TOKEN" in refused
        assert set(ask.states().values()) == {"ready"}
        assert (await call("stop", *url, "api", RUNTIME_TOKEN=TOKEN)).exit_code == 0
        file = str(ask.folder / TOKEN_FILE)
        assert (await call("start", *url, "api", "--token-file", file)).exit_code == 0


async def test_over_a_unix_socket_it_needs_no_token(open_tree: Open, tmp_path: Path) -> None:
    async with open_tree(bind="unix:sock", base=tmp_path):
        assert (await call("restart", "--url", f"unix:{tmp_path}/sock", "db")).exit_code == 0


async def test_services_are_steered_like_processes(open_tree: Open) -> None:
    manifest = {"services": [{"name": "cache", "class": "runtime.service.plain:idle"}]}
    async with open_tree(manifest) as ask:
        assert (await ask("restart", "cache")).stdout == "restarted: cache\n"
        assert (await ask("stop", "cache")).exit_code == 0
        assert ask.states()["cache"] == "idle"
        stranger = await ask("logs", "cache")
        assert stranger.exit_code == 4
        assert (await ask("logs")).stdout == ""
        now = json.loads((await ask("start", "cache", "--json")).stdout)
        assert [unit["stage"] for unit in now] == ["ready"]


async def test_a_tree_that_stops_says_so(open_tree: Open) -> None:
    manifest = {"processes": [script("slow", "trap '' TERM; echo up; sleep 1000", timeout=60)]}
    async with open_tree(manifest) as ask:
        supervisor = ask.site.application.supervisor
        output = ask.site.application.pilot.get_process_by_name("slow").output.lines
        await output.wait_next(0)  # its trap is set
        supervisor.ask_stop_tree("no longer needed")
        result = await ask("status")
        supervisor.force()
    assert "stopping: no longer needed" in result.stdout
    assert result.exit_code == 1


async def test_a_stream_that_breaks_is_told(open_tree: Open) -> None:
    """Somebody between us and the tree, or its kill, may end a stream in the middle."""

    async def answer(stream: trio.SocketStream) -> None:
        request = bytes(await stream.receive_some())
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
        if b"follow" not in request and b"/events" not in request:
            body = '{"lines": []}' if b"/logs" in request else _tree("ready")
            await stream.send_all(b"%scontent-length: %d\r\n\r\n" % (head, len(body)))
            await stream.send_all(body.encode())
            return
        told = b'event: resync\ndata: {"missed": 7}\n\nevent: missed\ndata: {"missed": 9}\n\n'
        if b"/logs" in request:
            told = b'event: missed\ndata: {"lines": 7}\n\n'
        chunk = b"%x\r\n%s\r\n" % (len(told), told)
        await stream.send_all(head + b"transfer-encoding: chunked\r\n\r\n" + chunk)

    async with answering(answer) as url:
        for arguments, told in (
            (("events",), "(7 events came too fast)\n(9 events of invocations are gone)\n"),
            (("logs", "--follow"), "(7 lines of a came too fast)\n"),
        ):
            result = await call(*arguments, "--url", url)
            assert result.exit_code == 3
            assert told in result.stderr


def _tree(stage: str) -> str:
    """Return as JSON a tree with one unit at this stage."""
    return TreeView.model_validate(
        {
            "version": "1",
            "state": "running",
            "settled": True,
            "stopping": None,
            "stop_left_sec": None,
            "last_event": 3,
            "units": [_unit("a", stage)],
        }
    ).model_dump_json()


def _unit(name: str, stage: str) -> UnitView:
    facts: dict[str, Any] = {
        "name": name,
        "kind": "process",
        "state": "running",
        "stage": stage,
        "ready": True,
    }
    facts |= dict.fromkeys(("healthy", "next_restart_at", "started_at", "ran_sec", "error", "stop"))
    facts |= dict.fromkeys(("generation", "restarts", "ready_after_sec"), 0)
    facts |= dict.fromkeys(("reason", "note", "status_text"), "")
    return UnitView.model_validate({**facts, "requirements": [], "waiting_for": []})


# --- logs, events, why ----------------------------------------------------------------------------


async def test_logs_are_those_of_the_processes_asked_for(open_tree: Open) -> None:
    async with open_tree() as ask:
        result = await ask("logs", "api-0", "--stream", "stdout")
        while not result.stdout:  # it may not have printed them yet
            result = await ask("logs", "api-0", "--stream", "stdout")
        assert result.stdout == "hello\n"
        both = await ask("logs", "--stream", "stderr")
        while both.stdout.count("oh") < 2:
            both = await ask("logs", "--stream", "stderr")
        assert sorted(both.stdout.splitlines()) == ["api-0 | oh", "api-1 | oh"]
        line = json.loads((await ask("logs", "api-0", "--lines", "1", "--json")).stdout)
        assert line["process"] == "api-0"
        assert line.keys() == {"process", "number", "stream", "text", "timestamp"}
        assert (await ask("logs", "--lines", "0")).stdout == ""
        stranger = await ask("logs", "http")
        assert stranger.exit_code == 4
        assert "http is no process (kind: http), and prints" in stranger.stderr
        assert (await ask("logs", "none")).exit_code == 4
        assert (await ask("logs", "--lines", "-1")).exit_code == 2


async def test_of_a_group_the_processes_have_logs(open_tree: Open) -> None:
    manifest = {
        "processes": [script("db", "echo up; exec sleep 1000")],
        "services": [{"name": "cache", "class": "runtime.service.plain:idle"}],
        "groups": [{"name": "all", "strategy": "one_for_all", "members": ["db", "cache"]}],
    }
    async with open_tree(manifest) as ask:
        await ask.site.application.pilot.get_process_by_name("db").output.lines.wait_next(0)
        assert (await ask("logs", "all")).stdout == "up\n"
        assert (await ask("logs", "all", "cache")).exit_code == 4


async def test_logs_are_followed_until_the_tree_ends(open_tree: Open) -> None:
    results: list[Result] = []
    async with trio.open_nursery() as nursery, open_tree() as ask:

        async def follow() -> None:
            results.append(await ask("logs", "--follow"))

        processes = ask.site.application.pilot.get_manifest_processes()
        while sum(p.output.lines.last for p in processes) < 4:  # noqa: ASYNC110
            await trio.sleep(0.01)  # the pipes of other processes
        nursery.start_soon(follow)
        for process in processes:
            await _until_read(process.output.lines)
    (result,) = results
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert {"api-0 | hello", "api-0 | oh"} <= set(lines)
    assert len(lines) == 4  # what there was is not told again


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_events_are_told_in_words_or_as_json(
    open_tree: Open, options: tuple[str, ...]
) -> None:
    results: list[Result] = []
    async with trio.open_nursery() as nursery, open_tree() as ask:

        async def follow() -> None:
            results.append(await ask("events", "--after", "0", *options))

        nursery.start_soon(follow)
        await _until_read(ask.site.application.supervisor.events)
    (result,) = results
    assert result.exit_code == 0
    if options:
        events = [json.loads(line) for line in result.stdout.splitlines()]
        assert [event["number"] for event in events][:3] == [1, 2, 3]
        assert "now" not in events[0]
    else:
        moved = [line for line in result.stdout.splitlines() if " db: starting -> running" in line]
        assert len(moved) == 1


async def test_why_tells_the_chain_of_causes(open_tree: Open) -> None:
    async with open_tree() as ask:
        await ask("restart", "db")
        result = await ask("why", "db")
        assert result.exit_code == 0
        assert result.stdout.startswith("db: ")
        assert "stopped -> starting" in result.stdout
        data = json.loads((await ask("why", "db", "--json")).stdout)
        assert data["events"][0]["unit"] == "db"
        assert (await ask("why", "none")).exit_code == 4
        several = await ask("why", "api")
        assert several.exit_code == 4
        assert several.stderr == "api stands for api-0, api-1: ask for one of them\n"


# --- which tree is meant --------------------------------------------------------------------------


async def test_a_tree_is_found_by_its_manifest(
    open_tree: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = tmp_path / "manifest.yaml"
    async with open_tree():
        manifest.write_text("run_directory: run\nprocesses: [this, is, not, looked, at]\n")
        assert (await call("status")).exit_code == 0
        other = tmp_path / "other" / "m.yaml"
        other.parent.mkdir()
        other.write_text("base_directory: ..\nrun_directory: ${FOLDER}\n")
        assert (await call("status", "-f", str(other), FOLDER="run")).exit_code == 0


@pytest.mark.parametrize("text", [None, "processes: []", "[", "run_directory: elsewhere"])
async def test_no_tree_is_3(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    manifest = tmp_path / "m.yaml"
    if text is not None:
        manifest.write_text(text)
    result = await call("status", "-f", str(manifest))
    assert result.exit_code == 3
    assert result.stderr.startswith(str(manifest))
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://127.0.0.1:8410", "http://127.0.0.1:8410"),
        ("http://127.0.0.1:8410/ui/", "http://127.0.0.1:8410"),
        ("http://127.0.0.1:8410/ui/#api", "http://127.0.0.1:8410"),
        ("127.0.0.1:8410", "http://127.0.0.1:8410"),
        ("localhost:8410/", "http://localhost:8410"),
        ("https://shop.example/runtime/ui/", "https://shop.example/runtime"),
        ("unix:run/ui", "unix:run/ui"),
    ],
)
def test_an_address_may_be_that_of_the_page_or_as_it_is_given_to_run(
    given: str, meant: str
) -> None:
    assert Whereabouts(url=given).find() == (meant, None)


async def test_nobody_at_an_address_is_3(free_port: Callable[[], int]) -> None:
    result = await call("stop", "x", "--url", f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 3
    assert result.stderr.startswith("no tree answers at http://127.0.0.1:")


async def test_a_tree_that_hangs_is_3(monkeypatch: pytest.MonkeyPatch) -> None:
    async def say_nothing(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("runtime.cli._remote._ANSWER_SEC", 0.1)
    async with answering(say_nothing) as url:
        for command in (("status",), ("stop", "db"), ("logs",)):
            result = await call(*command, "--url", url)
            assert result.exit_code == 3
            assert result.stderr == f"no tree answers at {url}: it has said nothing for 0.1 s\n"


def test_the_address_that_a_killed_tree_has_left_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    note_in_file(tmp_path, HTTP_FILE, "http://127.0.0.1:8410")
    where = Whereabouts(run_directory=tmp_path)
    with pytest.raises(NoTreeError, match="no tree serves HTTP"):
        where.find()
    with open_run_directory(tmp_path):
        with pytest.raises(NoTreeError, match="serves no HTTP yet, or is not to"):
            where.find()
        note_in_file(tmp_path, HTTP_FILE, "http://127.0.0.1:8410")
        assert where.find() == ("http://127.0.0.1:8410", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("command", [("status",), ("tasks", "list")], ids=" ".join)
def test_the_tree_of_somebody_else_is_5(tmp_path: Path, command: tuple[str, ...]) -> None:
    tmp_path.chmod(0o700)
    os.seteuid(65_534)
    try:
        result = CliRunner().invoke(cli, [*command, "--run-directory", str(tmp_path / "run")])
    finally:
        os.seteuid(0)
    assert result.exit_code == 5
    assert "Permission denied; only the user who has started the tree may" in result.stderr


async def test_names_are_completed_from_the_running_tree(
    open_tree: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_remote, "_COMPLETE_SEC", 60)

    async def complete(line: str) -> list[str]:
        env = {
            "_TRIO_RUNTIME_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }
        invoke = functools.partial(CliRunner().invoke, cli, [], prog_name="trio-runtime", env=env)
        return (await trio.to_thread.run_sync(invoke)).output.split()

    async with open_tree() as ask:
        found = await complete(f"trio-runtime restart --run-directory {ask.folder} a")
        assert sorted(found) == ["plain,all", "plain,api", "plain,api-0", "plain,api-1"]
    assert await complete("trio-runtime restart --url unix:/nowhere a") == []
    assert await complete("trio-runtime sta") == ["plain,start", "plain,status"]


# --- how it ends ----------------------------------------------------------------------------------


async def _start(ask: Tree, *arguments: str, **options: Any) -> trio.Process:
    argv = [sys.executable, "-m", "runtime", *arguments, "--run-directory", str(ask.folder)]
    return await trio.lowlevel.open_process(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_ctrl_c_while_a_task_is_busy_is_130() -> None:
    async def busy() -> int:
        async def work() -> None:
            signal.raise_signal(signal.SIGINT)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
        return 0

    assert run_and_tell(busy) == 130

    async def fail() -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, int, "x")
        return 0

    with pytest.raises(ExceptionGroup):
        run_and_tell(fail)


async def test_ctrl_c_is_130_and_a_reader_that_goes_is_no_error(open_tree: Open) -> None:
    async with open_tree() as ask:
        for end in ("interrupt", "close"):
            process = await _start(ask, "events", "--after", "0")
            assert process.stdout is not None
            assert process.stderr is not None
            assert await process.stdout.receive_some(1)
            if end == "interrupt":
                process.send_signal(signal.SIGINT)
            else:
                await process.stdout.aclose()
                await ask.site.application.supervisor.restart_unit("db")  # so it has to write
            assert await process.wait() == (130 if end == "interrupt" else 141)
            assert await process.stderr.receive_some() == b""
            await process.stderr.aclose()
            await process.stdout.aclose()
