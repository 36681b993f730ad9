"""YAML, JSON and TOML files become plain data with the line of everything, or one clear error."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import tomllib
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime._documents import Document, DocumentError, read_document
from runtime.process import ProcessManifest

PROPERTY = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200
)
FORMATS = st.sampled_from(["x.yaml", "x.json", "x.toml"])


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Read a document that has this text."""

    def read_text(text: str | bytes, name: str = "x.yaml") -> Document:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_document(path)

    return read_text


def lines(document: Document, *locations: tuple[str | int, ...]) -> list[int]:
    return [document.line(location) for location in locations]


def test_yaml_becomes_plain_data_with_lines(read: Any) -> None:
    document = read("# a comment\na: 1\nb:\n  - x\n  - {c: null, d: 2.5}\ne: 'yes'\nf: true\n")
    assert document.data == {
        "a": 1,
        "b": ["x", {"c": None, "d": 2.5}],
        "e": "yes",
        "f": True,
    }
    places = {(): 2, ("a",): 2, ("b",): 3, ("b", 0): 4, ("b", 1): 5, ("b", 1, "d"): 5, ("f",): 7}
    assert {place: document.line(place) for place in places} == places


def test_what_has_no_line_has_that_of_what_is_around_it(read: Any) -> None:
    document = read("a: 1\nb:\n  c: 2\n")
    assert document.line(("b", "c", "missing", 7)) == 3
    assert document.line(("b", "missing")) == 2
    assert document.line(("missing",)) == 1
    assert Document(Path("x"), None, 1).line(("missing",)) == 1


@pytest.mark.parametrize("name", ["x.yaml", "x.yml", "x.json", "x", "x.conf"])
def test_what_does_not_end_in_toml_is_read_as_yaml(read: Any, name: str) -> None:
    assert read("a: 1  # a comment\nb: [x, ]\n", name).data == {"a": 1, "b": ["x"]}


@pytest.mark.parametrize("name", ["x.yaml", "x.json", "x.toml"])
def test_a_byte_order_mark_and_newlines_of_windows_are_no_text(read: Any, name: str) -> None:
    text = "a = 'b'\r\nc = [\r\n 1]\r\n" if name == "x.toml" else "a: b\r\nc:\r\n  - 1\r\n"
    document = read(b"\xef\xbb\xbf" + text.encode(), name)
    assert document.data == {"a": "b", "c": [1]}
    assert lines(document, ("a",), ("c",), ("c", 0)) == [1, 2, 3]


# --- aliases and merge keys -----------------------------------------------------------------------


def test_an_alias_stands_for_what_it_names_and_where_it_stands(read: Any) -> None:
    document = read("a: &x\n  b: 1\nc: *x\nd:\n  - *x\n  - &y z\n  - *y\n")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, "z", "z"]}
    places = [("c",), ("c", "b"), ("d", 0), ("d", 0, "b"), ("d", 2)]
    assert lines(document, *places) == [3, 2, 5, 2, 7]
    document.data["c"]["b"] = 2
    assert document.data["a"] == {"b": 1}


def test_a_later_anchor_takes_the_name_of_an_earlier_one(read: Any) -> None:
    assert read("[&a x, *a, &a y, *a, &a [z, &a w], *a]").data == [
        *("x", "x", "y", "y"),
        *(["z", "w"], "w"),
    ]


MERGE = """\
x-base: &base
  path: sh
  env:
    A: 1
web:
  <<: *base
  name: web
api: {name: api, path: python, <<: *base}
"""


def test_a_merge_key_brings_in_what_is_not_there_with_its_lines(read: Any) -> None:
    document = read(MERGE)
    assert document.data == yaml.safe_load(MERGE)
    assert document.data["web"] == {"path": "sh", "env": {"A": 1}, "name": "web"}
    assert document.data["api"] == {"path": "python", "env": {"A": 1}, "name": "api"}
    places = [("web", "path"), ("web", "env", "A"), ("web", "name"), ("api", "path")]
    assert lines(document, *places) == [2, 4, 7, 8]
    document.data["web"]["env"]["A"] = 2
    assert document.data["api"]["env"] == document.data["x-base"]["env"] == {"A": 1}


