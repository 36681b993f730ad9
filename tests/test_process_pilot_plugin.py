"""A plugin as users of Process Pilot write them works as it is, but for its import line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.pilot import ProcessPilot
from runtime.process import ProcessManifest

LIMIT_SEC = 60

#: Written against the public page of Process Pilot; it knows nothing of Trio.
MODULE = """
import os
import socketserver
import threading
import time
from pathlib import Path

from process_pilot.plugin import Plugin

CALLS = []
COLLECTED = []


def before(process, popen):
    CALLS.append(("pre_start", process.name, popen))


def after(process, popen):
    CALLS.append(("post_start", process.name, popen.pid))


def on_shutdown(process, popen):
    CALLS.append(("on_shutdown", process.name, popen.returncode))


def on_restart(process, popen):
    CALLS.append(("on_restart", process.name, None))


def wait_for_flag(process, ready_check_interval_secs):
    flag = Path(process.ready_params["flag"])
    start = time.time()
    while time.time() - start < process.ready_timeout_sec:
        if flag.exists():
            return True
        time.sleep(ready_check_interval_secs)
    return False


def collect(stats):
    COLLECTED.append([each.name for each in stats])


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            verb, _, name = line.decode().strip().partition(" ")
            try:
                self.wfile.write(f"{self.act(verb, name)}\\n".encode())
            except ValueError as error:
                self.wfile.write(f"error: {error}\\n".encode())

    def act(self, verb, name):
        pilot = self.server.pilot
        if verb == "restart":
            pilot.restart_processes([name])
        elif verb == "stop":
            pilot.stop_process(name)
        elif verb == "start":
            pilot.start_process(name)
        elif verb == "names":
            return " ".join(process.name for process in pilot.get_manifest_processes())
        elif verb == "shutdown":
            pilot.stop()
        status = pilot.get_running_process(name)
        return f"{pilot.is_running()} {status.status.value if status else None}"


class RemoteControl:
    def __init__(self, pilot):
        self.pilot = pilot
        self.server = None

    def start(self):
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.pilot = self.pilot
        Path(os.environ["REMOTE_PORT"]).write_text(f"{self.server.server_address[1]}\\n")
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        CALLS.append(("server", "stopped", len(self.pilot.get_running_process())))


class ShopPlugin(Plugin):
    @property
    def name(self):
        return "shop"

    def get_lifecycle_hooks(self):
        return {
            "shop": {
                "pre_start": [before],
                "post_start": [after],
                "on_shutdown": [on_shutdown],
                "on_restart": [on_restart],
            }
        }

    def get_ready_strategies(self):
        return {"flag": wait_for_flag}

    def get_stats_handlers(self):
        return {"collect": [collect]}

    def get_control_servers(self):
        return {"remote": RemoteControl}
