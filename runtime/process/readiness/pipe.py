"""Ready when a word is written into a named pipe."""

import os
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Self, TypeVar, final

import trio
from pydantic import Field

from runtime._specs import FilePath
from runtime.process.host import Host
from runtime.supervision.unit import current_unit

from ._borrowed import Borrowed
from ._candidate import Candidate, Strategy
from ._params import Params, Places
from .file import wait_there

T = TypeVar("T")
#: What a process writes into its pipe when it is ready.
PIPE_WORD = b"ready"
# So long the removal of the pipe may keep a check that is cancelled.
_REMOVAL_SEC = 0.5


class PipeParams(Params):
    """A named pipe in which a process says that it is ready."""

    path: FilePath = Field(
        description="The named pipe, relative to the base directory; whoever likes makes it.",
        examples=["run/ready.pipe"],
    )

    def resolve(self, places: Places) -> Self:
        """Make the path absolute."""
        return self.model_copy(update={"path": places.base / self.path})


@final
class _Source:
    """The pipe, or the file in its place; `open` and `read` may hang at a disk."""

    def __init__(self, path: Path) -> None:
        self._path, self._fd = path, -1
        self._use = Borrowed(self._end)
        self.is_pipe = False

    def open(self) -> None:
        """Open it; raises `OSError`."""
        self._use.use(self._open, None)

    def _open(self) -> None:
        # Opened for writing too, or the first writer that leaves would be an end of file for ever.
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.is_pipe = stat.S_ISFIFO(os.fstat(self._fd).st_mode)

    async def wait_readable(self) -> None:
        """Return once there is something in the pipe."""
        await trio.lowlevel.wait_readable(self._fd)

    def read(self) -> bytes:
        """Return what is new in it; nothing where somebody else who reads it was faster."""
        with suppress(BlockingIOError):
            return self._use.use(lambda: os.read(self._fd, 4096), b"")
        return b""

    def close(self) -> None:
        """Let go of it."""
        if self.is_pipe:
            trio.lowlevel.notify_closing(self._fd)
        self._use.close()

    def _end(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


async def wait_pipe(params: PipeParams, host: Host, candidate: Candidate) -> None:
    """Return once somebody wrote ``ready`` into the named pipe ``path``; then remove the pipe.

    Whoever likes makes the pipe. Where nobody does, a shell's ``echo ready > path`` makes a file,
    and that is taken as well. Cancelled, it removes the pipe, too, if that takes no longer than a
    moment; what hangs at a disk is left to itself.
    """
    path = params.path
    await wait_there(path, host, candidate)
    candidate.obstacle = f"nobody has written {PIPE_WORD.decode()!r} into {path}"
    with closing(_Source(path)) as source:
        await _in_thread(source.open, host)
        try:
            seen = b""
            while PIPE_WORD not in seen:
                seen = seen[-len(PIPE_WORD) :] + await _read_next(source, host)
        finally:
            with (
                current_unit().budget.to_the_end(),
                trio.move_on_after(_REMOVAL_SEC),
            ):
                await _in_thread(lambda: _remove(path), host)


async def _read_next(source: _Source, host: Host) -> bytes:
    if source.is_pipe:
        await source.wait_readable()
        return source.read()
    await trio.sleep(host.check_interval_sec)
    return await _in_thread(source.read, host)


async def _in_thread(function: Callable[[], T], host: Host) -> T:
    return await trio.to_thread.run_sync(function, limiter=host.checks, abandon_on_cancel=True)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


PIPE: Strategy[PipeParams] = Strategy(params=PipeParams, wait=wait_pipe)