def test_of_several_that_are_merged_the_first_wins(read: Any) -> None:
    text = "a: &a {port: 1}\nb: &b\n  port: 2\n  host: h\nc:\n  <<: [*a, *b, {host: i, x: 3}]\n"
    document = read(text)
    assert document.data["c"] == {"port": 1, "host": "h", "x": 3}
    assert lines(document, ("c",), ("c", "port"), ("c", "host"), ("c", "x")) == [5, 1, 4, 6]
    assert read("a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b}").data["c"] == {"x": 1, "y": 2}
    assert read("a: {<<: []}\nb: {<<: [], <: 1}").data == {"a": {}, "b": {"<": 1}}


def test_a_merge_key_in_quotes_is_a_key(read: Any) -> None:
    text = "{'<<': {a: 1}, \"=\": 2, =: 3}".replace('"=": 2, ', "")
    assert read(text).data == {"<<": {"a": 1}, "=": 3}
    assert read('{"<<": {"a": 1}}', "x.json").data == {"<<": {"a": 1}}


def test_keys_for_anchors_are_no_part_of_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "x-base: &base\n  path: /bin/sh\n  env: {A: '${UNSET_AND_UNUSED}'}\n"
        "processes:\n  - {<<: *base, name: a, env: {}}\n"
    )
    (process,) = ProcessManifest.from_yaml(path).processes
    assert (process.name, process.path, process.env) == ("a", Path("/bin/sh"), {})


# --- json -----------------------------------------------------------------------------------------

