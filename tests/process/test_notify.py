"""What a process tells through its NOTIFY_SOCKET, and who is listened to."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from runtime.exceptions import UnresponsiveError
from runtime.process._inherited import OURS_ALONE
from runtime.process._notify import Notices, NotifySocket, parse_notice
from runtime.process.family import Family
from runtime.process.host import Host
from runtime.process.readiness import Candidate, bind
from runtime.supervision.events import EventKind
from runtime.supervision.graph import Stage

#: In a child: send a datagram to the socket in its environment.
TELL = """
import array, os, socket, subprocess, sys, time
def tell(*lines, to=None, fds=()):
    name = to or os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        data = b"\\n".join(each if isinstance(each, bytes) else each.encode() for each in lines)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        s.sendmsg([data], [rights] if fds else [], 0, "\\0" + name[1:])
"""
READY: dict[str, Any] = {"ready_strategy": "notify", "ready_timeout_sec": 25}
NEVER: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}


def notes(pilot: Any, name: str = "p") -> list[str]:
    events = [entry.item for entry in pilot.supervisor.events.tail()]
    return [e.reason for e in events if (e.unit, e.kind) == (name, EventKind.NOTED)]


# --- ready, and the rest of the protocol ----------------------------------------------------------


async def test_it_is_ready_when_it_says_so_and_its_status_is_kept(
    make_pilot: Any, py: Any, look: Any, open_gate: Any
) -> None:
    code = (
        TELL
        + """
tell("STATUS=loading\\x1b[31m", "MAINPID=1", "nonsense", "=", "X=1")
print("loading", flush=True)
sys.stdin = open("gate"); sys.stdin.readline()
tell("READY=1", "STATUS=serving")
tell("READY=1")
time.sleep(60)
"""
    )
    pilot = make_pilot(py(code, working_directory=".", **READY))
    process = pilot.get_process_by_name("p")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await look.line(process.output, "loading")
        await look.true(lambda: pilot.supervisor.status("p").status_text)
        status = pilot.supervisor.status("p")
        assert status.status_text == "loading [31m"
        assert status.stage is Stage.STARTING
        open_gate()
        await look.generation(pilot, "p", 1)
        await look.true(lambda: pilot.supervisor.status("p").status_text == "serving")
        assert notes(pilot) == []
        await pilot.stop()
    assert pilot.supervisor.status("p").status_text == ""


async def test_a_script_of_the_shell_may_have_a_helper_that_is_gone_at_once(
    make_pilot: Any, sh: Any, py: Any, tmp_path: Path
) -> None:
    helper = tmp_path / "tell"
    helper.write_text(f"#!{sys.executable} -S\n{TELL}\ntell(*sys.argv[1:])\n")
    helper.chmod(0o755)
    async with make_pilot(
        sh(
            "./tell READY=1 STATUS=up; exec sleep 60",
            path="/bin/sh",
            working_directory=".",
            **READY,
        )
    ) as pilot:
        assert pilot.supervisor.status("p").stage is Stage.READY
        assert notes(pilot) == []


@pytest.mark.skipif(shutil.which("systemd-notify") is None, reason="needs systemd-notify")
async def test_the_command_of_systemd_is_understood(make_pilot: Any, sh: Any) -> None:
    script = "systemd-notify --ready --status=fine; exec sleep 60"
    async with make_pilot(sh(script, **READY)) as pilot:
        assert pilot.supervisor.status("p").status_text == "fine"


async def test_what_is_not_ready_in_time_says_what_it_said_last(make_pilot: Any, py: Any) -> None:
    code = TELL + "tell('STATUS=reading the log'); time.sleep(60)"
    pilot = make_pilot(py(code, **{**READY, "ready_timeout_sec": 0.5}, **NEVER))
    await pilot.start()
    words = str(pilot.supervisor.status("p").error)
    assert words.startswith("not ready within 0.5 s by its notify check")
    if "STATUS" not in words:  # a machine so busy that it said nothing yet
        assert words.endswith(("'reading the log'", "it has not sent READY=1"))


async def test_the_start_may_be_extended_by_the_process(make_pilot: Any, py: Any) -> None:
    code = (
        TELL
        + """
