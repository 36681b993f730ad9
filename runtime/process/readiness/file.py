"""Ready when a file exists."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from runtime.process.host import Host

from ._candidate import Candidate, Strategy, probing, until


async def probe_file(params: Mapping[str, Any], host: Host, _: Candidate) -> bool:
    """Return whether the file ``path`` exists."""
    return await _exists(Path(params["path"]), host)


async def wait_there(path: Path, host: Host) -> None:
    """Return once *path* exists."""

    async def is_there() -> bool:
        return await _exists(path, host)

    await until(is_there, host)


async def _exists(path: Path, host: Host) -> bool:
    return await trio.to_thread.run_sync(path.exists, limiter=host.checks)


FILE = Strategy(wait=probing(probe_file), probe=probe_file, needs=("path",))