# A key that is longer than 1,024 bytes has to be marked as one in YAML.
text_values = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | text_values,
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(text_values.map(lambda key: key[:100]), children, max_size=4)
    ),
    max_leaves=12,
).filter(lambda value: "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value))


@given(json_values, st.booleans(), st.sampled_from([None, 2, "\t"]))
@PROPERTY
def test_json_reads_as_what_was_written(
    read: Any, value: object, ascii_only: bool, indent: Any
) -> None:
    if not ascii_only:
        # YAML refuses some characters that JSON would allow as they are; escaped they are fine.
        ascii_only = bool(
            re.search(r"[\x7f-\x9f\ufeff\ufffe\uffff]", json.dumps(value, ensure_ascii=False))
        )
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert read(text, "x.json").data == value


@pytest.mark.parametrize(
    "number", ["0", "-0", "-1", "1.5", "1.5e+3", "-0.25", "1e5", "1E-2", "2.5e3", "1e999", "-0.0"]
)
def test_numbers_of_json_are_numbers(read: Any, number: str) -> None:
    data = read(f'{{"a": {number}}}', "x.json").data["a"]
    assert (data, type(data)) == (json.loads(number), type(json.loads(number)))


def test_in_yaml_a_number_has_a_dot_and_a_sign_in_its_exponent(read: Any) -> None:
    text = "[1e5, 1.5e3, 1.5e+3, 010, 0x1F, 0b11, 1_000, 1:30, .5, .inf, 12e03, +1, -2]"
    assert read(text).data == yaml.safe_load(text)


def test_escapes_of_json_that_are_two_for_one_character_are_joined(read: Any) -> None:
    text = r'{"a": "\ud83d\ude00 \uD83D\uDE00 \\ud83d\\ude00 \\\ud83d\ude00 \u00e4"}'
    assert read(text, "x.JSON").data == json.loads(text)
    with pytest.raises(DocumentError, match="invalid Unicode character escape code"):
        read(r'"\ud83d"', "x.json")


# --- toml -----------------------------------------------------------------------------------------

TOML = """\
# a comment = 1
stop_within_sec = 30

[[processes]]
name = "db" # "not [a] key = 1"
args = [
  "-D", # the first
  'da[t]a', [1, 2.5],
  { x = 1, y.z = [ 2,
  3] },
]
ready_params = { port = 1, "quoted \\u00e4" = { } }
  [processes.restart]
  when = "never"
  processes.deep."a.b".'c' = \"\"\"
one = 1
\\\"\"\" two\"\"\"\"\"

[[processes]]
env.A = 'x'
env . B = '''
'' = y'''
[[processes.hooks]]
when = 1979-05-27 07:32:00
[[processes.hooks]]
[a.b.c]
d = 2024-01-01T00:00:00.5+01:00
[a]
e = [
]
"""


def test_toml_becomes_plain_data_with_lines(read: Any) -> None:
    document = read(TOML, "x.toml")
    assert document.data == tomllib.loads(TOML)
    deep = ("processes", 0, "restart", "processes", "deep", "a.b", "c")
    places = {
        (): 2,
        ("stop_within_sec",): 2,
        ("processes",): 4,
        ("processes", 0): 4,
        ("processes", 0, "name"): 5,
        ("processes", 0, "args"): 6,
        ("processes", 0, "args", 0): 7,
        ("processes", 0, "args", 1): 8,
        ("processes", 0, "args", 2, 1): 8,
        ("processes", 0, "args", 3, "x"): 9,
        ("processes", 0, "args", 3, "y"): 9,
        ("processes", 0, "args", 3, "y", "z", 1): 10,
        ("processes", 0, "ready_params", "port"): 12,
        ("processes", 0, "ready_params", "quoted ä"): 12,
        ("processes", 0, "restart"): 13,
        ("processes", 0, "restart", "when"): 14,
        deep: 15,
        ("processes", 1): 19,
        ("processes", 1, "env"): 20,
        ("processes", 1, "env", "A"): 20,
        ("processes", 1, "env", "B"): 21,
        ("processes", 1, "hooks"): 23,
        ("processes", 1, "hooks", 0): 23,
        ("processes", 1, "hooks", 0, "when"): 24,
        ("processes", 1, "hooks", 1): 25,
        ("a",): 28,
        ("a", "b"): 26,
        ("a", "b", "c", "d"): 27,
        ("a", "e"): 29,
    }
    assert {place: document.line(place) for place in places} == places


def test_a_manifest_in_toml_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text('x-note = 1\n[[processes]]\nname = "a"\npath = "sh"\nargs = ["-c", "exit"]\n')
    (process,) = ProcessManifest.from_toml(path).processes
    assert (process.name, process.args) == ("a", ["-c", "exit"])


class TomlWriter:
    """Writes a document in TOML as *draw* decides, and notes the line of each key and item."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.text = ""
        self.places: dict[tuple[str | int, ...], int] = {}

    def choose(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def put(self, *texts: str) -> None:
        self.text += "".join(texts)

    def note(self, at: tuple[str | int, ...]) -> None:
        self.places[at] = self.text.count("\n") + 1

    def space(self) -> None:
        self.put(self.choose("", " ", "\t "))

    def break_line(self) -> None:
        self.put(self.choose("", "\n", " # ]}\"'''\n", "\r\n\n  "))

    def key(self, key: str) -> None:
        quoted = json.dumps(key, ensure_ascii=self.draw(st.booleans())).replace("\x7f", "\\u007f")
        forms = [re.sub(r"\\u(d[89ab]..)\\u(d[c-f]..)", self.join, quoted)]
        if re.fullmatch("[A-Za-z0-9_-]+", key):
            forms.append(key)
        if not re.search(r"['\x00-\x08\x0a-\x1f\x7f]", key):
            forms.append(f"'{key}'")
        self.put(self.choose(*forms))

    @staticmethod
    def join(match: re.Match[str]) -> str:
        pair = bytes.fromhex(match[1] + match[2]).decode("utf-16-be")
        return f"\\U{ord(pair):08x}"

    def value(self, at: tuple[str | int, ...], depth: int = 0) -> None:
        kind = self.choose("scalar", "scalar", *(("array", "inline") if depth < 3 else ()))
        if kind == "scalar":
            self.put(self.choose(*SCALARS))
            return
        self.put("[" if kind == "array" else "{")
        count = self.draw(st.integers(0, 3))
        names = self.draw(st.lists(KEYS, min_size=count, max_size=count, unique=True))
        for index, name in enumerate(names):
            if kind == "array":
                self.break_line()
                self.note((*at, index))
                self.value((*at, index), depth + 1)
                self.break_line()
            else:
                self.space()
                self.pair((*at,), name, depth + 1)
                self.space()
            if index < count - 1 or (kind == "array" and self.draw(st.booleans())):
                self.put(",")
        if kind == "array":
            self.break_line()
        self.put("]" if kind == "array" else "}")

    def pair(self, around: tuple[str | int, ...], name: str, depth: int = 0) -> None:
        parts = [name, *self.draw(st.lists(KEYS, max_size=2))]
        for index, part in enumerate(parts):
            around = (*around, part)
            self.note(around)
            self.key(part)
            self.space()
            if index < len(parts) - 1:
                self.put(".")
                self.space()
        self.put("=")
        self.space()
        self.value(around, depth)

    def pairs(self, at: tuple[str | int, ...]) -> None:
        for name in self.draw(st.lists(KEYS, max_size=3, unique=True)):
            self.put(self.choose("", "\n", "  ", "# x = [\n"))
            self.pair(at, name)
            self.put(self.choose("\n", "\r\n", " # '\n"))

    def document(self) -> None:
        self.pairs(())
        for number in range(self.draw(st.integers(0, 3))):
            # No key begins so: what a table may be added to is a matter of its own.
            name = f"table-{number}"
            is_array = self.draw(st.booleans())
            for item in range(self.draw(st.integers(1, 3)) if is_array else 1):
                if item == 0:
                    self.note((name,))
                at = (name, item) if is_array else (name,)
                self.note(at)
                self.put("[[" if is_array else "[", name, "]]\n" if is_array else "]\n")
                self.pairs(at)
                if self.draw(st.booleans()):
                    self.note((*at, "sub-table"))
                    self.note((*at, "sub-table", "x"))
                    self.put(f"[ {name}.'sub-table' . x]\n")
                    self.pairs((*at, "sub-table", "x"))


KEYS = text_values.map(lambda key: key[:5])
SCALARS = [
    *("1", "-0.5", "1e5", "0xff", "inf", "nan", "true", "1_000", "''", '""', "'a, b'", '"\\"=[{"'),
    *('"""\n"\n\'""\\"""\n"""""', "'''\n'' # \"\n'''''", "'''x'''", '"\\\\"', "'\\'"),
    '""""x\\\n"""',
    *("1979-05-27", "1979-05-27 07:32:00", "1979-05-27T07:32:00.99-07:00", "07:32:00"),
]


