"""What probes of others ask: whether it lives, and whether it is ready."""

from runtime.application import Application
from runtime.supervision.graph import Stage

from .models import Probe

#: The kind of unit that shows the tree; whether it is ready is no question that it can answer.
KIND = "http"
_FINE = (Stage.READY, Stage.COMPLETED, Stage.IDLE)


def probe_life() -> tuple[Probe, int]:
    """Return that the runtime answers, and the status of that."""
    return Probe(status="alive"), 200


def probe_readiness(application: Application) -> tuple[Probe, int]:
    """Return whether every unit that is to be ready is so, and the status of that."""
    supervisor = application.supervisor
    late = any(stage not in _FINE and kind != KIND for kind, stage in supervisor.stages())
    if late or supervisor.stopping is not None:
        return Probe(status="not ready"), 503
    return Probe(status="ready"), 200
