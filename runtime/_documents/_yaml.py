"""Reads YAML, and JSON, from the events of libyaml.

Nothing is composed by PyYAML: its nodes take four times as long, and are nested in C, on the stack.
JSON is read here as well, as all of it but two things is YAML: characters written as two escapes,
which are joined before, and numbers with a bare exponent.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from ._document import (
    DEEPEST,
    EMPTY,
    LONGEST_NUMBER,
    MOST_REPEATED,
    MOST_VALUES,
    TOO_DEEP,
    TOO_LONG_A_NUMBER,
    TOO_MANY,
    TOO_MUCH,
    Document,
    DocumentError,
    Place,
    at_line,
    last_line,
    shorten,
)
from ._yaml_problems import explain

# A character beyond U+FFFF as JSON writes it; or an escaped backslash, with which none begins.
_SURROGATES = re.compile(r"\\\\|\\u(d[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}", re.IGNORECASE)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
# libyaml compares each with all before, and each tag with all of them.
_MOST_TAG_DIRECTIVES = 100

_OURS = "tag:yaml.org,2002:"
_STR, _MERGE, _VALUE = f"{_OURS}str", f"{_OURS}merge", f"{_OURS}value"
_INT, _FLOAT = f"{_OURS}int", f"{_OURS}float"
_LIST, _MAPPING = f"{_OURS}seq", f"{_OURS}map"
_RESOLVE: Final[Callable[[object, str, tuple[bool, bool]], str]] = yaml.resolver.Resolver().resolve
_SPECIAL: Final[frozenset[str]] = frozenset(yaml.resolver.Resolver.yaml_implicit_resolvers)
_SCALARS = yaml.constructor.SafeConstructor()
_CONSTRUCT: Final[Mapping[str, Callable[[yaml.ScalarNode], object]]] = {
    f"{_OURS}null": _SCALARS.construct_yaml_null,
    f"{_OURS}bool": _SCALARS.construct_yaml_bool,
    f"{_OURS}binary": _SCALARS.construct_yaml_binary,
    f"{_OURS}timestamp": _SCALARS.construct_yaml_timestamp,
    _INT: _SCALARS.construct_yaml_int,
    _FLOAT: _SCALARS.construct_yaml_float,
}


def read_yaml(path: Path, text: str, *, is_json: bool) -> Document:
    """Read the YAML or JSON in *text*; raise `DocumentError` when it is not well-formed."""
    if is_json:
        text = _SURROGATES.sub(_join_surrogates, text)
    if text.count("%TAG") > _MOST_TAG_DIRECTIVES:
        raise DocumentError(path, 0, f"has more than {_MOST_TAG_DIRECTIVES} %TAG directives")
    loader = yaml.CSafeLoader(text)
    try:
        return _Builder(path, text, is_json=is_json).build(loader.get_event)
    except yaml.YAMLError as error:
        line, problem = explain(error, text)
        raise DocumentError(path, min(line, last_line(text)), problem) from error
    finally:
        loader.dispose()


def _join_surrogates(match: re.Match[str]) -> str:
    if match[1] is None:
        return match[0]
    pair = match[0].encode().decode("unicode_escape")
    return pair.encode("utf-16", "surrogatepass").decode("utf-16")


class _Frame:
    """A mapping or a list that is not closed yet."""

    __slots__ = ("inside", "items", "key", "key_line", "line", "mapping", "merged", "wants_key")

    def __init__(self, line: int, *, is_mapping: bool) -> None:
        self.line = line
        self.mapping: dict[str, object] | None = {} if is_mapping else None
        self.items: list[object] = []
        self.inside: dict[str | int, Place] = {}
        self.wants_key = is_mapping
        self.key: str | None = None  # None while the value that comes next is that of a ``<<``
        self.key_line = line
        self.merged: dict[str, tuple[object, Place]] | None = None  # None before the first ``<<``

    @property
    def data(self) -> dict[str, object] | list[object]:
        return self.items if self.mapping is None else self.mapping


class _Builder:
    """Turns events into plain data; aliases are counted each time, so that no bomb goes off."""

    def __init__(self, path: Path, text: str, *, is_json: bool) -> None:
        self._path, self._text, self._is_json = path, text, is_json
        self._count = self._repeated = 0
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[object, Place]] = {}
        self._root: tuple[object, Place] | None = None

    def build(self, get_event: Callable[[], Any]) -> Document:
        """Return what the events say that *get_event* returns, one after the other."""
        while True:
            event = get_event()
            kind = type(event)
            line = event.start_mark.line + 1
            if kind is yaml.ScalarEvent:
                self._scalar(event, line)
            elif kind is yaml.MappingStartEvent:
                self._open(event, line, is_mapping=True)
            elif kind is yaml.SequenceStartEvent:
                self._open(event, line, is_mapping=False)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._close()
            elif kind is yaml.AliasEvent:
                self._alias(event.anchor, line)
            elif kind is yaml.DocumentStartEvent and self._root:
                problem = "a second document begins here; a file holds one"
                raise DocumentError(self._path, line, problem)
            elif kind is yaml.StreamEndEvent:
                break
        if self._root is None:
            raise DocumentError(self._path, 0, EMPTY)
        return Document(self._path, *self._root)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        self._count_one(line)
        data: object = event.value
        tag = event.tag
        if tag is not None or event.implicit[0]:
            tag = self._tag(tag, event.value, event.implicit)
            if tag in (_MERGE, _VALUE) and self._stack and self._stack[-1].wants_key:
                if tag == _MERGE:
                    self._begin_merge(self._stack[-1], line)
                    return
            elif tag != _STR:
                data = self._construct(tag, event.value, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = (data, line)
        self._add(data, line, line)

    def _tag(self, tag: str | None, value: str, implicit: tuple[bool, bool]) -> str:
        """Return the tag by which *value* is read: its own, or that of what it looks like."""
        if tag is not None and tag != "!":
            return tag
        if self._is_json and implicit[0] and (number := _JSON_NUMBER.fullmatch(value)):
            return _FLOAT if number.lastindex else _INT
        if value and value[0] not in _SPECIAL:
            return _STR
        return str(_RESOLVE(yaml.ScalarNode, value, implicit))

    def _construct(self, tag: str, value: str, line: int) -> object:
        """Return what a *value* that is no text stands for."""
        if tag in (_INT, _FLOAT):
            if len(value) > LONGEST_NUMBER:
                raise DocumentError(self._path, line, TOO_LONG_A_NUMBER)
            if self._is_json and _JSON_NUMBER.fullmatch(value):
                return int(value) if tag == _INT else float(value)
        if tag in (_MERGE, _VALUE):
            raise DocumentError(self._path, line, f"put {value} in quotes where it is text")
        construct = _CONSTRUCT.get(tag)
        if construct is None:
            raise DocumentError(self._path, line, _unknown_tag(tag))
        try:
            return construct(yaml.ScalarNode(tag, value))
        except yaml.MarkedYAMLError as error:
            raise DocumentError(self._path, line, f"is no valid value: {error.problem}") from error
        except (ValueError, ArithmeticError) as error:
            raise DocumentError(self._path, line, f"is no valid value: {error}") from error
        except (LookupError, AttributeError) as error:  # as PyYAML fails at ``!!bool maybe``
            raise DocumentError(self._path, line, f"is no {tag.removeprefix(_OURS)}") from error

    def _open(self, event: yaml.CollectionStartEvent, line: int, *, is_mapping: bool) -> None:
        self._count_one(line)
        if self._stack and self._stack[-1].wants_key:
            raise DocumentError(self._path, line, self._no_key(event, is_mapping=is_mapping))
        if event.tag not in (None, "!", _MAPPING if is_mapping else _LIST):
            raise DocumentError(self._path, line, _unknown_tag(str(event.tag)))
        if len(self._stack) == DEEPEST:
            raise DocumentError(self._path, line, TOO_DEEP)
        frame = _Frame(line, is_mapping=is_mapping)
        self._stack.append(frame)
        if event.anchor is not None:
            self._anchors[event.anchor] = (frame.data, (line, frame.inside))

    def _no_key(self, event: yaml.Event, *, is_mapping: bool) -> str:
        template = event.start_mark and self._text.startswith("{{", event.start_mark.index - 1)
        remedy = "put what has {{ in it in quotes" if template else "put it in quotes"
        return f"a {'mapping' if is_mapping else 'list'} is no key; {remedy}"

    def _close(self) -> None:
        frame = self._stack.pop()
        if frame.merged and frame.mapping is not None:
            for key, (value, place) in frame.merged.items():
                if key not in frame.mapping:
                    frame.mapping[key], frame.inside[key] = value, place
        self._add(frame.data, (frame.line, frame.inside), frame.line)

    def _alias(self, name: str, line: int) -> None:
        short = shorten(name)[1:-1]
        if name not in self._anchors:
            problem = f"there is no anchor &{short} before the alias *{short}"
            raise DocumentError(self._path, line, problem)
        data, place = self._anchors[name]
        if any(frame.data is data for frame in self._stack):
            problem = f"the alias *{short} stands inside of what it stands for"
            raise DocumentError(self._path, line, problem)
        self._add(self._copy(data, line, len(self._stack)), at_line(place, line), line)

    def _copy(self, data: object, line: int, depth: int) -> object:
        """Return a copy of *data*, each part of which is counted."""
        self._count_one(line)
        if isinstance(data, str | bytes):
            self._count_text(data, line)
        if not isinstance(data, dict | list):
            return data
        if depth == DEEPEST:
            raise DocumentError(self._path, line, TOO_DEEP)
        if isinstance(data, list):
            return [self._copy(each, line, depth + 1) for each in data]
        for key in data:
            self._count_text(key, line)
        return {key: self._copy(each, line, depth + 1) for key, each in data.items()}

    def _count_text(self, text: str | bytes, line: int) -> None:
        self._repeated += len(text)
        if self._repeated > MOST_REPEATED:
            raise DocumentError(self._path, line, TOO_MUCH)

    def _add(self, data: object, place: Place, line: int) -> None:
        """Put a value, or a key, into what it stands in."""
        if not self._stack:
            self._root = (data, place)
            return
        frame = self._stack[-1]
        if frame.mapping is None:
            frame.inside[len(frame.items)] = place
            frame.items.append(data)
            return
        if frame.wants_key:
            frame.key, frame.key_line = self._key(frame.mapping, data, line), line
        elif frame.key is None:
            self._merge(frame, data, place, line)
        else:
            frame.mapping[frame.key] = data
            frame.inside[frame.key] = at_line(place, frame.key_line)
        frame.wants_key = not frame.wants_key

    def _key(self, mapping: dict[str, object], data: object, line: int) -> str:
        if not isinstance(data, str):
            what = "list or mapping" if isinstance(data, list | dict) else repr(data)
            raise DocumentError(self._path, line, f"the key {what} is no text; put it in quotes")
        if data in mapping:
            raise DocumentError(self._path, line, f"the key {shorten(data)} stands here twice")
        return data

    def _begin_merge(self, frame: _Frame, line: int) -> None:
        if frame.merged is not None:
            problem = "the key '<<' stands here twice; give it a list: <<: [*a, *b]"
            raise DocumentError(self._path, line, problem)
        frame.merged, frame.key, frame.wants_key = {}, None, False

    def _merge(self, frame: _Frame, data: object, place: Place, line: int) -> None:
        """Note what *frame* takes from others; its own keys win, then those of the first."""
        merged = frame.merged = frame.merged or {}
        inside = {} if isinstance(place, int) else place[1]
        if isinstance(data, list):
            bases = [(each, inside[index]) for index, each in enumerate(data)]
        else:
            bases = [(data, place)]
        for base, where in bases:
            if not isinstance(base, dict) or isinstance(where, int):
                problem = "<< takes a mapping, or a list of mappings: <<: [*a, *b]"
                raise DocumentError(self._path, line, problem)
            for key, value in base.items():
                merged.setdefault(key, (value, where[1][key]))

    def _count_one(self, line: int) -> None:
        self._count += 1
        if self._count > MOST_VALUES:
            raise DocumentError(self._path, line, TOO_MANY)


def _unknown_tag(tag: str) -> str:
    short = tag.replace(_OURS, "!!", 1) if tag.startswith(_OURS) else tag
    return f"has the tag {shorten(short)}, which means nothing here"