@st.composite
def toml_documents(draw: Any) -> tuple[str, dict[tuple[str | int, ...], int]]:
    writer = TomlWriter(draw)
    writer.document()
    return writer.text, writer.places


@given(toml_documents())
@settings(PROPERTY, max_examples=100)
def test_every_line_of_a_toml_document_is_right(
    read: Any, made: tuple[str, dict[tuple[str | int, ...], int]]
) -> None:
    text, places = made
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # keys that meet: one a value, the other a table
        assert re.search("Cannot|Duplicate", str(error)), text  # noqa: PT017
        return
    if not expected:
        return
    document = read(text, "x.toml")
    assert repr(document.data) == repr(expected)
    assert {place: document.line(place) for place in places} == places


# --- what is no document --------------------------------------------------------------------------


def assert_told(read: Any, name: str, text: str | bytes, line: int, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read(text, name)
    assert caught.value.problem.startswith(problem)
    assert str(caught.value).startswith(f"{caught.value.path}:{line}: {problem}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "is empty"),
        ("# nothing but\n# comments\n", 1, "is empty"),
        ("a: 1\nb: [1,\n 2\n", 2, "the [ that stands here is never closed"),
        ("a: 1\nb: {c: 1,\n\n", 2, "a [ or { is not closed where the text ends"),
        ("a: {,}", 1, "while parsing a flow node did not find expected node content"),
        ("a: 1\nb: {c: 1\n\n", 2, "the { that stands here is never closed"),
        ("a: 1\nb: 'x\n\nc: 1\n", 2, "the quote that begins here is never closed"),
        ("a: [1, 2}", 1, "while parsing a flow sequence did not find expected ',' or ']'"),
        ("a: 1\n b: 2", 2, "mapping values are not allowed in this context; check the indentation"),
        ("a: 1\nb: x: y", 2, "mapping values are not allowed in this context"),
        ("a:\n\t- 1", 2, "while scanning for the next token found character that cannot start"),
        ("a: @x", 1, "while scanning for the next token found character that cannot start"),
        ('{"a": 1,\n "b" 2}', 2, "while parsing a flow mapping did not find expected ',' or '}'"),
        ("a: 1\n---\nb: 2", 2, "a second document begins here; a file holds one"),
        ("a: 1\nb: [*missing]", 2, "there is no anchor &missing before the alias *missing"),
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' stands here twice"),
        ('{"a": {"b": 1, "b": 1}}', 1, "the key 'b' stands here twice"),
        ("a: 1\n8080: x", 2, "the key 8080 is no text; put it in quotes"),
        ("yes: x", 1, "the key True is no text; put it in quotes"),
        ("a: &x [b]\n*x : x", 2, "the key list or mapping is no text; put it in quotes"),
        ("? [a, b]\n: x", 1, "a list is no key; put it in quotes"),
        ("a: {{ x }}", 1, "a mapping is no key; put what has {{ in it in quotes"),
        ("a: {{ x }}/bin", 1, "a mapping is no key; put what has {{ in it in quotes"),
        ("a: 1\nb:2\nc: 3", 2, "while scanning a simple key could not find expected ':'; put a"),
        ("a: 2024-99-99", 1, "is no valid value: month must be in 1..12"),
        ("a: !!binary 'x'", 1, "is no valid value: failed to decode base64 data"),
        ("a: !!python/object:os.system x", 1, "has the tag '!!python/object:os.system', which"),
        ("a: !!set {b, c}", 1, "has the tag '!!set', which means nothing here"),
        ("a: !!omap [b: c]", 1, "has the tag '!!omap', which means nothing here"),
        ("a: !mine\n  b: c", 1, "has the tag '!mine', which means nothing here"),
        ("a: !!map x", 1, "has the tag '!!map', which means nothing here"),
        ("a: !!str [x]", 1, "has the tag '!!str', which means nothing here"),
        ("a:\n  <<: 1", 2, "<< takes a mapping, or a list of mappings"),
        ("a: &x {b: 1}\nc:\n  <<: [*x, y]", 3, "<< takes a mapping, or a list of mappings"),
        ("a: {<<: {b: 1}, <<: {c: 1}}", 1, "the key '<<' stands here twice; give it a list"),
        ("a: <<", 1, "put << in quotes where it is text"),
        ("a: =", 1, "put = in quotes where it is text"),
        ("a: !!timestamp soon", 1, "is no timestamp"),
        ("a: !!bool maybe", 1, "is no bool"),
        ("a: !!int ''", 1, "is no int"),
        ("a: !!float ''", 1, "is no float"),
        (f"a: {'1' * 101}", 1, "is a number of more than 100 characters; put it in quotes"),
        (f"a: 0x{'f' * 5000}", 1, "is a number of more than 100 characters"),
        (f"a: 1{':59' * 5000}.5", 1, "is a number of more than 100 characters"),
        (f"? 0x{'f' * 5000}\n: 1", 1, "is a number of more than 100 characters"),
        ("%TAG !a! b\n" * 101 + "--- x", 1, "has more than 100 %TAG directives"),
        (b"a: b\nc: \xff", 2, "is no text in UTF-8"),
        ("a: b".encode("utf-16"), 1, "is no text in UTF-8"),
        ("a: b".encode("utf-32-le"), 1, "has the character U+0000 in it, which is no text"),
        (b"\x7fELF\x02\x01\x01\0\0\0", 1, "has the character U+007F in it, which is no text"),
        (b"a: b\nb: c\0c", 2, "has the character U+0000 in it, which is no text"),
        ("a: &x [*x]", 1, "the alias *x stands inside of what it stands for"),
        ("a: &x {b: {<<: *x}}", 1, "the alias *x stands inside of what it stands for"),
    ],
)
def test_what_is_no_document_is_told_with_its_line(
    read: Any, text: str | bytes, line: int, problem: str
) -> None:
    assert_told(read, "x.yaml", text, line, problem)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("a:\n\t- 1", "a tab cannot indent, use spaces"),
        ("a: @x", "put text that begins with @ in quotes"),
        ("a: x {{ y: z }}", "put what has {{ in it in quotes"),
        ("processes:\n  - name: a\n   path: b", "check the indentation"),
        ("a: 1\nb:2\nc: 3", "put a space after the colon"),
        ('a: "C:\\dir"', "inside of single quotes a backslash is a backslash"),
    ],
)
def test_a_remedy_is_told_where_there_is_one(read: Any, text: str, remedy: str) -> None:
    with pytest.raises(DocumentError, match=re.escape(f"; {remedy}")):
        read(text)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("# nothing\n", 1, "is empty"),
        ("a = 1\nb = x\n", 2, "invalid value; put text in quotes"),
        ("a = 1\nb 2\n", 2, "expected '=' after a key in a key/value pair"),
        ("a = [1,\n", 1, "invalid value"),
        ("a = '''\n\nb", 3, "expected \"'''\""),
        ("a = 1\na = 2\n", 2, "cannot overwrite a value; a key stands here twice"),
        ("[a]\nb = 1\n[a]\n", 3, "cannot declare ('a',) twice"),
        (f"a = 1\nb = {'1' * 5000}\n", 2, "is a number of more than 100 characters"),
        (f"a = 1\nb = [1,\n 0x{'f' * 5000}]\n", 3, "is a number of more than 100 characters"),
        (f"a = {'[' * 101}{']' * 101}", 1, "is nested too deeply"),
        (f"a = {'[' * 40_000}", 1, "is nested too deeply"),
        (f"a = {'{a=' * 15_000}", 1, "is nested too deeply"),
        (f"{'a.' * 100_000}b = 1", 1, "has a key of more than 11 parts"),
        (f"[{'a.' * 100_000}b]", 1, "has a key of more than 11 parts"),
        (f"a = [{'1,' * 200_000}]", 1, "has more than 50000 keys and values"),
        ("".join(f"k{n}.a = 1\n" for n in range(60_000)), 1, "has more than 50000 keys and"),
        (b"a = 1\nb = '\xff'", 2, "is no text in UTF-8"),
        (b"a = 1\nb = '\0'", 2, "found invalid character '\\x00'"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(
    read: Any, text: str | bytes, line: int, problem: str
) -> None:
    assert_told(read, "x.toml", text, line, problem)


def test_values_that_no_manifest_has_a_use_for_are_values(read: Any) -> None:
    text = "[2024-01-01, 2024-01-01 10:00:00, !!binary aGk=, !!str 5, ! 5, !!int '5']"
    assert read(text).data == [*(date(2024, 1, 1), datetime(2024, 1, 1, 10), b"hi", "5", 5, 5)]
    assert math.isnan(read("a = nan", "x.toml").data["a"])


def test_messages_are_short_whatever_they_speak_of(read: Any) -> None:
    long = "k" * 5000
    for text in (f"a: !{long} x", f"a: *{long}", f"? {long}\n: 1\n? {long}\n: 2", f"a: @{long}"):
        with pytest.raises(DocumentError) as caught:
            read(text)
        assert len(caught.value.problem) < 250


# --- what is no file ------------------------------------------------------------------------------


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    fifo, loop = tmp_path / "fifo", tmp_path / "loop"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    for path, problem in (
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "is a folder; name the file in it"),
        (fifo, "is no regular file; only those are read"),
        (Path("/dev/zero"), "is no regular file; only those are read"),
        (Path(os.devnull), "is no regular file; only those are read"),
        (loop, "Too many levels of symbolic links"),
        (Path("/proc/self/mem"), "Input/output error"),
    ):
        with pytest.raises(DocumentError) as caught:
            read_document(path)
        assert str(caught.value) == f"{path}:1: {problem}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.touch(0)
    with pytest.raises(DocumentError, match="Permission denied"):
        read_document(path)


