"""Reads TOML: tomllib gives the values, and the lines are found in what it has accepted.

tomllib knows no positions. tomlkit keeps them to itself, and takes many times as long.
"""

import re
from pathlib import Path
from typing import Final

from runtime import _late

from ._document import (
    DEEPEST,
    EMPTY,
    LONGEST_NUMBER,
    MOST_VALUES,
    TOO_DEEP,
    TOO_LONG_A_NUMBER,
    TOO_MANY,
    Document,
    DocumentError,
    Place,
    at_line,
)

# For each dotted key tomllib looks at all of its beginnings, each part by part.
_MOST_DOTS = 10
# Each of these matches to the end of the text, or of the line, where a string is never closed.
_STRING = (
    r'"""(?:[^"\\]++|\\[\s\S]?|"(?!""))*+(?:"{3,5})?'
    r"|'''(?:[^']++|'(?!''))*+(?:'{3,5})?"
    r'|"(?:[^"\\\n]++|\\[^\n]?)*+"?'
    r"|'[^'\n]*+'?"
)
_NO_STRUCTURE = re.compile(rf"""{_STRING}|\#[^\n]*+|[^"'\#\n.,=\[\]{{}}]++""")
_BETWEEN = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_KEY_PART = re.compile(r"""[ \t]*+("(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+'|[^\s"'.=\]]++)[ \t]*+(\.?)""")
_SCALAR = re.compile(rf"{_STRING}|[^\s,\]}}#]++(?:[ ](?=[0-9])[^\s,\]}}#]++)?")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(.))")
_ESCAPED: Final = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}
_IN_TOMLLIB = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_DIGITS = re.compile(r"[0-9_]+")
_REMEDIES: Final = {
    "Invalid value": "; put text in quotes",
    "Cannot overwrite a value": "; a key stands here twice",
}

_Inside = dict[str | int, Place]


def read_toml(path: Path, text: str) -> Document:
    """Read the TOML in *text*; raise `DocumentError` when it is not well-formed."""
    text = text.replace("\r\n", "\n")  # as tomllib does
    _check_size(path, text)
    tomllib = _late.tomllib()
    try:
        data = tomllib.loads(text)
    except RecursionError as error:
        raise DocumentError(path, 0, TOO_DEEP) from error
    except tomllib.TOMLDecodeError as error:
        raise DocumentError(path, *_explain(str(error), text)) from error
    except ValueError as error:  # of int(), which has no place
        raise DocumentError(path, _line_of_digits(text), TOO_LONG_A_NUMBER) from error
    if not data:
        raise DocumentError(path, 0, EMPTY)
    return Document(path, data, _Finder(path, text).find())


def _check_size(path: Path, text: str) -> None:
    """Refuse what would take tomllib too long, before it begins."""
    structure = _NO_STRUCTURE.sub("", text)
    if "." * (_MOST_DOTS + 1) in structure:
        raise DocumentError(path, 0, f"has a key of more than {_MOST_DOTS + 1} parts")
    dots_of_numbers = sum(map(structure.count, (".,", ".\n", ".}")))
    keys = structure.count("=") + structure.count(".") - dots_of_numbers
    if keys + sum(map(structure.count, "=,[{")) > MOST_VALUES:
        raise DocumentError(path, 0, TOO_MANY)


def _explain(message: str, text: str) -> tuple[int, str]:
    found = _IN_TOMLLIB.search(message)
    problem = message[: found.start()] if found else message
    last = text.rstrip().count("\n") + 1
    line = min(int(found[1]), last) if found and found[1] else last
    return line, problem[:1].lower() + problem[1:] + _REMEDIES.get(problem, "")


def _line_of_digits(text: str) -> int:
    longest = max(_DIGITS.finditer(text), key=lambda found: found.end() - found.start())
    return text.count("\n", 0, longest.start()) + 1


class _Finder:
    """Finds the lines in a text that tomllib accepts; of any other it knows nothing."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text
        self._line, self._counted = 1, 0

    def find(self) -> Place:
        """Return the place of everything."""
        text, root = self._text, _Inside()
        table, depth = root, 1
        at = self._skip(0)
        first = self._line_at(at)
        while at < len(text):
            line = self._line_at(at)
            brackets = text.startswith("[", at) + text.startswith("[[", at)
            if brackets:
                parts, at = self._key(at + brackets)
                table = _open(root, parts, line, is_array=brackets == 2)
                depth = 1 + 2 * len(parts)  # at most
                at += brackets
            else:
                at = self._pair(at, table, depth)
            at = self._skip(at)
        return first, root

    def _pair(self, at: int, table: _Inside, depth: int) -> int:
        line = self._line_at(at)
        parts, at = self._key(at)
        for part in parts[:-1]:
            table = _enter(table, part, line)
        place, at = self._value(self._skip(at + 1), depth + len(parts) - 1)
        table[parts[-1]] = at_line(place, line)
        return at

    def _key(self, at: int) -> tuple[list[str], int]:
        parts: list[str] = []
        dot = "."
        while dot and (match := _KEY_PART.match(self._text, at)):
            part, dot = match.groups()
            parts.append(_unquoted(part))
            at = match.end()
        return parts, at

    def _value(self, at: int, depth: int) -> tuple[Place, int]:
        """Return the place of the value at *at*, which is inside of *depth* others, and its end."""
        text, line = self._text, self._line_at(at)
        opening = text[at]
        if opening not in "[{":
            end = at
            if match := _SCALAR.match(text, at):
                end = match.end()
            if end - at > LONGEST_NUMBER and opening not in "\"'":
                raise DocumentError(self._path, line, TOO_LONG_A_NUMBER)
            return line, end
        if depth >= DEEPEST:
            raise DocumentError(self._path, line, TOO_DEEP)
        inside = _Inside()
        closing = "]" if opening == "[" else "}"
        at = self._skip(at + 1)
        while text[at] != closing:
            if opening == "[":
                inside[len(inside)], at = self._value(at, depth + 1)
            else:
                at = self._pair(at, inside, depth + 1)
            at = self._skip(at)
            if text[at] == ",":
                at = self._skip(at + 1)
        return (line, inside), at + 1

    def _skip(self, at: int) -> int:
        """Return where white space, newlines and comments are over."""
        match = _BETWEEN.match(self._text, at)
        return match.end() if match else at

    def _line_at(self, at: int) -> int:
        """Return the line of *at*, which is never before that of the last call."""
        self._line += self._text.count("\n", self._counted, at)
        self._counted = at
        return self._line


def _open(root: _Inside, parts: list[str], line: int, *, is_array: bool) -> _Inside:
    """Return what the table of a header holds; an array gets one more."""
    *around, last = parts
    for part in around:
        root = _enter(root, part, line)
    if is_array:
        tables = _inside(root.setdefault(last, (line, _Inside())))
        tables[len(tables)] = (line, table := _Inside())
        return table
    table = _inside(root.get(last, line))
    root[last] = (line, table)
    return table


def _enter(table: _Inside, part: str, line: int) -> _Inside:
    """Return what the table *part* of *table* holds, of an array the last of its tables."""
    inside = _inside(table.setdefault(part, (line, _Inside())))
    return _inside(inside[len(inside) - 1]) if 0 in inside else inside


def _inside(place: Place) -> _Inside:
    return _Inside() if isinstance(place, int) else place[1]


def _unquoted(part: str) -> str:
    if part[0] == '"':
        return _ESCAPE.sub(_unescape, part[1:-1])
    return part[1:-1] if part[0] == "'" else part


def _unescape(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    return chr(int(digits, 16)) if digits else _ESCAPED.get(match[4], match[4])
