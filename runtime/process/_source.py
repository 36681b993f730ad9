"""From what a manifest says to what its models read: variables, folders, replicas."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from runtime._interpolation import EnvFileError, Room, interpolate, read_env_file
from runtime._problems import Location, Problem, did_you_mean

from .models import Process
from .specs import Replicas

_REPLICA = "REPLICA"
# What is checked in a moment, and runs on one host. Without it `replicas` would be a bomb.
_MOST_PROCESSES = 1_000
_MOST_VALUES = 200_000
_CHARACTERS_PER_VALUE = 50  # so much text counts as one value more
_TOO_MANY = f"there are more than {_MOST_PROCESSES} processes, replicas counted, or too large ones"
_FIRST = ("base_directory", "env_file")  # the other values may depend on these
_FOR_ANCHORS = "x-"  # such keys are for what others refer to, and say nothing themselves
# Set where an entry is expanded, and by nobody else.
_INTERNAL = "replica_of"
_REPLICAS: TypeAdapter[int] = TypeAdapter(Replicas)


@dataclass(frozen=True, slots=True)
class Source:
    """The data of a manifest, made ready for the models.

    *unusable* are the places of values that cannot be known; not all of them are a problem of
    their own. Places are those in *data*, where entries are expanded: *origins* says for each
    entry of ``processes`` which entry of the file it is.
    """

    data: object
    problems: tuple[Problem, ...] = ()
    unusable: tuple[Location, ...] = ()
    origins: tuple[int, ...] = ()


def prepare(data: object, folder: Path) -> Source:
    """Resolve all references in *data*, expand replicas, and let relative paths start at *folder*.

    A reference is resolved by our environment, then by the ``env_file``.
    """
    if not isinstance(data, Mapping):
        return Source(data)
    problems: list[Problem] = []
    room = Room()
    head = {
        key: interpolate(data[key], os.environ, problems, (key,), room)
        for key in _FIRST
        if key in data
    }
    base = head.get("base_directory")
    if base is None or isinstance(base, str):
        # Absolute: what is wrong with a file in it is told in the same words by whoever reads it.
        head["base_directory"] = os.path.abspath(folder / (base or ""))  # noqa: PTH100 - links stay
    variables, failure = _variables(head)
    missing: list[Problem] = []
    rest = {
        key: _resolve_entries(value, variables, missing, room)
        if key == "processes" and isinstance(value, list)
        else interpolate(value, variables, missing, (key,), room)
        for key, value in data.items()
        if key not in head and not (isinstance(key, str) and key.startswith(_FOR_ANCHORS))
    }
    unusable = tuple(dict.fromkeys(where for where, _ in (*problems, *missing)))
    # What is not set may be so because the file could not be read.
    problems += [failure] if failure is not None else missing
    entries = rest.get("processes")
    origins: tuple[int, ...] = ()
    if isinstance(entries, list):
        _take_out_internal(entries, problems)
        try:
            expanded = expand_replicas(entries)
        except ValueError as error:
            problems.append(Problem(("processes",), str(error)))
            unusable = (*unusable, ("processes",))
        else:
            rest["processes"] = [entry for _, entry in expanded]
            origins = tuple(index for index, _ in expanded)
            places = _places(origins)
            problems = [Problem(_moved(each, places)[0], what) for each, what in problems]
            unusable = tuple(place for each in unusable for place in _moved(each, places))
    return Source({**rest, **head}, tuple(problems), unusable, origins)


def _variables(head: Mapping[str, object]) -> tuple[dict[str, str], Problem | None]:
    base, file = head.get("base_directory"), head.get("env_file")
    if not isinstance(base, str) or not isinstance(file, str):
        return dict(os.environ), None
    try:
        return {**read_env_file(Path(base, file)), **os.environ}, None
    except EnvFileError as error:
        return dict(os.environ), Problem(("env_file",), str(error))


def _resolve_entries(
    entries: list[object], variables: Mapping[str, str], problems: list[Problem], room: Room
) -> list[object]:
    """Resolve all but what will be different in each replica."""
    kept = {**variables, _REPLICA: f"${{{_REPLICA}}}"}
    return [
        interpolate(
            entry,
            kept if isinstance(entry, dict) and "replicas" in entry else variables,
            problems,
            ("processes", index),
            room,
        )
        for index, entry in enumerate(entries)
    ]


def _take_out_internal(entries: list[object], problems: list[Problem]) -> None:
    """Refuse the field that only we may set: it would make a replica of what is none."""
    for index, entry in enumerate(entries):
        if isinstance(entry, dict) and _INTERNAL in entry:
            del entry[_INTERNAL]
            keys = [field.alias or name for name, field in Process.model_fields.items()]
            hint = did_you_mean(_INTERNAL, (k for k in keys if k != _INTERNAL), told=problems)
            problems.append(Problem(("processes", index, _INTERNAL), f"unknown key{hint}"))


def _places(origins: Sequence[int]) -> Mapping[object, list[int]]:
    """Return for each entry of the file where its replicas are, or itself."""
    places: dict[object, list[int]] = {}
    for place, origin in enumerate(origins):
        places.setdefault(origin, []).append(place)
    return places


def _moved(location: Location, places: Mapping[object, list[int]]) -> list[Location]:
    """Return the places among the expanded entries that *location* in the file has become."""
    if location[:1] != ("processes",):
        return [location]
    _, index, *inside = location
    return [("processes", place, *inside) for place in places[index]]


def expand_replicas(entries: Sequence[object]) -> list[tuple[int, object]]:
    """Return each entry with its index, one with ``replicas`` as often as it says.

    What is not right about such an entry is left for its model to refuse. Raises `ValueError` when
    there would be too many of them.
    """
    expanded: list[tuple[int, object]] = []
    values = 0
    for index, entry in enumerate(entries):
        fields = _fields(entry)
        count, name = _count(fields.get("replicas")), fields.get("name")
        if count is None or not isinstance(name, str):
            expanded.append((index, entry))
            continue
        values += count * _size(fields)
        if len(expanded) + count > _MOST_PROCESSES or values > _MOST_VALUES:
            raise ValueError(_TOO_MANY)
        expanded += [(index, _replica(fields, name, str(number))) for number in range(count)]
    if len(expanded) > _MOST_PROCESSES:
        raise ValueError(_TOO_MANY)
    return expanded


def _size(value: object) -> int:
    if isinstance(value, Mapping):
        # A key and its value are one; what a long key counts is added.
        return 1 - len(value) + sum(map(_size, chain(value, value.values())))
    if isinstance(value, list):
        return 1 + sum(map(_size, value))
    return 1 + len(value) // _CHARACTERS_PER_VALUE if isinstance(value, str) else 1


def _fields(entry: object) -> Mapping[str, object]:
    if isinstance(entry, BaseModel):
        return {name: getattr(entry, name) for name in entry.model_fields_set}
    return entry if isinstance(entry, Mapping) else {}


def _count(replicas: object) -> int | None:
    try:
        return None if replicas is None else _REPLICAS.validate_python(replicas)
    except ValidationError:
        return None


def _replica(fields: Mapping[str, object], name: str, number: str) -> dict[str, object]:
    own = {key: _fill_in(value, number) for key, value in fields.items() if key != "replicas"}
    given = own.get("env", {})
    env = {_REPLICA: number, **given} if isinstance(given, Mapping) else given
    return {**own, "name": f"{name}-{number}", "replica_of": name, "env": env}


def _fill_in(value: object, number: str) -> object:
    """Return *value* with the number of the replica in the place of its references to it."""
    if isinstance(value, str):
        return value.replace(f"${{{_REPLICA}}}", number)
    if isinstance(value, list):
        return [_fill_in(item, number) for item in value]
    if isinstance(value, dict):
        return {key: _fill_in(item, number) for key, item in value.items()}
    return value