@pytest.mark.parametrize("name", ["x.yaml", "x.json", "x.toml"])
def test_a_file_that_is_larger_than_10_mb_is_not_even_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(10 * 1024 * 1024 + 1)
    with pytest.raises(DocumentError, match=f"{path}:1: is larger than 10 MB"):
        read_document(path)


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [101, 5000, 100_000])
@pytest.mark.parametrize("text", ["[", "{a: ", "- "], ids=["list", "mapping", "block"])
def test_what_is_nested_too_deeply_is_refused(read: Any, text: str, depth: int) -> None:
    with pytest.raises(DocumentError, match=r":1: is nested too deeply$"):
        read(text * depth + "x")


@pytest.mark.parametrize(("head", "name"), [("", "x.yaml"), ("", "x.json"), ("a = ", "x.toml")])
def test_100_levels_are_fine(read: Any, head: str, name: str) -> None:
    levels = 99 if head else 100
    data = read(head + "[" * levels + "'x'" + "]" * levels, name).data
    data = data["a"] if head else data
    for _ in range(levels):
        (data,) = data
    assert data == "x"


def test_so_deep_may_no_alias_lead(read: Any) -> None:
    text = f"- &a {'[' * 60}{']' * 60}\n- {'[' * 60}*a{']' * 60}"
    with pytest.raises(DocumentError, match=r":2: is nested too deeply$"):
        read(text)


