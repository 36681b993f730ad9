"""References to variables are resolved anywhere in a manifest, and by its file of variables."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime._interpolation import EnvFileError, interpolate, read_env_file
from runtime._problems import Problem

VARIABLES = {"HOST": "db.local", "EMPTY": "", "TRICKY": "${HOST} $$ }"}


def resolve(data: object) -> tuple[object, list[Problem]]:
    problems: list[Problem] = []
    return interpolate(data, VARIABLES, problems, ("at",)), problems


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("${HOST}", "db.local"),
        ("http://${HOST}:${PORT:-80}/", "http://db.local:80/"),
        ("${HOST:-other}", "db.local"),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("${UNSET:-}", ""),
        ("${UNSET:-a b:-c$d}", "a b:-c$d"),
        ("$HOST $$ $(HOST) {HOST}", "$HOST $$ $(HOST) {HOST}"),
        ("$${HOST} and $${x%%.*}", "${HOST} and ${x%%.*}"),
        ("${TRICKY}", "${HOST} $$ }"),
        ("", ""),
    ],
)
def test_a_reference_becomes_the_value_or_its_default(text: str, resolved: str) -> None:
    assert resolve(text) == (resolved, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${UNSET}", "${UNSET} is not set; set it, or give a default: ${UNSET:-default}"),
        ("${A B}", "'${A B}' is neither ${NAME} nor ${NAME:-default}; write $${ where"),
        ("${}", "'${}' is neither"),
        ("${HOST", "'${HOST b' is neither"),
        ("${HOST:?no}", "'${HOST:?no}' is neither"),
        ("${UNSET:-${HOST}}", "'${UNSET:-${HOST}' is neither"),
        ("${1}", "'${1}' is neither"),
    ],
)
def test_what_cannot_be_resolved_is_told_and_stays_as_it_is(text: str, message: str) -> None:
    found, (problem,) = resolve(f"a {text} b")
    assert found == f"a {text} b"
    assert problem.location == ("at",)
    assert problem.message.startswith(message)


def test_every_string_is_looked_at_and_nothing_else() -> None:
    data: dict[str, Any] = {"${HOST}": ["${HOST}", 1, None, {"x": "${NO}"}, True, 2.5]}
    found, problems = resolve(data)
    assert found == {"${HOST}": ["db.local", 1, None, {"x": "${NO}"}, True, 2.5]}
    assert [problem.location for problem in problems] == [("at", "${HOST}", 3, "x")]


@given(st.text(alphabet="${}:-AHOST _1"))
def test_no_text_is_too_odd(text: str) -> None:
    found, problems = resolve(text)
    assert isinstance(found, str)
    if "${" not in text:
        assert (found, problems) == (text, [])


# --- files of variables ---------------------------------------------------------------------------


def test_a_file_of_variables_is_read_as_other_tools_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "outside")
    monkeypatch.delenv("HOST", raising=False)
    file = tmp_path / ".env"
    file.write_text(
        "# a comment\n\n"
        "HOST=localhost\n"
        "export PORT = 5432  # the usual one\n"
        'URL="http://${HOST}:$PORT"\n'
        "PASSWORD = 'a${b $${c\\'d\"#'  # as it is\n"
        'LINES="a\nb"\n'
        "EMPTY=\n"
        "WHERE=${FROM_OUTSIDE}/${MISSING:-default}\n",
        encoding="utf-8-sig",
    )
    assert read_env_file(file) == {
        "HOST": "localhost",
        "PORT": "5432",
        "URL": "http://localhost:$PORT",
        "PASSWORD": "a${b $${c'd\"#",
        "LINES": "a\nb",
        "EMPTY": "",
        "WHERE": "outside/default",
    }


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b"A=1\nnonsense\n", 2, "is no line of the form NAME=value"),
        (b"A=1\n\n# more\r\n \n\tnonsense\n", 5, "is no line of the form NAME=value"),
        (b"A=1\n=2\n", 2, "is no line of the form NAME=value"),
        (b"A='1\n", 1, "is no line of the form NAME=value"),
        (b"A=1\0\n", 1, "is no line of the form NAME=value"),
        (b"A=1\nB=\xff\n", 2, "is no text in UTF-8"),
        (b"A=${NEVER_SET_ANYWHERE}\n", 1, "${NEVER_SET_ANYWHERE} is not set"),
        (b"A=" + b"x" * 64 * 1024, 0, "is larger than 64 KB"),
        (
            b"A0=0123456789\n"
            + b"".join(b"A%d=%s\n" % (n, b"${A%d}" % (n - 1) * 10) for n in range(1, 9)),
            6,
            "is larger than 1 MB with its variables put in",
        ),
    ],
    ids=[
        *("no assignment", "empty lines", "no name", "open quote", "NUL", "no text", "unset"),
        *("large", "a bomb"),
    ],
)
def test_what_is_no_file_of_variables_is_told_with_its_line(
    tmp_path: Path, content: bytes, line: int, problem: str
) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    with pytest.raises(EnvFileError) as caught:
        read_env_file(file)
    assert (caught.value.path, caught.value.line) == (file, line)
    assert caught.value.problem.startswith(problem)
    assert str(caught.value).startswith(f"{file}:{line}: " if line else f"{file}: ")


def test_what_is_no_file_at_all_is_told_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name, problem in (
        ("fifo", "is no file"),
        ("folder", "is no file"),
        ("missing", "there is no such file"),
    ):
        with pytest.raises(EnvFileError, match=re.escape(f"{tmp_path / name}: {problem}")):
            read_env_file(tmp_path / name)
    long = tmp_path / ("x" * 300)
    with pytest.raises(EnvFileError, match="File name too long"):
        read_env_file(long)
