"""What every test may ask for.

Coroutine tests and fixtures run on Trio, by AnyIO's pytest plugin, each test in a run of its own
and in real time. A test that names the fixture `autojump_clock` (or a whole module, by
``pytestmark = pytest.mark.usefixtures("autojump_clock")``) runs on that clock instead: time stands
still while a task can run, and jumps to the next deadline when none can. That is for logic alone:
the clock also jumps while something real (a child, a socket, a thread) is merely slow, so tests
that have one inside use real time, under ``trio.fail_after``.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from trio.testing import MockClock

# No test is to fail because the machine is busy with something else.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


#: Below those that the kernel gives to clients and to listeners on port 0, and those of a stack.
FIRST_PORT, PORTS_PER_WORKER = 10_000, 50


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Return ports with which nobody listens, and which nobody else is given meanwhile.

    The kernel may give a port that was free a moment ago to another test, of another worker.
    """
    worker = re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", ""))
    first = FIRST_PORT + PORTS_PER_WORKER * int(worker or 0)
    ports = itertools.cycle(range(first, first + PORTS_PER_WORKER))

    def find() -> int:
        for port in itertools.islice(ports, PORTS_PER_WORKER):
            try:
                with socket.create_server(("127.0.0.1", port)):
                    return port
            except OSError:
                continue
        raise AssertionError("everything is taken")

    return find


@pytest.fixture
def autojump_clock() -> MockClock:
    """The virtual clock of this test, and of no other."""
    return MockClock(autojump_threshold=0)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> str | tuple[str, dict[str, Any]]:
    """Tell AnyIO's plugin to run this test on Trio, and on which clock."""
    if "autojump_clock" in request.fixturenames:
        return "trio", {"clock": request.getfixturevalue("autojump_clock")}
    return "trio"


@pytest.fixture
def hide_environ() -> str:
    """Python code that overwrites what /proc shows of its environment, as many a server does."""
    return """
fields = open("/proc/self/stat").read().rpartition(") ")[2].split()
start, end = map(int, fields[47:49])
with open("/proc/self/mem", "r+b", 0) as memory:
    memory.seek(start)
    memory.write(bytes(end - start))
assert not open("/proc/self/environ").read().strip(chr(0))
"""
