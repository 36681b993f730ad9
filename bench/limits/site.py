"""``python -m bench.limits.site KIND``: a server to be measured, in a program of its own.

It prints its port, and ends with its standard input. *bare* is the least that an ASGI application
can be, served by Hypercorn as it is; *served* is the same, served as the runtime serves. *ours* is
a tree of services and processes with the runtime's HTTP server: of each line that it reads it kills
all its processes time and again until the next line, and says when it has begun and ended: how
often it has killed them, the seconds from one time to the next, and the number of the last event.
"""

import os
import signal
import statistics
import sys
from collections.abc import AsyncGenerator
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
from runtime.manifest import Manifest
from runtime.process.host import Host
from runtime_http import HttpSettings, http_unit
from runtime_http._serving import serve

MANY: Final = 100
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


async def run_bare() -> None:
    """Serve the bare application by Hypercorn alone."""
    config = Config()
    config.bind, config.errorlog = [_ANY_PORT], None
    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        serving = partial(serve_by_hypercorn, answer, config, shutdown_trigger=ended.wait)
        (address,) = await nursery.start(serving)
        _say(address.rpartition(":")[2])
        await anext(_read_lines(), None)
        ended.set()


async def run_served() -> None:
    """Serve the bare application as the runtime serves."""
    bind, ended = parse_bind(_ANY_PORT, Path()), trio.Event()
    async with (
        open_listeners(bind, or_next=False) as (address, listeners),
        trio.open_nursery() as nursery,
    ):
        await nursery.start(partial(serve, answer, listeners, shutdown=ended))
        _say(address.rpartition(":")[2])
        await anext(_read_lines(), None)
        ended.set()


async def run_ours(host: Host) -> None:
    """Serve a tree, and let its processes die and come back when told to."""
    restart = {"when": "always", "delay_sec": 0, "factor": 1}
    config = Manifest.model_validate(
        {
            "processes": [
                {"name": f"p{i}", "path": "/bin/sleep", "args": ["1000"], "restart": restart}
                for i in range(MANY)
            ]
        }
    )
    settings = HttpSettings(token="none", bind=_ANY_PORT, announce=_announce)
    application = Application(config, faces=[partial(http_unit, settings=settings)], host=host)
    for number in range(MANY):
        application.register_service(Worker, f"service {number}")
    async with application:
        lines = _read_lines()
        async for _ in lines:
            _say("begun")
            deaths: list[float] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_rage, application, deaths)
                await anext(lines, None)
                nursery.cancel_scope.cancel()
            taken = statistics.mean(b - a for a, b in pairwise(deaths)) if deaths[1:] else 0.0
            _say(f"ended {len(deaths)} {taken} {application.supervisor.events.last}")


async def _rage(application: Application, deaths: list[float]) -> None:
    """Kill all processes whenever all of them run, and note when."""
    pilot, events = application.pilot, application.supervisor.events
    assert pilot is not None
    while True:
        running = [status for status in pilot.get_running_process(None) or [] if status.pid]
        if len(running) == MANY:
            deaths.append(trio.current_time())
            for status in running:
                with suppress(ProcessLookupError):
                    os.kill(status.pid, signal.SIGKILL)
        await events.wait_next(events.last)


def _announce(address: str | None) -> None:
    if address is not None:
        _say(address.rpartition(":")[2])


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
        trio.run(run_ours, Host(orphans=guard.orphans))
    else:
        trio.run({"bare": run_bare, "served": run_served}[kind])


if __name__ == "__main__":
    main(sys.argv[1])
