"""What is ready must stay alive and well, or has failed as if it had crashed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.exceptions import UnhealthyError, UnresponsiveError
from runtime.plugin import Plugin
from runtime.process import Process
from runtime.supervision.events import EventKind
from runtime.supervision.graph import Stage

NEVER: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}
AT_ONCE: dict[str, Any] = {"restart": {"when": "always", "delay_sec": 0, "factor": 1}}
QUICK: dict[str, Any] = {"interval_sec": 0.05, "failures": 2, "timeout_sec": 20}
TELL = """
import os, socket, sys, time
def tell(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), "\\0" + os.environ["NOTIFY_SOCKET"][1:])
"""
PINGS = (
    TELL
    + """
for number in range(1, 10_000):
    tell("READY=1\\nWATCHDOG=1")
    print(f"sign {number}.", flush=True)
    time.sleep(0.05)
"""
)


def moves(pilot: Any, name: str = "p") -> list[str]:
    events = [entry.item for entry in pilot.supervisor.events.tail()]
    return [e.reason for e in events if (e.unit, e.kind) == (name, EventKind.MOVED)]


def notes(pilot: Any, name: str = "p") -> list[str]:
    events = [entry.item for entry in pilot.supervisor.events.tail()]
    return [e.reason for e in events if (e.unit, e.kind) == (name, EventKind.NOTED)]


# --- the watchdog ---------------------------------------------------------------------------------


async def test_one_that_hangs_is_stopped_and_restarted(make_pilot: Any, py: Any, look: Any) -> None:
    fields = {"ready_strategy": "notify", "ready_timeout_sec": 25, "watchdog_sec": 2, **AT_ONCE}
    async with make_pilot(py(PINGS, timeout=0.1, **fields)) as pilot:
        pid = await look.generation(pilot, "p", 1)
        os.kill(pid, signal.SIGSTOP)
        new = await look.generation(pilot, "p", 2)
        assert new != pid
        assert not look.alive(pid)
        assert "no sign of life for 2.0 s (the limit is watchdog_sec)" in moves(pilot)


async def test_one_that_gives_signs_of_life_goes_on_for_many_times_the_limit(
    make_pilot: Any, py: Any, look: Any
) -> None:
    fields = {"ready_strategy": "notify", "ready_timeout_sec": 25, "watchdog_sec": 1}
    async with make_pilot(py(PINGS, **fields)) as pilot:
        # It pauses for a twentieth of a second before each: that is at least four times the limit.
        await look.line(pilot.get_process_by_name("p").output, "sign 82.")
        assert pilot.supervisor.status("p").generation == 1


async def test_one_that_gives_itself_up_has_failed_at_once(make_pilot: Any, py: Any) -> None:
    code = TELL + "tell('READY=1'); tell('WATCHDOG=trigger'); time.sleep(60)"
    pilot = make_pilot(py(code, ready_strategy="notify", watchdog_sec=1000, **NEVER))
    await pilot.start()
    error = pilot.supervisor.status("p").error
    assert isinstance(error, UnresponsiveError)
    assert str(error) == "it asked to be ended as if its watchdog had expired"


async def test_a_watchdog_needs_no_notify_strategy_and_begins_when_it_is_ready(
    make_pilot: Any, sh: Any
) -> None:
    pilot = make_pilot(sh("exec sleep 60", watchdog_sec=0.1, **NEVER))
    await pilot.start()
    status = pilot.supervisor.status("p")
    assert isinstance(status.error, UnresponsiveError)
    assert (status.error.within_sec, status.error.setting) == (0.1, "watchdog_sec")


async def test_who_comes_late_himself_judges_by_what_has_come_meanwhile(
    make_pilot: Any, py: Any, look: Any
) -> None:
    fields = {"ready_strategy": "notify", "ready_timeout_sec": 25, "watchdog_sec": 1}
    async with make_pilot(py(PINGS, **fields)) as pilot:
        output = pilot.get_process_by_name("p").output
        await look.line(output, "sign 1.")
        # Real time, as nothing can tell a loop that is held up: even the signs stop when ten wait.
        time.sleep(2.5)  # noqa: ASYNC251 - a loop that is held up is what is tested
        heard = int(output.lines.tail(1)[0].item.text.split()[1].strip("."))
        await look.line(output, f"sign {heard + 60}.")
        assert pilot.supervisor.status("p").generation == 1
        assert moves(pilot)[-1].startswith("ready after")


# --- health ---------------------------------------------------------------------------------------

TCP = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if os.path.exists("turned"):
    time.sleep(60)
open("gate").readline()
listener.close()
open("turned", "w").close()
time.sleep(60)
"""
FILE = """
import os, time
open("well", "w").close()
if os.path.exists("turned"):
    time.sleep(60)
open("gate").readline()
open("turned", "w").close()
os.unlink("well")
time.sleep(60)
"""


