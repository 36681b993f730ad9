"""What can be wrong with the log files of a manifest before anything runs."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime._problems import Problem

from .models import Process
from .rotation import current_of, rotated
from .specs import LogSpec


def find_log_problems(processes: Sequence[Process]) -> Iterator[Problem]:
    """Yield what is wrong with the log of each process, alone and beside the others'.

    The paths are absolute, and looked at as they are without links.
    """
    logs = [(process, process.log) for process in processes if process.log is not None]
    writers: dict[str, Process] = {}
    # A link to the file is renamed itself, one to its folder is not.
    by_place = {_place(log.file): (process, log) for process, log in logs}
    for process, log in logs:
        here = (*process.location, "log", "file")
        if problem := _judge_file(log):
            yield Problem(here, problem)
        real = os.path.realpath(log.file)
        first = writers.setdefault(real, process)
        if first is not process:
            yield Problem(here, _same_file(first, process))
        for each in {_place(log.file), Path(real)}:
            current, number = current_of(each)
            other, others = by_place.get(current, (process, log))
            if other is not process and 0 < number <= others.keep:
                what = f"{other.name!r} gives this name to an older file of its log"
                yield Problem(here, f"{what}, and keeps {others.keep} of them; choose another")


def _same_file(first: Process, second: Process) -> str:
    if second.replica_of is not None and first.replica_of == second.replica_of:
        return "all replicas would write to this file; put ${REPLICA} into it"
    return f"{first.name!r} writes to this file already; choose another"


def _place(file: Path) -> Path:
    return Path(os.path.realpath(file.parent), file.name)


def _judge_file(log: LogSpec) -> str:
    """Return what is wrong with the file, nothing when it can be written."""
    try:
        mode = _mode(log.file)
        if stat.S_ISDIR(mode):
            return f"{log.file} is a folder"
        if mode and not stat.S_ISREG(mode):
            return f"{log.file} is not a regular file"
        _mode(rotated(log.file, log.keep))  # the longest name must be possible, too
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    if mode and not _may(log.file, os.R_OK | os.W_OK):
        return f"{log.file} may not be read and written"
    above = log.file.parent
    while not os.path.lexists(above):
        above = above.parent
    if not os.path.isdir(above):  # noqa: PTH112 - what may not be looked at is none
        return f"{above} is not a folder"
    return "" if _may(above, os.W_OK | os.X_OK) else f"the folder {above} may not be written to"


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)
