"""Ready when a file exists."""

from collections.abc import Callable
from pathlib import Path
from typing import Self

import trio
from pydantic import Field

from runtime._specs import FilePath
from runtime.process.host import Host

from ._candidate import Candidate, Strategy, until
from ._params import Params, Places
from ._watch import open_watch

_LOOK_EVERY_SEC = 1.0


class FileParams(Params):
    """A file whose existence says that the process is ready."""

    path: FilePath = Field(
        description="The file, relative to the base directory; it may be of any kind.",
        examples=["run/ready"],
    )

    def resolve(self, places: Places) -> Self:
        """Make the path absolute."""
        return self.model_copy(update={"path": places.base / self.path})


async def wait_file(params: FileParams, host: Host, candidate: Candidate) -> None:
    """Return once the file ``path`` exists."""
    await wait_there(params.path, host, candidate)


async def probe_file(params: FileParams, host: Host, candidate: Candidate) -> bool:
    """Return whether the file ``path`` exists."""
    return await is_there(params.path, host, candidate)


async def wait_there(path: Path, host: Host, candidate: Candidate) -> None:
    """Return once *path* exists.

    The system tells when something happens around it. Where it cannot, and beside that (no network
    file system tells what happens elsewhere), we look.
    """
    async with open_watch(path, host) as watch:

        async def holds() -> bool:
            return await is_there(path, host, candidate, watch.set)

        await until(holds, _LOOK_EVERY_SEC, watch.pause)


async def is_there(
    path: Path, host: Host, candidate: Candidate, before: Callable[[], object] | None = None
) -> bool:
    """Return whether *path* exists, by one look in a thread, in which *before* is called first.

    Cancelled, a look at a disk that hangs is left to itself.
    """

    def look() -> str:
        if before is not None:
            before()
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return f"{path} is not there"
        except OSError as error:
            return f"{path}: {error.strerror}"
        return ""

    obstacle = await trio.to_thread.run_sync(look, limiter=host.checks, abandon_on_cancel=True)
    candidate.obstacle = obstacle
    return not obstacle


FILE: Strategy[FileParams] = Strategy(params=FileParams, wait=wait_file, probe=probe_file)
