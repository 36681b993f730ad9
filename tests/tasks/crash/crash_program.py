"""A runtime with tasks that tell of each execution; `test_kills` starts several, and kills them.

``python -m crash_program``, with the places of the store and of the log in the environment.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import apsw
import trio

from runtime import Application
from runtime.tasks import current_invocation

_URL = os.environ["CRASH_STORE"]
_LOG = os.environ["CRASH_LOG"]
_RUNNER = {
    "name": "runner",
    "concurrency": int(os.environ.get("CRASH_SLOTS", "8")),
    "processes": 1,
    "heartbeat_sec": float(os.environ.get("CRASH_HEARTBEAT_SEC", "1")),
    "lease_sec": 60.0,  # a death is to be seen, not to be concluded from silence
    "quarantine_after": 1000,
}
app = Application(state_backend=_URL, runners=[_RUNNER])


def _tell(invocation_id: str, attempt: int) -> None:
    """Add a line to the log: a short write to a file opened so is never torn nor mixed."""
    runtime = os.environ.get("CRASH_RUNTIME", "0")
    fd = os.open(_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{invocation_id} {attempt} {runtime} {os.getpid()}\n".encode())
    finally:
        os.close(fd)


def _tell_of_this() -> None:
    running = current_invocation()
    assert running is not None
    _tell(running.invocation_id, running.attempt)


@app.task
async def work(number: int, pause_sec: float) -> int:
    _tell_of_this()
    await trio.sleep(pause_sec)
    return number * number


@app.task
def work_in_thread(number: int, pause_sec: float) -> int:
    _tell_of_this()
    time.sleep(pause_sec)
    return number * number


@app.task
async def wait_for_another(number: int, pause_sec: float) -> int:
    _tell_of_this()
    other = await work.submit(number, pause_sec)
    return await other.result()


if "CRASH_WORKERS" in os.environ:  # each takes a second of the machine to begin

    @app.task(cpu_bound=True)
    def work_in_worker(number: int, pause_sec: float, told_as: str) -> int:
        _tell(told_as, 0)  # which attempt it is only its runner knows
        time.sleep(pause_sec)
        return number * number


class _DyingFile(apsw.VFSFile):
    def __init__(self, parent: str, name: Any, flags: list[int], fate: _Fate) -> None:
        super().__init__(parent, name, flags)
        self._fate = fate

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        if self._fate.comes():
            super().xWrite(data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        if self._fate.comes():
            os.kill(os.getpid(), signal.SIGKILL)
        super().xSync(flags)


class _Fate(apsw.VFS):
    """The file system of a process that dies at its n-th write or sync of a database.

    A write is done by half.
    """

    def __init__(self, steps: int) -> None:
        super().__init__("dying", "unix", makedefault=True)
        self._left = steps

    def comes(self) -> bool:
        self._left -= 1
        return self._left == 0

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _DyingFile("unix", name, flags, self)


async def run() -> None:
    """Run until killed, by ourselves at the step ``CRASH_AT`` of the file, where that is set."""
    os.environ["CRASH_RUNTIME"] = str(os.getpid())  # for the workers
    steps = int(os.environ["CRASH_AT"])
    fate = _Fate(steps) if steps else None
    async with app:
        os.write(1, f"ready {os.getpid()}\n".encode())
        while fate is not None:  # give it something to write, until it dies of that
            await work.submit(3, 0.01)
        await trio.sleep_forever()


def main() -> None:
    """Start a runtime for each line of the input, which is its ``CRASH_AT``: 0 for none.

    They are forks of this process, which has imported all and runs nothing: many can be started.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        pid = os.fork()
        if pid:
            os.write(1, f"started {pid}\n".encode())
        else:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.environ["CRASH_AT"] = line.strip()
            try:
                trio.run(run)
            finally:
                os._exit(70)
    os.killpg(0, signal.SIGKILL)  # who has started this is gone: nothing may outlive that


if __name__ == "__main__":
    main()
