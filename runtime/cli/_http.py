"""The HTTP server of a tree that the command line runs: loaded late, noted in the run directory."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import trio

from runtime import _late
from runtime._http_spec import HttpSpec
from runtime.application import Application
from runtime.run_directory import HTTP_FILE, RunDirectory, forget_file, note_in_file, read_token
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.unit import Unit, UnitHandle

from ._garbage import look_seldom

NAME = KIND = "http"
# To load a web server takes as long as to start a hundred processes: they go first, for a moment.
_HEAD_START_SEC = 1.0
_RESTART = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=0.2, max_delay_sec=10)


def http_face(
    spec: HttpSpec,
    directory: RunDirectory,
    base: Path,
    say: Callable[[str], None],
    application: Application,
) -> Unit:
    """Return the unit that serves *application* as *spec* says, and tells the address.

    It is loaded and starts when everything else has started, or after a second.
    """
    name = _free_name(application)

    async def run(*, task_status: UnitHandle) -> None:
        with trio.move_on_after(_HEAD_START_SEC):
            await application.supervisor.wait_others_settled(name)
        served = await trio.to_thread.run_sync(_load, abandon_on_cancel=True)
        token = await trio.to_thread.run_sync(read_token, directory.path)
        settings = served.HttpSettings(
            token=token,
            bind=spec.bind,
            base=base,
            hosts=spec.hosts,
            announce=partial(_announce, directory.path, say),
        )
        await served.http_unit(application, settings).body(task_status=task_status)

    return Unit(
        name=name,
        body=run,
        kind=KIND,
        restart=_RESTART,
        keeps_alive=False,
        stops_last=True,
    )


@cache  # what is loaded once more is there already, and what runs does not stay
def _load() -> ModuleType:
    server = _late.http_server()
    look_seldom()
    return server


def _announce(folder: Path, say: Callable[[str], None], address: str | None) -> None:
    if address is None:
        forget_file(folder, HTTP_FILE)
        return
    note_in_file(folder, HTTP_FILE, address)
    page = address if address.startswith("unix:") else f"{address}/ui/"
    trio.from_thread.run_sync(say, f"serving {page}")


def _free_name(application: Application) -> str:
    taken = set(application.supervisor.names)
    candidates = (NAME, *(f"{NAME}-server{number}" for number in ("", *range(2, len(taken) + 3))))
    return next(name for name in candidates if name not in taken)
