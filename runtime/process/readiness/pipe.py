"""Ready when a word is written into a named pipe."""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from runtime.process.host import Host

from ._candidate import Candidate, Strategy
from .file import wait_there

#: What a process writes into its pipe when it is ready.
PIPE_WORD = b"ready"


async def wait_pipe(params: Mapping[str, Any], host: Host, _: Candidate) -> None:
    """Return once somebody wrote ``ready`` into the named pipe ``path``; then remove the pipe.

    Whoever likes makes the pipe. Where nobody does, a shell's ``echo ready > path`` makes a file,
    and that is taken as well.
    """
    path = Path(params["path"])
    await wait_there(path, host)
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


PIPE = Strategy(wait=wait_pipe, needs=("path",))
