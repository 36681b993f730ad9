"""What is read from a file: plain data, the lines of its parts, and the bounds that are kept."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from runtime._problems import Location

DEEPEST: Final = 100
MOST_VALUES: Final = 50_000  # keys are counted as well
MOST_REPEATED: Final = 10_000_000  # characters that aliases stand for
LONGEST_NUMBER: Final = 100  # as text; what it stands for is finite as a float, whatever its base

TOO_DEEP: Final = "is nested too deeply"
TOO_MANY: Final = f"has more than {MOST_VALUES} keys and values"
TOO_MUCH: Final = "has aliases for more than 10 MB of text"
TOO_LONG_A_NUMBER: Final = (
    f"is a number of more than {LONGEST_NUMBER} characters; put it in quotes if it is text"
)
EMPTY: Final = "is empty"

# As YAML has them; TOML has but the first two.
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

#: A line; and for a mapping or a list also the places of what is in it, by key or by index.
Place: TypeAlias = "int | tuple[int, dict[str | int, Place]]"


class DocumentError(ValueError):
    """A file is no document at all; *line* is where that shows, 0 where it has no line."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(path, line, problem)
        self.path, self.line, self.problem = path, line, problem

    def __str__(self) -> str:
        return f"{self.path}:{self.line or 1}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says, and on which line it says it."""

    path: Path
    data: object
    place: Place

    def line(self, location: Location) -> int:
        """Return the line of *location*, or of the nearest thing around it that has one."""
        place = self.place
        for step in location:
            inside = {} if isinstance(place, int) else place[1]
            if step not in inside:
                break
            place = inside[step]
        return place if isinstance(place, int) else place[0]


def at_line(place: Place, line: int) -> Place:
    """Return *place* as it is found from *line*: that of its key, or of an alias for it."""
    return line if isinstance(place, int) else (line, place[1])


def last_line(text: str) -> int:
    """Return the line on which *text* ends: what is missing there is missing on that one."""
    return len(_LINE_END.findall(text.rstrip())) + 1


def shorten(text: str, most: int = 60) -> str:
    """Return *text* as it can stand in a message: of one line, and not too long."""
    return repr(text if len(text) <= most else f"{text[:most]}…")
