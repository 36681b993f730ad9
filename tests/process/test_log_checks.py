"""A log that cannot be written, or that two processes would write to, is refused with a remedy."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from runtime._problems import ProblemsError
from runtime.manifest import ManifestError, load_manifest
from runtime.process import LogSpec, Process, ProcessManifest

Judge = Callable[..., list[str]]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Return the problems of processes with these logs; one that is not given whole is a file."""

    def find(*logs: Any, base: Path = tmp_path) -> list[str]:
        processes = [
            {"name": f"p{n}", "path": "sh", "log": log if isinstance(log, dict) else {"file": log}}
            for n, log in enumerate(logs)
        ]
        found: list[Any] = []
        data = {"base_directory": base, "processes": processes}
        ProcessManifest.model_validate(data, context=found)
        return [f"{'.'.join(map(str, where))}: {what}" for where, what in found]

    return find


def test_a_log_starts_at_the_base_directory_and_its_folders_need_not_be_there(
    tmp_path: Path, judge: Judge
) -> None:
    assert judge("logs/deep/p.log", {"file": tmp_path / "q.log", "keep": 0}) == []
    data = {"base_directory": tmp_path, "processes": [{"name": "p", "path": "sh"}]}
    data["processes"][0]["log"] = {"file": "logs/p.log"}  # type: ignore[index]
    (process,) = ProcessManifest.model_validate(data).processes
    assert process.log == LogSpec(file=tmp_path / "logs/p.log", max_mb=50, keep=5)
    assert not process.log.timestamps
    assert Process(name="p", path=Path("sh")).log is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("log", "where", "what"),
    [
        ({}, "log.file", "is missing"),
        ({"file": "a", "max_mb": 0}, "log.max_mb", "greater than 0"),
        ({"file": "a", "max_mb": float("inf")}, "log.max_mb", "finite"),
        ({"file": "a", "keep": -1}, "log.keep", "greater than or equal to 0"),
        ({"file": "a", "keep": 10**9}, "log.keep", "less than or equal to 999999999"),
        ({"file": "a", "keeps": 1}, "log.keeps", "unknown key; did you mean 'keep'?"),
        ({"file": "a\0b"}, "log.file", "must not contain a NUL character"),
        ({"file": 5}, "log.file", "must be a path"),
        ("a.log", "log", "must be a mapping of keys to values"),
    ],
)
def test_a_log_block_is_closed_and_each_mistake_in_it_has_its_place(
    tmp_path: Path, log: Any, where: str, what: str
) -> None:
    manifest = tmp_path / "m.yaml"
    text = json.dumps({"processes": [{"name": "p", "path": "sh", "log": log}]})
    manifest.write_text(text.replace("Infinity", ".inf"))
    with pytest.raises(ManifestError) as caught:
        load_manifest(manifest)
    (line,) = caught.value.lines
    assert line.startswith(f"{manifest}:1: processes.p.{where}: ")
    assert what in line


def test_a_log_block_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        LogSpec(file=Path("a")).keep = 1


# --- two processes and one file -------------------------------------------------------------------

TAKEN = "'p0' writes to this file already; choose another"
OLDER = "'p0' gives this name to an older file of its log, and keeps 5 of them; choose another"


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ("x.log", "x.log", TAKEN),
        ("x.log", "./sub/../x.log", TAKEN),
        ("x.log", "link/x.log", TAKEN),
        ("x.log", "to-x.log", TAKEN),
        ("x.log", "x.log.1", OLDER),
        ("x.log", "link/x.log.5", OLDER),
        ("link/x.log", "x.log.5", OLDER),
        ("x.log", "to-x.log.2", OLDER),
    ],
)
def test_the_file_of_another_and_the_names_of_its_older_ones_are_taken(
    tmp_path: Path, judge: Judge, first: str, second: str, problem: str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(".")
    for name in ("x.log", "x.log.2"):
        (tmp_path / f"to-{name}").symlink_to(name)
    assert judge(first, second) == [f"processes.p1.log.file: {problem}"]


def test_the_older_name_is_the_one_that_is_told_whichever_comes_first(judge: Judge) -> None:
    (problem,) = judge("x.log.3", "x.log")
    assert problem.startswith("processes.p0.log.file: 'p1' gives this name to an older file")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x.log", "y.log"),
        ("x.log", "sub/x.log"),
        ("x.log", "x.log.6"),
        ("x.log", "x.log.0"),
        ("x.log", "x.log.01"),
        ({"file": "x.log", "keep": 0}, "x.log.1"),
        ("x.log.1", "x.log.2"),
    ],
)
def test_other_files_are_free(judge: Judge, first: Any, second: Any) -> None:
    assert judge(first, second) == []


