"""Ready when a file exists."""

from pathlib import Path
from typing import Self

import trio
from pydantic import Field

from runtime.process.host import Host
from runtime.process.specs import FilePath

from ._candidate import Candidate, Strategy, until
from ._params import Params, Places


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
    """Return once *path* exists."""

    async def holds() -> bool:
        return await is_there(path, host, candidate)

    await until(holds, host.check_interval_sec)


async def is_there(path: Path, host: Host, candidate: Candidate) -> bool:
    """Return whether *path* exists, by one look in a thread."""
    if await trio.to_thread.run_sync(path.exists, limiter=host.checks, abandon_on_cancel=True):
        return True
    candidate.obstacle = f"{path} is not there"
    return False


FILE = Strategy(params=FileParams, wait=wait_file, probe=probe_file)