@pytest.mark.parametrize("level", ["[{}]", "{{<<: [{}]}}", "{{a: [{}]}}"])
def test_a_bomb_of_aliases_does_not_go_off(read: Any, level: str) -> None:
    levels = "\n".join(
        f"a{n}: &a{n} {level.format(', '.join([f'*a{n - 1}'] * 9))}" for n in range(1, 12)
    )
    first = "{" + ", ".join(f"k{n}: 1" for n in range(1000)) + "}"
    with pytest.raises(DocumentError, match="has more than 50000 keys and values"):
        read(f"a0: &a0 {first}\n{levels}")


@pytest.mark.parametrize(
    "repeated", ["x" * 10_000, "{? " + "x" * 10_000 + " : 1}"], ids=["as a value", "as a key"]
)
def test_nor_does_one_of_long_texts(read: Any, repeated: str) -> None:
    aliases = "".join("- *a\n" for _ in range(999))
    assert len(read(f"- &a {repeated}\n{aliases}").data) == 1000
    with pytest.raises(DocumentError, match=":1002: has aliases for more than 10 MB of text"):
        read(f"- &a {repeated}\n{aliases}- *a\n- *a\n")


def test_too_many_values_are_refused(read: Any) -> None:
    with pytest.raises(DocumentError, match=r":50000: has more than 50000 keys and values"):
        read("- x\n" * 300_000)
    assert read("- x\n" * 49_999).data == ["x"] * 49_999


