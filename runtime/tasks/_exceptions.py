"""What can be wrong with a task, or with what it is given.

TaskError
├── TaskDefinitionError   (TypeError) a function cannot be a task as it is written
├── TaskArgumentsError    (ValueError) it cannot be called so; nothing was submitted
├── TaskResultError       what it has returned does not fit its annotation, or JSON
├── OnlySubmitsError      a body in a worker process has asked for more than to submit
├── UnknownTaskError      (LookupError)
├── DuplicateTaskError    (ValueError)
└── JobFailedError        the call that a job has made has failed
"""

from __future__ import annotations

from collections.abc import Iterable

from runtime._problems import did_you_mean


class TaskError(Exception):
    """The base of every error of this package."""


class TaskDefinitionError(TaskError, TypeError):
    """A function cannot be a task: *problem* says why, and what to change."""

    task: str
    problem: str

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(task, problem)
        self.task, self.problem = task, problem

    def __str__(self) -> str:
        return f"task {self.task}: {self.problem}"


class TaskArgumentsError(TaskError, ValueError):
    """A task cannot be called with these arguments; *problems* has a line for each of them."""

    task: str
    problems: tuple[str, ...]

    def __init__(self, task: str, problems: Iterable[str]) -> None:
        self.task, self.problems = task, tuple(problems)
        super().__init__(task, self.problems)

    def __str__(self) -> str:
        return f"task {self.task} cannot be called so: {'; '.join(self.problems)}"


class TaskResultError(TaskError):
    """A task has returned what does not fit its annotation, or what JSON cannot hold."""

    task: str
    problem: str

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(task, problem)
        self.task, self.problem = task, problem

    def __str__(self) -> str:
        return f"task {self.task} has returned what it may not: {self.problem}"


class OnlySubmitsError(TaskError):
    """A body that is cpu_bound can submit calls, and not wait for them or ask about them."""

    wanted: str

    def __init__(self, wanted: str) -> None:
        super().__init__(wanted)
        self.wanted = wanted

    def __str__(self) -> str:
        return (
            "a task that is cpu_bound can submit others, and do nothing else with them"
            f" ({self.wanted}): let a task that is not, an async one or one in a thread,"
            " submit both and wait"
        )


class UnknownTaskError(TaskError, LookupError):
    """No task has this name, or several have it as the name of their function."""

    name: str
    known: tuple[str, ...]
    ambiguous: bool

    def __init__(self, name: str, known: Iterable[str], *, ambiguous: bool = False) -> None:
        self.name, self.known, self.ambiguous = name, tuple(sorted(known)), ambiguous
        super().__init__(name, self.known)

    def __str__(self) -> str:
        if self.ambiguous:
            return f"several tasks are named {self.name!r}; say which: {', '.join(self.known)}"
        functions = [each.rpartition(".")[2] for each in self.known]
        return f"there is no task {self.name!r}{did_you_mean(self.name, [*self.known, *functions])}"


class DuplicateTaskError(TaskError, ValueError):
    """Two functions of the same module and name were to be tasks."""

    name: str

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is a task {self.name!r} already; give this function another name"


class JobFailedError(TaskError):
    """The task that a job has called has raised an error, of class *type*, for the last time."""

    job: str
    task: str
    type: str
    message: str

    def __init__(self, job: str, task: str, type: str, message: str) -> None:  # noqa: A002 - the field's name
        super().__init__(job, task, type, message)
        self.job, self.task, self.type, self.message = job, task, type, message

    def __str__(self) -> str:
        return f"{self.task} has failed: {self.type}: {self.message}"
