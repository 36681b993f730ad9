"""Tasks that worker processes import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from runtime import Application

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
    sys.stdout.flush()
    return folder / text


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


@app.task(cpu_bound=True, timeout_sec=0.5)
def hang(note: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as child:
        note.write_text(f"{os.getpid()} {child.pid}")
        time.sleep(1000)


@app.task(cpu_bound=True)
def hang_for_ever(note: Path) -> None:
    partial = note.with_suffix(".new")
    partial.write_text(str(os.getpid()))
    partial.rename(note)
    time.sleep(1000)


@app.task(cpu_bound=True)
def work_hard(go_on: Path, begun: Path) -> str:
    begun.touch()
    while not go_on.exists():
        time.sleep(0.01)
    return "done"
