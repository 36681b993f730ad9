"""YAML and JSON files become plain data with the line of everything, or one clear error."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime._documents import Document, DocumentError, read_document


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Read a document that has this text."""

    def read_text(text: str | bytes, name: str = "x.yaml") -> Document:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_document(path)

    return read_text


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
    assert Document(Path("x"), None, {}).line(("missing",)) == 1


def test_a_byte_order_mark_is_no_text(read: Any) -> None:
    assert read("\ufeffa: b").data == {"a": "b"}


def test_an_alias_stands_for_what_it_names(read: Any) -> None:
    assert read("a: &x {b: 1}\nc: *x").data == {"a": {"b": 1}, "c": {"b": 1}}


# --- json -----------------------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=100), children, max_size=4
        )
    ),
    max_leaves=12,
)


@given(values, st.booleans(), st.sampled_from([None, 2, "\t"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def test_numbers_of_json_are_numbers(read: Any) -> None:
    assert read("[0, -1, 1.5, 1.5e+3, -0.25]", "x.json").data == [0, -1, 1.5, 1500.0, -0.25]


def test_escapes_of_json_that_are_two_for_one_character_are_joined(read: Any) -> None:
    text = r'{"a": "\ud83d\ude00 \uD83D\uDE00 \\ud83d\\ude00 \\\ud83d\ude00 \u00e4"}'
    assert read(text, "x.JSON").data == json.loads(text)
    with pytest.raises(DocumentError, match="invalid Unicode character escape code"):
        read(r'"\ud83d"', "x.json")


# --- what is no document --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "is empty"),
        ("# nothing but\n# comments\n", 1, "is empty"),
        ("a: [1, 2", 2, "while parsing a flow sequence did not find expected ',' or ']'"),
        ("a: 1\nb: {", 3, "while parsing a flow node did not find expected node content"),
        ("a: 1\n b: 2", 2, "mapping values are not allowed in this context"),
        ("a:\n\t- 1", 2, "while scanning for the next token found character"),
        ('{"a": 1,\n "b" 2}', 2, "while parsing a flow mapping did not find expected ',' or '}'"),
        ("a: 1\n---\nb: 2", 2, "expected a single document"),
        ("a: *missing", 1, "found undefined alias"),
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' stands here twice"),
        ('{"a": {"b": 1, "b": 1}}', 1, "the key 'b' stands here twice"),
        ("a: 1\n8080: x", 2, "the key 8080 is no text; put it in quotes"),
        ("yes: x", 1, "the key True is no text; put it in quotes"),
        ("? [a, b]\n: x", 1, "the key ['a', 'b'] is no text; put it in quotes"),
        ("a: 2024-99-99", 1, "is no valid value: month must be in 1..12"),
        ("a: !!binary 'x'", 1, "is no valid value: failed to decode base64 data"),
        ("a: !!python/object:os.system x", 1, "is no valid value: could not determine"),
        ("a: &x {b: 1}\nc:\n  <<: *x", 3, "is no valid value: could not determine"),
        ("a: !!timestamp soon", 1, "is no timestamp"),
        ("a: !!bool maybe", 1, "is no bool"),
        ("a: !!int ''", 1, "is no int"),
        ("a: !!float ''", 1, "is no float"),
        (f"a: {'1' * 5000}", 1, "is no valid value: Exceeds the limit"),
        (b"a: b\nc: \xff", 2, "is no text in UTF-8"),
        ("a: b".encode("utf-16"), 1, "is no text in UTF-8"),
        (b"\x7fELF\x02\x01\x01\0\0\0", 1, "unacceptable character"),
        (b"a: b\0c", 1, "unacceptable character"),
        ("a: &x [*x]", 1, "is nested too deeply"),
    ],
)
def test_what_is_no_document_is_told_with_its_line(
    read: Any, text: str | bytes, line: int, problem: str
) -> None:
    with pytest.raises(DocumentError) as caught:
        read(text)
    assert caught.value.problem.startswith(problem)
    assert str(caught.value).startswith(f"{caught.value.path}:{line}: {problem}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_an_unreadable_file_are_told(tmp_path: Path) -> None:
    for path, problem in ((tmp_path / "missing", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(DocumentError, match=f"{path}:1: {problem}"):
            read_document(path)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="is empty"):
        read_document(Path(os.devnull))


@pytest.mark.parametrize("depth", [101, 5000, 100_000])
@pytest.mark.parametrize("text", ["[", "{a: ", "- "], ids=["list", "mapping", "block"])
def test_what_is_nested_too_deeply_is_refused(read: Any, text: str, depth: int) -> None:
    with pytest.raises(DocumentError, match=r":1: is nested too deeply$"):
        read(text * depth + "x")


def test_100_levels_are_fine(read: Any) -> None:
    data = read("[" * 100 + "x" + "]" * 100).data
    for _ in range(100):
        (data,) = data
    assert data == "x"


def test_a_bomb_of_aliases_does_not_go_off(read: Any) -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    with pytest.raises(DocumentError, match="has more than 200000 values"):
        read(f"a0: &a0 [x, x, x]\n{levels}")


def test_too_many_values_are_refused(read: Any) -> None:
    with pytest.raises(DocumentError, match=r":200000: has more than 200000 values"):
        read("- x\n" * 300_000)


def test_a_file_that_is_larger_than_10_mb_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(10 * 1024 * 1024 + 1)
    with pytest.raises(DocumentError, match=f"{path}:1: is larger than 10 MB"):
        read_document(path)


@given(
    st.binary(max_size=60) | st.text("-:[]{}&*!?|>'\"%@,#\n \tax1.", max_size=40).map(str.encode)
)
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300
)
def test_whatever_a_file_contains_it_is_a_document_or_a_document_error(
    read: Any, content: bytes
) -> None:
    try:
        document = read(content)
    except DocumentError as error:
        problem = str(error)
    else:
        problem = f"none up to line {document.line(('x',))}"
    assert "\n" not in problem


tags = st.sampled_from(
    ["int", "float", "bool", "null", "binary", "timestamp", "str", "set", "omap"]
)


@given(tags, st.text("0123456789abcdefxo_:.+-eTZ ", max_size=12))
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300
)
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
