"""``${NAME}`` and ``${NAME:-default}`` in the text of a manifest, and the files that set names."""

import os
import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime import _late
from runtime._problems import Location, Problem

_LARGEST_KB = 64  # every process gets all of it; the parser takes a second for 100 KB
_LONGEST_SHOWN = 60
_MB = 1024 * 1024
_TOO_LARGE = "is too large here: all variables together may put 10 MB into a manifest"

_REFERENCE = re.compile(
    r"""
    \$\$\{ (?P<plain>)                             # $${ stands for ${ itself
    | \$\{ (?P<name>[A-Za-z_][A-Za-z0-9_]*) (?: :- (?P<default>[^{}]*) )? \}
    | \$\{ (?P<malformed>[^}]{0,40}) \}?
    """,
    re.VERBOSE,
)


@dataclass(slots=True)
class Room:
    """How many characters the values of variables may still take: each of them is easily named."""

    left: int = 10 * _MB

    def take(self, text: str) -> bool:
        """Return whether there is room for *text*."""
        self.left = max(-1, self.left - len(text))
        return self.left >= 0


class EnvFileError(ValueError):
    """A file of variables cannot be used; *line* is where that shows, 0 where it has no line."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(path, line, problem)
        self.path, self.line, self.problem = path, line, problem

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.problem}"


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables that a file of ``NAME=value`` lines sets; raise `EnvFileError`.

    Quotes, comments and ``export`` are understood as shells and other tools do; a later line may
    refer to an earlier one, or to our environment, as ``${NAME}``.
    """
    try:
        if not path.is_file():
            raise EnvFileError(path, 0, "is no file" if path.exists() else "there is no such file")
        if path.stat().st_size > _LARGEST_KB * 1024:
            raise EnvFileError(path, 0, f"is larger than {_LARGEST_KB} KB")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EnvFileError(path, 0, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise EnvFileError(path, line, "is no text in UTF-8") from error
    found: dict[str, str] = {}
    known = ChainMap(dict(os.environ), found)
    room = Room(_MB)
    for name, value, line in _late.parse_env_file(text):
        if name is None or value is None or "\0" in value:
            raise EnvFileError(path, line, "is no line of the form NAME=value")
        problems: list[Problem] = []
        found[name] = _resolve(value, known, (), problems, room)
        if room.left < 0:
            raise EnvFileError(path, line, "is larger than 1 MB with its variables put in")
        for problem in problems:
            raise EnvFileError(path, line, problem.message)
    return found


def interpolate(
    data: object,
    variables: Mapping[str, str],
    problems: list[Problem],
    at: Location = (),
    room: Room | None = None,
) -> object:
    """Return *data* with every reference in its strings resolved; keys stay as they are.

    What cannot be resolved is added to *problems*, with its place below *at*, and left as it is;
    so is the first value that there is no more *room* for.
    """
    room = room or Room()
    if isinstance(data, str):
        return _resolve(data, variables, at, problems, room) if "${" in data else data
    if isinstance(data, list):
        return [
            interpolate(item, variables, problems, (*at, i), room) for i, item in enumerate(data)
        ]
    if isinstance(data, dict):
        return {
            key: interpolate(value, variables, problems, (*at, key), room)
            for key, value in data.items()
        }
    return data


def _resolve(
    text: str, variables: Mapping[str, str], at: Location, problems: list[Problem], room: Room
) -> str:
    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match["plain"] is not None:
            return "${"
        if name is None:
            written = match[0]
            problems.append(
                Problem(
                    at,
                    f"{written!r} is neither ${{NAME}} nor ${{NAME:-default}}; "
                    "write $${ where ${ is meant as it stands",
                )
            )
            return written
        value = variables.get(name)
        resolved = value if default is None else value or default
        if resolved is None:
            short = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…"
            message = f"${{{short}}} is not set; set it, or give a default: ${{{short}:-default}}"
            problems.append(Problem(at, message))
            return match[0]
        if room.left >= 0 and not room.take(resolved):
            problems.append(Problem(at, f"${{{name}}} {_TOO_LARGE}"))
        return resolved if room.left >= 0 else match[0]

    return _REFERENCE.sub(replace, text)
