"""Readiness checks: coroutines that return once it is true; the deadline belongs to the caller."""

import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from .host import Host

_FIRST_INTERVAL_SEC = 0.001
_GROWTH = 1.5
#: What a process writes into its pipe when it is ready.
PIPE_WORD = b"ready"

Check = Callable[[Mapping[str, Any], Host], Awaitable[None]]


async def wait_tcp(params: Mapping[str, Any], host: Host) -> None:
    """Return once ``port`` on ``host`` (default: this host) accepts a connection."""
    port, name = int(params["port"]), str(params.get("host", "localhost"))
    # Both families of this host without a resolver: a program may listen on one of them only.
    addresses = ["127.0.0.1", "::1"] if name == "localhost" else [name]

    async def accepts() -> bool:
        for address in addresses:
            with suppress(OSError):
                await (await trio.open_tcp_stream(address, port)).aclose()
                return True
        return False

    await _until(accepts, host)


async def wait_file(params: Mapping[str, Any], host: Host) -> None:
    """Return once the file ``path`` exists."""
    await _until_there(Path(params["path"]), host)


async def wait_pipe(params: Mapping[str, Any], host: Host) -> None:
    """Return once somebody wrote ``ready`` into the named pipe ``path``; then remove the pipe.

    Whoever likes makes the pipe. Where nobody does, a shell's ``echo ready > path`` makes a file,
    and that is taken as well.
    """
    path = Path(params["path"])
    await _until_there(path, host)
    # Opened for writing too, or the first writer that leaves would be an end of file for ever.
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        seen = b""
        while PIPE_WORD not in seen:
            if is_pipe:
                await trio.lowlevel.wait_readable(fd)
            else:
                await trio.sleep(host.check_interval_sec)
            with suppress(BlockingIOError):  # somebody else reads the pipe as well
                seen = seen[-len(PIPE_WORD) :] + os.read(fd, 4096)
    finally:
        trio.lowlevel.notify_closing(fd)
        os.close(fd)
        with suppress(OSError):
            path.unlink()  # noqa: ASYNC240 - one system call, and not to be cancelled


async def _until_there(path: Path, host: Host) -> None:
    async def exists() -> bool:
        return await trio.to_thread.run_sync(path.exists, limiter=host.checks)

    await _until(exists, host)


async def _until(holds: Callable[[], Awaitable[bool]], host: Host) -> None:
    """Try at once and then at a growing interval: what is outside of us cannot notify us."""
    interval = min(_FIRST_INTERVAL_SEC, host.check_interval_sec)
    while not await holds():
        await trio.sleep(interval)
        interval = min(interval * _GROWTH, host.check_interval_sec)


#: The built-in strategies by the names that a manifest uses.
STRATEGIES: Mapping[str, Check] = {"tcp": wait_tcp, "file": wait_file, "pipe": wait_pipe}
#: The parameters that each of them cannot do without.
REQUIRED_PARAMS: Mapping[str, tuple[str, ...]] = {
    "tcp": ("port",),
    "file": ("path",),
    "pipe": ("path",),
}


async def wait_ready(check: Awaitable[bool], within_sec: float) -> bool:
    """Return what *check* returns, or False after *within_sec* seconds."""
    with trio.move_on_after(within_sec):
        return await check
    return False
