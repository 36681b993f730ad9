"""``${NAME}`` and ``${NAME:-default}`` in the text of a manifest, and the files that set names."""

import os
import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime import _late
from runtime._problems import Location, Problem
from runtime._procfs import MARKER_IS_OURS, MARKERS
from runtime._secrets import (
    BEGIN,
    count_references,
    escape,
    judge_place,
    judge_reference,
    map_strings,
    may_stand_at,
)

_LARGEST_KB = 64  # every process gets all of it; the parser takes a second for 100 KB
_LONGEST_SHOWN = 60
_MB = 1024 * 1024
_TOO_LARGE = "is too large here: all variables together may put 10 MB into a manifest"

_REFERENCE = re.compile(
    r"""
    \$\$\{ (?P<plain>)                             # $${ stands for ${ itself
    | \$\{ (?P<name>[A-Za-z_][A-Za-z0-9_]*) (?: :- (?P<default>[^{}]*) )? \}
    | \$\{ secret: (?P<secret> (?:                 # there may be variables in it
          \$\{ [A-Za-z_][A-Za-z0-9_]* (?: :- [^{}]* )? \} | [^{}$] | \$ (?!\$*\{)
      )* ) \}
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
    refer to an earlier one, or to our environment, as ``${NAME}``, but not in single quotes.
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
    for name, value, line, is_literal in _late.parse_env_file(text):
        if name is None or value is None or "\0" in value:
            raise EnvFileError(path, line, "is no line of the form NAME=value")
        if name in MARKERS:  # no process would have it, and only the manifest see it
            raise EnvFileError(path, line, f"{name} {MARKER_IS_OURS}")
        problems: list[Problem] = []
        # (Who writes a secret there means one, whatever the quotes, and is told that it is none.)
        stays = is_literal and BEGIN not in value
        found[name] = value if stays else _resolve(value, known, (), problems, room)
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
    left = room or Room()

    def change(text: str, here: Location) -> str:
        return _resolve(text, variables, here, problems, left) if "${" in text else text

    return map_strings(data, change, at)


def _resolve(
    text: str, variables: Mapping[str, str], at: Location, problems: list[Problem], room: Room
) -> str:
    late = may_stand_at(at)  # what is left for later must not be taken for something else then
    secrets, before = 0, len(problems)

    def replace(match: re.Match[str]) -> str:
        nonlocal secrets
        if match["plain"] is not None:
            return match[0] if late and text.startswith(BEGIN[2:], match.end()) else "${"
        if match["secret"] is not None:
            secrets += 1
            return _leave_for_later(match, variables, at, problems, room)
        if match["name"] is None:
            problems.append(Problem(at, _judge_malformed(match[0])))
            return match[0]
        value = _value(match, variables, at, problems, room)
        return match[0] if value is None else escape(value) if late else value

    resolved = _REFERENCE.sub(replace, text)
    if late and len(problems) == before and secrets != count_references(resolved):
        problems.append(Problem(at, "a secret may not come behind a variable that ends in $"))
    return resolved


def _judge_malformed(written: str) -> str:
    if written.startswith(BEGIN):
        return judge_reference(written)
    return (
        f"{written!r} is neither ${{NAME}} nor ${{NAME:-default}}; "
        "write $${ where ${ is meant as it stands"
    )


def _value(
    match: re.Match[str],
    variables: Mapping[str, str],
    at: Location,
    problems: list[Problem],
    room: Room,
) -> str | None:
    """Return what a reference to a variable stands for; None with the problem told, or no room."""
    name, default = match["name"], match["default"]
    value = variables.get(name)
    resolved = value if default is None else value or default
    if resolved is None:
        short = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…"
        message = f"${{{short}}} is not set; set it, or give a default: ${{{short}:-default}}"
        problems.append(Problem(at, message))
        return None
    if room.left >= 0 and not room.take(resolved):
        problems.append(Problem(at, f"${{{name}}} {_TOO_LARGE}"))
    return resolved if room.left >= 0 else None


def _leave_for_later(
    match: re.Match[str],
    variables: Mapping[str, str],
    at: Location,
    problems: list[Problem],
    room: Room,
) -> str:
    """Return a reference to a secret with the variables in it resolved, where it may stand here."""
    problem = judge_place(at)
    if not problem:
        before = len(problems)
        address = _REFERENCE.sub(
            lambda inner: _value(inner, variables, at, problems, room) or "", match["secret"]
        )
        written = f"{BEGIN}{address}}}"
        # (A replica's number is put in when there are replicas.)
        problem = judge_reference(written.replace("${REPLICA}", ""))
        if not problem or len(problems) > before:
            return written
    problems.append(Problem(at, problem))
    return match[0]
