"""What a manifest may say of tasks: the store, who runs them, and what is called at its start."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from runtime import _late
from runtime._problems import Location, Problem
from runtime._specs import (
    Count,
    CountAboveZero,
    IsNumber,
    NamedEntry,
    Seconds,
    SecondsAboveZero,
)
from runtime._user_modules import import_user_module
from runtime.supervision.restart import RestartPolicy, RestartWhen

Priority = Annotated[int, Field(ge=-1_000_000, le=1_000_000), IsNumber]
QueueName = Annotated[str, Field(min_length=1, max_length=200)]
#: Nothing could be called then.
NO_MODULES = Problem(("tasks", "modules"), "names no module; name those that define tasks")
_ALWAYS = RestartPolicy(when=RestartWhen.ALWAYS, first_at_once=True)


class RunnerEntry(NamedEntry):
    """One runner: what takes calls of tasks from the store, and runs them."""

    section: ClassVar[Location] = ("tasks", "runners")
    noun: ClassVar[str] = "runner"

    concurrency: CountAboveZero = Field(
        default=10, description="How many calls it runs at once.", examples=[10]
    )
    queues: list[QueueName] | None = Field(
        default=None,
        description="The queues that it takes from; unset: all.",
        examples=[["mails", "default"]],
    )
    processes: Count = Field(
        default=0,
        description="How many worker processes it has for tasks that are `cpu_bound`; 0: as many"
        " as there are cores, where there are such tasks.",
    )
    recycle_after: CountAboveZero | None = Field(
        default=None,
        description="Calls after which a worker process is replaced by a new one, where a library"
        " leaks; unset: never.",
        examples=[100],
    )
    drain_sec: Seconds | None = Field(
        default=None,
        description="Seconds that it waits for what runs when it is to stop; unset: what the stop"
        " of the tree has.",
        examples=[10],
    )

    @property
    def restart_policy(self) -> RestartPolicy:
        """Always: a runner that has failed is started again."""
        return _ALWAYS


class JobEntry(NamedEntry):
    """One call of a task, made each time that the manifest is run; a unit that others may need."""

    section: ClassVar[Location] = ("jobs",)
    noun: ClassVar[str] = "job"

    task: str = Field(
        min_length=1,
        description="The task: `module.function`, or the function's name where one has it.",
        examples=["shop.tasks.migrate"],
    )
    arguments: dict[str, Any] = Field(
        default={}, description="What it is called with, by name.", examples=[{"to": "head"}]
    )
    queue: QueueName | None = Field(
        default=None,
        description="The queue that it waits in; unset: the task's.",
        examples=["slow"],
    )
    priority: Priority | None = Field(
        default=None, description="Higher goes first; unset: the task's.", examples=[10]
    )


class TasksSpec(BaseModel):
    """Tasks of a manifest: where their calls are kept, and what runs them."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    state_backend: str = Field(
        default="memory://",
        min_length=1,
        description="Where calls are kept: `memory://`, `sqlite:///PATH` from the base directory,"
        " or the URL of another store that is installed.",
        examples=["sqlite:///runtime.db"],
    )
    modules: list[str] = Field(
        default=[],
        description="The modules that define tasks, importable from the base directory.",
        examples=[["shop.tasks"]],
    )
    runners: list[RunnerEntry] = Field(
        default_factory=lambda: [RunnerEntry(name="runner")],
        description="What runs them; [] for none here. Unset: one that is called `runner`.",
        examples=[[{"name": "worker", "concurrency": 10}]],
    )
    heartbeat_sec: SecondsAboveZero = Field(
        default=1.0, description="Seconds from one sign of life of a runner to the next."
    )
    lease_sec: SecondsAboveZero = Field(
        default=10.0, description="Seconds without a sign of life after which a runner is dead."
    )
    max_pending_sec: SecondsAboveZero = Field(
        default=5.0,
        description="Seconds after which a call that was taken and not begun is given to another.",
    )
    quarantine_after: CountAboveZero = Field(
        default=3, description="Deaths of workers after which the call that they ran has failed."
    )
    keep_results_sec: Seconds | None = Field(
        default=None,
        description="Seconds that calls are kept after they are over; unset: for ever.",
        examples=[604_800],
    )

    _home: Any = PrivateAttr(default=None)

    @property
    def home(self) -> Any:  # noqa: ANN401 - a TaskHome, whose room is loaded late
        """All tasks of the modules, once they were imported."""
        return self._home

    def find_problems(self, folder: Path) -> Iterator[Problem]:
        """Import the modules, and yield what is wrong with them or with the store's URL."""
        tasks = _late.tasks()
        self._home = tasks.TaskHome()
        if not self.modules:
            yield NO_MODULES
        for place, name in enumerate(self.modules):
            here: Location = ("tasks", "modules", place)
            try:
                module = import_user_module(name, folder)
                tasks.adopt_tasks(self._home, module)
            except ValueError as error:
                yield Problem(here, str(error))
        problem = tasks.store_problem(self.store_url(folder))
        if problem is not None:
            yield Problem(("tasks", "state_backend"), problem)
        for problem in tasks.signature_problems(self._home):
            yield Problem(("tasks", "modules"), problem)
        if self.lease_sec <= self.heartbeat_sec:
            words = f"must be longer than heartbeat_sec ({self.heartbeat_sec:g})"
            yield Problem(("tasks", "lease_sec"), words)

    def store_url(self, folder: Path) -> str:
        """Return the URL of the store, whose relative path starts at *folder*."""
        scheme, found, path = self.state_backend.partition(":///")
        if scheme != "sqlite" or not found or path.startswith("/"):
            return self.state_backend
        return f"sqlite:///{(folder / path).absolute()}"


def job_problems(jobs: list[JobEntry], tasks: TasksSpec | None) -> Iterator[Problem]:
    """Yield what is wrong with the calls of *jobs*."""
    if tasks is None:
        for job in jobs:
            yield Problem(
                (*job.location, "task"), "there are no tasks; name their modules in tasks"
            )
        return
    for job in jobs:
        for where, words in _late.tasks().call_problems(tasks.home, job.task, job.arguments):
            yield Problem((*job.location, where), words)
