"""The models of processes: what the user wants of one, and how it stands."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import trio
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    InstanceOf,
    PrivateAttr,
    Tag,
    field_serializer,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from runtime._problems import Location, Named, Problem
from runtime._secrets import SecretSource, has_secrets, resolve_secrets
from runtime._specs import (
    Dependency,
    Entry,
    FilePath,
    Period,
    RestartSpec,
    Seconds,
    SecondsAboveZero,
    Text,
    UnitName,
)
from runtime.supervision._exceptions import in_words
from runtime.supervision.graph import Condition, Requirement
from runtime.supervision.lifecycle import Lifecycle
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.unit import UnitHandle

from ._exceptions import HookError
from ._executable import Finder
from ._inherited import hand_down
from ._state import ProcessState, process_lifecycle
from .hooks import call_plugin, one_at_a_time
from .host import Host
from .output import Output
from .popen import PopenView
from .privileges import Privileges, Rights, Wishes, decide, judge_program
from .readiness import STRATEGIES, BoundCheck, Candidate, bind, wait_ready
from .sampler import StatHandlerType as StatHandlerType
from .specs import (
    RLIMITS,
    Account,
    CeilingsSpec,
    CommandLine,
    Cpu,
    ExitCode,
    LogSpec,
    Nice,
    ProcessHealthSpec,
    Replicas,
    Rlimit,
    SignalName,
    Umask,
    VariableName,
)
from .stats import ProcessRuntimeInfo, ProcessStats

# Of the time that an `on_shutdown` hook has, however short the `timeout` is.
_LEAST_HOOK_SEC = 1.0

#: What runs a ``command``.
SHELL: Final = "/bin/sh"

ProcessHookType = Literal["pre_start", "post_start", "on_shutdown", "on_restart"]
LifecycleHookType = Callable[["Process", PopenView | None], Awaitable[None] | None]
ReadyStrategyType = Callable[["Process", float], Awaitable[bool] | bool]


class ProcessStatus(BaseModel):
    """How a process stands; *pid* is 0 and *return_code* set once it has ended."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    name: str = Field(description="Name of the process.")
    pid: int = Field(description="Its pid, 0 when nothing of it runs.")
    status: ProcessState = Field(description="Its state.")
    return_code: int | None = Field(description="How it ended, -n for signal n; None before that.")


def _kind_of_entry(entry: object) -> str:
    return "process" if isinstance(entry, Process) else "name" if isinstance(entry, str) else "edge"


DependencyEntry = Annotated[
    Annotated[UnitName, Tag("name")]
    | Annotated[Dependency, Tag("edge")]
    | Annotated[SkipJsonSchema[InstanceOf["Process"]], Tag("process")],  # in Python only
    Discriminator(_kind_of_entry),
]


def _no_hooks() -> dict[ProcessHookType, list[LifecycleHookType]]:
    return {"pre_start": [], "post_start": [], "on_shutdown": [], "on_restart": []}


