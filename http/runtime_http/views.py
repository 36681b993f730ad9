"""Makes the models of the HTTP face from what the runtime knows."""

from __future__ import annotations

from contextlib import suppress
from heapq import nsmallest
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import trio
from pydantic import BaseModel

from runtime.application import Application
from runtime.invocation.events import InvocationEvent
from runtime.process import Process
from runtime.process.output import Line
from runtime.service.service import Service
from runtime.supervision._exceptions import UnknownUnitError
from runtime.supervision.events import Entry, UnitEvent
from runtime.supervision.unit import UnitStatus

from .models import (
    Edge,
    EventView,
    InFlight,
    InvocationNewsView,
    LogLine,
    ProcessView,
    ServiceSummary,
    StopView,
    TreeView,
    UnitView,
)

if TYPE_CHECKING:
    from runtime.tasks.running import RunningInvocation

#: How many invocations are shown with the tree; a runner may have thousands.
_MOST_IN_FLIGHT: Final = 100


def summarise_service(service: Service) -> ServiceSummary:
    """Return a service as a list shows it."""
    status = service.status
    return ServiceSummary(
        name=service.name,
        state=status.state,
        is_configured=status.is_configured,
        error=status.error,
    )


def find_service(application: Application, name: str) -> Service:
    """Return a service; raise `UnknownUnitError` when there is none."""
    service = application.get_service(name)
    if service is None:
        raise UnknownUnitError(name, application.services)
    return service


def list_processes(application: Application) -> list[Process]:
    """Return the processes of the manifest, none without one."""
    return [] if application.pilot is None else application.pilot.get_manifest_processes()


def find_process(application: Application, name: str) -> Process:
    """Return a process; raise `UnknownUnitError` when there is none."""
    processes = {process.name: process for process in list_processes(application)}
    try:
        return processes[name]
    except KeyError:
        raise UnknownUnitError(name, processes) from None


def view_process(application: Application, process: Process) -> ProcessView:
    """Return how a process stands."""
    unit = application.supervisor.status(process.name)
    return ProcessView(
        **process.get_status().model_dump(),
        ready=unit.ready,
        healthy=unit.healthy,
        restarts=unit.restarts,
        next_restart_at=unit.next_restart_at,
        reason=unit.reason,
        started_at=unit.started_at,
    )


def view_tree(application: Application) -> TreeView:
    """Return how the whole tree stands."""
    supervisor = application.supervisor
    in_flight = _in_flight(application)
    return TreeView(
        version=application.version,
        state=application.state,
        settled=supervisor.settled,
        stopping=supervisor.stopping,
        stop_left_sec=_finite(supervisor.stop_left_sec),
        last_event=supervisor.events.last,
        units=[view_unit(application, status) for status in supervisor.statuses()],
        names=_names_of_several(application),
        invocations_in_flight=len(in_flight),
        invocations=_view_oldest(in_flight),
    )


def _in_flight(application: Application) -> list[tuple[str, RunningInvocation]]:
    if not application.has_tasks:
        return []
    by_runner = application.tasks.in_flight
    return [(runner, each) for runner, running in by_runner.items() for each in running]


def _view_oldest(in_flight: list[tuple[str, RunningInvocation]]) -> list[InFlight]:
    now = trio.current_time()
    return [
        InFlight(
            invocation_id=each.invocation_id,
            task=each.task.name,
            runner=runner,
            attempt=each.attempt,
            paused=each.paused,
            running_sec=now - each.began,
        )
        for runner, each in nsmallest(_MOST_IN_FLIGHT, in_flight, key=lambda pair: pair[1].began)
    ]


def _names_of_several(application: Application) -> dict[str, list[str]]:
    if application.config is None:
        return {}
    entries = {entry.replica_of: None for entry in application.config.entries()}
    names = [*filter(None, entries), *(group.name for group in application.config.groups)]
    return {name: list(application.config.unit_names(name)) for name in names}


