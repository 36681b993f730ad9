"""What the HTTP face takes and gives, beside the models of services and processes themselves."""

from datetime import datetime
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    RootModel,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from runtime.invocation import InvocationStatus
from runtime.invocation.models import MOST_DELAY_SEC, due_in_utc
from runtime.process import ProcessStatus
from runtime.service.models import ServiceState

#: The longest that an answer waits for the end of an invocation, in seconds.
LONGEST_WAIT_SEC = 60


class ServiceRegistrationRequest(BaseModel):
    """Which service is to be registered, and under which name."""

    model_config = ConfigDict(extra="forbid")

    service_name: str = Field(description="The name under which the class is registered.")
    instance_name: str | None = Field(
        default=None, description="The name of the new service; unset: that of its class."
    )


class ServiceSummary(BaseModel):
    """One service in a list."""

    name: str = Field(description="Its name.")
    state: ServiceState = Field(description="Its state.")
    is_configured: bool = Field(description="Whether it has a configuration.")
    error: str | None = Field(description="What went wrong, if the state is error.")


class ServiceList(BaseModel):
    """All services."""

    services: list[ServiceSummary] = Field(description="The services, in the order of their names.")


class ServiceChange(BaseModel):
    """What has been done with a service."""

    status: str = Field(description="What has been done, in a word or three.")
    service: str = Field(description="The name of the service.")


class ServiceRegistration(ServiceChange):
    """A service that has been registered."""

    type: str = Field(description="The name of its class.")


class ServiceConfigurationRequest(BaseModel):
    """A configuration: whatever the service's own model takes."""

    model_config = ConfigDict(extra="allow")


class Probe(BaseModel):
    """What a probe is told."""

    status: str = Field(description="alive, ready or not ready.")


class ProcessView(ProcessStatus):
    """How a process stands, with what a person wants to know beside its state."""

    ready: bool = Field(description="Whether it runs, and its readiness check has passed.")
    healthy: bool | None = Field(description="What its health checks say; null: nothing yet.")
    restarts: int = Field(description="How often it has been restarted.")
    next_restart_at: datetime | None = Field(description="When it is restarted, if it waits.")
    reason: str = Field(description="The last thing that happened to it, in words.")
    started_at: datetime | None = Field(description="When its latest generation was started.")


class ProcessList(BaseModel):
    """All processes."""

    processes: list[ProcessView] = Field(description="The processes, in the order of the manifest.")


class LogLine(BaseModel):
    """One line that a process has printed."""

    number: int = Field(description="Its number; a later line has a higher one.")
    stream: str = Field(description="stdout or stderr.")
    text: str = Field(description="The line without its end.")
    timestamp: float = Field(description="When it was read, in seconds since the epoch.")


class LogLines(BaseModel):
    """The newest lines of a process."""

    lines: list[LogLine] = Field(description="The lines, the oldest first.")


class Usage(BaseModel):
    """What a process used at one moment, alone and with all that descends from it."""

    timestamp: datetime = Field(description="When that was.")
    cpu_percent: float = Field(description="Cpu in percent of one core, since the look before.")
    memory_mb: float = Field(description="Resident memory in MiB.")
    family_cpu_percent: float = Field(description="The same of it and all that descends from it.")
    family_memory_mb: float = Field(description="The same of it and all that descends from it.")
    family_size: int = Field(description="How many processes that are.")
    open_files: int | None = Field(description="Their open descriptors; null where unknown.")
    listening: list[str] | None = Field(description="TCP addresses they listen at; null: unknown.")


class ProcessUsage(BaseModel):
    """What a process has used lately."""

    name: str = Field(description="The process.")
    max_cpu_percent: float = Field(description="The highest cpu so far, of the process alone.")
    max_memory_mb: float = Field(description="The most memory so far, of the process alone.")
    history: list[Usage] = Field(description="The newest samples, the oldest first.")


class AllUsage(BaseModel):
    """What all processes use."""

    stats: dict[str, Usage] = Field(description="The newest sample of each that runs, by name.")


class Edge(BaseModel):
    """What a unit waits for."""

    name: str = Field(description="The unit that it needs.")
    condition: str = Field(description="What that must have come to.")


class StopView(BaseModel):
    """A stop under way."""

    left_sec: float = Field(description="Seconds that are left of it.")
    of_sec: float = Field(description="Seconds that it may take in all.")
    waits_for: str = Field(description="What it waits for, in words; empty where that is unknown.")