#: What takes quadratic time, or for ever, where something is looked for again from each place.
LONG = {
    "an open string": ("x.toml", 'a = """' + '\\"""' * 200_000),
    "open strings": ("x.toml", "'''\"" * 200_000),
    "open literals": ("x.toml", "\"'''" * 200_000),
    "open lines": ("x.toml", 'a = "\n' * 200_000),
    "a long word": ("x.toml", "a" * 1_000_000),
    "a long key": ("x.toml", "a" * 1_000_000 + " = 1"),
    "dots": ("x.toml", "a." * 500_000),
    "comments": ("x.toml", "a = [" + "#\n" * 100_000 + "]"),
    "escapes": ("x.toml", 'a = "' + "\\t" * 300_000 + '"'),
    "sexagesimal digits": ("x.yaml", "a: 1" + ":59" * 300_000),
    "as an integer": ("x.yaml", "a: !!int '1" + ":59" * 300_000 + "'"),
    "underscores": ("x.yaml", "a: 1" + "_" * 1_000_000),
    "a time": ("x.yaml", "a: 2024-01-01" + " " * 1_000_000 + "x"),
    "tag directives": ("x.yaml", "".join(f"%TAG !a{n}! x\n" for n in range(70_000)) + "--- x"),
    "a second document": ("x.yaml", "a\n...\n" + "%TAG !a! x\n" * 70_000 + "--- x"),
    "half a pair": ("x.json", '"' + "\\ud83d" * 160_000 + '"'),
    "backslashes": ("x.json", '"' + "\\\\" * 500_000 + '"'),
    "merges": (
        "x.yaml",
        "a0: &a0 {k: 1}\n"
        + "".join(f"a{n + 1}: &a{n + 1} {{<<: *a{n}, k{n}: 1}}\n" for n in range(25_000)),
    ),
}


