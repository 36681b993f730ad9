"""All processes of one tree share a marker, limits, and a way to find their orphans."""

from __future__ import annotations

import os
import threading
from typing import Any

import trio

from runtime import _procfs
from runtime.plugin import Plugin
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


async def test_a_child_is_marked_with_its_tree_and_unit(make_pilot: Any, py: Any) -> None:
    keys = ("RUNTIME_TREE", "RUNTIME_UNIT", "OWN", "HOME")
    code = f"import os; print(*(os.environ.get(key) for key in {keys}))"
    own = {"OWN": "1", "RUNTIME_UNIT": "forged", "HOME": "/elsewhere"}
    pilot = make_pilot(
        py(code, name="api", env=own, shutdown_strategy="do_not_restart"),
        options={"host": Host(tree_id="abc")},
    )
    await pilot.start()
    (entry,) = pilot.get_process_by_name("api").output.lines.tail()
    assert entry.item.text == "abc api 1 /elsewhere"


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