def view_unit(application: Application, status: UnitStatus) -> UnitView:
    """Return how a unit stands."""
    supervisor, name = application.supervisor.locate(status.name)
    error = status.error
    wait = supervisor.stop_wait(name)
    stop = None
    if wait is not None and isfinite(wait.of_sec):
        stop = StopView(left_sec=wait.left_sec, of_sec=wait.of_sec, waits_for=wait.what)
    return UnitView(
        name=status.name,
        kind=status.kind,
        state=status.state,
        stage=status.stage,
        ready=status.ready,
        healthy=status.healthy,
        generation=status.generation,
        restarts=status.restarts,
        reason=status.reason,
        note=status.note,
        status_text=status.status_text,
        requirements=[Edge(name=r.name, condition=r.condition) for r in status.requirements],
        waiting_for=list(status.waiting_for),
        next_restart_at=status.next_restart_at,
        started_at=status.started_at,
        ready_after_sec=status.ready_after_sec,
        ran_sec=status.ran_sec,
        error=None if error is None else supervisor.mask(str(error)) or type(error).__name__,
        stop=stop,
        pid=status.pid,
    )


def view_event(number: int, event: UnitEvent) -> EventView:
    """Return an event; *number* is its place in the stream."""
    return EventView(
        number=number,
        timestamp=event.timestamp,
        unit=event.unit,
        kind=event.kind,
        reason=event.reason,
        old=event.old,
        new=event.new,
        generation=event.generation,
        cause=event.cause,
        invocation=_news(event) if isinstance(event, InvocationEvent) else None,
    )


def _news(event: InvocationEvent) -> InvocationNewsView:
    return InvocationNewsView(
        status=event.status,
        invocation_id=event.invocation_id,
        task=event.task,
        count=event.count,
    )


def _tell(number: int, event: UnitEvent) -> dict[str, Any]:
    """Return what `EventView` shows of an event; there are many, and a model takes its time."""
    told: dict[str, Any] = {
        "number": number,
        "timestamp": event.timestamp.isoformat().replace("+00:00", "Z"),
        "unit": event.unit,
        "kind": event.kind,
        "reason": event.reason,
        "old": event.old,
        "new": event.new,
        "generation": event.generation,
        "cause": event.cause,
    }
    if isinstance(event, InvocationEvent):
        told["invocation"] = _news(event).model_dump(mode="json")
    return told


class EventDescriber:
    """Tells of events of *application*; the newest of a unit, with how it and the tree stand now.

    To look at the whole tree takes a while, so that is done once for all events that are told of
    before there are more.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._last = -1
        self._whole: dict[str, Any] = {}
        self._units: dict[str, Any] = {}

    def __call__(self, entry: Entry[UnitEvent], newest: bool) -> dict[str, Any]:
        """Return what is told of an event."""
        told = _tell(entry.sequence, entry.item)
        if not newest and entry.item.unit:
            return told
        supervisor = self._application.supervisor
        if self._last != supervisor.events.last:
            self._last, self._units = supervisor.events.last, {}
            self._whole = {"state": self._application.state, "stopping": supervisor.stopping}
        return {**told, **self._whole, "now": self._stand(entry.item.unit)}

    def _stand(self, name: str) -> Any:  # noqa: ANN401 - as JSON has it
        if name not in self._units:
            self._units[name] = None
            with suppress(UnknownUnitError):  # the whole tree, or one that has been removed
                supervisor, own = self._application.supervisor.locate(name)
                view = view_unit(self._application, supervisor.status(own))
                self._units[name] = _brief(view)
        return self._units[name]


def describe_tree(application: Application) -> dict[str, Any]:
    """Return how the whole tree stands, as a stream of events begins with it."""
    return _brief(view_tree(application))


def _brief(view: BaseModel) -> dict[str, Any]:
    # What is not there is left out: of many units at once, that is a third of all bytes.
    shown = view.model_dump(mode="json", exclude_none=True)
    if "units" in shown:
        shown["units"] = [_without_empty(unit) for unit in shown["units"]]
    return _without_empty(shown)


def _without_empty(shown: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in shown.items() if value not in ("", [])}


def view_line(entry: Entry[Line]) -> LogLine:
    """Return a line that a process has printed."""
    line = entry.item
    return LogLine(
        number=entry.sequence, stream=line.stream, text=line.text, timestamp=line.timestamp
    )


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
