"""Ready when a word is written into a named pipe."""

import os
import stat
from contextlib import suppress
from typing import Self

import trio
from pydantic import Field

from runtime._specs import FilePath
from runtime.process.host import Host

from ._candidate import Candidate, Strategy
from ._params import Params, Places
from .file import wait_there

#: What a process writes into its pipe when it is ready.
PIPE_WORD = b"ready"


class PipeParams(Params):
    """A named pipe in which a process says that it is ready."""

    path: FilePath = Field(
        description="The named pipe, relative to the base directory; whoever likes makes it.",
        examples=["run/ready.pipe"],
    )

    def resolve(self, places: Places) -> Self:
        """Make the path absolute."""
        return self.model_copy(update={"path": places.base / self.path})


async def wait_pipe(params: PipeParams, host: Host, candidate: Candidate) -> None:
    """Return once somebody wrote ``ready`` into the named pipe ``path``; then remove the pipe.

    Whoever likes makes the pipe. Where nobody does, a shell's ``echo ready > path`` makes a file,
    and that is taken as well.
    """
    path = params.path
    await wait_there(path, host, candidate)
    candidate.obstacle = f"nobody has written {PIPE_WORD.decode()!r} into {path}"
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
            path.unlink()


PIPE: Strategy[PipeParams] = Strategy(params=PipeParams, wait=wait_pipe)
