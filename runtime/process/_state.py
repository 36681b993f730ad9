"""The states of a process, and what may follow what."""

from enum import StrEnum

from runtime.supervision.lifecycle import Lifecycle, Stages, TransitionTable


class ProcessState(StrEnum):
    """Where a supervised process is in its life."""

    STOPPED = "stopped"  #: nothing of it runs
    STARTING = "starting"  #: spawned, not ready yet
    RUNNING = "running"  #: its readiness check has passed
    STOPPING = "stopping"  #: told to stop, or ended with something of it left; not reaped yet


_S = ProcessState
PROCESS_TABLE: TransitionTable[ProcessState] = TransitionTable(
    ProcessState,
    {
        _S.STOPPED: {_S.STARTING},
        _S.STARTING: {_S.RUNNING, _S.STOPPING, _S.STOPPED},
        _S.RUNNING: {_S.STOPPING, _S.STOPPED},
        _S.STOPPING: {_S.STOPPED},
    },
)
_STAGES = Stages(_S.STARTING, _S.RUNNING, _S.STOPPING, _S.STOPPED, failed=_S.STOPPED)


def process_lifecycle(name: str) -> Lifecycle[ProcessState]:
    """Return the cell of a process that has not been started."""
    return Lifecycle(name, PROCESS_TABLE, _STAGES, ProcessState.STOPPED)
