"""HTTP on the command line: where it is served, what the run directory tells of it, and by whom."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Site


def run_directory(site: Site) -> Path:
    (folder,) = site.folder.glob("trio-runtime/*")
    return folder


def ask(site: Site, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runtime", *arguments],
        check=False,
        cwd=site.folder,
        env=site.environment({}),
        capture_output=True,
        text=True,
    )


def test_the_tree_is_asked_and_steered_by_its_manifest(site: Site) -> None:
    site.add("api", "SAY; exec sleep 1000")
    del site.settings["http"]
    program = site.start()
    site.hear_everyone()
    program.read_until(r"serving http://127.0.0.1:\d+/ui/")
    folder = run_directory(site)
    assert (folder / "http").read_text().startswith("http://127.0.0.1:")
    token = (folder / "token").read_text().strip()
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    before = site.pid_of("api")
    restarted = ask(site, "restart", "-f", site.manifest, "api", "--json")
    assert restarted.returncode == 0, restarted.stderr
    site.hear()
    assert site.pid_of("api") != before
    assert json.loads(restarted.stdout)[0]["pid"] == site.pid_of("api")
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert "stopped: api, http" in program.err.text
    assert token not in program.err.text + program.out.text + restarted.stdout
    assert {each.name for each in folder.iterdir()} & {"http", "token"} == set()
    assert ask(site, "status", "-f", site.manifest).returncode == 3
    assert site.find_left() == []


def test_a_token_of_a_file_is_that_of_each_tree(site: Site) -> None:
    site.add("api", "SAY; exec sleep 1000")
    site.settings["http"] = {"token_file": "kept", "hosts": ["shop.example"]}
    program = site.start("run", "--http", "127.0.0.1:0")
    assert program.wait() == 1
    (line,) = program.err.lines
    assert line == f"no token can be taken from {site.folder / 'kept'}: No such file or directory"
    token = "stays-the-same-" * 2
    (site.folder / "kept").write_text(f"{token}\n")
    program = site.start("run", "--http", "127.0.0.1:0")
    site.hear_everyone()
    (port,) = program.read_until(r"serving http://127.0.0.1:(\d+)/ui/").groups()
    answers = []
    for host, authorization in (
        ("shop.example", f"Bearer {token}"),  # what the manifest says beside the address holds
        ("localhost", "Bearer another-one-of-16"),
    ):
        connection = HTTPConnection("127.0.0.1", int(port))
        headers = {"Host": host, "Authorization": authorization}
        connection.request("POST", "/processes/api/restart", headers=headers)
        answers.append(connection.getresponse().status)
        connection.close()
    assert answers == [200, 401]
    assert ask(site, "restart", "-f", site.manifest, "api").returncode == 0
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert token not in program.err.text + program.out.text


def test_an_address_that_is_taken_keeps_everything_from_starting(site: Site) -> None:
    site.add("api", "SAY; exec sleep 1000")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        site.settings["http"] = bind
        program = site.start()
        assert program.wait() == 1
    (line,) = program.err.lines
    assert line.startswith(f"cannot listen at {bind}: Address already in use; free it, or say ")
    assert program.out.text == ""
    program = site.start("run", "--no-http")
    site.hear_everyone()
    os.kill(program.pid, signal.SIGTERM)
    assert program.wait() == 0
    assert "stopped: api (" in program.err.text  # and nothing else
