"""Tasks that worker processes import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import trio

from runtime import Application, current_invocation
from runtime.invocation import NewInvocation
from runtime.tasks import OnlySubmitsError

app = Application(runners=[{"name": "worker", "processes": 2, "drain_sec": 0.2}])


class OutOfRangeError(Exception):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


@app.task(cpu_bound=True)
def where() -> int:
    return os.getpid()


@app.task(cpu_bound=True, max_retries=1, retry_delay_sec=0.01)
def out_of_range(limit: int) -> None:
    raise OutOfRangeError(limit)


@app.task(cpu_bound=True)
def leave(code: int) -> None:
    sys.exit(code)


@app.task(cpu_bound=True)
def say(text: str, folder: Path) -> Path:
    sys.stdout.write(f"{text}\n")
    sys.stderr.write(f"{text}, again\n")
    return folder / text


@app.task(cpu_bound=True)
def say_secret() -> None:
    sys.stdout.write(f"it is {os.environ['WORKERS_SECRET']}\n")


@app.task
async def double(number: int) -> int:
    return 2 * number


@app.task
def told(name: str) -> str:
    return name


@app.task(cpu_bound=True, max_retries=1, retry_delay_sec=0.01)
def submit_others(numbers: list[int]) -> list[str]:
    """Submit in all the ways that there are, at the second attempt; return the ids."""
    me = current_invocation()
    assert me is not None
    assert me.arguments == {"numbers": numbers}
    if me.attempt == 1:
        raise OutOfRangeError(me.retries)
    ids = [me.invocation_id]
    ids += [double.submit_from_thread(number).invocation_id for number in numbers]
    once = double.with_options(idempotency_key="once")
    ids += [trio.run(once.submit, number).invocation_id for number in numbers]
    return ids


@app.task(cpu_bound=True)
def ask_too_much() -> list[str]:
    child = double.submit_from_thread(1)
    said: list[str] = []
    for ask in (child.wait_result, partial(trio.run, child.status), partial(trio.run, child.wait)):
        try:
            ask()
        except OnlySubmitsError as error:
            said.append(error.wanted)
    try:
        told.submit_from_thread(7)  # type: ignore[arg-type]
    except ValueError as error:
        said.append(str(error))
    return said


@app.task(cpu_bound=True)
def submit_twice() -> None:
    """Register an id that is there: what the store raises is raised here."""
    me, store = current_invocation(), app.state_backend
    assert me is not None
    trio.run(store.register, [NewInvocation(invocation_id=me.invocation_id, task=me.task.name)])


@app.task(cpu_bound=True)
def end_at_once() -> None:
    os._exit(3)


@app.task(cpu_bound=True)
def die_once(mark: Path) -> str:
    """Die of SIGKILL, with a child that keeps the connection open, when it is first called."""
    if mark.exists():
        return "survived"
    mark.touch()
    if os.fork() == 0:
        time.sleep(1000)
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def _tell(note: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    partial = note.with_suffix(".new")
    partial.write_text(text)
    partial.rename(note)


@app.task(cpu_bound=True, timeout_sec=0.5)
def hang(note: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as child:
        _tell(note, f"{os.getpid()} {child.pid}")
        time.sleep(1000)


@app.task(cpu_bound=True)
def hang_for_ever(note: Path) -> None:
    _tell(note, str(os.getpid()))
    time.sleep(1000)


@app.task(cpu_bound=True)
def work_hard(go_on: Path, begun: Path) -> str:
    begun.touch()
    while not go_on.exists():
        time.sleep(0.01)
    return "done"
