"""Reads YAML and JSON files into plain data, and remembers the line of every key and item.

YAML is read by PyYAML, whose nodes carry their marks; JSON is read by the same reader, as all of
it but the oddest (characters written as two escapes, which are joined before) is YAML as well.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import yaml

from runtime._problems import Location

_LARGEST_MB = 10
_DEEPEST = 100
_MOST_NODES = 200_000
_TOO_DEEP = "is nested too deeply"
_TOO_MANY = f"has more than {_MOST_NODES} values"

# A character beyond U+FFFF as JSON writes it; or an escaped backslash, with which none begins.
_SURROGATES = re.compile(r"\\\\|\\u(d[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}", re.IGNORECASE)


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
    lines: dict[Location, int]

    def line(self, location: Location) -> int:
        """Return the line of *location*, or of the nearest thing around it that has one."""
        while location not in self.lines and location:
            location = location[:-1]
        return self.lines.get(location, 1)


def read_document(path: Path) -> Document:
    """Read *path*; raise `DocumentError` when it cannot be read or is not well-formed."""
    try:
        if path.stat().st_size > _LARGEST_MB * 1024 * 1024:
            raise DocumentError(path, 0, f"is larger than {_LARGEST_MB} MB")
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            text = _SURROGATES.sub(_join_surrogates, text)
    except OSError as error:
        raise DocumentError(path, 0, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DocumentError(path, line, "is no text in UTF-8") from error
    try:
        _check_size(path, text)
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
        if root is None:
            raise DocumentError(path, 0, "is empty")
        return _Builder(path).build(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise DocumentError(path, mark.line + 1 if mark else 0, problem) from error
    except yaml.YAMLError as error:
        raise DocumentError(path, 0, " ".join(str(error).split())) from error


def _check_size(path: Path, text: str) -> None:
    """Refuse what is too deep or too much before it is composed: in C, on the stack."""
    depth = count = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        count += isinstance(event, yaml.NodeEvent)
        if count > _MOST_NODES:
            raise DocumentError(path, line, _TOO_MANY)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise DocumentError(path, line, _TOO_DEEP)


def _join_surrogates(match: re.Match[str]) -> str:
    if match[1] is None:
        return match[0]
    pair = match[0].encode().decode("unicode_escape")
    return pair.encode("utf-16", "surrogatepass").decode("utf-16")


class _Builder:
    """Turns nodes into plain data; aliases are counted each time, so that no bomb goes off."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[Location, int] = {}
        self._count = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def build(self, root: yaml.Node) -> Document:
        return Document(self._path, self._value(root, ()), self._lines)

    def _value(self, node: yaml.Node, at: Location) -> object:
        self._count += 1
        if self._count > _MOST_NODES:
            raise self._error(node, _TOO_MANY)
        if len(at) > _DEEPEST:
            raise self._error(node, _TOO_DEEP)
        self._lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, (*at, i)) for i, child in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except yaml.MarkedYAMLError as error:
            raise self._error(node, f"is no valid value: {error.problem}") from error
        except ValueError as error:
            raise self._error(node, f"is no valid value: {error}") from error
        except (LookupError, AttributeError) as error:  # as PyYAML fails at ``!!bool maybe``
            raise self._error(node, f"is no {node.tag.rpartition(':')[2]}") from error

    def _mapping(self, node: yaml.MappingNode, at: Location) -> dict[Hashable, object]:
        found: dict[Hashable, object] = {}
        for key_node, value_node in node.value:
            key = self._value(key_node, at)
            if not isinstance(key, str):
                raise self._error(key_node, f"the key {key!r} is no text; put it in quotes")
            if key in found:
                raise self._error(key_node, f"the key {key!r} stands here twice")
            self._lines[(*at, key)] = key_node.start_mark.line + 1
            found[key] = self._value(value_node, (*at, key))
        return found

    def _error(self, node: yaml.Node, problem: str) -> DocumentError:
        return DocumentError(self._path, node.start_mark.line + 1, problem)
