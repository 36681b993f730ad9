"""The manifest file: loaded, checked, and every problem told with its place."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from runtime._documents import Document, DocumentError, read_document
from runtime._http_spec import HttpEntry, HttpSpec
from runtime._listening import parse_bind
from runtime._model_errors import explain, place_in
from runtime._problems import Location, Named, Problem, raise_any
from runtime._secrets import has_secrets, map_strings
from runtime._specs import Entry
from runtime._tasks_spec import NO_MODULES, JobEntry, RunnerEntry, TasksSpec, job_problems
from runtime.process import Process, ProcessManifest
from runtime.process._source import Source, prepare
from runtime.process.readiness import STRATEGIES
from runtime.service.specs import ServiceEntry

# What is complained about is left out when the rest is checked; the place of these is taken by
# values that nothing can be said against.
_STAND_INS: Mapping[str | int, Any] = {
    "name": "process {}",
    "path": sys.executable,
    "affinity": None,
    "processor_affinity": None,
    "restart": {"when": "never"},
    "shutdown_strategy": "do_not_restart",
    "task": "task {}",
}
# What a job calls, whose tasks are not known where these cannot be read.
_CALL = (("task",), ("arguments",))
_IDLE_SERVICE = "runtime.service.plain:idle"
# Nobody reads more of them, and to explain and to place each takes time.
_MOST_PROBLEMS = 1_000
_LONGEST_PART = 100  # of a key path: a long name would stand in every line
# Without these nothing can be said of the rest: no path is known, or no process.
_ENTRIES = (("processes",), ("services",), ("jobs",))
_ESSENTIAL = frozenset({("base_directory",), ("processes",)})
#: A field of a process by its other spelling.
OTHER_SPELLINGS: Mapping[str, str] = {"affinity": "processor_affinity"}

#: The name of the unit that looks after the calls of lost runners, in a tree that has runners.
RECOVERY = "recovery"
_IS_RECOVERY = f"is the name of the unit that goes with runners, {RECOVERY!r}; choose another one"
_NOTHING = Problem(("processes",), "there is nothing to run; name processes, services, or tasks")


class Manifest(ProcessManifest):
    """Everything that a manifest file may say: processes, and services in the same tree."""

    processes: list[Process] = Field(
        default=[],
        description="The processes to run, in any order.",
        examples=[[{"name": "web", "path": "python3", "args": ["-m", "http.server"]}]],
    )
    services: list[ServiceEntry] = Field(
        default=[],
        description="The services to run, in any order, in the same tree as the processes.",
        examples=[[{"name": "cache", "class": "shop.services:CacheService"}]],
    )
    tasks: TasksSpec | None = Field(
        default=None,
        description="Tasks: where their calls are kept, which modules define them, what runs"
        " them; unset: none.",
        examples=[{"state_backend": "sqlite:///runtime.db", "modules": ["shop.tasks"]}],
    )
    jobs: list[JobEntry] = Field(
        default=[],
        description="Calls of tasks that are made each time that this is run.",
        examples=[[{"name": "migrate", "task": "shop.tasks.migrate"}]],
    )
    http: HttpEntry = Field(
        default=HttpSpec(),
        description="Where HTTP is served: HOST:PORT, unix:PATH, {bind: …, token_file: …}, or off;"
        " unset: at 127.0.0.1:8410, or at the next port that is free.",
        examples=[{"bind": "127.0.0.1:8410"}, "unix:run/http.sock", False],
    )
    version: str | None = Field(
        default=None,
        description="The version of what it runs, for the status; unset: none.",
        examples=["1.4.2"],
    )

    def _steps(self) -> Sequence[Callable[[], Self]]:
        for entries in (self.services, self.jobs, self.runners):
            for place, entry in enumerate(entries):
                entry.note_place(place)
        steps = [
            self.validate_units,
            self.validate_recovery,
            *super()._steps(),
            self.resolve_services,
        ]
        return [*steps, self.resolve_tasks, self.validate_http]

    @property
    def runners(self) -> Sequence[RunnerEntry]:
        """The runners of its tasks."""
        return () if self.tasks is None else self.tasks.runners

    def entries(self) -> Sequence[Entry]:
        """Return the entries of all kinds."""
        return [*self.processes, *self.services, *self.runners, *self.jobs]

    def _apply_order(self, order: Mapping[str, int]) -> None:
        super()._apply_order(order)
        self.services.sort(key=lambda entry: order[entry.name])

    def validate_units(self) -> Self:
        """Check that there is something to run."""
        if not self.entries():
            raise_any([_NOTHING])
        return self

    def validate_recovery(self) -> Self:
        """Check that nothing has the name of the sweep that goes with the runners."""
        if self.runners:
            taken: list[Location] = []
            taken += [(*e.location, "name") for e in self.entries() if e.name == RECOVERY]
            groups = enumerate(self.groups)
            taken += [("groups", n, "name") for n, each in groups if each.name == RECOVERY]
            taken += [("control_server",)] if self.control_server == RECOVERY else []
            raise_any([Problem(where, _IS_RECOVERY) for where in taken])
        return self

    def resolve_services(self) -> Self:
        """Import the classes of all services, and check that each can be made and configured."""
        folder = self.base_directory or Path.cwd()
        source = self.secret_source
        raise_any([p for entry in self.services for p in entry.find_problems(folder, source)])
        return self

    def resolve_tasks(self) -> Self:
        """Import the modules of all tasks, and check the store's URL and the calls of all jobs."""
        folder = self.base_directory or Path.cwd()
        problems = [] if self.tasks is None else list(self.tasks.find_problems(folder))
        # A task that is in a module that cannot be imported is not said to be missing as well.
        raise_any(problems or list(job_problems(self.jobs, self.tasks)))
        return self

    def validate_http(self) -> Self:
        """Check that a socket at the path that `http` names can be."""
        if self.http is not None and self.http.bind is not None:
            try:
                parse_bind(self.http.bind, (self.base_directory or Path.cwd()).absolute())
            except ValueError as error:
                raise_any([Problem(("http",), str(error))])
        return self


