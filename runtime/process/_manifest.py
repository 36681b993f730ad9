"""The processes of a manifest as a whole: paths, dependencies and their order."""

import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from runtime._documents import Location, read_document
from runtime.supervision._exceptions import DependencyCycleError
from runtime.supervision.graph import Condition, Requirement, start_order
from runtime.supervision.restart import RestartWhen

from .models import Process
from .readiness import REQUIRED_PARAMS
from .specs import Seconds

_HIGHEST_PORT = 65_535


class Problem(NamedTuple):
    """What is wrong at one place of a manifest; *location* is its key path.

    Where it goes through a list, a step is the entry's index, or its name.
    """

    location: Location
    message: str


class ProblemsError(ValueError):
    """What is wrong with the processes of a manifest, all of it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(f"{'.'.join(map(str, where))}: {what}" for where, what in self.problems)


class ProcessManifest(BaseModel):
    """The processes to run, ordered so that each comes after what it depends on.

    Validation applies the public methods below, one after the other; each may be called again.
    When the validation context is a list, the problems that they find are added to it; otherwise
    they are raised as a `ProblemsError`, which is a `ValueError`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    processes: list[Process] = Field(min_length=1, description="The processes to run.")
    control_server: str | None = Field(
        default=None, description="Name of the control server, from a plugin."
    )
    kill_timeout: Seconds = Field(
        default=5.0, description="Seconds to wait after SIGKILL before a survivor is named."
    )
    base_directory: Path | None = Field(
        default=None, description="Where relative paths start; unset: the manifest's own folder."
    )
    stop_within_sec: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds within which the whole tree has stopped.",
    )
    run_directory: Path | None = Field(
        default=None, description="Folder of the lock; unset: one per manifest, made for it."
    )

    @classmethod
    def from_json(cls, path: Path) -> Self:
        """Load a manifest from a JSON file; relative paths start at its folder."""
        return cls.from_yaml(path)

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Load a manifest from a YAML file; relative paths start at its folder."""
        path = Path(path)
        return cls.model_validate(with_base_directory(read_document(path).data, path.parent))

    @model_validator(mode="after")
    def _apply_all(self, info: ValidationInfo) -> Self:
        problems: list[Problem] = []
        steps: tuple[Callable[[], Self], ...] = (
            self.resolve_paths,
            self.resolve_dependencies,
            self.order_dependencies,
            self.validate_ready_config,
            self.validate_cpu_affinity,
            self.set_working_directory,
        )
        for step in steps:
            try:
                step()
            except ProblemsError as error:
                problems += error.problems
        if isinstance(info.context, list):
            info.context.extend(problems)
        else:
            _raise_any(problems)
        return self

    def resolve_paths(self) -> Self:
        """Make every executable's path absolute: by the base directory, a wildcard, or PATH."""
        base = self.base_directory = Path(os.path.abspath(self.base_directory or "."))  # noqa: PTH100 - symbolic links stay
        if self.run_directory is not None:
            self.run_directory = base / self.run_directory
        problems: list[Problem] = []
        for process in self.processes:
            try:
                process.resolve_path(base)
            except ValueError as error:
                problems.append(Problem(("processes", process.name, "path"), str(error)))
        _raise_any(problems)
        return self

    def resolve_dependencies(self) -> Self:
        """Put the processes themselves in the place of their names."""
        by_name = {process.name: process for process in self.processes}
        problems: list[Problem] = []
        for index, process in enumerate(self.processes):
            here: Location = ("processes", process.name)
            if any(process.name == other.name for other in self.processes[:index]):
                message = f"there is already a process {process.name!r}"
                problems.append(Problem(("processes", index, "name"), message))
            for requirement in process.requirements:
                message = _judge_requirement(requirement, by_name)
                if message:
                    problems.append(Problem((*here, "dependencies", requirement.name), message))
            process.dependencies = [by_name.get(r.name, r.name) for r in process.requirements]
        _raise_any(problems)
        return self

    def order_dependencies(self) -> Self:
        """Order the processes so that each comes after those it depends on."""
        by_name = {process.name: process for process in self.processes}
        needs = {
            name: [r for r in process.requirements if r.name in by_name]
            for name, process in by_name.items()
        }
        try:
            order = start_order(needs)
        except DependencyCycleError as error:
            _raise_any([Problem(("processes", error.cycle[0], "dependencies"), str(error))])
        else:
            if len(by_name) == len(self.processes):
                self.processes = [by_name[name] for name in order]
        return self

    def validate_ready_config(self) -> Self:
        """Check that every built-in readiness strategy has the parameters that it needs."""
        problems: list[Problem] = []
        for process in self.processes:
            here: Location = ("processes", process.name, "ready_params")
            strategy, params = process.ready_strategy or "", process.ready_params
            problems += [
                Problem((*here, name), f"is missing; the {strategy} strategy needs it")
                for name in REQUIRED_PARAMS.get(strategy, ())
                if params.get(name) is None
            ]
            port = params.get("port")
            if strategy == "tcp" and port is not None and not _is_port(port):
                message = f"must be a number from 1 to {_HIGHEST_PORT}"
                problems.append(Problem((*here, "port"), message))
        _raise_any(problems)
        return self

    def validate_cpu_affinity(self) -> Self:
        """Check that the CPUs that are asked for exist: logical ones, numbered from 0."""
        count = os.cpu_count() or 1
        problems: list[Problem] = []
        for process in self.processes:
            here: Location = ("processes", process.name, "affinity")
            if process.affinity == []:
                problems.append(Problem(here, "names no CPU; leave it out for all of them"))
            problems += [
                Problem((*here, place), f"there is no CPU {cpu} here, only 0 to {count - 1}")
                for place, cpu in enumerate(process.affinity or [])
                if not 0 <= cpu < count
            ]
        _raise_any(problems)
        return self

    def set_working_directory(self) -> Self:
        """Make folders absolute; unset, a process works in the folder of its executable."""
        base = self.base_directory or Path.cwd()
        problems: list[Problem] = []
        for process in self.processes:
            process.resolve_folders(base)
            folder = process.working_directory
            if folder is None or folder == process.path.parent:
                continue  # a program that is not there is a problem of its path
            if not folder.is_dir():
                location: Location = ("processes", process.name, "working_directory")
                problems.append(Problem(location, "there is no such folder"))
        _raise_any(problems)
        return self


