"""What the documents show can be copied: their programs run, their manifests are understood."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator

from runtime._documents import read_document
from runtime._schema import manifest_schema
from runtime.cli._main import cli
from runtime.invocation.status import _CONFIG as STATUSES
from runtime.invocation.status import InvocationStatus
from runtime.manifest import Manifest
from runtime.service._state import SERVICE_TABLE
from runtime.service.models import ServiceState
from runtime.supervision.lifecycle import TransitionTable

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]
}
#: Long enough for any machine: who comes to its end has found a fault.
LIMIT_SEC = 110

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: A block whose first line is this is a file of that name.
FILE_NAME = re.compile(r"# ([\w/-]*\.\w+)\n")
#: What a page tells of without showing it.
UNSHOWN: Mapping[str, Mapping[str, str]] = {
    "README.md": {"manifest.yaml": "processes: [{name: api, path: sleep, args: [infinity]}]"},
}
#: Manifests that are wrong, to show what is said of them; tests/cli/test_check.py looks at that.
WRONG = {"docs/tools.md"}
#: The files of other tools, which are no manifests.
OF_OTHERS = {"process-compose.yaml", "compose.yaml"}


class Block(NamedTuple):
    """A fenced block: its language, what it says, the line that it begins at, its file if any."""

    language: str
    text: str
    line: int
    file: str | None


def blocks(page: str) -> Iterator[Block]:
    text = PAGES[page].read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        name = FILE_NAME.match(found[2])
        line = text.count("\n", 0, found.start(2))
        yield Block(found[1], found[2], line, None if name is None else name[1])


def program(page: str) -> str:
    """Return the Python of a page as one program, with each line at its place in the page."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language == "python" and block.file is None:
            lines += [""] * (block.line - len(lines))
            lines += block.text.splitlines()
    return "\n".join(lines) + "\n" if lines else ""


def write_files(page: str, folder: Path, free_port: Callable[[], int]) -> None:
    """Write what the page shows of files, with each port of theirs made one that is free."""
    ports: dict[str, str] = {}
    for name, text in UNSHOWN.get(page, {}).items():
        (folder / name).write_text(text)
    for block in blocks(page):
        for port in re.findall(r"\b87\d\d\b", block.text) if block.file else ():
            ports.setdefault(port, str(free_port()))
        if block.file:
            text = re.sub(r"\b87\d\d\b", lambda found: ports[found[0]], block.text)
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(text)


@pytest.mark.parametrize("page", sorted(page for page in PAGES if program(page)))
def test_the_programs_of_a_page_run_one_after_the_other(
    page: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    write_files(page, tmp_path, free_port)
    text = program(page)
    (tmp_path / "page.py").write_text(text)
    is_tests = "\nasync def test_" in text
    if is_tests:
        (settings,) = (block.text for block in blocks(page) if block.language == "toml")
        (tmp_path / "pyproject.toml").write_text(settings)
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error"),
            *(("-m", "pytest", "-q", "page.py") if is_tests else ("page.py",)),
        ],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SEC,
    )
    assert done.returncode == 0, done.stdout
    if is_tests:
        assert f"{text.count('async def test_')} passed" in done.stdout


MANIFESTS = [
    pytest.param(block, id=f"{page}:{block.line}")
    for page in sorted(PAGES.keys() - WRONG)
    for block in blocks(page)
    if block.language == "yaml" and block.file not in OF_OTHERS
]


@pytest.mark.parametrize("block", MANIFESTS)
def test_a_manifest_is_one_that_the_schema_takes(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(block.text)
    data = read_document(path).data
    assert isinstance(data, dict)
    data = {key: value for key, value in data.items() if not str(key).startswith("x-")}
    found = Draft202012Validator(manifest_schema()).iter_errors(data)
    assert [f"{error.json_path}: {error.message}" for error in found] == []


def test_the_list_of_pages_has_all_of_them() -> None:
    text = PAGES["docs/README.md"].read_text(encoding="utf-8")
    listed = set(re.findall(r"\]\(([\w-]+\.md)", text))
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}
    assert listed == pages, "docs/README.md lists every page of docs/, and no other"


def test_there_are_manifests_and_programs_to_look_at() -> None:
    assert len(MANIFESTS) >= 4
    assert sum(1 for page in PAGES if program(page)) >= 5


def test_the_systemd_unit_is_one_and_leaves_time_to_stop(tmp_path: Path) -> None:
    (shown,) = (block for block in blocks("docs/operations.md") if block.language == "ini")
    unit = configparser.RawConfigParser()
    unit.read_string(shown.text)
    service = unit["Service"]
    assert float(service["TimeoutStopSec"]) > Manifest.model_fields["stop_within_sec"].default
    interpreter, *arguments = service["ExecStart"].split()
    assert arguments[:3] == ["-m", "runtime", "run"]
    program = cli.commands[arguments[2]].make_context("run", arguments[3:])
    assert program.params["manifest"] == Path("manifest.yaml")
    assert program.params["run_directory"] == Path("/run") / service["RuntimeDirectory"]
    if (analyze := shutil.which("systemd-analyze")) is None:
        return
    # This machine has neither the user nor the folder of the page.
    text = shown.text.replace(interpreter, sys.executable).replace("User=shop", "User=root")
    (tmp_path / "shop.service").write_text(text.replace("/srv/shop", str(tmp_path)))
    done = subprocess.run(
        [analyze, "verify", str(tmp_path / "shop.service")],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_SEC,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("page", "table", "first"),
    [
        ("docs/services.md", SERVICE_TABLE, [ServiceState.INITIALIZED]),
        ("docs/invocations.md", STATUSES.table, sorted(STATUSES.table.successors(None))),
    ],
)
def test_the_drawing_of_the_states_is_the_table(
    page: str, table: TransitionTable[Any], first: list[StrEnum]
) -> None:
    states = list(table.states)
    always = {state for state in states if all(state in table.successors(each) for each in states)}
    expected = [f"    [*] --> {state}" for state in first]
    expected += [
        f"    {state} --> {following}"
        for state in states
        for following in states
        if following in table.successors(state) - always
    ]
    expected += [f"    any_state --> {state}" for state in always]
    (drawn,) = (block for block in blocks(page) if block.language == "mermaid")
    assert drawn.text == "stateDiagram-v2\n" + "\n".join(expected) + "\n"


def test_the_list_of_statuses_says_who_owns_and_what_is_over() -> None:
    text = PAGES["docs/invocations.md"].read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([\w ]+) \| (yes|no) \|$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == list(InvocationStatus)
    for name, owner, over in rows:
        status = InvocationStatus(name)
        owned = status in STATUSES.ownership_required_statuses
        assert (owner, over == "yes") == ("its runner" if owned else "nobody", status.is_over())
