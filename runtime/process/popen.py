"""What hooks written for `subprocess.Popen` are given: a view that looks and never reaps."""

import subprocess
import time
from collections.abc import Sequence
from typing import final

from .child import Child

_LOOK_EVERY_SEC = 0.01


@final
class PopenView:
    """The read-only part of `subprocess.Popen`, safe to use from a worker thread."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.pid: int = child.pid
        self.args: Sequence[str] = child.command.argv

    @property
    def returncode(self) -> int | None:
        """How the process ended, -n for signal n; None while it runs."""
        return self._child.returncode

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Block the calling thread until the process has ended; never call this on the loop.

        Raises `subprocess.TimeoutExpired` after *timeout* seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (returncode := self.returncode) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
            time.sleep(_LOOK_EVERY_SEC)  # a thread of a plugin's; nothing of ours waits like this
        return returncode
