"""The manifest file: loaded, checked, and every problem told with its place."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from runtime._documents import Document, DocumentError, Location, read_document
from runtime.process import Dependency, Process, ProcessManifest, RestartSpec
from runtime.process._manifest import Problem, with_base_directory

_MODELS = (ProcessManifest, Process, RestartSpec, Dependency)
# What is complained about is left out when the rest is checked; the place of these is taken by
# values that nothing can be said against.
_STAND_INS: Mapping[str | int, Any] = {
    "name": "process {}",
    "path": sys.executable,
    "affinity": None,
    "processor_affinity": None,
    "ready_params": {"path": "ready", "port": 1},
    "restart": {"when": "never"},
    "shutdown_strategy": "do_not_restart",
}
_OTHER_SPELLINGS: Mapping[str | int, str] = {"affinity": "processor_affinity"}
_WORDS = {"model_type": "must be a mapping of keys to values", "path_type": "must be a path"}
_KEYS = sorted({name for model in _MODELS for name in model.model_fields})


class ManifestError(Exception):
    """A manifest cannot be used; *lines* has one line for each problem, with its place."""

    path: Path
    lines: tuple[str, ...]

    def __init__(self, path: Path, lines: Sequence[str]) -> None:
        super().__init__(path, tuple(lines))
        self.path, self.lines = path, tuple(lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def load_manifest(
    path: Path, *, check: Callable[[ProcessManifest], Sequence[Problem]] = lambda _: ()
) -> ProcessManifest:
    """Read, check and resolve the manifest in *path*; raise `ManifestError` with all that is wrong.

    Relative paths start at ``base_directory``, or at the manifest's own folder. *check* may find
    more problems in a manifest that is fine so far.
    """
    try:
        document = read_document(path)
    except DocumentError as error:
        raise ManifestError(path, [str(error)]) from error
    problems: list[Problem] = []
    data = with_base_directory(document.data, path.parent)
    try:
        manifest = ProcessManifest.model_validate(data, context=problems)
        if not problems:
            problems += check(manifest)
    except ValidationError as error:
        problems += [_explain(each, document.data) for each in error.errors()]
        # What cannot be read must not hide what is wrong with the rest.
        with suppress(ValidationError):
            ProcessManifest.model_validate(_without(data, error), context=problems)
        raise ManifestError(path, _tell(document, problems)) from error
    if problems:
        raise ManifestError(path, _tell(document, problems))
    return manifest


def _without(data: object, error: ValidationError) -> object:
    """Return a copy of *data* in which nothing is left of what *error* complains about."""
    rest = deepcopy(data)
    unusable: set[Location] = set()
    for each in error.errors():
        location = _in_file(each["loc"], data)
        if each["type"] == "missing":
            location = (*location, each["loc"][-1])
        if location[:1] == ("base_directory",):
            return None  # nothing can be said of any path
        if location[:1] == ("processes",):
            by_entry = location[2:3] in (("dependencies",), ("env",))
            location = location[:4] if by_entry else location[:3]
        unusable.add(location)
    # From the back, so that an index still means what it meant.
    for location in sorted(unusable, key=_back_to_front):
        around = _at(rest, location[:-1])
        if len(location) == 3 and isinstance(around, dict) and location[2] in _STAND_INS:
            stand_in = _STAND_INS[location[2]]
            around[location[2]] = (
                stand_in.format(location[1]) if isinstance(stand_in, str) else stand_in
            )
        elif around is not None:
            with suppress(KeyError, IndexError, TypeError):
                del around[location[-1]]
    return rest


def _back_to_front(location: Location) -> tuple[tuple[int, str], ...]:
    return tuple((-step, "") if isinstance(step, int) else (1, step) for step in location)


def _at(data: object, location: Location) -> Any:  # noqa: ANN401 - whatever a file says
    for step in location:
        data = _look(data, step)
    return data


def _tell(document: Document, problems: Sequence[Problem]) -> list[str]:
    """Return a line for each problem that names file, line and key path."""
    told: set[tuple[int, str]] = set()
    for where, what in problems:
        location = tuple(_indexed(where, document.data))
        dotted = _dotted(location, document.data)
        told.add((document.line(location), f"{dotted}: {what}" if dotted else what))
    return [f"{document.path}:{line}: {words}" for line, words in sorted(told)]


def _indexed(location: Location, data: object) -> Iterator[str | int]:
    """Yield the steps of *location* with an entry's index in the place of its name."""
    here: Any = data
    for step in location:
        known = step
        if isinstance(here, list) and isinstance(step, str):
            names = [each if isinstance(each, str) else _look(each, "name") for each in here]
            names += [_STAND_INS["name"].format(index) for index in range(len(here))]
            known = names.index(step) % len(here) if step in names else step
        known = _spelled(known, here)
        yield known
        here = _look(here, known)


def _spelled(step: str | int, here: object) -> str | int:
    """Return the key as the file spells it."""
    other = _OTHER_SPELLINGS.get(step, step)
    return other if isinstance(here, Mapping) and other in here else step


def _look(here: Any, step: str | int) -> Any:  # noqa: ANN401 - whatever a file says
    try:
        return here[step]
    except (KeyError, IndexError, TypeError):
        return None


def _explain(error: ErrorDetails, data: object) -> Problem:
    """Return a problem of the model's in words that name the remedy, at its place in the file."""
    location = _in_file(error["loc"], data)
    key = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key, _KEYS, n=1)
        return Problem(location, f"unknown key{f'; did you mean {near[0]!r}?' if near else ''}")
    if error["type"] == "missing":
        return Problem((*location, key) if location[-1:] != (key,) else location, "is missing")
    if error["type"] in _WORDS:
        return Problem(location, _WORDS[error["type"]])
    words = error["msg"].removeprefix("Value error, ")
    return Problem(location, words[:1].lower() + words[1:])


def _in_file(loc: Sequence[str | int], data: object) -> Location:
    """Return *loc* without the steps that only the model knows, such as a union's choice."""
    location: Location = ()
    here: Any = data
    for each in loc:
        step = _spelled(each, here)
        known = isinstance(here, Mapping) and step in here
        if known or (isinstance(here, list) and isinstance(step, int) and step < len(here)):
            location, here = (*location, step), _look(here, step)
    return location


def _dotted(location: Location, data: object) -> str:
    """Return ``processes.api.path``, with names in the place of indices where there are any."""
    parts: list[str] = []
    here: Any = data
    for step in location:
        here = _look(here, step)
        name = here.get("name") if isinstance(here, Mapping) and isinstance(step, int) else None
        parts.append(name if isinstance(name, str) and name else str(step))
    return ".".join(parts)
