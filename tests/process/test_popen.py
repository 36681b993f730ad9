"""What hooks written for `subprocess.Popen` are given looks at the process and never reaps it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from runtime.process.popen import PopenView


async def test_a_view_knows_the_pid_and_the_arguments(room: Any) -> None:
    async with room.open(room.sh("exit 0")) as child:
        view = PopenView(child)
        assert (view.pid, view.args) == (child.pid, ["/bin/sh", "-c", "exit 0"])


async def test_looking_and_waiting_never_reap(room: Any, open_gate: Callable[[], object]) -> None:
    async with room.open(room.sh("read -r line < gate; exit 9")) as child:
        view = PopenView(child)
        assert view.poll() is None
        assert view.returncode is None
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            await trio.to_thread.run_sync(view.wait, 0.02)
        assert caught.value.timeout == 0.02
        assert caught.value.cmd == view.args
        open_gate()
        assert await trio.to_thread.run_sync(view.wait) == 9
        assert [look() for look in (view.poll, lambda: view.returncode, view.wait)] == [9, 9, 9]
        os.kill(child.pid, 0)  # it is still there to be reaped, by its owner
    assert [look() for look in (view.poll, lambda: view.returncode, view.wait)] == [9, 9, 9]


async def test_threads_that_look_while_the_child_is_reaped_all_see_how_it_ended(room: Any) -> None:
    for _ in range(30):
        seen: list[int] = []

        def look(view: PopenView, seen: list[int] = seen) -> None:
            while (returncode := view.poll()) is None:
                pass
            seen.append(returncode)

        async with room.open(room.sh("exec sleep 60"), timeout=1000) as child:
            threads = [threading.Thread(target=look, args=(PopenView(child),)) for _ in range(3)]
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join()
        assert seen == [-15] * 3


async def test_a_thread_that_comes_between_the_reaping_and_its_record_waits_for_the_record(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room.open(room.sh("exit 4")) as child:
        view = PopenView(child)
        await trio.lowlevel.wait_readable(child._pidfd)

        def reaped_elsewhere(*_: object) -> None:
            monkeypatch.undo()
            child.reap()
            raise ChildProcessError

        monkeypatch.setattr(os, "waitid", reaped_elsewhere)
        assert view.poll() == 4
        child._pidfd = os.open("/dev/null", os.O_RDONLY)  # for the block to close