@pytest.mark.parametrize(("name", "text"), LONG.values(), ids=LONG)
def test_time_grows_no_faster_than_the_text(read: Any, name: str, text: str) -> None:
    # Were it otherwise, the run would end by its own limit of a test's time.
    try:
        problem = str(read(text, name).line(()))
    except DocumentError as error:
        problem = str(error)
    assert 0 < len(problem) < 400


# --- anything -------------------------------------------------------------------------------------

some_yaml = st.text("-:[]{}&*!?|>'\"%@,#<= \n\tax1.~", max_size=40)
some_toml = st.text("[]{}=.,#'\"\\\n \tabu01-:T_", max_size=40)
some_json = st.text('[]{}:,"\\\n trueflsn0129.-+eEd8', max_size=40)
anything = st.text(max_size=40) | some_yaml | some_toml | some_json


@given(st.binary(max_size=60) | anything.map(lambda text: text.encode()), FORMATS)
@PROPERTY
def test_whatever_a_file_contains_it_is_a_document_or_a_document_error(
    read: Any, content: bytes, name: str
) -> None:
    try:
        document = read(content, name)
    except DocumentError as error:
        problem = str(error)
    else:
        problem = f"none up to line {document.line(('x',))}"
    assert "\n" not in problem


def expected(text: str, name: str) -> object:
    """Return what the library of this format reads, or raise ValueError."""
    try:
        if name == "x.toml":
            return tomllib.loads(text)
        return json.loads(text) if name == "x.json" else yaml.load(text, yaml.CSafeLoader)
    except (yaml.YAMLError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise ValueError from error


#: What the libraries accept, and we do not.
OUR_RULES = re.compile(
    r"is empty|no text|no key|stands here twice|too deeply|means nothing here|U\+"
    r"|inside of what it stands for|more than 100 characters"
    # JSON that is no YAML: Python's NaN, half a pair, a line between key and colon.
    r"|Unicode character escape code|did not find expected|cannot start any token"
)


@given(anything, FORMATS)
@settings(PROPERTY, max_examples=1000)
def test_what_is_read_is_what_the_library_of_the_format_reads(
    read: Any, text: str, name: str
) -> None:
    try:
        data = expected(text, name)
    except ValueError:
        return
    try:
        document = read(text, name)
    except DocumentError as error:
        assert OUR_RULES.search(error.problem)  # noqa: PT017
    else:
        if "NaN" not in text and "Infinity" not in text:
            assert repr(document.data) == repr(data)


tags = st.sampled_from(
    ["int", "float", "bool", "null", "binary", "timestamp", "str", "set", "omap", "map", "merge"]
)


@given(tags, st.text("0123456789abcdefxo_:.+-eTZ ", max_size=12))
@PROPERTY
def test_so_is_any_value_with_any_tag(read: Any, tag: str, text: str) -> None:
    try:
        read(f"a: !!{tag} '{text}'\nb: {text.strip(': ')}\n")
    except DocumentError as error:
        line = error.line
    else:
        line = 1
    assert line in {1, 2, 3}


def test_an_error_is_a_value_error_that_survives_a_pickle() -> None:
    error = DocumentError(Path("x.yaml"), 3, "is empty")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert isinstance(copy, ValueError)
    assert str(copy) == str(error) == "x.yaml:3: is empty"