async def turns_bad(pilot: Any, look: Any, open_gate: Any) -> Any:
    """Let it turn bad, and return why it was restarted."""
    async with pilot:
        first = await look.generation(pilot, "p", 1)
        await look.true(lambda: pilot.supervisor.status("p").healthy)
        assert moves(pilot)[-1].startswith("ready after")
        open_gate()
        second = await look.generation(pilot, "p", 2)
        assert first != second
        assert not look.alive(first)
        await look.true(lambda: pilot.supervisor.status("p").healthy)
        assert pilot.supervisor.status("p").restarts == 1
    assert pilot.supervisor.status("p").healthy is None
    (reason,) = {words for words in moves(pilot) if words.startswith("unhealthy")}
    return reason


async def test_a_port_that_closes_ends_it(
    make_pilot: Any, py: Any, look: Any, open_gate: Any
) -> None:
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    params = {"port": port, "host": "127.0.0.1"}
    checks = {"ready_strategy": "tcp", "ready_params": params, "ready_timeout_sec": 25}
    pilot = make_pilot(py(TCP, port, working_directory=".", health=QUICK, **checks, **AT_ONCE))
    reason = await turns_bad(pilot, look, open_gate)
    assert reason.startswith(
        "unhealthy, it failed 2 health checks (by tcp; the limit is health.failures): "
    )
    assert notes(pilot)[0].startswith("fails its health check (1 of 2): ")


async def test_a_file_that_vanishes_ends_one_with_another_readiness_check(
    make_pilot: Any, py: Any, look: Any, open_gate: Any, tmp_path: Path
) -> None:
    health = {"strategy": "file", "params": {"path": "well"}, **QUICK}
    pilot = make_pilot(
        py(FILE, working_directory=".", health={**health, "start_delay_sec": 1}, **AT_ONCE)
    )
    reason = await turns_bad(pilot, look, open_gate)
    assert reason.endswith(f"{tmp_path / 'well'} is not there")


HTTP = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        bad = os.path.exists("bad") and os.getppid() and not os.path.exists("turned")
        self.send_response(503 if bad else 200)
        self.end_headers()
    def log_message(self, *_): pass
if os.path.exists("bad"):
    open("turned", "w").close()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


async def test_an_answer_that_turns_bad_ends_it(
    make_pilot: Any, py: Any, look: Any, tmp_path: Path
) -> None:
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    fields = {"ready_strategy": "http", "ready_params": {"url": url}, "ready_timeout_sec": 25}
    definition = py(HTTP, port, working_directory=".", health=QUICK, **fields, **AT_ONCE)
    pilot = make_pilot({**definition, "args": ["-S", "-E", *definition["args"][2:]]})
    reason = await turns_bad(pilot, look, (tmp_path / "bad").touch)
    assert "(by http; " in reason
    assert "503" in reason


async def test_a_command_that_fails_ends_it(
    make_pilot: Any, sh: Any, look: Any, tmp_path: Path
) -> None:
    command = ["/bin/sh", "-c", f"test ! -e {tmp_path}/bad || {{ rm {tmp_path}/bad; exit 3; }}"]
    health = {"strategy": "exec", "params": {"command": command}, **QUICK, "failures": 1}
    pilot = make_pilot(sh("exec sleep 60", health=health, **AT_ONCE))
    reason = await turns_bad(pilot, look, (tmp_path / "bad").touch)
    assert "(by exec; " in reason
    assert "3" in reason.partition("failures): ")[2]


async def test_the_restart_takes_along_what_depends_on_it(
    make_pilot: Any, py: Any, sh: Any, look: Any, open_gate: Any
) -> None:
    health = {"strategy": "file", "params": {"path": "well"}, **QUICK, "start_delay_sec": 1}
    pilot = make_pilot(
        py(FILE, working_directory=".", health=health, restart_dependents=True, **AT_ONCE),
        sh("exec sleep 60", name="needs", dependencies=["p"]),
    )
    async with pilot:
        await look.generation(pilot, "needs", 1)
        await look.true(lambda: pilot.supervisor.status("p").healthy)
        open_gate()
        await look.generation(pilot, "needs", 2)
        assert pilot.supervisor.status("p").generation == 2