class UnitView(BaseModel):
    """How a unit of the tree stands, whatever its kind."""

    name: str = Field(description="Its name, with those of the units around it: worker/cpu-0.")
    kind: str = Field(description="process, service, or another kind.")
    state: str = Field(description="Its state, by the table of its kind.")
    stage: str = Field(description="Where it stands, the same words for all kinds.")
    ready: bool = Field(description="Whether it runs and is ready.")
    healthy: bool | None = Field(description="What its health checks say; null: nothing yet.")
    generation: int = Field(description="How often it has been started.")
    restarts: int = Field(description="How often its policy has restarted it.")
    reason: str = Field(description="The last thing that happened to it, in words.")
    note: str = Field(description="The last fact that is no reason, such as what had to be killed.")
    status_text: str = Field(description="What it says of itself.")
    requirements: list[Edge] = Field(description="What it needs before it starts.")
    waiting_for: list[str] = Field(description="What of that is not there yet.")
    next_restart_at: datetime | None = Field(description="When it is restarted, if it waits.")
    started_at: datetime | None = Field(description="When its latest generation was started.")
    ready_after_sec: float | None = Field(description="Seconds that it took to be ready.")
    ran_sec: float | None = Field(description="Seconds from start to end of an ended generation.")
    error: str | None = Field(description="What ended the last generation badly.")
    stop: StopView | None = Field(description="Its part of a stop under way.")
    pid: int | None = Field(
        default=None, description="Of a process or a worker that runs: its pid."
    )


class InFlight(BaseModel):
    """An invocation whose body runs, or waits for another one."""

    invocation_id: str = Field(description="Which one.")
    task: str = Field(description="The task that it calls.")
    runner: str = Field(description="The unit that runs it.")
    attempt: int = Field(description="1 for the first one.")
    paused: bool = Field(
        description="Whether it waits for others, and holds no slot of the runner."
    )
    running_sec: float = Field(description="Seconds since its body was begun.")


class TreeView(BaseModel):
    """How the whole tree stands."""

    version: str = Field(description="The version of what runs.")
    state: ServiceState = Field(description="The state of the application.")
    settled: bool = Field(description="Whether its start-up is over.")
    stopping: str | None = Field(description="Why it stops, if it does.")
    stop_left_sec: float | None = Field(description="Seconds that are left of a stop under way.")
    last_event: int = Field(description="The number of the newest event.")
    units: list[UnitView] = Field(description="All units, nested ones behind their own.")
    names: dict[str, list[str]] = Field(
        default={},
        description="Names that stand for several units: entries with replicas, and groups.",
    )
    invocations_in_flight: int = Field(
        default=0, description="How many invocations the runners of this tree run now."
    )
    invocations: list[InFlight] = Field(
        default=[], description="A hundred of these, those that have run the longest."
    )


class InvocationNewsView(BaseModel):
    """What an event tells of invocations."""

    status: InvocationStatus | None = Field(
        description="The status that they have come to; null: another process has changed some."
    )
    invocation_id: str | None = Field(description="Which one; null: they came too fast to be told.")
    task: str | None = Field(description="The task that it calls.")
    count: int = Field(description="How many there are.")


class EventView(BaseModel):
    """One event of the tree."""

    number: int = Field(description="Its number in the stream of events.")
    timestamp: datetime = Field(description="When it happened.")
    unit: str = Field(description="The unit that it is about; empty: the whole tree.")
    kind: str = Field(description="moved, asked, noted or invocation.")
    reason: str = Field(description="Why, or what, in words.")
    old: str | None = Field(description="The state before, if it moved.")
    new: str | None = Field(description="The state after, if it moved.")
    generation: int = Field(description="Which generation of the unit it is about.")
    cause: int | None = Field(description="The number of the event that led to it.")
    invocation: InvocationNewsView | None = Field(
        default=None, description="What it tells of invocations, where it is of that kind."
    )


class EventList(BaseModel):
    """Events of the tree."""

    events: list[EventView] = Field(description="The events, the oldest first.")


