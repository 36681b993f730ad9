"""What may follow what in the life of a service."""

from runtime.supervision.lifecycle import Lifecycle, Stages, TransitionTable

from .models import ServiceState

_S = ServiceState
_ALWAYS = {_S.ERROR}  # whatever it does, it may fail
SERVICE_TABLE: TransitionTable[ServiceState] = TransitionTable(
    ServiceState,
    {
        # (Only where it needs no configuration may it be started at once; its unit sees to that.)
        _S.INITIALIZED: {_S.CONFIGURED, _S.STARTING, *_ALWAYS},
        _S.CONFIGURED: {_S.CONFIGURED, _S.STARTING, *_ALWAYS},
        _S.STARTING: {_S.RUNNING, _S.STOPPING, *_ALWAYS},
        _S.RUNNING: {_S.STOPPING, *_ALWAYS},
        _S.STOPPING: {_S.STOPPED, *_ALWAYS},
        _S.STOPPED: {_S.CONFIGURED, _S.STARTING, *_ALWAYS},
        _S.ERROR: {_S.CONFIGURED, _S.STARTING, _S.STOPPING, *_ALWAYS},
    },
)
_STAGES = Stages(_S.STARTING, _S.RUNNING, _S.STOPPING, _S.STOPPED, failed=_S.ERROR)


def service_lifecycle(name: str) -> Lifecycle[ServiceState]:
    """Return the cell of a service that was just made."""
    return Lifecycle(name, SERVICE_TABLE, _STAGES, ServiceState.INITIALIZED)
