"""The system says when something happens where a path is to appear."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from runtime import _late
from runtime.process.host import Host

from ._borrowed import Borrowed


class FolderWatch:
    """Watches the nearest folder above a path that there is, and that of what its links lead to.

    Without *inotify* nothing is watched, and a pause lasts at most as long as between two looks.
    """

    def __init__(self, path: Path, host: Host, inotify: Any) -> None:  # noqa: ANN401 - of a late import
        self._path, self._host, self._inotify = path, host, inotify
        self._watches: set[int] = set()
        self._names: set[str] = set()
        self._use = Borrowed(self._end)  # by a thread, which may hang at the disk

    def set(self) -> None:
        """Watch what there is to be watched now; it looks at the disk, so call it in a thread.

        Look only after it: what appears between a look and this is told by nobody.
        """
        if self._inotify is not None:
            self._use.use(self._set, None)

    def _set(self) -> None:
        places = {_split(each) for each in (self._path, _follow(self._path))}
        flags = _late.inotify().flags
        mask = flags.CREATE | flags.MOVED_TO | flags.ATTRIB | flags.DELETE_SELF | flags.MOVE_SELF
        before, self._watches = self._watches, set()
        self._names = {name for _, name in places}
        for folder, _ in places:
            # Anew each time, for what has this name may be another folder by now.
            with suppress(OSError):  # it has just gone, or the user has too many watches
                self._watches.add(self._inotify.add_watch(folder, mask))
        for watch in before - self._watches:
            with suppress(OSError):  # it went with its folder
                self._inotify.rm_watch(watch)

    async def pause(self, seconds: float) -> None:
        """Return when something has happened there, at the latest after so many *seconds*."""
        if not self._watches:
            await trio.sleep(min(seconds, self._host.check_interval_sec))
            return
        with trio.move_on_after(seconds):
            while True:
                await trio.lowlevel.wait_readable(self._inotify)
                if any(self._concerns_it(event) for event in self._inotify.read(timeout=0)):
                    return

    def _concerns_it(self, event: Any) -> bool:  # noqa: ANN401 - of a late import
        # One without a name is about the folder itself, or about too many of them at once.
        is_echo = event.mask & _late.inotify().flags.IGNORED  # of a watch that is no more
        return not is_echo and (not event.name or event.name in self._names)

    def close(self) -> None:
        """End it; a thread that sets it and hangs ends it when it comes back."""
        self._use.close()

    def _end(self) -> None:
        if self._inotify is not None:
            self._inotify.close()


@asynccontextmanager
async def open_watch(path: Path, host: Host) -> AsyncGenerator[FolderWatch]:
    """Watch for *path* as long as the block lasts, as far as the system can tell of it."""
    watch = FolderWatch(path, host, await trio.to_thread.run_sync(_open, limiter=host.checks))
    try:
        yield watch
    finally:
        watch.close()


def _open() -> Any:  # noqa: ANN401 - of a late import
    """Return a source of events, None where there are too many, or none at all."""
    with suppress(OSError):
        return _late.inotify().INotify()
    return None


def _split(path: Path) -> tuple[Path, str]:
    """Return the nearest folder above *path* that there is, and the name that is missing in it."""
    for folder in path.parents:
        if os.path.isdir(folder):  # noqa: PTH112 - `Path.is_dir` raises where a name is too long
            return folder, path.relative_to(folder).parts[0]
    return path.parent, path.name


def _follow(path: Path) -> Path:
    return Path(os.path.realpath(path))
