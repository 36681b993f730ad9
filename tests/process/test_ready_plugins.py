"""The plugins of Process Pilot are the built-in strategies, by the names that its users know."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.plugin import Plugin
from runtime.plugins.file_ready import FileReadyPlugin
from runtime.plugins.pipe_ready import PipeReadyPlugin
from runtime.plugins.tcp_ready import TCPReadyPlugin
from runtime.process import Process
from runtime.supervision.graph import Stage

ALL = {"file": FileReadyPlugin, "tcp": TCPReadyPlugin, "pipe": PipeReadyPlugin}


def a_process(folder: Path, strategy: str, port: int) -> Process:
    there = {"path": str(folder / "ready")}
    return Process(
        name="p",
        path=Path("/bin/true"),
        ready_strategy=strategy,
        ready_params={"port": port, "host": "127.0.0.1"} if strategy == "tcp" else there,
        ready_timeout_sec=0.2,
    )


@pytest.mark.parametrize("name", ALL)
def test_each_provides_the_strategy_of_its_name(name: str) -> None:
    plugin = ALL[name]()
    assert isinstance(plugin, Plugin)
    assert plugin.name == ALL[name].__name__
    assert list(plugin.get_ready_strategies()) == [name]


@pytest.mark.parametrize("name", ALL)
async def test_what_it_provides_says_whether_a_process_is_ready(tmp_path: Path, name: str) -> None:
    strategy: Any = ALL[name]().get_ready_strategies()[name]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        process = a_process(tmp_path, name, server.getsockname()[1])
        if name == "pipe":
            os.mkfifo(tmp_path / "ready")
        assert await strategy(process, 0.01) is False
        process.ready_timeout_sec = 20
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_ready, server, tmp_path / "ready")
            assert await strategy(process, 0.01) is True


async def make_ready(server: socket.socket, path: Path) -> None:
    server.listen()
    await trio.to_thread.run_sync(path.write_text, "ready")


@pytest.mark.parametrize("name", ALL)
async def test_registered_they_change_nothing(
    make_pilot: Any, sh: Any, tmp_path: Path, name: str
) -> None:
    params = {"path": str(tmp_path / "ready")}
    if name == "tcp":
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            params = {"port": server.getsockname()[1]}
    script = f"echo ready > {tmp_path}/ready; exec sleep 60"
    within = 0.3 if name == "tcp" else 30
    process = sh(script, ready_strategy=name, ready_params=params, ready_timeout_sec=within)
    pilot = make_pilot({**process, "restart": {"when": "never"}}, options={"keep": True})
    pilot.register_plugins([plugin() for plugin in ALL.values()])
    async with pilot:
        status = pilot.supervisor.status("p")
        # Nobody listens at the port; that says who has looked, and for how long.
        assert status.stage is (Stage.FAILED if name == "tcp" else Stage.READY)
        if name == "tcp":
            assert status.reason.startswith("not ready within 0.3 s by its tcp check")


async def test_a_strategy_of_ones_own_may_be_made_of_one(
    make_pilot: Any, sh: Any, tmp_path: Path
) -> None:
    file: Any = FileReadyPlugin().get_ready_strategies()["file"]
    asked: list[str] = []

    class Own(Plugin):
        def get_ready_strategies(self) -> Any:
            return {"file and more": self.is_ready}

        async def is_ready(self, process: Process, interval_sec: float) -> bool:
            asked.append(process.name)
            return bool(await file(process, interval_sec)) and len(asked) > 0

    params = {"path": str(tmp_path / "ready")}
    process = sh(
        f"touch {tmp_path}/ready; exec sleep 60",
        ready_strategy="file and more",
        ready_params=params,
    )
    pilot = make_pilot(process)
    pilot.register_plugins([Own()])
    async with pilot:
        assert pilot.supervisor.status("p").stage is Stage.READY
    assert asked == ["p"]
