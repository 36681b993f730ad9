"""All processes of one tree share a marker, limits, and a way to find their orphans."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import AsyncExitStack
from itertools import pairwise
from secrets import token_hex
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime import _procfs
from runtime.plugin import Plugin
from runtime.process.child import Child
from runtime.process.host import Host


def test_the_marker_names_the_tree_and_the_unit() -> None:
    host = Host(tree_id="abc")
    assert host.marker("api") == {"RUNTIME_TREE": "abc", "RUNTIME_UNIT": "api"}


def test_each_tree_has_an_id_and_limits_of_its_own() -> None:
    one, other = Host(), Host()
    assert one.tree_id != other.tree_id
    names = ("spawning", "checks", "plugins", "logs")
    assert len({id(getattr(host, name)) for host in (one, other) for name in names}) == 8


async def test_without_a_guard_an_orphan_is_found_among_the_other_children_of_our_ancestors(
    room: Any, look: Any
) -> None:
    script = "(setsid sh -c 'echo pid $$; exec sleep 60' &) ; exec sleep 60"
    async with room.open(room.sh(script)) as child:
        orphan = int(await look.line(room.output, "pid "))
        await look.true(lambda: orphan not in _procfs.list_children(child.pid))
        orphans = room.host.orphans()
        assert orphan in orphans
        assert os.getpid() not in orphans
        assert child.pid not in orphans
    assert not look.alive(orphan)


async def test_a_child_is_marked_with_its_tree_and_unit(
    make_pilot: Any, py: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("RUNTIME_TREE", "RUNTIME_UNIT", "OWN", "HOME")
    code = f"import os; print(*(os.environ.get(key) for key in {keys}))"
    monkeypatch.setenv("RUNTIME_UNIT", "of a tree above us")
    own = {"OWN": "1", "HOME": "/elsewhere"}
    host = Host(tree_id=f"abc-{token_hex(4)}")  # a second run of this test would end what is ours
    pilot = make_pilot(
        py(code, name="api", env=own, shutdown_strategy="do_not_restart"),
        options={"host": host},
    )
    await pilot.start()
    (entry,) = pilot.get_process_by_name("api").output.lines.tail()
    assert entry.item.text == f"{host.tree_id} api 1 /elsewhere"


async def test_what_a_process_prints_can_be_echoed_with_its_name(make_pilot: Any, sh: Any) -> None:
    echoed: list[tuple[str, list[str]]] = []

    def echo(name: str, lines: Any) -> None:
        echoed.append((name, [line.text for line in lines]))

    once: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}
    pilot = make_pilot(
        sh("echo one", name="a", **once),
        sh("echo two", name="b", dependencies=[{"name": "a", "condition": "completed"}], **once),
        options={"host": Host(echo=echo)},
    )
    await pilot.start()
    assert echoed == [("a", ["one"]), ("b", ["two"])]


class Turns(trio.abc.Instrument):
    """Counts what is done in each turn of the loop."""

    def __init__(self) -> None:
        self.done = [0]

    def before_io_wait(self, timeout: float) -> None:
        self.done.append(0)


async def test_when_many_end_at_once_each_is_taken_up_and_all_else_has_its_turns_before_the_next(
    room: Any,
) -> None:
    turns = Turns()

    async def see_end(child: Child) -> None:
        await child.wait_exit()
        turns.done[-1] += 1

    async with AsyncExitStack() as stack:
        sleep = room.command("/bin/sleep", 60)
        children = [await stack.enter_async_context(room.open(sleep)) for _ in range(14)]
        async with trio.open_nursery() as nursery:
            for child in children:
                nursery.start_soon(see_end, child)
            await wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(turns)
            for child in children:
                os.kill(child.pid, signal.SIGKILL)
            for child in children:  # without a turn of the loop: it sees all of them at once
                os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - at once
        trio.lowlevel.remove_instrument(turns)
    taken_up = [number for number, done in enumerate(turns.done) if done]
    assert [turns.done[number] for number in taken_up] == [1] * len(children)
    assert all(b - a > 1 for a, b in pairwise(taken_up))


async def test_blocking_plugins_do_not_hold_up_a_spawn(make_pilot: Any, sh: Any, look: Any) -> None:
    release = threading.Event()

    class Blocking(Plugin):
        def get_lifecycle_hooks(self) -> Any:
            return {"block": {"pre_start": [lambda process, popen: release.wait()]}}

    pilot = make_pilot(
        *(sh("exec sleep 60", name=f"blocked-{n}", lifecycle_hooks=["block"]) for n in range(45)),
        sh("exec sleep 60", name="free"),
    )
    pilot.register_plugins([Blocking()])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pilot.start)
        await look.generation(pilot, "free", 1)
        assert pilot._host.plugins.available_tokens == 0
        assert pilot.get_running_process("blocked-0").pid == 0
        release.set()
        nursery.cancel_scope.cancel()