class ManifestError(Exception):
    """A manifest cannot be used; *lines* has one line for each problem, with its place."""

    path: Path
    lines: tuple[str, ...]

    def __init__(self, path: Path, lines: Sequence[str]) -> None:
        self.path, self.lines = path, tuple(map(_printable, lines))
        super().__init__(self.path, self.lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def _printable(line: str) -> str:
    """Return *line* as one line that does nothing to a terminal."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def load_manifest(
    path: Path, *, check: Callable[[ProcessManifest], Sequence[Problem]] = lambda _: ()
) -> Manifest:
    """Read, check and resolve the manifest in *path*; raise `ManifestError` with all that is wrong.

    References such as ``${NAME}`` are resolved by our environment and the ``env_file``. Relative
    paths start at ``base_directory``, or at the manifest's own folder. *check* may find more
    problems; it is given what is left of a manifest without the values that cannot be read.
    """
    try:
        document = read_document(path)
    except DocumentError as error:
        raise ManifestError(path, [str(error)]) from error
    source = prepare(document.data, path.parent)
    problems = list(source.problems)
    if any(location in _ESSENTIAL for location in source.unusable):
        raise ManifestError(path, _tell(document, source, problems))
    data = _without(source.data, source.unusable)
    manifest: Manifest | None = None
    try:
        manifest = Manifest.model_validate(data, context=problems)
        problems += check(manifest)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        distinct = _distinct(errors, source.origins)
        for each in islice(distinct, _MOST_PROBLEMS + 1):
            problems.append(explain(each, Manifest, data, told=problems, spell=_spelled))
        # What cannot be read must not hide what is wrong with the rest.
        if len(distinct) <= _MOST_PROBLEMS:
            with suppress(ValidationError):
                left_out = [_unusable(each, data) for each in errors]
                found: list[Problem] = []
                try:
                    rest = Manifest.model_validate(_without(data, left_out), context=found)
                    found += check(rest)
                finally:
                    problems += [each for each in found if not _follows(each, left_out)]
    if any(
        _at(document.data, kind) for kind in _ENTRIES
    ):  # only what is wrong with it was left out
        problems = [problem for problem in problems if problem is not _NOTHING]
    if manifest is None or problems:
        raise ManifestError(path, _tell(document, source, problems))
    _note_places(manifest, document, source)
    return manifest


def _follows(problem: Problem, left_out: Sequence[Location]) -> bool:
    """Return whether *problem* only tells that what could not be read was left out."""
    if problem is NO_MODULES:
        return any(where[:1] == ("tasks",) for where in left_out)
    where = problem.location
    if where[:1] != ("jobs",) or where[2:3] not in _CALL or not isinstance(where[1], Named):
        return False
    mine = ("jobs", where[1].place)
    return any(
        left == ("tasks",)
        or left[:2] == ("tasks", "modules")
        or (left[:2] == mine and left[2:3] in _CALL)
        for left in left_out
    )


def _distinct(errors: Iterable[ErrorDetails], origins: Sequence[int]) -> list[ErrorDetails]:
    """Return *errors* without those that one replica has in common with another."""
    found: dict[object, ErrorDetails] = {}
    for error in errors:
        kind, place, rest = error["loc"][:1], error["loc"][1:2], error["loc"][2:]
        if kind == ("processes",) and place and isinstance(place[0], int) and origins:
            place = (origins[place[0]],)
        found.setdefault((kind, place, rest, error["msg"]), error)
    return list(found.values())


# --- what is left without what cannot be used -----------------------------------------------------


def _unusable(error: ErrorDetails, data: object) -> Location:
    location = place_in(error["loc"], data, _spelled)
    return (*location, error["loc"][-1]) if error["type"] == "missing" else location


def _without(data: object, unusable: Iterable[Location]) -> object:
    """Return *data* without the values at these places."""
    locations = {_whole(location) for location in unusable}
    if ("control_server",) in locations:  # then nobody is left who could read its settings
        locations.add(("control_params",))
    if not locations:
        return data
    if () in locations or not locations.isdisjoint(_ESSENTIAL):
        return None
    rest = deepcopy(data)
    # From the back, so that an index still means what it meant.
    for location in sorted(locations, key=_back_to_front):
        _leave_out(_at(rest, location[:-1]), location)
    return rest


def _leave_out(around: Any, location: Location) -> None:  # noqa: ANN401 - whatever a file says
    key = location[-1]
    if location[:1] == ("services",) and location[2:] in (("class",), ("configuration",)):
        around["class"] = _IDLE_SERVICE
        around.pop("configuration", None)
    elif location[2:] == ("ready_params",) and isinstance(around, dict):
        del around["ready_params"]
        if around.get("ready_strategy") in STRATEGIES:  # it would miss what it needs
            del around["ready_strategy"]
    elif _is_field_of_entry(location) and isinstance(around, dict) and key in _STAND_INS:
        _put_stand_in(around, key, str(location[-2]))
    elif location == ("tasks",):  # others may need its runner
        around["tasks"] = {}
    elif around is not None:
        with suppress(KeyError, IndexError, TypeError):
            del around[key]


def _put_stand_in(entry: dict[Any, Any], key: str | int, name: str) -> None:
    stand_in = _STAND_INS[key]
    entry[key] = stand_in.format(name) if isinstance(stand_in, str) else stand_in
    entry.pop({"path": "command", "name": "replicas"}.get(str(key)), None)


def _is_field_of_entry(location: Location) -> bool:
    return len(location) == (4 if location[:1] == ("tasks",) else 3)


def _whole(location: Location) -> Location:
    """Return the place of what is of no use when the value at *location* is of none."""
    if location[:1] == ("groups",):
        return location[:2]
    if location[:1] in _ENTRIES:
        by_entry = location[2:3] in (("dependencies",), ("env",), ("rlimits",))
        return location[:4] if by_entry else location[:3]
    if location[:1] == ("tasks",):
        return location[: 4 if location[1:2] == ("runners",) else 2]
    return location[:1]


def _back_to_front(location: Location) -> tuple[tuple[int, str], ...]:
    return tuple((-step, "") if isinstance(step, int) else (1, step) for step in location)


def _at(data: object, location: Location) -> Any:  # noqa: ANN401 - whatever a file says
    for step in location:
        data = _look(data, step)
    return data


def _look(here: Any, step: str | int) -> Any:  # noqa: ANN401 - whatever a file says
    try:
        return here[step]
    except (KeyError, IndexError, TypeError):
        return None


# --- problems in words ----------------------------------------------------------------------------


def _spelled(step: str | int, here: object) -> str | int:
    """Return the key as the file spells it."""
    other = OTHER_SPELLINGS.get(str(step), step)
    return other if isinstance(here, Mapping) and other in here else step


# --- places in the file ---------------------------------------------------------------------------


def _tell(document: Document, source: Source, problems: Sequence[Problem]) -> list[str]:
    """Return a line for each problem that names file, line and key path, a thousand at most."""
    told: set[tuple[int, str]] = set()
    for where, what in problems:
        line, dotted = _find(where, document, source)
        told.add((line, f"{dotted}: {what}" if dotted else what))
        if len(told) > _MOST_PROBLEMS:
            told.discard(max(told))
            told.add((document.line(()), f"has more problems than these {_MOST_PROBLEMS}"))
            break
    return [f"{document.path}:{line}: {words}" for line, words in sorted(told)]


def _note_places(manifest: Manifest, document: Document, source: Source) -> None:
    """Let what is wrong with a secret when something starts be told with file and line as well."""
    if manifest.secret_source is None:
        return

    def note(_: str, where: Location) -> str:
        line, dotted = _find(where, document, source)
        places[where] = _printable(f"{document.path}:{line}: {dotted}")
        return ""

    places = manifest.secret_source.places
    for entry in manifest.entries():
        for key, value in entry.late_values.items():
            if has_secrets(value):
                map_strings(value, note, (*entry.location, key))


def _find(where: Location, document: Document, source: Source) -> tuple[int, str]:
    """Return the line of a place, and its key path in words."""
    location = tuple(_in_file(where, document.data, source.origins))
    return document.line(location), _dotted(location, document.data)


def _in_file(location: Location, data: object, origins: Sequence[int]) -> Iterator[str | int]:
    """Yield the steps of *location* with an entry's index in the place of its name.

    *origins* says which entry of the file each of the processes comes from.
    """
    here: Any = data
    for depth, step in enumerate(location):
        known = step
        if isinstance(here, list):
            is_process = depth == 1 and location[0] == "processes"
            if isinstance(step, Named) and is_process:
                known = step.place
            elif isinstance(step, str):
                known = _index(step, here)
            if is_process and not isinstance(known, str) and known < len(origins):
                known = origins[known]
        known = _spelled(known, here)
        yield known
        here = _look(here, known)


def _index(name: str, entries: list[Any]) -> int | str:
    """Return where the entry *name* stands, or *name* itself where none has it.

    Where it was found is not always where it stands: what cannot be read is left out before.
    """
    names = [each if isinstance(each, str) else _look(each, "name") for each in entries]
    if isinstance(name, Named) and (name.place >= len(names) or names[name.place] != name):
        return names.index(name) if name in names else name.place
    if isinstance(name, Named):
        return name.place
    return names.index(name) if name in names else name


def _dotted(location: Location, data: object) -> str:
    """Return ``processes.api.path``, with names in the place of indices where there are any."""
    parts: list[str] = []
    here: Any = data
    for step in location:
        here = _look(here, step)
        name = here.get("name") if isinstance(here, Mapping) and isinstance(step, int) else None
        part = name if isinstance(name, str) and name else str(step)
        part = part if part.strip() else repr(part)
        parts.append(part if len(part) <= _LONGEST_PART else f"{part[:_LONGEST_PART]}…")
    return ".".join(parts)
