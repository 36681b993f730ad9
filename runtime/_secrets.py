"""``${secret://…}`` in a manifest: looked up when something starts, and hidden wherever it is told.

A manifest keeps a reference as it is written. `resolve_secrets` is the one function that looks
behind it; what it finds is made known to the `Secrets` of the tree, which take it out of every
text that is kept, printed or served.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, final
from urllib.parse import quote

import trio

from runtime._problems import Location, Problem

T = TypeVar("T")

#: What is shown in the place of a secret.
HIDDEN: Final = "***"
#: How every reference to a secret begins.
BEGIN: Final = "${secret:"

_LARGEST_KB = 64  # a variable of 128 KB is more than the kernel takes
_SHORTEST_HIDDEN = 6  # what is shorter would be found in half of all words
_MOST_KNOWN = 1_000  # the oldest is forgotten: where they change every minute they must not pile up
_LONGEST_SHOWN = 60

_WRITTEN = re.compile(r"\$\$\{secret:(?P<plain>)|\$\{secret:(?P<address>[^{}]*)(?P<end>\}?)")
_ADDRESS = re.compile(
    r"//(?:file/(?P<file>[^{}]+)|env/(?P<variable>[A-Za-z_][A-Za-z0-9_]*))", re.DOTALL
)
_FORMS = "${secret://file/PATH} or ${secret://env/NAME}"

# Values that are needed before the process starts, or that are handed over as arguments.
_PLAIN_VARIABLES = ("PATH", "LC_CTYPE")
_ARGUMENTS = ("args", "command", "path", "stop_command")


def map_strings(data: object, change: Callable[[str, Location], str], at: Location = ()) -> object:
    """Return *data* with *change* made to each of its strings, and its place; not of keys."""
    if isinstance(data, str):
        return change(data, at)
    if isinstance(data, list):
        return [map_strings(item, change, (*at, i)) for i, item in enumerate(data)]
    if isinstance(data, dict):
        return {key: map_strings(value, change, (*at, key)) for key, value in data.items()}
    return data


def has_secrets(data: object) -> bool:
    """Return whether a string of *data* refers to a secret."""
    if isinstance(data, str):
        return BEGIN in data
    if isinstance(data, Mapping):
        return any(map(has_secrets, data.values()))
    return isinstance(data, list) and any(map(has_secrets, data))


def may_stand_at(location: Location) -> bool:
    """Return whether a value of a manifest is of those that are looked up late."""
    return location[:1] + location[2:3] in (("processes", "env"), ("services", "configuration"))


def judge_place(location: Location) -> str:
    """Return why no reference may stand at this place of a manifest, nothing where one may."""
    if not may_stand_at(location):
        if location[:1] == ("processes",) and any(step in _ARGUMENTS for step in location):
            return (
                "a secret may not be here: everybody on this host can read the arguments of a"
                " process; put it into its `env`, and let the program take it from there"
            )
        return (
            "a secret may not be here, only in the `env` of a process"
            " or in the `configuration` of a service"
        )
    if location[0] == "processes" and location[-1] in _PLAIN_VARIABLES:
        return f"{location[-1]} may be no secret: it is needed before the process starts"
    return ""


def judge_reference(written: str) -> str:
    """Return what is wrong with a reference such as ``${secret://env/NAME}``, if something is."""
    if written.endswith("}") and _ADDRESS.fullmatch(written[len(BEGIN) : -1]):
        return ""
    short = written if len(written) <= _LONGEST_SHOWN else f"{written[:_LONGEST_SHOWN]}…"
    return f"{short!r} is no secret; write {_FORMS}"


def count_references(text: str) -> int:
    """Return how many references to secrets there are in *text*."""
    return sum(match["plain"] is None for match in _WRITTEN.finditer(text))


def escape(text: str) -> str:
    """Return *text* so that nothing in it is taken for a reference."""
    return text.replace(BEGIN, f"${BEGIN}")


def hide_references(data: object) -> object:
    """Return *data* as it may be shown: ``***`` in the place of each reference."""

    def change(text: str, _: Location) -> str:
        def replace(match: re.Match[str]) -> str:
            return BEGIN if match["plain"] is not None else HIDDEN

        return _WRITTEN.sub(replace, text)

    return map_strings(data, change)


# --- looking them up ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where references lead: relative paths start at *folder*; our environment, then *variables*.

    *places* says of some places of a manifest, in words, where in its file they are.
    """

    folder: Path = field(default_factory=Path.cwd)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    places: dict[Location, str] = field(default_factory=dict, repr=False)

    def tell(self, problem: Problem) -> str:
        """Return a problem as one line that names the place."""
        where, what = problem
        return f"{self.places.get(where) or '.'.join(map(str, where))}: {what}"


@dataclass(frozen=True, slots=True)
class Resolved(Generic[T]):
    """What `resolve_secrets` has made of some data.

    *values* are the secrets in it. With *problems* or *missing* files it still has the references
    that these are about; what is missing may be there later.
    """

    data: T = field(repr=False)
    values: tuple[str, ...] = field(default=(), repr=False)
    problems: tuple[Problem, ...] = ()
    missing: tuple[Problem, ...] = ()


class SecretError(Exception):
    """Secrets that the unit *name* needs cannot be had; *problems* has a line for each of them."""

    name: str
    problems: tuple[str, ...]

    def __init__(self, name: str, problems: Iterable[str]) -> None:
        self.name, self.problems = name, tuple(problems)
        super().__init__(self.name, self.problems)

    def __str__(self) -> str:
        return "; ".join(self.problems)


class _MissingError(Exception):
    """There is no such file."""


def resolve_secrets(data: T, source: SecretSource, at: Location = ()) -> Resolved[T]:
    """Return *data* with the secrets in the place of all references to them in its strings.

    ``${secret://file/PATH}`` is what stands in a file, without one line end at its end, and
    ``${secret://env/NAME}`` a variable. ``$${secret:`` stands for ``${secret:``. Problems are
    placed below *at*, and never have a value in them. Files are read: call it in a thread.
    """
    values: dict[str, None] = {}
    problems: list[Problem] = []
    missing: list[Problem] = []

    def change(text: str, here: Location) -> str:
        def replace(match: re.Match[str]) -> str:
            if match["plain"] is not None:
                return BEGIN
            try:
                value = _look_up(match[0], source)
            except _MissingError as error:
                missing.append(Problem(here, str(error)))
            except ValueError as error:
                problems.append(Problem(here, str(error)))
            else:
                values[value] = None
                return value
            return match[0]

        return _WRITTEN.sub(replace, text) if BEGIN in text else text

    resolved: Any = map_strings(data, change, at)
    return Resolved(resolved, tuple(values), tuple(problems), tuple(missing))


def _look_up(written: str, source: SecretSource) -> str:
    if problem := judge_reference(written):
        raise ValueError(problem)
    match = _ADDRESS.fullmatch(written[len(BEGIN) : -1])
    path, name = match.groups() if match is not None else (None, "")
    if path is not None:
        return _read(source.folder / path, path)
    value = os.environ.get(name, source.variables.get(name))
    if value is None:
        raise ValueError(
            f"the secret ${name} is not set; set it in the environment of the runtime,"
            " or in its env_file"
        )
    return value


def _read(path: Path, written: str) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe may take for ever
            raise ValueError(f"the secret {path} is no regular file")
        with path.open("rb") as file:
            data = file.read(_LARGEST_KB * 1024 + 1)
    except FileNotFoundError as error:
        absolute = Path("/", written)
        hint = f"; for {absolute} write {BEGIN}//file/{absolute}}}" if absolute.is_file() else ""
        raise _MissingError(f"the secret {path} is not there: no such file{hint}") from error
    except OSError as error:
        words = error.strerror or str(error)
        raise ValueError(f"the secret {path} cannot be read: {words}") from error
    if len(data) > _LARGEST_KB * 1024:
        raise ValueError(f"the secret {path} is larger than {_LARGEST_KB} KB")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"  # the error itself would have the bytes in it
    if "\0" in text:
        raise ValueError(f"the secret {path} is no text in UTF-8")
    return text.removesuffix("\n").removesuffix("\r")


# --- hiding them ----------------------------------------------------------------------------------


@final
class Secrets:
    """The secrets of one tree, which hides them.

    A text that has a value of six characters or more in it, as it is or as it stands in an address,
    in JSON or in Python, gets ``***`` in its place; of a value with several lines each line counts.
    """

    def __init__(self) -> None:
        self._values: dict[str, None] = {}
        self._found_by: tuple[str, ...] = ()  # the longest first: one may be a part of another

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, values: Iterable[str]) -> None:
        """Hide *values* from now on."""
        before = self._values.keys()
        values = dict.fromkeys(filter(None, values))
        # What is looked up again is among the newest again.
        known = [*(value for value in before if value not in values), *values]
        self._values = dict.fromkeys(known[-_MOST_KNOWN:])
        if self._values.keys() == before:
            return
        forms = {form for value in self._values for form in _forms(value)}
        self._found_by = tuple(sorted(forms, key=len, reverse=True))

    def mask(self, text: str) -> str:
        """Return *text* without them."""
        for form in self._found_by:
            if form in text:
                text = text.replace(form, HIDDEN)
        return text

    def mask_lines(self, lines: Sequence[str]) -> Sequence[str]:
        """Return *lines* without them: the same object, where there are none in it."""
        whole = "\n".join(lines)
        found = [form for form in self._found_by if form in whole]
        if not found:
            return lines
        return [self.mask(line) for line in lines]

    def mask_data(self, data: object) -> object:
        """Return *data*, as JSON has it, without them; a value of its own may be a short one."""
        if isinstance(data, Mapping):
            return {key: self.mask_data(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.mask_data(item) for item in data]
        if isinstance(data, str):
            return HIDDEN if data in self._values else self.mask(data)
        is_number = isinstance(data, int | float) and not isinstance(data, bool)
        return HIDDEN if is_number and str(data) in self._values else data


def _forms(value: str) -> Iterable[str]:
    for line in map(str.strip, value.splitlines()):
        if len(line) >= _SHORTEST_HIDDEN:
            url = (line.encode(errors="surrogateescape"), "/")
            yield from (line, json.dumps(line)[1:-1], repr(line)[1:-1])
            yield from (quote(url[0]), quote(url[0], safe=""))


async def reveal(
    name: str,
    data: T,
    source: SecretSource,
    secrets: Secrets,
    *,
    at: Location,
    limiter: trio.CapacityLimiter | None = None,
) -> T:
    """Return *data* of the unit *name* with its secrets, which *secrets* hide from now on.

    Raises `SecretError`, whose sentence names the place of each that cannot be had. Cancelled, it
    leaves the thread that reads behind.
    """
    found = await trio.to_thread.run_sync(
        resolve_secrets, data, source, at, limiter=limiter, abandon_on_cancel=True
    )
    return accept(name, found, source, secrets)


def accept(name: str, found: Resolved[T], source: SecretSource, secrets: Secrets) -> T:
    """Return the data of *found* and hide its values; raise `SecretError` if it is incomplete."""
    secrets.add(found.values)
    problems = (*found.problems, *found.missing)
    if problems:
        raise SecretError(name, map(source.tell, problems))
    return found.data