def test_all_of_many_that_write_to_one_file_are_told(judge: Judge) -> None:
    assert judge("x", "x", "x") == [f"processes.p{n}.log.file: {TAKEN}" for n in (1, 2)]


def test_replicas_need_their_number_in_the_name(tmp_path: Path) -> None:
    manifest = tmp_path / "m.yaml"
    text = "processes:\n- {name: api, path: sh, replicas: 3,\n   log: {file: NAME}}\n"
    manifest.write_text(text.replace("NAME", "api.log"))
    with pytest.raises(ManifestError) as caught:
        load_manifest(manifest)
    what = "all replicas would write to this file; put ${REPLICA} into it"
    assert caught.value.lines == (f"{manifest}:3: processes.api.log.file: {what}",)
    manifest.write_text(text.replace("NAME", "'api-${REPLICA}.log'"))
    logs = [process.log for process in load_manifest(manifest).processes]
    assert [log and log.file for log in logs] == [tmp_path / f"api-{n}.log" for n in range(3)]


def test_the_step_raises_what_it_finds_and_may_be_applied_again(tmp_path: Path) -> None:
    processes = [{"name": name, "path": "sh", "log": {"file": name}} for name in "ab"]
    data = {"base_directory": tmp_path, "processes": processes}
    manifest = ProcessManifest.model_validate(data)
    assert manifest.validate_logs() is manifest
    (tmp_path / "b").mkdir()
    with pytest.raises(ProblemsError, match=r"processes.b.log.file: .*b is a folder"):
        manifest.validate_logs()


# --- a file that cannot be written ----------------------------------------------------------------


def test_what_is_no_file_is_refused(tmp_path: Path, judge: Judge) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    here = "processes.p0.log.file: "
    assert judge("") == [f"{here}{tmp_path} is a folder"]
    assert judge("/") == [f"{here}/ is a folder"]
    assert judge("fifo") == [f"{here}{tmp_path}/fifo is not a regular file"]
    assert judge("file/p.log") == [f"{here}{tmp_path}/file is not a folder"]
    assert judge("loop") == [f"{here}cannot be used: Too many levels of symbolic links"]


@pytest.mark.parametrize("length", [250, 254, 4_000])
def test_the_longest_name_that_the_rotation_makes_must_be_possible(
    judge: Judge, length: int
) -> None:
    assert judge({"file": "x" * 250, "keep": 99}) == []
    problem = "processes.p0.log.file: cannot be used: File name too long"
    assert judge({"file": "x" * length, "keep": 10_000}) == [problem]


@contextmanager
def without_privileges() -> Iterator[None]:
    """Be somebody who may not do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that everybody may look into, unlike those of pytest's."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def test_a_folder_and_a_file_that_may_not_be_written_are_refused(
    public_folder: Path, judge: Judge
) -> None:
    (public_folder / "closed").mkdir(mode=0o555)
    (public_folder / "open").mkdir()
    (public_folder / "open").chmod(0o777)
    (public_folder / "open" / "closed.log").touch()
    (public_folder / "open" / "closed.log").chmod(0o444)
    logs = ["closed/deep/p.log", "open/new.log", "open/closed.log"]
    with without_privileges():
        found = judge(*logs, base=public_folder)
    assert found == [
        f"processes.p0.log.file: the folder {public_folder}/closed may not be written to",
        f"processes.p2.log.file: {public_folder}/open/closed.log may not be read and written",
    ]