class Process(BaseModel):
    """One program of a manifest: what is to be run and how, and a façade over its one state."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    name: UnitName = Field(
        description="Its name; no other process has it, and no slash is in it.",
        examples=["api"],
    )
    working_directory: FilePath | None = Field(
        default=None,
        description="Where it runs; unset: the folder of the executable, or the base directory for"
        " a name found on PATH.",
        examples=["data"],
    )
    path: FilePath = Field(
        description="The executable: a path, a wildcard with one match, or a name to look up on"
        " PATH.",
        examples=["bin/server", "python3"],
    )
    args: list[Text] = Field(
        default=[],
        description="The arguments, handed over without a shell; unset: none.",
        examples=[["-m", "shop.api"]],
    )
    command_line: CommandLine | None = Field(
        default=None,
        alias="command",
        description="A line for the shell, /bin/sh, in place of `path` and `args`; unset: those.",
        examples=["umask 077; exec bin/server"],
    )
    env: dict[VariableName, Text] = Field(
        default_factory=dict,
        description="Variables, merged over the runtime's own environment; a value may refer to"
        " secrets, which are looked up at each start. Unset: just that environment.",
        examples=[{"LOG_LEVEL": "debug"}, {"DB_PASSWORD": "${secret://file/db.password}"}],
    )
    timeout: Seconds | None = Field(
        default=5.0,
        description="Seconds between the stop signal and SIGKILL; null: what the stop has left.",
        examples=[30],
    )
    shutdown_strategy: Literal["restart", "do_not_restart", "shutdown_everything"] | None = Field(
        default="restart",
        description="What follows its end, unless `restart` says otherwise: a restart, nothing, or"
        " the stop of the whole tree.",
    )
    dependencies: list[DependencyEntry] = Field(
        default=[],
        repr=False,  # the whole graph would unfold
        description="What must be ready, or meet another condition, before it starts: names, or"
        " {name, condition}; unset: nothing.",
        examples=[["db", {"name": "migrate", "condition": "completed_successfully"}]],
    )
    lifecycle_hooks: list[str] = Field(
        default=[],
        description="Names of hooks that plugins provide; unset: none.",
        examples=[["announce"]],
    )
    hook_failure: Literal["fail", "ignore"] = Field(
        default="fail",
        description="What a failing hook does to a start: fail it like a crash, or just be told.",
    )
    stat_handlers: list[str] = Field(
        default=[],
        description="Names of statistics handlers that plugins provide; unset: none.",
        examples=[["export"]],
    )
    ready_strategy: str | None = Field(
        default=None,
        description="How readiness is checked, by a built-in check or a plugin's; unset: ready"
        " once it is spawned.",
        examples=list(STRATEGIES),
    )
    affinity: list[Cpu] | None = Field(
        default=None,
        description="The logical CPUs that it may run on, numbered from 0; unset: all.",
        examples=[[0, 1]],
    )
    ready_timeout_sec: Seconds = Field(
        default=5.0,
        description="Seconds within which it must be ready; else it has failed, and is stopped.",
        examples=[60],
    )
    ready_params: dict[str, Any] = Field(
        default_factory=dict,
        description="What `ready_strategy` needs, such as the port of tcp; unset: nothing.",
        examples=[{"port": 5432}, {"path": "run/ready"}],
    )
    health: ProcessHealthSpec | None = Field(
        default=None,
        description="A check that is made again and again while it is ready; what fails it too"
        " often has failed, is stopped, and its policy applies. Unset: none.",
        examples=[{"interval_sec": 5}, {"strategy": "tcp", "params": {"port": 8080}}],
    )
    watchdog_sec: Period | None = Field(
        default=None,
        description="Seconds within which it has to send WATCHDOG=1, time after time, by the"
        " protocol of sd_notify; else it has failed. Unset: it need not.",
        examples=[30],
    )
    restart: RestartSpec | None = Field(
        default=None,
        description="When and how it is restarted; unset: by `shutdown_strategy`.",
        examples=[{"when": "failure", "max_restarts": 10}],
    )
    success_exit_codes: list[ExitCode] = Field(
        default=[0],
        min_length=1,
        description="Exit codes, 0 to 255, and names of signals that are a good end of it.",
        examples=[[0, 3, "SIGTERM"]],
    )
    max_run_sec: SecondsAboveZero | None = Field(
        default=None,
        description="Seconds that it may run; after them it has failed, and is stopped. Unset: no"
        " limit.",
        examples=[3600],
    )
    restart_dependents: bool = Field(
        default=False, description="Whether its restarts restart what depends on it."
    )
    autostart: bool = Field(
        default=True,
        description="Whether it starts with the tree; otherwise when it is asked to, or needed.",
    )
    stop_signal: SignalName = Field(
        default="SIGTERM",
        description="The signal that asks the process and all that descends from it to stop.",
        examples=["SIGINT"],
    )
    stop_command: Annotated[list[Text], Field(min_length=1)] | None = Field(
        default=None,
        description="A program, and its arguments, that asks it to stop in place of `stop_signal`;"
        " it finds the pid as RUNTIME_PID. Unset: the signal.",
        examples=[["nginx", "-s", "quit"]],
    )
    replicas: Replicas | None = Field(
        default=None,
        description="So many of it run, named NAME-0, NAME-1 …, each with its number as REPLICA"
        " in its environment and as ${REPLICA} in its fields; unset: just one, named NAME.",
        examples=[3],
    )
    replica_of: SkipJsonSchema[str | None] = Field(
        default=None, description="The entry that it is a replica of; set when that is expanded."
    )
    log: LogSpec | None = Field(
        default=None,
        description="A file that gets what it prints as well; unset: none.",
        examples=[{"file": "logs/api.log", "max_mb": 50, "keep": 5}],
    )
    user: Account = Field(
        default=None,
        description="The user that it runs as, a name or a uid; unset: as we do.",
        examples=["postgres", 1000],
    )
    group: Account = Field(
        default=None,
        description="Its group, a name or a gid; unset: that of `user`, and without one ours.",
        examples=["www-data", 1000],
    )
    umask: Umask | None = Field(
        default=None,
        description='What its new files are denied, as octal digits: "027"; unset: as with us.',
        examples=["027"],
    )
    nice: Nice | None = Field(
        default=None,
        description="Its nice value, -20 (runs first) to 19 (runs last); unset: as with us.",
        examples=[10],
    )
    rlimits: dict[str, Rlimit] = Field(
        default_factory=dict,
        description=(
            "Its limits, named as in setrlimit(2) and in the units there (bytes, seconds, numbers):"
            ' one for soft and hard, or [soft, hard], each may be "unlimited"; unset: as with us.'
        ),
        examples=[{"nofile": 4096, "core": 0, "nproc": [100, 200]}],
        json_schema_extra={"propertyNames": {"enum": list(RLIMITS)}},
    )

    ceilings: CeilingsSpec | None = Field(
        default=None,
        description="How much memory and cpu it may use; using more is a failure of it. Unset: as"
        " much as there is.",
        examples=[{"memory_mb": 500}, {"cpu_percent": 180, "for_sec": 30, "of": "process"}],
    )

    _lifecycle: Lifecycle[ProcessState] = PrivateAttr()
    _conditions: dict[str, Condition] = PrivateAttr(default_factory=dict)
    _place: int | None = PrivateAttr(default=None)
    _shared_env: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _secret_source: SecretSource = PrivateAttr(default_factory=SecretSource)
    _info: ProcessRuntimeInfo = PrivateAttr(default_factory=ProcessRuntimeInfo)
    _output: Output = PrivateAttr(default_factory=Output)
    _pid: int = PrivateAttr(default=0)
    _return_code: int | None = PrivateAttr(default=None)
    _found_on_path: bool = PrivateAttr(default=False)
    _privileges: Privileges | None = PrivateAttr(default=None)
    _hook_names: list[tuple[LifecycleHookType, str]] = PrivateAttr(default_factory=list)
    _hooks: dict[ProcessHookType, list[LifecycleHookType]] = PrivateAttr(default_factory=_no_hooks)
    _stat_handlers: list[StatHandlerType] = PrivateAttr(default_factory=list)
    _ready_strategy: ReadyStrategyType | None = PrivateAttr(default=None)
    _check: BoundCheck | None = PrivateAttr(default=None)
    _health_strategy: ReadyStrategyType | None = PrivateAttr(default=None)
    _health_check: BoundCheck | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _accept_other_spellings(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        if "processor_affinity" in data:
            if "affinity" in data:
                raise ValueError(
                    "has both `affinity` and `processor_affinity`; leave one of them out"
                )
            data["affinity"] = data.pop("processor_affinity")
        if data.get("command") is not None:
            data.setdefault("path", SHELL)
        return data

    @model_validator(mode="after")
    def _check_command_line(self) -> Self:
        if self.command_line is not None and (self.args or self.path != Path(SHELL)):
            raise ValueError("has both `command` and `path` or `args`; leave one of them out")
        return self

    def model_post_init(self, context: object, /) -> None:
        """Make the cell that holds the state."""
        super().model_post_init(context)
        self._lifecycle = process_lifecycle(self.name)
        for entry in self.dependencies:
            if isinstance(entry, Dependency):
                self._conditions[entry.name] = entry.condition

    @field_serializer("dependencies")
    def _name_dependencies(self, _: object) -> list[str | dict[str, str]]:
        """Serialise the edges as a manifest writes them, not the processes at their ends."""
        return [
            r.name
            if r.condition is Condition.READY
            else {"name": r.name, "condition": r.condition.value}
            for r in self.requirements
        ]

    @property
    def kind(self) -> str:
        """What it is called in problems."""
        return "process"

    @property
    def location(self) -> Location:
        """Where it stands in its manifest, for problems to be told with."""
        return ("processes", self.name if self._place is None else Named(self.name, self._place))

    def note_place(self, place: int) -> None:
        """Note which entry of its manifest it is."""
        self._place = place

    @property
    def command(self) -> list[str]:
        """The path of the executable along with all arguments."""
        if self.command_line is not None:
            return [str(self.path), "-c", self.command_line]
        return [str(self.path), *self.args]

    @property
    def edges(self) -> list[Requirement]:
        """What each entry of `dependencies` asks for, in the order of the entries."""
        names = [entry if isinstance(entry, str) else entry.name for entry in self.dependencies]
        conditions = self._conditions
        return [Requirement(name, conditions.get(name, Condition.READY)) for name in names]

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """All that the process waits for, of whatever kind, with the conditions."""
        return tuple(dict.fromkeys(self.edges))

    def resolve_dependencies(self, known: Mapping[str, Sequence[Entry]]) -> None:
        """Put processes in the place of the names that are *known*, all replicas for an entry's.

        A unit of another kind stays a name.
        """
        resolved: dict[str, DependencyEntry] = {}
        conditions = self._conditions
        for name, condition in ((edge.name, edge.condition) for edge in self.requirements):
            for entry in known.get(name, ()):
                resolved.setdefault(entry.name, entry if isinstance(entry, Process) else entry.name)
                conditions.setdefault(entry.name, condition)
            if name not in known:
                resolved.setdefault(name, name)
        self.dependencies = list(resolved.values())

    @property
    def restart_policy(self) -> RestartPolicy:
        """The ``restart`` block, or what `shutdown_strategy` stands for without one."""
        if self.restart is not None:
            return self.restart.to_policy()
        if self.shutdown_strategy in ("restart", None):
            return RestartPolicy(when=RestartWhen.ALWAYS, first_at_once=True)
        return RestartPolicy()

    @property
    def lifecycle_hook_functions(self) -> dict[ProcessHookType, list[LifecycleHookType]]:
        """The hooks that plugins provide under the names in ``lifecycle_hooks``."""
        return self._hooks

    @property
    def stats_handler_functions(self) -> list[StatHandlerType]:
        """The handlers that plugins provide under the names in ``stat_handlers``."""
        return self._stat_handlers

    @property
    def ready_strategy_function(self) -> ReadyStrategyType | None:
        """The function behind ``ready_strategy``: a plugin's, else the built-in one, else None."""
        if self._ready_strategy is not None or self.ready_strategy not in STRATEGIES:
            return self._ready_strategy
        return _built_in_strategy

    def provide_ready_strategy(self, function: ReadyStrategyType) -> None:
        """Let a plugin's *function* decide whether the process is ready."""
        self._ready_strategy = function

    @property
    def lifecycle(self) -> Lifecycle[ProcessState]:
        """The one cell that holds the state."""
        return self._lifecycle

    @property
    def output(self) -> Output:
        """What it has printed lately, over all its generations."""
        return self._output

    def name_hook(self, function: LifecycleHookType, name: str) -> None:
        """Note under which *name* a plugin provides a hook."""
        self._hook_names.append((function, name))

    def hook_name(self, function: LifecycleHookType) -> str:
        """Return the name of a hook as the manifest has it, else that of the function."""
        for known, name in self._hook_names:
            if known is function:
                return name
        return str(getattr(function, "__name__", None) or type(function).__name__)

    def is_success(self, return_code: int) -> bool:
        """Return whether such an end is a good one; *return_code* is -n for signal n."""
        if return_code < 0:
            return any(
                isinstance(each, str) and Signals[each] == -return_code
                for each in self.success_exit_codes
            )
        return return_code in self.success_exit_codes

    def resolve_path(self, base: Path, find: Finder | None = None) -> None:
        """Make `path` absolute: a file below *base*, a wildcard's one match, or a name on PATH.

        Symbolic links stay, for a virtual environment's python is one. Raises `ValueError`.
        """
        find = find or Finder()
        self.path, self._found_on_path = find.executable(self.path, base, self.env.get("PATH"))

    def resolve_stop_command(self, base: Path, find: Finder | None = None) -> None:
        """Make the program of `stop_command` absolute, as `resolve_path` does; `ValueError`."""
        if self.stop_command is not None:
            program, *arguments = self.stop_command
            find = find or Finder()
            path, _ = find.executable(Path(program), base, self.env.get("PATH"))
            self.stop_command = [str(path), *arguments]

    def resolve_folders(self, base: Path) -> None:
        """Make absolute: the working directory, and the log."""
        if self.log is not None:
            self.log = self.log.model_copy(update={"file": base / self.log.file})
        if self.working_directory is not None:
            self.working_directory = base / self.working_directory
        else:
            in_base = self._found_on_path or self.command_line is not None
            self.working_directory = base if in_base else self.path.parent

    def bind_check(self, base: Path, find: Finder | None = None) -> None:
        """Make the built-in check of ``ready_strategy``, if it is one, with ``ready_params``.

        Their paths become absolute, by *base*. Raises `ProblemsError`, its locations beginning
        inside of the parameters.
        """
        self._check = None
        if self.ready_strategy is not None and self.ready_strategy in STRATEGIES:
            self._check = self._bind(self.ready_strategy, base, find)

    def _bind(self, strategy: str, base: Path, find: Finder | None = None) -> BoundCheck:
        search = self.env.get("PATH")
        check = bind(strategy, self.ready_params, base, find=find, search=search)
        self.ready_params.update(check.resolved)
        return check

    @property
    def check(self) -> BoundCheck | None:
        """The built-in check of its readiness; None where a plugin, or nobody, decides."""
        if self._ready_strategy is not None or self.ready_strategy is None:
            return None
        if self._check is None:  # it is of no manifest
            self._check = self._bind(self.ready_strategy, Path.cwd())
        return self._check

    @property
    def health_strategy(self) -> str | None:
        """The name of what its health is checked by, if it is."""
        return None if self.health is None else self.health.strategy or self.ready_strategy

    @property
    def health_params(self) -> dict[str, Any]:
        """What that is told: its own ``params``, or those of the same readiness check."""
        if self.health is None or self.health.params is not None:
            return {} if self.health is None else self.health.params or {}
        return self.ready_params if self.health_strategy == self.ready_strategy else {}

    def bind_health(self, base: Path, find: Finder | None = None) -> None:
        """Make the built-in check of ``health``, if it is one.

        Raises `ProblemsError`, its locations beginning inside of the parameters.
        """
        self._health_check = None
        name, search = self.health_strategy, self.env.get("PATH")
        if name is not None and name in STRATEGIES:
            self._health_check = bind(name, self.health_params, base, find=find, search=search)

    def provide_health_strategy(self, function: ReadyStrategyType) -> None:
        """Let a plugin's *function* decide whether the process is well; no call joins another."""
        self._health_strategy = one_at_a_time(function)

    async def check_health(self, host: Host, candidate: Candidate) -> bool:
        """Look once, and return whether the process is well; the deadline belongs to the caller.

        When it is not, *candidate* may have the obstacle.
        """
        if self._health_strategy is not None:
            asked = self.model_copy(update={"ready_params": self.health_params})
            return await call_plugin(
                self._health_strategy, asked, host.check_interval_sec, limiter=host.plugins
            )
        if self._health_check is None:  # it is of no manifest
            self.bind_health(Path.cwd())
        check = self._health_check
        return check is None or await check.probe(host, candidate)

    @property
    def may_notify(self) -> bool:
        """Whether it is given a socket to tell something of itself."""
        return self.ready_strategy == "notify" or self.watchdog_sec is not None

    @property
    def privileges(self) -> Privileges | None:
        """What it takes on when it starts, decided by `resolve_privileges`; None for nothing."""
        return self._privileges

    def resolve_privileges(self, rights: Rights, problems: list[Problem]) -> None:
        """Look up the user and all else that it is given.

        What is unknown, or one with these *rights* may not give, is added to the *problems*, and a
        program that its user may not execute.
        """
        wishes = Wishes(
            user=self.user,
            group=self.group,
            umask=self.umask,
            nice=self.nice,
            rlimits=self.rlimits,
        )
        self._privileges = decide(wishes, rights, self.location, problems)
        if self._privileges is None:
            return
        programs: list[tuple[Location, Path]] = [((*self.location, "path"), self.path)]
        if self.stop_command is not None:
            location = (*self.location, "stop_command", 0)
            programs.append((location, Path(self.stop_command[0])))
        for location, path in programs:
            problem = judge_program(path, self._privileges) if path.is_absolute() else ""
            problems += [Problem(location, problem)] if problem else []

    def merged_env(
        self,
        marker: Mapping[str, str],
        own: Mapping[str, str] | None = None,
        inherited: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """Return the environment that the child gets: what we inherit, and what it is to have.

        *own* is its `env` with the secrets in it; without it, references stay as they are.
        *inherited* is what children have of our environment, where somebody knows it already. What
        a service manager above us has set for us alone is not handed down.
        """
        own = self.env if own is None else own
        account = self._privileges.variables if self._privileges is not None else {}
        ours = hand_down(os.environ) if inherited is None else inherited
        return {**self._shared_env, **ours, **account, **own, **marker}

    def share_env(self, variables: Mapping[str, str]) -> None:
        """Take the variables of the manifest's ``env_file``: all others win over them."""
        self._shared_env = variables

    @property
    def late_values(self) -> Mapping[str, object]:
        """What may refer to secrets: its `env`."""
        return {"env": self.env}

    @property
    def secret_source(self) -> SecretSource:
        """Where the secrets that `env` refers to are looked up."""
        return self._secret_source

    def find_secret_problems(self, source: SecretSource) -> list[Problem]:
        """Look the secrets of `env` up in *source* from now on; return what is wrong with them.

        A file that is missing is a problem where nothing could make it before the process starts.
        """
        self._secret_source = source
        if not has_secrets(self.env):
            return []
        found = resolve_secrets(self.env, source, (*self.location, "env"))
        may_come = self.dependencies or self.lifecycle_hooks or not self.autostart
        return [*found.problems, *(() if may_come else found.missing)]

    def update_status(
        self, status: ProcessState, pid: int | None = None, return_code: int | None = None
    ) -> None:
        """Move the state through its table, and note the pid or return code that is given.

        Raises `IllegalTransitionError`; the state that it has already is no move.
        """
        if status is not self._lifecycle.state:
            self._lifecycle.move(status)
        if pid is not None:
            self._pid = pid
        if return_code is not None:
            self._return_code = return_code

    def note_spawned(self, pid: int) -> None:
        """Note that a new generation runs as *pid*."""
        self._pid, self._return_code = pid, None

    def note_ended(self, return_code: int | None) -> None:
        """Note that nothing of it runs any more."""
        self._pid, self._return_code = 0, return_code

    @property
    def pid(self) -> int:
        """Its pid, 0 while nothing of it runs."""
        return self._pid

    @property
    def runtime_info(self) -> ProcessRuntimeInfo:
        """What it has used lately, and at most."""
        return self._info

    def get_status(self) -> ProcessStatus:
        """Return how it stands."""
        return ProcessStatus(
            name=self.name,
            pid=self._pid,
            status=self._lifecycle.state,
            return_code=self._return_code,
        )

    def record_process_stats(self, pid: int) -> None:
        """Measure what process *pid* uses; it reads the system, so call it off the event loop."""
        self._info.measure(pid)

    def get_stats(self) -> ProcessStats:
        """Return what it used when it was last measured."""
        return ProcessStats(
            name=self.name,
            path=self.path,
            memory_usage_mb=self._info.memory_usage_mb,
            cpu_usage_percent=self._info.cpu_usage_percent,
            max_memory_usage_mb=self._info.max_memory_usage_mb,
            max_cpu_usage_percent=self._info.max_cpu_usage,
        )

    async def check_ready(self, host: Host, candidate: Candidate | None = None) -> bool:
        """Return True as soon as the process is ready, False when its check has given up on it.

        The deadline belongs to the caller. Without a strategy a process is ready at once. A
        *candidate* that is given is told what keeps it from being ready.
        """
        if self._ready_strategy is not None:
            return await call_plugin(
                self._ready_strategy, self, host.check_interval_sec, limiter=host.plugins
            )
        if self.check is not None:
            await self.check.wait(host, candidate or Candidate())
        return True

    async def wait_until_ready(self) -> bool:
        """Return whether the process is ready within ``ready_timeout_sec``."""
        return await wait_ready(self.check_ready(Host()), self.ready_timeout_sec)


async def _built_in_strategy(process: Process, interval_sec: float) -> bool:
    return await wait_ready(
        process.check_ready(Host(check_interval_sec=interval_sec)), process.ready_timeout_sec
    )


async def call_hooks(
    process: Process,
    view: PopenView | None,
    hook_type: ProcessHookType,
    host: Host,
    unit: UnitHandle | None = None,
) -> None:
    """Call the hooks that the process has for *hook_type*, one after the other.

    The first that fails is raised as a `HookError`. With ``hook_failure: ignore`` it is noted by
    the *unit* instead, and the next one is called.
    """
    for hook in process.lifecycle_hook_functions[hook_type]:
        words = f"hook {process.hook_name(hook)} ({hook_type})"
        try:
            with unit.budget.name(partial(str, words)) if unit is not None else nullcontext():
                await call_plugin(hook, process, view, limiter=host.plugins)
        except Exception as error:
            failure = hook_error(process, hook, hook_type, error)
            if unit is None or process.hook_failure == "fail":
                raise failure from error
            unit.note(str(failure))


async def call_last_hooks(process: Process, view: PopenView, host: Host, unit: UnitHandle) -> None:
    """Call each hook that the process has for ``on_shutdown``, whatever becomes of the others.

    Shielded: each has the ``timeout`` of the process, or a second, within the budget of the *unit*.
    What goes wrong is noted, and nothing is raised.
    """
    limit = None if process.timeout is None else max(process.timeout, _LEAST_HOOK_SEC)
    for hook in process.lifecycle_hook_functions["on_shutdown"]:
        words = f"hook {process.hook_name(hook)} (on_shutdown)"
        began = trio.current_time()
        with unit.budget.closing(limit, what=partial(str, words)) as patience:
            if patience.deadline <= began:
                unit.note(f"{words} was not called: no time was left")
                continue
            try:
                await call_plugin(hook, process, view, limiter=host.plugins)
            except Exception as error:  # noqa: BLE001 - of a plugin's function: it is told
                unit.note(str(hook_error(process, hook, "on_shutdown", error)))
        if patience.cancelled_caught:
            waited = trio.current_time() - began
            unit.note(f"{words} has not ended within {waited:.1f} s, and was left to itself")


def hook_error(
    process: Process, hook: LifecycleHookType, hook_type: ProcessHookType, error: Exception
) -> HookError:
    """Return the error that names a hook by which *error* was raised."""
    problem = f"{type(error).__name__}: {in_words(error)}" if str(error) else type(error).__name__
    failure = HookError(process.name, process.hook_name(hook), hook_type, problem)
    failure.__cause__ = error
    return failure
