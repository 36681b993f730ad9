"""The processes of a manifest as a whole: paths, dependencies and their order."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from runtime._documents import read_document
from runtime._groups import GroupSpec, companions, find_group_problems, units_by_name
from runtime._interpolation import EnvFileError, read_env_file
from runtime._problems import Named, Problem, ProblemsError, did_you_mean, raise_any
from runtime._secrets import SecretSource
from runtime._specs import Entry, FilePath, Period, Seconds, SecondsAboveZero, UnitName
from runtime.supervision._exceptions import DependencyCycleError
from runtime.supervision.graph import Condition, Requirement, start_order
from runtime.supervision.restart import RestartWhen

from ._executable import Finder, is_folder
from ._liveness_checks import find_liveness_problems
from ._log_checks import find_log_problems
from ._source import expand_replicas, prepare
from .models import Process
from .privileges import Rights

# Replicas that wait for replicas: a few lines could ask for half a million edges.
_MOST_EDGES = 50_000


class ProcessManifest(BaseModel):
    """The processes to run, ordered so that each comes after what it depends on.

    Validation applies the public methods below, one after the other; each may be called again.
    When the validation context is a list, the problems that they find are added to it; otherwise
    they are raised as a `ProblemsError`, which is a `ValueError`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    processes: list[Process] = Field(
        min_length=1,
        description="The processes to run, in any order.",
        examples=[[{"name": "web", "path": "python3", "args": ["-m", "http.server"]}]],
    )
    control_server: UnitName | None = Field(
        default=None,
        description="Name of a control server: `tcp`, or one that a plugin provides; unset: none.",
        examples=["tcp"],
    )
    control_params: dict[str, Any] = Field(
        default={},
        description="What the control server is told. For `tcp`, `bind` says where it listens, as"
        " HOST:PORT or unix:PATH; unset: at 127.0.0.1, on a free port.",
        examples=[{"bind": "127.0.0.1:8409"}, {"bind": "unix:run/control.sock"}],
    )
    kill_timeout: Seconds = Field(
        default=5.0, description="Seconds to wait after SIGKILL before a survivor is named."
    )
    base_directory: FilePath | None = Field(
        default=None,
        description="Where relative paths start; unset: the manifest's own folder.",
        examples=["/srv/shop"],
    )
    stop_within_sec: SecondsAboveZero = Field(
        default=30.0,
        description="Seconds within which the whole tree has stopped.",
        examples=[60],
    )
    run_directory: FilePath | None = Field(
        default=None,
        description="Folder of the lock; unset: one per manifest, made for it.",
        examples=["/run/shop"],
    )
    env_file: FilePath | None = Field(
        default=None,
        description="File of NAME=value lines: for ${NAME} in the manifest, and in the environment"
        " of every process; our own environment wins over it. Unset: none.",
        examples=[".env"],
    )
    stats_interval_sec: Period | None = Field(
        default=None,
        description="Seconds between two looks at what the processes use, while somebody wants to"
        " know; unset: 1, and in Python what `ProcessPilot` is given.",
        examples=[5],
    )
    plugins: FilePath | None = Field(
        default=None,
        description="Folder of Python files that define plugins; unset: none.",
        examples=["plugins"],
    )
    groups: list[GroupSpec] = Field(
        default=[],
        description="Units that are restarted together; unset: none.",
        examples=[[{"name": "web", "strategy": "one_for_all", "members": ["api", "worker"]}]],
    )
    schema_address: str | None = Field(
        default=None,
        alias="$schema",
        exclude=True,
        repr=False,
        description="Where an editor finds the schema of manifests; nothing here reads it.",
        examples=["./manifest.schema.json"],
    )

    _secret_source: SecretSource | None = PrivateAttr(default=None)

    @classmethod
    def from_json(cls, path: Path) -> Self:
        """Load a manifest from a JSON file; relative paths start at its folder."""
        return cls._from_file(Path(path), ".json")

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Load a manifest from a TOML file; relative paths start at its folder."""
        return cls._from_file(Path(path), ".toml")

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Load a manifest from a YAML file, or from one that ends in ``.json`` or ``.toml``.

        Relative paths start at its folder.
        """
        return cls._from_file(Path(path))

    @classmethod
    def _from_file(cls, path: Path, suffix: str | None = None) -> Self:
        source = prepare(read_document(path, suffix).data, path.parent)
        raise_any(list(source.problems))
        return cls.model_validate(source.data)

    @model_validator(mode="before")
    @classmethod
    def _expand_replicas(cls, data: Any) -> Any:  # noqa: ANN401 - whatever is to be validated
        entries = data.get("processes") if isinstance(data, Mapping) else None
        if not isinstance(entries, list):
            return data
        return {**data, "processes": [entry for _, entry in expand_replicas(entries)]}

    @model_validator(mode="after")
    def _apply_all(self, info: ValidationInfo) -> Self:
        for place, process in enumerate(self.processes):
            process.note_place(place)
        problems: list[Problem] = []
        for step in self._steps():
            try:
                step()
            except ProblemsError as error:
                problems += error.problems
        if isinstance(info.context, list):
            info.context.extend(problems)
        else:
            raise_any(problems)
        return self

    def _steps(self) -> Sequence[Callable[[], Self]]:
        return [
            self.load_env_file,
            self.resolve_paths,
            self.resolve_dependencies,
            self.order_dependencies,
            self.validate_groups,
            self.validate_ready_config,
            self.validate_cpu_affinity,
            self.validate_privileges,
            self.set_working_directory,
            self.validate_logs,
            self.validate_liveness,
            self.validate_secrets,
            self.validate_control_server,
        ]

    def entries(self) -> Sequence[Entry]:
        """Return the entries of all kinds: their names share one space, and they one graph."""
        return self.processes

    def members_by_name(self) -> dict[str, list[Process]]:
        """Return each process by its name, and all replicas of an entry by that of the entry."""
        found: dict[str, list[Process]] = {}
        for process in self.processes:
            for name in {process.name, process.replica_of or process.name}:
                found.setdefault(name, []).append(process)
        return found

    def unit_names(self, name: str) -> list[str]:
        """Return the units that *name* stands for: one, all replicas of an entry, or a group."""
        units = units_by_name(self.entries())
        members = (group.members for group in self.groups if group.name == name)
        return [unit for member in next(members, [name]) for unit in units.get(member, ())]

    def companions(self) -> Mapping[str, tuple[str, ...]]:
        """Return for each unit that is in a group those that are restarted with it."""
        return companions(self.groups, self.entries())

    def load_env_file(self) -> Self:
        """Hand the variables of the ``env_file`` to every process."""
        if self.env_file is None:
            self._secret_source = SecretSource(self._base())
            return self
        self.env_file = self._base() / self.env_file
        try:
            variables = read_env_file(self.env_file)
        except EnvFileError as error:
            raise ProblemsError([Problem(("env_file",), str(error))]) from error
        self._secret_source = SecretSource(self._base(), variables)
        for process in self.processes:
            process.share_env(variables)
        return self

    def resolve_paths(self) -> Self:
        """Make every executable's path absolute: by the base directory, a wildcard, or PATH."""
        base = self.base_directory = self._base()
        if self.run_directory is not None:
            self.run_directory = base / self.run_directory
        problems: list[Problem] = []
        if self.plugins is not None:
            self.plugins = base / self.plugins
            if not is_folder(self.plugins):
                problems.append(Problem(("plugins",), "there is no such folder"))
        find = Finder()
        for process in self.processes:
            try:
                process.resolve_path(base, find)
            except ValueError as error:
                problems.append(Problem((*process.location, "path"), str(error)))
            try:
                process.resolve_stop_command(base, find)
            except ValueError as error:
                problems.append(Problem((*process.location, "stop_command", 0), str(error)))
        raise_any(problems)
        return self

    def _base(self) -> Path:
        return Path(os.path.abspath(self.base_directory or "."))  # noqa: PTH100 - links stay

    def resolve_dependencies(self) -> Self:
        """Put the processes themselves in the place of their names: all replicas of an entry."""
        entries = self.entries()
        problems = _find_duplicates(entries)
        known: dict[str, list[Entry]] = {}
        for entry in entries:
            known.setdefault(entry.name, [entry])
            if entry.replica_of is not None:
                known.setdefault(entry.replica_of, []).append(entry)
        edges = 0
        for entry in entries:
            edges += sum(len(known.get(each.name, ())) for each in entry.requirements)
            if edges > _MOST_EDGES:
                message = f"there are more than {_MOST_EDGES} of them, replicas counted"
                problems.append(Problem((*entry.location, "dependencies"), message))
                break
            problems += _judge_edges(entry, known, problems)
            entry.resolve_dependencies(known)
        raise_any(problems)
        return self

    def order_dependencies(self) -> Self:
        """Order the processes so that each comes after those it depends on."""
        by_name = {entry.name: entry for entry in self.entries()}
        needs = {
            name: [r for r in entry.requirements if r.name in by_name]
            for name, entry in by_name.items()
        }
        try:
            order = start_order(needs)
        except DependencyCycleError as error:
            location = by_name[error.cycle[0]].location
            raise ProblemsError([Problem((*location, "dependencies"), str(error))]) from error
        if len(by_name) == len(self.entries()):
            self._apply_order({name: place for place, name in enumerate(order)})
        return self

    def _apply_order(self, order: Mapping[str, int]) -> None:
        self.processes.sort(key=lambda process: order[process.name])

    def validate_groups(self) -> Self:
        """Check that groups have names of their own, and that each member is a unit in one."""
        raise_any(list(find_group_problems(self.groups, self.entries())))
        return self

    def validate_ready_config(self) -> Self:
        """Check what every built-in readiness strategy is told, and make its paths absolute."""
        problems: list[Problem] = []
        base, find = self._base(), Finder()
        for process in self.processes:
            try:
                process.bind_check(base, find)
            except ProblemsError as error:
                here = (*process.location, "ready_params")
                problems += [Problem((*here, *where), what) for where, what in error.problems]
        raise_any(problems)
        return self

    def validate_cpu_affinity(self) -> Self:
        """Check that the CPUs that are asked for exist: logical ones, numbered from 0."""
        count = os.cpu_count() or 1
        problems: list[Problem] = []
        for process in self.processes:
            here = (*process.location, "affinity")
            if process.affinity == []:
                problems.append(Problem(here, "names no CPU; leave it out for all of them"))
            problems += [
                Problem((*here, place), f"there is no CPU {cpu} here, only 0 to {count - 1}")
                for place, cpu in enumerate(process.affinity or [])
                if not 0 <= cpu < count
            ]
        raise_any(problems)
        return self

    def validate_privileges(self) -> Self:
        """Check that users and groups exist, and that we may give what each process asks for."""
        rights = Rights.ours()
        problems: list[Problem] = []
        for process in self.processes:
            process.resolve_privileges(rights, problems)
        raise_any(problems)
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
            if not is_folder(folder):
                location = (*process.location, "working_directory")
                problems.append(Problem(location, "there is no such folder"))
        raise_any(problems)
        return self

    def validate_logs(self) -> Self:
        """Check that every log can be written, and that no two processes write to one file."""
        raise_any(list(find_log_problems(self.processes)))
        return self

    def validate_liveness(self) -> Self:
        """Check what every health check is told, and that a process can be told of its watchdog."""
        raise_any(list(find_liveness_problems(self.processes, self._base())))
        return self

    @property
    def secret_source(self) -> SecretSource | None:
        """Where references to secrets are looked up; None where the `env_file` is of no use."""
        return self._secret_source

    def validate_secrets(self) -> Self:
        """Check that the secrets of processes are there, as far as that can be known before."""
        source = self.secret_source
        if source is not None:
            raise_any([p for each in self.processes for p in each.find_secret_problems(source)])
        return self

    def validate_control_server(self) -> Self:
        """Check that the control server's unit has a name of its own, and its settings a reader."""
        problems: list[Problem] = []
        name = self.control_server
        kinds = [each.kind for each in self.entries() if name in (each.name, each.replica_of)]
        kinds += ["group" for group in self.groups if group.name == name]
        if name is not None and kinds:
            words = f"there is already a {kinds[0]} {name!r}, and the control server is a unit, too"
            problems.append(Problem(("control_server",), f"{words}; rename the {kinds[0]}"))
        if name is None and self.control_params:
            words = "there is no control server to read this; name one as control_server"
            problems.append(Problem(("control_params",), words))
        raise_any(problems)
        return self


