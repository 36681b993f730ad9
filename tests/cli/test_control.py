"""On the command line the bundled control server is found by the run directory."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cli.conftest import Site

LIMIT_SEC = 60


def run_directory(site: Site) -> Path:
    (folder,) = site.folder.glob("trio-runtime/*")
    return folder


def connect(site: Site) -> socket.socket:
    address = (run_directory(site) / "control").read_text().strip()
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(LIMIT_SEC)
        client.connect(address.removeprefix("unix:"))
        return client
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=LIMIT_SEC)


def ask(site: Site, **request: Any) -> Any:
    with connect(site) as client, client.makefile("rw") as lines:
        lines.write(json.dumps(request) + "\n")
        lines.flush()
        return json.loads(lines.readline())


def token(site: Site) -> str:
    return (run_directory(site) / "token").read_text().strip()


def test_it_is_asked_with_the_token_of_the_run_directory(site: Site) -> None:
    site.add("api", "SAY; exec sleep 1000")
    site.settings["control_server"] = "tcp"
    program = site.start()
    site.hear_everyone()
    program.read_until("tcp is ready")
    assert ask(site, action="status")["error"]["type"] == "ControlTokenError"
    before = site.pid_of("api")
    answer = ask(site, action="restart", processes=["api"], token=token(site))
    site.hear()
    assert site.pid_of("api") != before
    assert answer["processes"][0]["pid"] == site.pid_of("api")
    secret = token(site)
    answer = ask(site, action="shutdown", token=secret)
    assert answer["processes"][0]["status"] == "stopped"
    assert program.wait() == 0
    assert "stopped: api, tcp" in program.err.text
    assert secret not in program.err.text + program.out.text
    assert not (run_directory(site) / "token").exists()
    assert not (run_directory(site) / "control").exists()
    assert site.find_left() == []


def test_after_a_kill_the_next_tree_takes_the_place_of_its_socket(site: Site) -> None:
    site.add("api", "SAY; exec sleep 1000")
    site.settings |= {"control_server": "tcp", "control_params": {"bind": "unix:sock"}}
    program = site.start()
    site.hear_everyone()
    program.read_until("tcp is ready")
    assert ask(site, action="status")["ok"] is True
    os.kill(site.runtime_pid, signal.SIGKILL)
    program.wait()
    site.wait_until(lambda: site.find_left() == [])
    assert (site.folder / "sock").is_socket()
    program = site.start()
    site.hear()
    program.read_until("tcp is ready")
    assert ask(site, action="status")["ok"] is True
    assert ask(site, action="shutdown")["ok"] is True
    assert program.wait() == 0
    assert not (site.folder / "sock").exists()


def test_it_alone_keeps_no_tree_alive_and_is_the_last_to_stop(site: Site) -> None:
    site.add("job", "SAY")
    site.settings |= {"control_server": "tcp", "control_params": {"bind": "unix:sock"}}
    program = site.start()
    assert program.wait() == 0
    assert "stopped: tcp" in program.err.text


def test_a_port_that_is_taken_keeps_nothing_else_from_running(
    site: Site, free_port: Callable[[], int]
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        site.add("api", "SAY; exec sleep 1000")
        site.settings |= {"control_server": "tcp", "control_params": {"bind": bind}}
        program = site.start()
        site.hear_everyone()
        program.read_until(f"tcp .*cannot listen at {bind}: Address already in use")
    program.read_until("tcp is ready")  # once the port is free
    program.send(signal.SIGTERM)
    assert program.wait() == 0