class EventQuery(BaseModel):
    """Which events."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=100, ge=0, le=1000, description="How many of the newest.")


class Why(BaseModel):
    """The chain of events behind the last change of a unit."""

    name: str = Field(description="The unit.")
    reason: str = Field(description="The last thing that happened to it, in words.")
    events: list[EventView] = Field(
        description="The events, the newest first, each the cause of the one before."
    )


class LogQuery(BaseModel):
    """Which lines of a process."""

    model_config = ConfigDict(extra="forbid")

    lines: int = Field(default=100, ge=0, le=10_000, description="How many of the newest lines.")
    stream: str | None = Field(
        default=None, pattern="^(stdout|stderr)$", description="stdout or stderr; unset: both."
    )
    follow: bool = Field(default=False, description="Go on with what comes, as server-sent events.")
    after: int | None = Field(
        default=None,
        ge=0,
        lt=10**18,
        description="With follow: begin behind the line of this number, as by Last-Event-ID.",
    )


class TaskView(BaseModel):
    """A task that may be submitted."""

    name: str = Field(description="Its name, module.function.")
    description: str = Field(description="The first line of its docstring.")
    parameters: list[str] = Field(description="The names of its parameters.")
    queue: str = Field(description="The queue that its invocations wait in.")


class TaskList(BaseModel):
    """All tasks."""

    tasks: list[TaskView] = Field(description="The tasks, in the order of their definition.")


class TaskSubmission(BaseModel):
    """What a task is to be called with, and when."""

    model_config = ConfigDict(extra="forbid")

    arguments: dict[str, JsonValue] = Field(default={}, description="The arguments, by name.")
    delay_sec: float = Field(
        default=0,
        ge=0,
        le=MOST_DELAY_SEC,
        allow_inf_nan=False,
        description="Seconds until it may be run.",
    )
    due_at: datetime | None = Field(
        default=None,
        description="When it may be run, with the time zone; in the place of a delay.",
        examples=["2026-03-02T09:00:00Z"],
    )
    priority: int | None = Field(
        default=None,
        ge=-1_000_000,
        le=1_000_000,
        description="Higher goes first; unset: the task's.",
    )
    queue: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="The queue that it waits in; unset: the task's.",
    )
    idempotency_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="The task is submitted once for each key; later ones get the first.",
    )

    @field_validator("due_at", mode="before")
    @classmethod
    def _read_due_at(cls, value: object, info: ValidationInfo) -> datetime | None:
        """Take text alone: of a number pydantic guesses whether it is seconds or milliseconds."""
        if value is None:
            return None
        if info.data.get("delay_sec"):
            raise PydanticCustomError("two_times", "goes without a delay")
        try:
            return due_in_utc(datetime.fromisoformat(value) if isinstance(value, str) else value)
        except ValueError:
            words = "must be a time with its zone, such as 2026-03-02T09:00:00Z"
            raise PydanticCustomError("no_moment", words) from None


class Submitted(BaseModel):
    """An invocation that is in the store."""

    invocation_id: str = Field(description="Its id.")
    status: InvocationStatus = Field(description="Its status.")


class InvocationTimes(BaseModel):
    """When what happened to an invocation."""

    created_at: datetime = Field(description="When it was submitted.")
    changed_at: datetime = Field(description="When it came to its status.")
    due_at: datetime | None = Field(description="When it may be run at the earliest.")


class InvocationView(BaseModel):
    """How an invocation stands."""

    invocation_id: str = Field(description="Its id.")
    task: str = Field(description="The task that it calls.")
    status: InvocationStatus = Field(description="Its status.")
    runner_id: str | None = Field(description="The runner that owns it.")
    arguments: JsonValue = Field(description="What the task is called with, by name.")
    arguments_cut: bool = Field(
        default=False,
        description="Whether that is the beginning of their JSON, as text: long ones in a list.",
    )
    timestamps: InvocationTimes = Field(description="When what happened.")
    parent: str | None = Field(description="The invocation that has submitted it.")
    workflow: str | None = Field(description="The workflow that it is part of.")
    queue: str = Field(description="The queue that it waits in.")
    priority: int = Field(description="Higher goes first.")
    attempts: int = Field(description="How often its body was begun.")
    cancel_requested: bool = Field(description="Whether its runner is to cancel it.")
    retry_of: str | None = Field(description="The failed invocation that it repeats.")


class InvocationList(BaseModel):
    """Some invocations."""

    invocations: list[InvocationView] = Field(description="The invocations, the newest first.")
    next: str | None = Field(description="The cursor for what comes after them, if anything does.")
    counts: dict[InvocationStatus, int] | None = Field(
        default=None, description="How many of all have which status; where that was asked for."
    )


def _as_list(value: object) -> object:
    """Return what stands in a query once as what stands there several times."""
    return [value] if isinstance(value, str) else value


class InvocationQuery(BaseModel):
    """Which invocations."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[list[InvocationStatus], BeforeValidator(_as_list)] = Field(
        default=[], description="Those of this status; given several times, of any of these."
    )
    task: str | None = Field(default=None, description="Those of this task, module.function.")
    workflow: str | None = Field(default=None, description="Those of this workflow.")
    parent: str | None = Field(
        default=None, description="Those that this invocation has submitted."
    )
    counts: bool = Field(default=False, description="Count all in the store as well, by status.")
    limit: int = Field(default=100, ge=1, le=1000, description="How many at most.")
    after: str | None = Field(default=None, description="The cursor of the page before.")


class HistoryLine(BaseModel):
    """Something that has happened to an invocation."""

    status: InvocationStatus | None = Field(description="The status it came to; null: a remark.")
    timestamp: datetime = Field(description="When.")
    runner_id: str | None = Field(description="Who owned it, or moved it.")
    context: JsonValue = Field(description="What else was told.")


class InvocationHistoryView(RootModel[list[HistoryLine]]):
    """All that has happened to an invocation, the oldest first."""


class ErrorView(BaseModel):
    """What a task has raised."""

    type: str = Field(description="The name of its class.")
    message: str = Field(description="What it says.")
    traceback: str = Field(description="Where in the task it was raised.")


class ResultQuery(BaseModel):
    """How long the end of an invocation is waited for."""

    model_config = ConfigDict(extra="forbid")

    wait_sec: float = Field(
        default=0,
        ge=0,
        le=LONGEST_WAIT_SEC,
        allow_inf_nan=False,
        description="Answer when it is over, and after so many seconds in any case.",
    )


class InvocationResult(BaseModel):
    """How an invocation has ended, or that it has not."""

    status: InvocationStatus = Field(description="Its status.")
    result: JsonValue = Field(default=None, description="What the task has returned.")
    error: ErrorView | None = Field(default=None, description="What it has raised.")