async def test_the_error_has_the_facts(make_pilot: Any, sh: Any) -> None:
    health = {"strategy": "file", "params": {"path": "well"}, **QUICK, "failures": 1}
    pilot = make_pilot(sh("exec sleep 60", health=health, **NEVER))
    await pilot.start()
    error = pilot.supervisor.status("p").error
    assert isinstance(error, UnhealthyError)
    assert (error.name, error.strategy, error.failures) == ("p", "file", 1)
    assert str(error).startswith("unhealthy, it failed a health check (by file; ")


async def test_one_that_says_that_it_stops_is_not_checked_any_more(
    make_pilot: Any, py: Any, look: Any, open_gate: Any
) -> None:
    # What would end it is due long before it prints that.
    code = TELL + "tell('READY=1\\nSTOPPING=1'); time.sleep(1); print('still here', flush=True)\n"
    code += "open('gate').readline()"
    health = {"strategy": "file", "params": {"path": "well"}, **QUICK, "start_delay_sec": 0.3}
    pilot = make_pilot(
        py(
            code,
            working_directory=".",
            ready_strategy="notify",
            ready_timeout_sec=25,
            watchdog_sec=0.3,
            timeout=25,
            health=health,
            **NEVER,
        )
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await pilot.supervisor.wait_until("p", Stage.STOPPING)
        await look.line(pilot.get_process_by_name("p").output, "still here")
        assert pilot.supervisor.status("p").stage is Stage.STOPPING
        open_gate()
        await pilot.supervisor.wait_until("p", Stage.COMPLETED)


# --- plugins --------------------------------------------------------------------------------------


class Strategies(Plugin):
    """A plain function and a coroutine function, which say what they are told to."""

    def __init__(self) -> None:
        self.well, self.asked = True, list[dict[str, Any]]()
        self.slow = threading.Event()
        self.inside, self.most = 0, 0

    def get_ready_strategies(self) -> Any:
        return {"plain": self.plain, "coroutine": self.coroutine, "slow": self.wait}

    def plain(self, process: Process, interval: float) -> bool:
        self.asked.append(dict(process.ready_params))
        return self.well

    async def coroutine(self, process: Process, interval: float) -> bool:
        return self.plain(process, interval)

    def wait(self, process: Process, interval: float) -> bool:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.slow.wait(20)
        self.inside -= 1
        return True


@pytest.mark.parametrize("strategy", ["plain", "coroutine"])
async def test_a_plugin_may_say_whether_it_is_well(
    make_pilot: Any, sh: Any, look: Any, strategy: str
) -> None:
    plugin = Strategies()
    health = {"strategy": strategy, "params": {"depth": 3}, **QUICK}
    pilot = make_pilot(sh("exec sleep 60", health=health, **AT_ONCE))
    pilot.register_plugins([plugin])
    async with pilot:
        await look.true(lambda: pilot.supervisor.status("p").healthy)
        plugin.well = False
        await look.generation(pilot, "p", 2)
        plugin.well = True
    assert plugin.asked[0] == {"depth": 3}
    assert f"(by {strategy}; the limit is health.failures): {strategy} says no" in str(
        [words for words in moves(pilot) if words.startswith("unhealthy")]
    )


async def test_a_plugins_readiness_is_asked_again_with_its_own_params(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    plugin = Strategies()
    fields = {"ready_strategy": "plain", "ready_params": {"depth": 1}}
    pilot = make_pilot(sh("exec sleep 60", health=QUICK, **fields))
    pilot.register_plugins([plugin])
    async with pilot:
        await look.true(lambda: pilot.supervisor.status("p").healthy)
    assert len(plugin.asked) >= 2
    assert all(params == {"depth": 1} for params in plugin.asked)


async def test_a_thread_that_hangs_is_not_joined_by_another(
    make_pilot: Any, sh: Any, look: Any
) -> None:
    plugin = Strategies()
    health = {"strategy": "slow", "interval_sec": 0.05, "timeout_sec": 0.05, "failures": 4}
    pilot = make_pilot(sh("exec sleep 60", health=health, **NEVER))
    pilot.register_plugins([plugin])
    await pilot.start()
    error = pilot.supervisor.status("p").error
    plugin.slow.set()
    assert isinstance(error, UnhealthyError)
    assert error.obstacle == "the call before this one has not returned yet"
    assert plugin.most == 1
