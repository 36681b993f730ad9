"""``python -m bench.limits.site KIND``: a server to be measured, in a program of its own.

It prints its port and its pid, and ends with its standard input. *bare* is the least that an ASGI
application can be, served by Hypercorn as it is, beside processes that Trio alone starts again;
*served* is the same application, served as the runtime serves. *ours* is a tree of services and
processes with the runtime's HTTP server. *bare* and *ours* kill, of each line that they read, all
their processes time and again until the next line, and say when that has begun and ended: how often
they were killed, the seconds from one time to the next, and the number of the last event.
"""

import os
import signal
import statistics
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_by_hypercorn

from bench.limits.services import Worker
from runtime import Application, open_guard
from runtime._listening import open_listeners, parse_bind
from runtime.cli._garbage import look_seldom
from runtime.manifest import Manifest
from runtime.process.host import Host
from runtime_http import HttpSettings, http_unit
from runtime_http._serving import serve

MANY: Final = 100
_PROGRAM: Final = ("/bin/sleep", "1000")
# So many are killed before others have their turn: the storm is not to be the killer's own work.
_KILLED_AT_ONCE: Final = 5
_ANY_PORT: Final = "127.0.0.1:0"


async def answer(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
    """Answer a path such as ``/120`` with so many bytes."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    body = b"x" * int(scope["path"][1:])
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _live(receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


class Herd:
    """Processes that are started again whenever they end; when all of them run, `whole` is set."""

    def __init__(self) -> None:
        self.pids: set[int] = set()
        self.whole = trio.Event()

    def note_started(self, pid: int) -> None:
        """Note that one more runs."""
        self.pids.add(pid)
        if len(self.pids) == MANY:
            self.whole.set()

    async def keep_bare(self) -> None:
        """Have one of them run, time and again."""
        while True:
            process = await trio.lowlevel.open_process(_PROGRAM, start_new_session=True)
            try:
                self.note_started(process.pid)
                await process.wait()
            finally:
                process.kill()
            self.pids.discard(process.pid)


async def run_bare() -> None:
    """Serve the bare application by Hypercorn alone."""
    config = Config()
    config.bind, config.errorlog = [_ANY_PORT], None
    ended, herd = trio.Event(), Herd()
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as keepers:
            for _ in range(MANY):
                keepers.start_soon(herd.keep_bare)
            await herd.whole.wait()
            serving = partial(serve_by_hypercorn, answer, config, shutdown_trigger=ended.wait)
            (address,) = await nursery.start(serving)
            _say_where(address)
            await _rage_when_told(herd, lambda: 0)
            keepers.cancel_scope.cancel()
        ended.set()


async def run_served() -> None:
    """Serve the bare application as the runtime serves."""
    bind, ended = parse_bind(_ANY_PORT, Path()), trio.Event()
    async with (
        open_listeners(bind, or_next=False) as (address, listeners),
        trio.open_nursery() as nursery,
    ):
        await nursery.start(partial(serve, answer, listeners, shutdown=ended))
        _say_where(address)
        await anext(_read_lines(), None)
        ended.set()


async def run_ours(host: Host) -> None:
    """Serve a tree, and let its processes die and come back when told to."""
    restart, (path, *args) = {"when": "always", "delay_sec": 0, "factor": 1}, _PROGRAM
    config = Manifest.model_validate(
        {
            "processes": [
                {"name": f"p{i}", "path": path, "args": args, "restart": restart}
                for i in range(MANY)
            ]
        }
    )
    settings = HttpSettings(token="none", bind=_ANY_PORT, announce=_announce)
    application = Application(config, faces=[partial(http_unit, settings=settings)], host=host)
    for number in range(MANY):
        application.register_service(Worker, f"service {number}")
    async with application, trio.open_nursery() as nursery:
        herd = Herd()
        nursery.start_soon(_follow, application, herd)
        await _rage_when_told(herd, lambda: application.supervisor.events.last)
        nursery.cancel_scope.cancel()


async def _follow(application: Application, herd: Herd) -> None:
    """Let *herd* know which processes run."""
    pilot, events = application.pilot, application.supervisor.events
    assert pilot is not None
    after = 0
    while True:
        await events.wait_next(after)
        news, after = events.after(after, events.last), events.last
        for name in {e.item.unit for e in news if e.item.new == "running"}:
            process = pilot.get_process_by_name(name)
            if process is not None:
                herd.note_started(process.pid)


async def _rage_when_told(herd: Herd, last_event: Callable[[], int]) -> None:
    """Kill all of *herd* time and again, between one line of the standard input and the next."""
    lines = _read_lines()
    async for _ in lines:
        _say("begun")
        deaths: list[float] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_rage, herd, deaths)
            await anext(lines, None)
            nursery.cancel_scope.cancel()
        taken = statistics.mean(b - a for a, b in pairwise(deaths)) if deaths[1:] else 0.0
        _say(f"ended {len(deaths)} {taken} {last_event()}")


async def _rage(herd: Herd, deaths: list[float]) -> None:
    """Kill all of *herd* whenever all of them run, and note when."""
    while True:
        await herd.whole.wait()
        deaths.append(trio.current_time())
        victims, herd.pids, herd.whole = herd.pids, set(), trio.Event()
        with trio.CancelScope(shield=True):  # for a few turns: who is spared is never whole again
            for number, pid in enumerate(victims):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                if number % _KILLED_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()


def _announce(address: str | None) -> None:
    if address is not None:
        _say_where(address)


def _say_where(address: str) -> None:
    _say(f"{address.rpartition(':')[2]} {os.getpid()}")


def _say(text: str) -> None:
    print(text, flush=True)


async def _read_lines() -> AsyncGenerator[bytes]:
    """Yield what comes from standard input, a line at a time as whoever writes sends them."""
    async with trio.lowlevel.FdStream(os.dup(0)) as stream:
        async for line in stream:
            yield bytes(line)


def main(kind: str) -> None:
    """Run one of the servers."""
    if kind == "ours":
        guard = open_guard()  # as the command line does; from here on this is its child
        look_seldom()  # likewise
        trio.run(run_ours, Host(orphans=guard.orphans, close_on_exec=True))
    else:
        trio.run({"bare": run_bare, "served": run_served}[kind])


if __name__ == "__main__":
    main(sys.argv[1])
