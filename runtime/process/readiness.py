"""Readiness checks: coroutines that return once it is true; the deadline belongs to the caller."""

import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from runtime import _procfs

from ._listeners import PortOwner
from .family import Family
from .host import Host

_FIRST_INTERVAL_SEC = 0.001
_GROWTH = 1.5
#: What a process writes into its pipe when it is ready.
PIPE_WORD = b"ready"

# Where the process itself has to listen; elsewhere it may be anybody.
_THIS_HOST = ("localhost", "127.0.0.1", "::1")


class Candidate:
    """The process that a check is about; one without a *family* is not known any closer.

    A check may say what keeps it from being ready, for whoever has waited for nothing.
    """

    family: Family | None
    obstacle: str

    __slots__ = ("family", "obstacle")

    def __init__(self, family: Family | None = None) -> None:
        self.family = family
        self.obstacle = ""

    def has_ended(self) -> bool:
        """Return whether it is known to have ended; its family may live on."""
        if self.family is None:
            return False
        stat = _procfs.read_stat(self.family.leader)
        return stat is not None and not stat.alive


Check = Callable[[Mapping[str, Any], Host, Candidate], Awaitable[None]]


async def wait_tcp(params: Mapping[str, Any], host: Host, candidate: Candidate) -> None:
    """Return once ``port`` on ``host`` (default: this host) accepts a connection.

    On this host it must not be a stranger who does, as far as that can be told.
    """
    port, name = int(params["port"]), str(params.get("host", "localhost"))
    # Both families of this host without a resolver: a program may listen on one of them only.
    addresses = ["127.0.0.1", "::1"] if name == "localhost" else [name]
    owner = None
    if candidate.family is not None and name in _THIS_HOST:
        owner = PortOwner(port, candidate.family, host)

    async def accepts() -> bool:
        for address in addresses:
            with suppress(OSError):
                await (await trio.open_tcp_stream(address, port)).aclose()
                return await is_its_own()
        candidate.obstacle = ""
        return False

    async def is_its_own() -> bool:
        stranger = None if owner is None else await owner.find_stranger()
        if stranger is None:
            candidate.obstacle = ""
            return not candidate.has_ended()
        who = f"pid {stranger.pid} ({_procfs.read_name(stranger.pid)})"
        candidate.obstacle = f"port {port} is held by {who}, which is not part of it"
        return False

    await _until(accepts, host)


async def wait_file(params: Mapping[str, Any], host: Host, _: Candidate) -> None:
    """Return once the file ``path`` exists."""
    await _until_there(Path(params["path"]), host)


async def wait_pipe(params: Mapping[str, Any], host: Host, _: Candidate) -> None:
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
