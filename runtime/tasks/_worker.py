"""The program of a worker process: runs one cpu-bound task after the other, and ends at EOF.

Started by `workers`, with the number of a socket that nobody else has. The first message is how to
find tasks, each other one a call, during which it may ask; see `_frames` and `asking`.
"""

from __future__ import annotations

import importlib
import io
import os
import runpy
import socket
import sys
from contextlib import suppress
from contextvars import copy_context
from types import ModuleType, SimpleNamespace
from typing import Any

from ._exceptions import TaskDefinitionError
from ._frames import Unpacker, pack
from .asking import Ask, AskingStore, InvocationInWorker
from .failures import Failure, failure_of
from .home import store_of_runner
from .invocation import waiting_in
from .task import MAIN_AGAIN, Task


class Tasks:
    """Finds tasks where they were defined."""

    def __init__(self, main_path: str | None) -> None:
        self._main_path = main_path
        self._main: SimpleNamespace | None = None

    def prepare(self, modules: list[str]) -> None:
        """Import *modules*, so that no call has to wait for that; what fails is told to a call."""
        for module in modules:
            with suppress(Exception):
                self._module(module)

    def find(self, module: str, qualname: str) -> Task[..., Any]:
        """Return the task; raise `TaskDefinitionError` for what is none."""
        found: Any = self._module(module)
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if not isinstance(found, Task):
            problem = f"a worker process finds no task of this name in {module}"
            raise TaskDefinitionError(f"{module}.{qualname}", problem)
        return found

    def _module(self, name: str) -> ModuleType | SimpleNamespace:
        if name != "__main__":
            return importlib.import_module(name)
        if self._main is None:
            if self._main_path is None:
                problem = "it is cpu_bound, and was not defined in a file that can be imported"
                raise TaskDefinitionError(name, problem)
            self._main = SimpleNamespace(**runpy.run_path(self._main_path, run_name=MAIN_AGAIN))
        return self._main


def run(tasks: Tasks, call: dict[str, Any], ask: Ask) -> dict[str, Any]:
    """Make one call; return what is to be answered. *ask* asks the runner meanwhile."""
    task: Task[..., Any] | None = None
    try:
        task = tasks.find(call["module"], call["qualname"])
        args, kwargs = task.signature.load(call["arguments"])
        context = copy_context()  # what it sets there is gone with the call
        context.run(store_of_runner.set, AskingStore(ask).as_store())
        context.run(waiting_in.set, InvocationInWorker(task, call))
        return {"result": task.signature.dump_result(context.run(task.function, *args, **kwargs))}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge of a task
        if task is None:
            return {"failure": Failure.of(error).to_json_object()}
        return {"failure": failure_of(task, error, call["retries"]).to_json_object()}


def _receive(connection: socket.socket, unpacker: Unpacker) -> dict[str, Any] | None:
    while piece := connection.recv(65_536):
        message = unpacker.feed(piece)
        if message is not None:
            return message
    return None


def main(fd: int) -> None:
    """Answer until nobody is there any more."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A line is to be seen when it is printed, and not to be lost when this process is killed.
        sys.stdout.reconfigure(line_buffering=True)
    with socket.socket(fileno=fd) as connection:
        os.set_inheritable(fd, False)  # what a task starts must not keep the socket open
        unpacker = Unpacker()
        hello = _receive(connection, unpacker)
        if hello is None:
            return
        _become_like(hello)
        tasks = Tasks(hello["main_path"])
        tasks.prepare(hello["modules"])
        connection.sendall(pack({"ready": True}))

        def ask(question: dict[str, Any]) -> dict[str, Any]:
            connection.sendall(pack(question))
            told = _receive(connection, unpacker)
            if told is None:  # nobody is there any more who could take a result
                os._exit(1)
            return told

        while (call := _receive(connection, unpacker)) is not None:
            connection.sendall(pack(run(tasks, call, ask)))


def _become_like(hello: dict[str, Any]) -> None:
    """Find modules as the runner does; what a task starts has the runner's PYTHONPATH."""
    sys.path[:] = hello["sys_path"]
    if hello["pythonpath"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = hello["pythonpath"]


if __name__ == "__main__":
    main(int(sys.argv[1]))
