"""A file is found by what the system tells of its folders, and else by looking."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.process.host import Host
from runtime.process.readiness import Candidate, _watch, bind
from runtime.process.readiness import file as module

NEVER = 1_000_000.0


@pytest.fixture
def only_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look but for a reason."""
    monkeypatch.setattr(module, "_LOOK_EVERY_SEC", NEVER)
    monkeypatch.setattr("runtime.process.readiness._candidate._FIRST_INTERVAL_SEC", NEVER)


HOST = replace(Host(), check_interval_sec=0.01)


async def wait_file(path: Path, passed: trio.Event) -> None:
    await bind("file", {"path": str(path)}, Path("/")).wait(HOST, Candidate())
    passed.set()


def level_by_level(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "b").mkdir()
    (root / "a" / "b" / "ready").touch()


def moved_in(root: Path) -> None:
    (root / "other" / "b").mkdir(parents=True)
    (root / "other" / "b" / "ready").touch()
    (root / "other").rename(root / "a")


def by_a_link(root: Path) -> None:
    (root / "elsewhere").mkdir()
    (root / "a").symlink_to("elsewhere")
    (root / "elsewhere" / "b").mkdir()
    (root / "elsewhere" / "b" / "ready").symlink_to(root / "far" / "target")
    (root / "far").mkdir()
    (root / "far" / "target").touch()


def removed_and_made_again(root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b").rmdir()
    (root / "a").rename(root / "old")
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "ready").mkdir()


WAYS = [level_by_level, moved_in, by_a_link, removed_and_made_again]


@pytest.mark.usefixtures("only_events", "fds_kept")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("slowly", [True, False], ids=["slowly", "at once"])
async def test_a_file_is_found_without_looking(
    tmp_path: Path, way: Callable[[Path], None], slowly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, turn = trio.Event(), threading.Semaphore(0)
    path = tmp_path / "a" / "b" / "ready"

    def step_by_step() -> None:
        for name in ("mkdir", "rename", "touch", "symlink_to", "rmdir"):
            made = getattr(Path, name)

            def wait_first(self: Path, *args: Any, _made: Any = made, **kwargs: Any) -> Any:
                turn.acquire(timeout=0.02)  # the other side may look at what there is so far
                return _made(self, *args, **kwargs)

            if slowly:
                monkeypatch.setattr(Path, name, wait_first)
        way(tmp_path)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_file, path, passed)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await trio.to_thread.run_sync(step_by_step)
        await passed.wait()


@pytest.mark.usefixtures("only_events")
async def test_what_happens_beside_it_is_no_reason_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Any
) -> None:
    looks, passed, stat = 0, trio.Event(), Path.stat

    def count(self: Path, **kwargs: Any) -> Any:
        nonlocal looks
        looks += self.name == "ready"
        return stat(self, **kwargs)

    monkeypatch.setattr(Path, "stat", count)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_file, tmp_path / "ready", passed)
        await look.true(lambda: looks)  # the first one, which may take its time
        before = looks
        for number in range(100):
            (tmp_path / str(number)).touch()
            await trio.testing.wait_all_tasks_blocked()
        assert looks == before
        (tmp_path / "ready").touch()
        await passed.wait()


@pytest.mark.usefixtures("fds_kept")
@pytest.mark.parametrize("call", ["__init__", "add_watch"])
async def test_where_the_system_tells_nothing_we_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    import inotify_simple

    def fail(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(inotify_simple.INotify, call, fail)
    monkeypatch.setattr(module, "_LOOK_EVERY_SEC", NEVER)
    passed = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_file, tmp_path / "a" / "ready", passed)
        await trio.testing.wait_all_tasks_blocked()
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "ready").touch()
        await passed.wait()


async def test_beside_the_events_we_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import inotify_simple

    monkeypatch.setattr(inotify_simple.INotify, "read", lambda *_, **__: [])  # as on a network disk
    passed = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_file, tmp_path / "ready", passed)
        await trio.testing.wait_all_tasks_blocked(0.05)
        (tmp_path / "ready").touch()
        await passed.wait()


@pytest.mark.parametrize("late", [False, True], ids=["while it looks", "before it looks"])
async def test_a_disk_that_hangs_holds_up_no_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Any, late: bool
) -> None:
    before = look.fds()
    hangs, may_go_on, came_back = threading.Event(), threading.Event(), threading.Event()
    set_now = _watch.FolderWatch.set

    def hang(at_first: bool) -> None:
        if at_first is late:
            hangs.set()
            may_go_on.wait(20)
            came_back.set()

    def set_late(watch: _watch.FolderWatch) -> None:
        hang(True)
        set_now(watch)

    def follow(path: Path) -> Path:
        hang(False)
        return path

    monkeypatch.setattr(_watch.FolderWatch, "set", set_late)
    monkeypatch.setattr(_watch, "_follow", follow)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_file, tmp_path / "ready", trio.Event())
            await look.true(hangs.is_set)
            nursery.cancel_scope.cancel()
        assert not came_back.is_set()
    finally:
        may_go_on.set()
    await look.true(lambda: look.fds() == before)  # what the thread had to end is ended


async def test_what_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    candidate = Candidate()
    check = bind("file", {"path": "x" * 300}, tmp_path)
    assert not await check.probe(HOST, candidate)
    assert candidate.obstacle.endswith("x: File name too long")
    (tmp_path / "file").touch()
    check = bind("file", {"path": "file/below"}, tmp_path)
    assert not await check.probe(HOST, candidate)
    assert candidate.obstacle == f"{tmp_path}/file/below is not there"
    (tmp_path / "y").touch()
    assert await bind("file", {"path": "y"}, tmp_path).probe(HOST, candidate)


@pytest.mark.parametrize("strategy", ["file", "pipe"])
async def test_a_process_may_make_the_folder_later(
    make_pilot: Any, sh: Any, strategy: str, tmp_path: Path
) -> None:
    script = "sleep 0.05; mkdir run; sleep 0.02; mkdir run/p; echo ready > run/p/ready; sleep 60"
    definition = sh(
        script,
        working_directory=".",
        ready_strategy=strategy,
        ready_params={"path": "run/p/ready"},
        ready_timeout_sec=20,
    )
    async with make_pilot(definition) as pilot:
        assert pilot.supervisor.status("p").ready
        assert (tmp_path / "run/p/ready").exists() == (strategy == "file")
