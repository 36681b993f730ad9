"""One tree holds a real process, a service and a supervisor, and knows none of them."""

import os
import sys
from functools import partial

import trio

from runtime.supervision.graph import Requirement, Stage
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitHandle


async def run_child(pids: list[int], code: str, *, task_status: UnitHandle) -> None:
    """Run a real child; Trio's own delivery of a cancellation is SIGTERM, then SIGKILL."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, [sys.executable, "-c", code], stderr=None)
        )
        pids.append(process.pid)
        task_status.started()


class EchoService:
    """A service in the manner of Trio: a nursery, open from start to stop."""

    def __init__(self) -> None:
        self.drained = False

    async def run(self, *, task_status: UnitHandle) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port: int = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._echo, listeners)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                with task_status.budget.polite(1):
                    self.drained = True

    async def _echo(self, stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(await stream.receive_some(100))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_process_a_service_and_a_nested_supervisor_share_one_tree() -> None:
    crashed: list[int] = []
    lasting: list[int] = []
    service = EchoService()
    top = Supervisor()
    inner = Supervisor(path="group", events=top.events)
    inner.add(Unit(name="child", body=partial(run_child, lasting, "import time; time.sleep(60)")))
    once = RestartPolicy(when=RestartWhen.FAILURE, delay_sec=0, max_restarts=1)
    for unit in (
        Unit(name="flaky", body=partial(run_child, crashed, "raise SystemExit(3)"), restart=once),
        Unit(name="echo", body=service.run),
        Unit(name="group", body=inner.run, inner=inner, requirements=(Requirement("echo"),)),
    ):
        top.add(unit)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(top.run)
            await top.wait_until("flaky", Stage.FAILED)
            assert top.status("flaky").generation == 2
            assert "given up after 1 restart in " in top.status("flaky").reason
            async with await trio.open_tcp_stream("127.0.0.1", service.port) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some(100) == b"hello"
            assert [is_gone(pid) for pid in lasting] == [False]
            nursery.cancel_scope.cancel()
    assert service.drained
    assert len(crashed) == 2
    assert all(is_gone(pid) for pid in crashed + lasting)
    ends = [e.item.unit for e in top.events.tail() if e.item.new == "stopped"]
    assert ends.index("group") < ends.index("echo")