def with_base_directory(data: object, folder: Path) -> object:
    """Return the data of a manifest with its own *folder* as what relative paths start at."""
    if not isinstance(data, Mapping):
        return data
    given = data.get("base_directory")
    base = folder / given if isinstance(given, str) else folder
    return (
        data
        if given is not None and not isinstance(given, str)
        else {
            **data,
            "base_directory": str(base),
        }
    )


def _raise_any(problems: list[Problem]) -> None:
    if problems:
        raise ProblemsError(problems)


def _is_port(value: object) -> bool:
    try:
        return not isinstance(value, bool) and 1 <= int(str(value)) <= _HIGHEST_PORT
    except ValueError:
        return False


def _judge_requirement(requirement: Requirement, by_name: Mapping[str, Process]) -> str:
    """Return what is wrong with an edge, nothing when it is fine."""
    needed = by_name.get(requirement.name)
    if needed is None:
        near = get_close_matches(requirement.name, by_name, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"there is no process {requirement.name!r}{hint}"
    completing = (Condition.COMPLETED, Condition.COMPLETED_SUCCESSFULLY)
    if (
        requirement.condition in completing
        and needed.restart_policy.when is RestartWhen.ALWAYS
        and needed.restart_policy.max_restarts is None
    ):
        return (
            f"{needed.name!r} never completes, for it is always restarted;"
            " give it `shutdown_strategy: do_not_restart`"
        )
    return ""
