"""`examples/stack`, with its real servers: it serves, comes back whatever is killed, and leaves."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from runtime._procfs import Stat, list_children, list_descendants, read_stat, send_signal

if TYPE_CHECKING:
    from tests.cli.conftest import OpenSite, Program, Site

EXAMPLE = Path(__file__).parents[2] / "examples" / "stack"

#: The servers where Debian puts them; of several versions of PostgreSQL the example is told one.
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))
SERVERS = {
    "PostgreSQL": POSTGRES / "postgres",
    "Redis": Path("/usr/bin/redis-server"),
    "nginx": Path("/usr/sbin/nginx"),
}
MISSING = [name for name, path in SERVERS.items() if not path.exists()]

pytestmark = [
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"not installed: {', '.join(MISSING)}; .ci/programs does that, as root",
    ),
    pytest.mark.xdist_group("stack"),  # one stack, for all of them
]

#: PostgreSQL refuses to run as root; its package makes this user.
USER = "postgres" if os.geteuid() == 0 else ""

#: How the command lines of the parts begin, from the first digits of the ports.
PARTS = {
    "db": r"\S+/postgres -D ",
    "cache": r"\S+/redis-server ",
    "api-0": r"\S+ -u api.py {}10 ",
    "api-1": r"\S+ -u api.py {}11 ",
    "web": r"nginx: master process ",
}
#: How their ports end.
PORTS = ("00", "01", "02", "10", "11")

#: Those that have children.
PARENTS = ("db", "web")


class Stack:
    """A copy of the example in a folder of its own, on ports of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.ports = find_free_ports()
        self.data = site.folder / "data"
        self._output = site.folder / "output"
        self._program: Program | None = None

    def run(self) -> Program:
        """Start it unless it runs, and return once it has served a request."""
        if self._program is None or self._program.process.poll() is not None:
            self._program = self._start()
            self._program.read_until("web is ready")
        self.wait_served()
        return self._program

    def end(self) -> None:
        """Have the guard end all of it; many of it hide their environment from others."""
        if self._program is not None and self._program.process.poll() is None:
            os.kill(self.site.runtime_pid, signal.SIGKILL)
            self._program.wait()

    def _start(self) -> Program:
        # Its user cannot run a Python in root's home, nor write to where the coverage is kept.
        path = "/usr/local/bin:/usr/bin:/bin" if USER else os.environ["PATH"]
        settings = {
            "STACK_PORTS": self.ports,
            "STACK_DATA": str(self.data),
            "STACK_USER": USER,
            "STACK_POSTGRES": str(POSTGRES),
            "STACK_REDIS": None,
            "STACK_NGINX": None,
            "PATH": path,
            "COVERAGE_PROCESS_CONFIG": None,
        }
        with self._output.open("ab") as output:  # a file, for nobody reads while a test waits
            return self.site.start(env=settings, stdout=output)

    @property
    def said(self) -> list[str]:
        """The lines that its processes have printed."""
        return self._output.read_text().splitlines()

    def ask(self) -> dict[str, Any]:
        """Return what is answered at the front door; raise `OSError` if that is not a success."""
        with urlopen(f"http://127.0.0.1:{self.ports}00/", timeout=60) as answer:
            return json.load(answer)

    def wait_served(self) -> dict[str, Any]:
        """Return the first answer that is a success, once every part is there to be asked."""
        answers: list[dict[str, Any]] = []

        def is_served() -> bool:
            try:
                for last in PORTS:
                    socket.create_connection(("127.0.0.1", int(self.ports + last))).close()
                answers.append(self.ask())
            except OSError:
                return False
            return True

        self.site.wait_until(is_served)
        return answers[0]

    def find(self, part: str) -> Stat | None:
        """Return the process that the runtime has started for *part*, once it is that program."""
        pattern = re.compile(PARTS[part].format(self.ports))
        for pid in list_children(self.site.runtime_pid):
            stat = read_stat(pid)
            if stat is not None and stat.alive and pattern.match(read_command(pid)):
                return stat
        return None

    def leader(self, part: str) -> Stat:
        found = self.find(part)
        assert found is not None, f"{part} does not run"
        return found

    def wait_replaced(self, part: str, old: Stat) -> Stat:
        """Return the process that runs in the place of *old*, once there is one."""
        self.site.wait_until(lambda: (self.find(part) or old).member != old.member)
        return self.leader(part)


def find_free_ports() -> str:
    """Return first digits with which nobody listens on any of the stack's ports."""
    for digits in random.sample(range(110, 320), 200):  # below those that clients are given
        with ExitStack() as stack:
            try:
                for last in PORTS:
                    stack.enter_context(socket.create_server(("127.0.0.1", int(f"{digits}{last}"))))
            except OSError:
                continue
            return str(digits)
    raise AssertionError("everything is taken")


def read_command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def with_descendants(leader: Stat) -> list[Stat]:
    return [leader, *list_descendants([leader.pid])]


def alive(stats: list[Stat]) -> list[str]:
    """Return the command lines of those that still live: servers hide their environment."""
    now = (read_stat(then.pid) for then in stats)
    members = {then.member for then in stats}
    return [read_command(s.pid) for s in now if s and s.alive and s.member in members]