tell("EXTEND_TIMEOUT_USEC=20000000", "EXTEND_TIMEOUT_USEC=x", "EXTEND_TIMEOUT_USEC=" + "9" * 400)
print("extended", flush=True)
time.sleep(1.5)
tell("READY=1")
time.sleep(60)
"""
    )
    fields = {**READY, "ready_timeout_sec": 1.2}
    pilot = make_pilot(py(code, **fields, **NEVER))
    await_ready = pilot.get_process_by_name("p")
    async with pilot:
        lines = [entry.item.text for entry in await_ready.output.lines.tail()]
        if lines == ["extended"]:
            assert pilot.supervisor.status("p").stage is Stage.READY


async def test_one_that_says_that_it_stops_is_stopping_and_ends_well(
    make_pilot: Any, py: Any, open_gate: Any
) -> None:
    code = (
        TELL
        + """
tell("READY=1"); tell("STOPPING=1"); open("gate").readline()
"""
    )
    pilot = make_pilot(py(code, working_directory=".", **READY, **NEVER))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        stage = await pilot.supervisor.wait_until("p", Stage.STOPPING)
        assert stage is Stage.STOPPING
        assert pilot.supervisor.status("p").reason == "it says that it stops"
        open_gate()
        await pilot.supervisor.wait_until("p", Stage.COMPLETED)


async def test_one_that_says_that_it_stops_and_does_not_is_stopped(
    make_pilot: Any, py: Any
) -> None:
    code = TELL + "tell('READY=1'); tell('STOPPING=1'); time.sleep(60)"
    pilot = make_pilot(py(code, timeout=0.2, **READY, **NEVER))
    await pilot.start()
    reason = pilot.supervisor.status("p").reason
    assert reason == "it has said that it stops, and ran on for 0.2 s (the limit is timeout)"


async def test_the_end_that_it_has_announced_may_be_put_off_too(make_pilot: Any, py: Any) -> None:
    code = (
        TELL + "tell('READY=1', 'STOPPING=1'); tell('EXTEND_TIMEOUT_USEC=2000000'); time.sleep(60)"
    )
    pilot = make_pilot(py(code, timeout=1, **READY, **NEVER))
    await pilot.start()
    error = pilot.supervisor.status("p").error
    assert isinstance(error, UnresponsiveError)
    if error.setting != "timeout":  # a machine so busy that the second message came too late
        assert (error.setting, error.within_sec >= 2) == ("its own EXTEND_TIMEOUT_USEC", True)


async def test_what_it_tells_while_it_is_being_stopped_is_no_error_for_it(
    make_pilot: Any, sh: Any, py: Any, look: Any
) -> None:
    code = (
        TELL
        + """