def _find_duplicates(entries: Sequence[Entry]) -> list[Problem]:
    problems: list[Problem] = []
    groups = {entry.replica_of: entry.kind for entry in entries if entry.replica_of is not None}
    seen: dict[str, str] = {}
    for entry in entries:
        kind = seen.get(entry.name) or groups.get(entry.name)
        if kind is not None:
            message = f"there is already a {kind} {entry.name!r}"
            problems.append(Problem((*entry.location, "name"), message))
        seen.setdefault(entry.name, entry.kind)
    return problems


def _judge_edges(
    entry: Entry, known: Mapping[str, Sequence[Entry]], told: Sequence[Problem]
) -> Iterator[Problem]:
    here = (*entry.location, "dependencies")
    judged: dict[Requirement, str] = {}
    for place, edge in enumerate(entry.edges):
        if edge not in judged:
            judged[edge] = _judge_edge(edge, known, told)
        if judged[edge]:
            yield Problem((*here, Named(edge.name, place)), judged[edge])


def _judge_edge(
    edge: Requirement, known: Mapping[str, Sequence[Entry]], told: Sequence[Problem]
) -> str:
    """Return what is wrong with an edge, nothing when it is fine."""
    name = edge.name
    if name not in known:
        kinds = sorted({entry.kind for entries in known.values() for entry in entries[:1]})
        return f"there is no {' or '.join(kinds)} {name!r}{did_you_mean(name, known, told=told)}"
    completing = (Condition.COMPLETED, Condition.COMPLETED_SUCCESSFULLY)
    for needed in known[name] if edge.condition in completing else ():
        policy = needed.restart_policy
        if policy.when == RestartWhen.ALWAYS and policy.max_restarts is None:
            remedy = (
                "`shutdown_strategy: do_not_restart`"
                if needed.kind == "process"
                else "another `restart`"
            )
            return f"{name!r} never completes, for it is always restarted; give it {remedy}"
    return ""