"""
IMPORT_LINE = "from process_pilot.plugin import Plugin", "from runtime.plugin import Plugin"


class Remote:
    """Talks to the control server of the module."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SEC)
        self._file = self._socket.makefile("rw")

    def say(self, line: str) -> str:
        self._file.write(f"{line}\n")
        self._file.flush()
        return self._file.readline().strip()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put the module into a folder of plugins, and a manifest beside it."""
    (tmp_path / "plugins").mkdir()
    assert MODULE.count(IMPORT_LINE[0]) == 1
    (tmp_path / "plugins" / "shop.py").write_text(MODULE.replace(*IMPORT_LINE))
    flag = tmp_path / "flag"
    entry = {
        "path": "sh",
        "args": ["-c", f"touch {flag}; exec sleep 1000"],
        "lifecycle_hooks": ["shop"],
        "stat_handlers": ["collect"],
        "ready_strategy": "flag",
        "ready_params": {"flag": str(flag)},
    }
    manifest = {
        "plugins": "plugins",
        "control_server": "remote",
        "processes": [
            {"name": "db", **entry},
            {"name": "api", "dependencies": ["db"], **entry},
            {"name": "other", "path": "sleep", "args": ["1000"]},
        ],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("REMOTE_PORT", str(tmp_path / "port"))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("runtime_plugin_shop_")]:
        del sys.modules[name]


def module() -> Any:
    (name,) = (name for name in sys.modules if name.startswith("runtime_plugin_shop_"))
    return sys.modules[name]


def wait_port(folder: Path) -> int:
    """Return the port of the control server: a plain one that takes long is ready before it is."""
    path, deadline = folder / "port", time.monotonic() + LIMIT_SEC
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return int(text)
        time.sleep(0.005)
    raise AssertionError("the control server has not started")


async def talk(folder: Path, *lines: str) -> list[str]:
    def say_all() -> list[str]:
        remote = Remote(wait_port(folder))
        try:
            return [remote.say(line) for line in lines]
        finally:
            remote.close()

    return await trio.to_thread.run_sync(say_all)


async def test_hooks_strategy_and_control_server_do_what_they_did(folder: Path) -> None:
    manifest = ProcessManifest.from_json(folder / "manifest.json")
    with trio.fail_after(LIMIT_SEC):
        async with ProcessPilot(manifest) as pilot:
            first = pilot.get_running_process("api").pid
            said = await talk(folder, "names", "status api", "restart api", "restart none")
            assert said[:3] == ["db other api", "True running", "True running"]
            assert said[3] == "error: there is no unit 'none'"
            second = pilot.get_running_process("api").pid
            assert second not in (0, first)
            assert await talk(folder, "stop api", "start api") == ["True None", "True running"]
            third = pilot.get_running_process("api").pid
            db = pilot.get_running_process("db").pid
    calls = module().CALLS
    # Once for each event: api has had three lives, of which two were restarts, and db one.
    assert Counter((kind, who) for kind, who, _ in calls) == {
        ("pre_start", "db"): 1,
        ("post_start", "db"): 1,
        ("on_shutdown", "db"): 1,
        ("pre_start", "api"): 3,
        ("post_start", "api"): 3,
        ("on_shutdown", "api"): 3,
        ("on_restart", "api"): 2,
        ("server", "stopped"): 1,
    }
    pids = [what for kind, _, what in calls if kind == "post_start"]
    assert pids == [db, first, second, third]
    ends = [what for kind, _, what in calls if kind == "on_shutdown"]
    assert ends == [-signal.SIGTERM] * 4
    assert calls[-1] == ("server", "stopped", 0)


async def test_its_statistics_handler_is_told_of_those_that_name_it(folder: Path) -> None:
    manifest = ProcessManifest.from_json(folder / "manifest.json")
    with trio.fail_after(LIMIT_SEC):
        async with ProcessPilot(manifest, process_poll_interval=0.02) as pilot:
            collected = module().COLLECTED
            with pilot.sampler.watch() as passes:
                while ["db", "api"] not in collected:
                    await anext(passes)
            await pilot.stop_process("api")
            del collected[:]
            with pilot.sampler.watch() as passes:
                while ["db"] not in collected:
                    await anext(passes)
    assert all(set(names) <= {"db", "api"} for names in collected)


async def test_its_control_server_can_stop_everything(folder: Path) -> None:
    manifest = ProcessManifest.from_json(folder / "manifest.json")
    pilot = ProcessPilot(manifest)
    with trio.fail_after(LIMIT_SEC):
        async with trio.open_nursery() as nursery:
            await nursery.start(pilot.start)
            assert await talk(folder, "shutdown db") == ["True None"]
    assert pilot.supervisor.stopping == "asked to stop by a control server"
    assert module().CALLS[-1] == ("server", "stopped", 0)


def test_on_the_command_line_it_works_as_well(folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "runtime", "run", folder / "manifest.json"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        said = ""
        while "api is ready" not in said:
            line = program.stderr.readline()
            assert line, said
            said += line
        remote = Remote(wait_port(folder))
        assert remote.say("restart api") == "True running"
        assert remote.say("shutdown api") == "True None"
        remote.close()
        said += program.stderr.read()
        assert program.wait(LIMIT_SEC) == 0
    assert said.count("api is ready") == 2
    stopped = said.partition("stopped: ")[2].partition(" (")[0].split(", ")
    assert stopped.index("api") < stopped.index("db")
    assert stopped[-1] == "remote"