import signal
def stop(*_):
    for number in range(2000):  # more than the kernel queues
        tell("STOPPING=1", f"STATUS={number}")
    print("told", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
tell("READY=1")
while True: time.sleep(60)
"""
    )
    pilot = make_pilot(py(code, timeout=25, **READY))
    async with pilot:
        pass
    lines = [e.item.text for e in pilot.get_process_by_name("p").output.lines.tail()]
    assert lines == ["told"]
    assert pilot.supervisor.status("p").reason == "stopped"


async def test_what_it_has_said_just_before_its_end_is_heard(make_pilot: Any, py: Any) -> None:
    pilot = make_pilot(
        py(TELL + "tell('READY=1')", replicas=5, name="one", **READY, **NEVER),
        py(TELL + "tell('READY=1', 'STOPPING=1')", replicas=5, name="both", **READY, **NEVER),
    )
    await pilot.start()
    stages = {status.name: status.stage for status in pilot.supervisor.statuses()}
    assert set(stages.values()) == {Stage.COMPLETED}


# --- who is listened to ---------------------------------------------------------------------------


def send(name: str, datagram: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(datagram, "\0" + name[1:])


PRINTS = TELL + "print('at', os.environ['NOTIFY_SOCKET'], flush=True);"


async def test_a_stranger_on_this_host_is_ignored_and_noted_once(
    make_pilot: Any, py: Any, look: Any
) -> None:
    pilot = make_pilot(py(PRINTS + "time.sleep(60)", **READY, **NEVER))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        name = await look.line(pilot.get_process_by_name("p").output, "at ")
        for _ in range(3):
            send(name, b"READY=1\nSTATUS=mine")
        await look.true(lambda: notes(pilot))
        await trio.testing.wait_all_tasks_blocked()
        ours = f"pid {os.getpid()} ("
        assert [words.partition(ours)[0] for words in notes(pilot)] == ["ignores what "]
        assert notes(pilot)[0].endswith(f") of user {os.getuid()} tells, which is not part of it")
        status = pilot.supervisor.status("p")
        assert (status.stage, status.status_text) == (Stage.STARTING, "")
        await pilot.stop()


SENDS = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b"READY=1", chr(0) + sys.argv[1][1:])
"""
#: One that another user may run.
PYTHON = shutil.which("python3", path="/usr/bin:/bin")


async def hears_one_that_has_ended(room: Any, uid: int, **who: Any) -> bool:
    """Return whether a socket for *uid* takes what somebody has sent who is gone."""
    notify = NotifySocket(room.handle, uid=uid)
    try:
        name = notify.variables["NOTIFY_SOCKET"]
        command = [PYTHON or sys.executable, "-S", "-E", "-c", SENDS, name]
        await trio.run_process(command, cwd="/", **who)
        stranger = Family(os.getppid(), "p", room.host)
        assert notify.take_waiting(stranger) == 1
        return notify.notices.ready.is_set()
    finally:
        notify.close()


async def test_of_a_sender_that_has_ended_the_user_is_asked(room: Any) -> None:
    assert await hears_one_that_has_ended(room, os.getuid())
    assert await hears_one_that_has_ended(room, os.getuid() + 1) == (os.getuid() == 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
@pytest.mark.skipif(PYTHON is None, reason="needs a Python that everybody may run")
async def test_a_sender_of_another_user_that_has_ended_is_ignored(room: Any) -> None:
    assert await hears_one_that_has_ended(room, 65534, user=65534, group=65534)
    assert not await hears_one_that_has_ended(room, 1234, user=65534, group=65534)


async def test_only_so_many_senders_are_remembered(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.process._notify._MOST_SENDERS", 0)
    notify = NotifySocket(room.handle, uid=os.getuid())
    family = Family(os.getpid(), "p", room.host)
    try:
        for number in range(3):
            send(notify.variables["NOTIFY_SOCKET"], f"STATUS={number}".encode())
        assert notify.take_waiting(family) == 3
        assert notify.notices.status_text == "2"
        notify.take_all_waiting(family)  # there is nothing: it returns
    finally:
        notify.close()


async def test_the_process_of_another_unit_is_ignored(make_pilot: Any, py: Any, look: Any) -> None:
    other = TELL + "tell('READY=1', to=sys.argv[1]); print('sent', flush=True); time.sleep(60)"
    pilot = make_pilot(
        py(PRINTS + "time.sleep(60)", **READY, **NEVER),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        name = await look.line(pilot.get_process_by_name("p").output, "at ")
        second = make_pilot(py(other, name, name="other"))
        async with second:
            await look.line(second.get_process_by_name("other").output, "sent")
            await look.true(lambda: notes(pilot))
            assert pilot.supervisor.status("p").stage is Stage.STARTING
        await pilot.stop()


async def test_a_descendant_is_listened_to_also_one_that_has_left_the_session(
    make_pilot: Any, py: Any, look: Any
) -> None:
    code = (
        TELL
        + """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        tell("READY=1", "STATUS=a grandchild")
        time.sleep(60)
    os._exit(0)
time.sleep(60)
"""
    )
    async with make_pilot(py(code, **READY)) as pilot:
        await look.true(lambda: pilot.supervisor.status("p").status_text == "a grandchild")
        assert notes(pilot) == []


async def test_descriptors_that_are_sent_along_are_not_kept(
    make_pilot: Any, py: Any, look: Any
) -> None:
    code = (
        TELL
        + """
reading, writing = os.pipe()
for _ in range(50):
    tell("STATUS=take this", fds=[writing, reading, 0])
tell("BARRIER=1", fds=[writing])
os.close(writing)
print("closed" if os.read(reading, 1) == b"" else "kept", flush=True)
tell("READY=1")
time.sleep(60)
"""
    )
    pilot = make_pilot(py(code, **READY))
    async with pilot:
        assert await look.line(pilot.get_process_by_name("p").output, "closed") == ""
        links = look.fds()
    assert sum("socket" in link for link in links) < 20


async def test_whatever_is_sent_harms_nobody_and_a_flood_holds_up_nothing(
    make_pilot: Any, py: Any, look: Any
) -> None:
    code = (
        TELL
        + """
for junk in (b"", b"\\n\\n=", bytes(range(256)), b"READY=0", b"STATUS=" + b"x" * 4089,
             b"STATUS=\\xff\\xfe\\0", b"READY", b"WATCHDOG=", b"EXTEND_TIMEOUT_USEC=-1"):
    tell(junk)
tell(b"READY=1\\nSTATUS=" + b"y" * 5000)
print("junk sent", flush=True)
for number in range(5000):
    tell(f"STATUS={number}")
tell("READY=1")
time.sleep(60)
"""
    )
    pilot = make_pilot(py(code, **READY))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await look.line(pilot.get_process_by_name("p").output, "junk sent")
        ticks = 0
        while pilot.supervisor.status("p").stage is Stage.STARTING:
            await trio.sleep(0.001)
            ticks += 1
        assert ticks > 5
        (note,) = notes(pilot)
        assert note.startswith("ignores a message of pid ")
        assert note.endswith("which is longer than 4096 bytes")
        assert pilot.supervisor.status("p").status_text == "4999"
        await pilot.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
async def test_a_process_of_another_user_and_its_short_helpers_are_heard(
    make_pilot: Any, sh: Any, tmp_path: Path
) -> None:
    helper = Path("/tmp") / f"tell-{os.getpid()}.py"
    helper.write_text(TELL + "tell(*sys.argv[1:])\n")
    helper.chmod(0o644)
    try:
        script = f"/usr/bin/env python3 -S {helper} READY=1 STATUS=$(id -u); exec sleep 60"
        fields = {**READY, "user": 65534, "group": 65534, "working_directory": "/"}
        async with make_pilot(sh(script, **fields)) as pilot:
            assert pilot.supervisor.status("p").status_text == "65534"
    finally:
        helper.unlink()


# --- the environment ------------------------------------------------------------------------------

SHOW = "import os; print('has', *sorted(k for k in os.environ if k in {OURS}))".replace(
    "{OURS}", repr(sorted(OURS_ALONE))
)


async def test_what_a_service_manager_has_set_for_us_is_not_handed_down(
    make_pilot: Any, py: Any, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OURS_ALONE:
        monkeypatch.setenv(name, "theirs")
    pilot = make_pilot(
        py(SHOW, name="plain", **NEVER),
        py(SHOW, name="sockets", env={"LISTEN_FDS": "1"}, **NEVER),
        py(
            SHOW + "; print('usec', os.environ['WATCHDOG_USEC'])",
            name="watched",
            watchdog_sec=2.5,
            **NEVER,
        ),
    )
    await pilot.start()
    lines = {
        name: [e.item.text for e in pilot.get_process_by_name(name).output.lines.tail()]
        for name in ("plain", "sockets", "watched")
    }
    assert lines == {
        "plain": ["has"],
        "sockets": ["has LISTEN_FDS"],
        "watched": ["has NOTIFY_SOCKET WATCHDOG_USEC", "usec 2500000"],
    }


async def test_each_generation_has_a_socket_of_its_own_and_nothing_is_left(
    make_pilot: Any, py: Any, look: Any, fds_kept: None
) -> None:
    pilot = make_pilot(py(PRINTS + "tell('READY=1'); time.sleep(60)", **READY))
    names = set()
    async with pilot:
        for generation in (1, 2, 3):
            os.kill(await look.generation(pilot, "p", generation), 9)
            output = pilot.get_process_by_name("p").output
            await look.true(lambda: len(output.lines.tail()) >= generation)  # noqa: B023
            names = {entry.item.text for entry in output.lines.tail()}
        await look.generation(pilot, "p", 4)
    assert len(names) >= 3


# --- the parser -----------------------------------------------------------------------------------


@given(st.binary(max_size=300))
async def test_no_datagram_raises(datagram: bytes) -> None:
    list(parse_notice(datagram))


def test_lines_without_an_equals_sign_are_left_out() -> None:
    found = list(parse_notice(b"A=1\nB\n=\nC=x=y\n\xff=2"))
    assert found == [("A", "1"), ("", ""), ("C", "x=y"), ("�", "2")]


async def test_a_check_without_a_socket_says_so() -> None:
    candidate = Candidate()
    with trio.move_on_after(0.01):
        await bind("notify", {}, Path("/")).wait(Host(), candidate)
    assert candidate.obstacle == "it was started without a NOTIFY_SOCKET"


async def test_a_status_is_one_short_printable_line() -> None:
    said: list[str] = []
    notices = Notices(said.append)
    notices.take(b"STATUS=  a\tb\x07 c\xe2\x80\xae " + b"long " * 100)
    assert said[0].startswith("a b c long")
    assert len(said[0]) <= 200
    assert said[0].isprintable()
    assert said[0].endswith("…")