@pytest.fixture(scope="module")
def kept_stack(open_new_site: OpenSite) -> Iterator[Stack]:
    """A stack whose database lasts as long as this module's tests."""
    # Not in pytest's own folder, which other users may not enter.
    with TemporaryDirectory() as folder:
        shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True, ignore=lambda *_: ["data"])
        Path(folder).chmod(0o755)
        with open_new_site(Path(folder)) as site:
            stack = Stack(site)
            yield stack
            stack.end()


@pytest.fixture
def stack(kept_stack: Stack) -> Stack:
    """A stack that serves."""
    kept_stack.run()
    return kept_stack


def test_a_request_reads_the_database_and_counts_in_the_cache(stack: Stack) -> None:
    first, second = stack.ask(), stack.ask()
    assert first["greeting"] == second["greeting"] == "It all runs."
    assert second["visits"] == first["visits"] + 1


def test_both_replicas_serve(stack: Stack) -> None:
    assert {str(stack.ask()["port"]) for _ in range(10)} == {
        f"{stack.ports}10",
        f"{stack.ports}11",
    }


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_killed_comes_back_and_nothing_is_left_of_it(
    stack: Stack, part: str
) -> None:
    old = stack.leader(part)
    family = with_descendants(old)
    send_signal(old.member, signal.SIGKILL)
    stack.wait_replaced(part, old)
    assert alive(family) == []
    assert stack.wait_served()["greeting"] == "It all runs."


def test_no_request_fails_while_a_replica_is_away(stack: Stack) -> None:
    old = stack.leader("api-0")
    asked = 0
    send_signal(old.member, signal.SIGKILL)
    while asked < 10 or (stack.find("api-0") or old).member == old.member:
        assert stack.ask()["greeting"] == "It all runs."
        asked += 1


@pytest.mark.parametrize("part", PARENTS)
def test_it_serves_on_when_all_children_of_a_part_are_killed(stack: Stack, part: str) -> None:
    leader = stack.leader(part)
    children = list_descendants([leader.pid])
    assert children
    for child in children:
        send_signal(child.member, signal.SIGKILL)
    stack.site.wait_until(lambda: alive(children) == [])
    assert stack.wait_served()["greeting"] == "It all runs."
    assert stack.leader(part).member == leader.member


@pytest.mark.parametrize("part", PARENTS)
def test_children_that_hang_do_not_stay_beside_a_new_generation(stack: Stack, part: str) -> None:
    old = stack.leader(part)
    family = with_descendants(old)
    for child in family[1:]:
        send_signal(child.member, signal.SIGSTOP)
    send_signal(old.member, signal.SIGKILL)
    stack.wait_replaced(part, old)
    assert alive(family) == []
    assert stack.wait_served()["greeting"] == "It all runs."


def test_all_parts_that_are_killed_at_once_come_back(stack: Stack) -> None:
    old = {part: stack.leader(part) for part in PARTS}
    families = [stat for leader in old.values() for stat in with_descendants(leader)]
    for leader in old.values():
        send_signal(leader.member, signal.SIGKILL)
    for part, leader in old.items():
        stack.wait_replaced(part, leader)
    assert alive(families) == []
    assert stack.wait_served()["greeting"] == "It all runs."


def test_it_stops_in_the_reverse_order_and_leaves_nothing(stack: Stack) -> None:
    program = stack.run()
    everybody = list_descendants([program.pid])
    said_before = len(stack.said)
    program.send(signal.SIGINT)
    assert program.wait() == 0
    assert alive(everybody) == []
    assert stack.site.find_left() == []
    assert list(stack.data.rglob("*.pid")) == []
    assert read_cluster_state(stack.data / "postgres") == "shut down"
    lines = stack.said[said_before:]

    def places(unit: str, words: str = "") -> list[int]:
        return [n for n, line in enumerate(lines) if re.match(rf"{unit} *\| .*{words}", line)]

    goodbyes = places("api-.", "has put its tools away")
    assert len(goodbyes) == 2
    assert places("web", "exit")[-1] == places("web")[-1] < goodbyes[0]
    assert goodbyes[-1] < places("db", "received fast shutdown request")[0]
    assert goodbyes[-1] < places("cache", "shutdown")[0]


def test_it_starts_again_after_the_runtime_was_killed(stack: Stack) -> None:
    program = stack.run()
    everybody = list_descendants([program.pid])
    os.kill(stack.site.runtime_pid, signal.SIGKILL)
    assert program.wait() == 128 + signal.SIGKILL
    assert alive(everybody) == []
    assert read_cluster_state(stack.data / "postgres") == "in production"
    stack.run()
    assert stack.ask()["greeting"] == "It all runs."


def test_it_starts_again_after_runtime_and_guard_were_killed_at_once(stack: Stack) -> None:
    program = stack.run()
    leaders = [stack.leader(part) for part in PARTS]
    servers = [stat for leader in leaders for stat in with_descendants(leader)]
    runtime = stack.site.runtime_pid
    os.kill(runtime, signal.SIGSTOP)  # so that it sees nothing of its guard's end
    program.send(signal.SIGKILL)
    os.kill(runtime, signal.SIGKILL)
    program.wait()
    assert len(alive(leaders)) == len(PARTS)
    stack.run()
    assert alive(servers) == []
    assert stack.ask()["greeting"] == "It all runs."


def read_cluster_state(cluster: Path) -> str:
    said = subprocess.run(
        [POSTGRES / "pg_controldata", cluster],
        env={"LC_ALL": "C"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    found = re.search(r"^Database cluster state: +(.*)$", said, re.MULTILINE)
    assert found is not None
    return found[1]
