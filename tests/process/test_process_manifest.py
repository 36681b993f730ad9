"""The processes of a manifest are resolved, checked and ordered together."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime._documents import DocumentError
from runtime._problems import Problem, ProblemsError
from runtime.process import Process, ProcessManifest
from runtime.process._source import prepare
from runtime.supervision.graph import Condition

ONCE: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}


def make(*processes: dict[str, Any], **fields: Any) -> ProcessManifest:
    given = [{"name": f"p{index}", "path": "/bin/sh", **p} for index, p in enumerate(processes)]
    return ProcessManifest.model_validate({"processes": given, **fields})


def problems_of(*processes: dict[str, Any], **fields: Any) -> list[Problem]:
    found: list[Problem] = []
    given = [{"name": f"p{index}", "path": "/bin/sh", **p} for index, p in enumerate(processes)]
    ProcessManifest.model_validate({"processes": given, **fields}, context=found)
    return found


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [ProcessManifest.from_json, ProcessManifest.from_yaml])
def test_a_manifest_is_read_from_json_and_from_yaml(tmp_path: Path, method: Any) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    data = {"processes": [{"name": "p", "path": "tool"}], "kill_timeout": 1.5}
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(data))
    manifest = method(file)
    assert manifest.kill_timeout == 1.5
    assert manifest.base_directory == tmp_path
    assert manifest.processes[0].path == tmp_path / "tool"


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (ProcessManifest.from_json, '{"stop_within_sec": 1e1, "processes": [%s]}'),
        (ProcessManifest.from_toml, "stop_within_sec = 1e1\nprocesses = [%s]"),
        (ProcessManifest.from_yaml, "stop_within_sec: 10\nprocesses: [%s]"),
    ],
)
def test_a_file_is_read_as_it_was_asked_for_whatever_it_is_called(
    tmp_path: Path, method: Any, text: str
) -> None:
    entry = '{name = "p", path = "/bin/sh"}'
    if method != ProcessManifest.from_toml:
        entry = '{"name": "p", "path": "/bin/sh"}'
    (tmp_path / "shop.conf").write_text(text % entry)
    assert method(tmp_path / "shop.conf").stop_within_sec == 10


def test_a_file_that_is_none_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="No such file"):
        ProcessManifest.from_json(tmp_path / "missing.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="ProcessManifest"):
        ProcessManifest.from_json(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("given", "base"), [(None, "{folder}"), ("sub", "{folder}/sub"), ("/etc", "/etc")]
)
def test_relative_paths_start_at_the_base_directory_or_the_manifests_own_folder(
    tmp_path: Path, given: str | None, base: str
) -> None:
    (tmp_path / "sub").mkdir()
    data = {"processes": [], **({} if given is None else {"base_directory": given})}
    found = prepare(data, tmp_path).data
    assert found == {"processes": [], "base_directory": base.format(folder=tmp_path)}


def test_what_is_no_mapping_or_no_folder_is_left_for_the_model_to_refuse(tmp_path: Path) -> None:
    assert prepare([1], tmp_path).data == [1]
    assert prepare({"base_directory": 5}, tmp_path).data == {"base_directory": 5}


def test_a_manifest_made_in_python_starts_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = make({}, run_directory="run")
    assert manifest.base_directory == tmp_path
    assert manifest.run_directory == tmp_path / "run"
    assert make({}, run_directory="/run/x").run_directory == Path("/run/x")
    assert make({}).run_directory is None


# --- paths ----------------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for name in ("bin/tool", "here"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "bin/python").symlink_to(sys.executable)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "found", "works_in"),
    [
        ("bin/tool", "bin/tool", "bin"),
        ("bin/t*l", "bin/tool", "bin"),
        ("here", "here", "."),
        ("bin/python", "bin/python", "bin"),
        ("{base}/bin/tool", "bin/tool", "bin"),
    ],
)
def test_a_process_works_in_the_folder_of_its_executable(
    base: Path, path: str, found: str, works_in: str
) -> None:
    (process,) = make({"path": path.format(base=base)}, base_directory=base).processes
    assert process.path == base / found
    assert process.working_directory == base / works_in


def test_a_program_found_on_path_works_in_the_base_directory(base: Path) -> None:
    (process,) = make({"path": "sh"}, base_directory=base).processes
    assert process.path.is_absolute()
    assert process.path.name == "sh"
    assert process.working_directory == base


def test_a_program_is_looked_up_on_the_path_that_the_process_is_given(base: Path) -> None:
    env = {"PATH": f"/nowhere:{base / 'bin'}"}
    (process,) = make({"path": "tool", "env": env}, base_directory=base).processes
    assert process.path == base / "bin/tool"


def test_a_working_directory_starts_at_the_base_directory(base: Path) -> None:
    one, other = make(
        {"working_directory": "bin"}, {"working_directory": "/etc"}, base_directory=base
    ).processes
    assert (one.working_directory, other.working_directory) == (base / "bin", Path("/etc"))
    assert problems_of({"working_directory": "missing"}, base_directory=base) == [
        Problem(("processes", "p0", "working_directory"), "there is no such folder")
    ]


def test_the_path_that_readiness_looks_at_starts_at_the_base_directory(base: Path) -> None:
    params = {"path": "ready"}
    one, other, custom = make(
        {"ready_strategy": "file", "ready_params": dict(params)},
        {"ready_strategy": "pipe", "ready_params": {"path": "/run/ready"}},
        {"ready_strategy": "custom", "ready_params": dict(params)},
        base_directory=base,
    ).processes
    assert one.ready_params == {"path": str(base / "ready")}
    assert other.ready_params == {"path": "/run/ready"}
    assert custom.ready_params == params


# --- dependencies ---------------------------------------------------------------------------------


def test_dependencies_become_processes_and_the_list_is_ordered(tmp_path: Path) -> None:
    manifest = make(
        {"name": "web", "dependencies": ["api", "cache"]},
        {"name": "api", "dependencies": ["db"]},
        {"name": "db"},
        {"name": "cache"},
    )
    names = [process.name for process in manifest.processes]
    assert names == ["db", "cache", "api", "web"]
    by_name = {process.name: process for process in manifest.processes}
    assert by_name["web"].dependencies == [by_name["api"], by_name["cache"]]
    assert by_name["web"].dependencies[0] is by_name["api"]


def test_conditions_survive_that_names_become_processes() -> None:
    manifest = make(
        {"name": "api", "dependencies": [{"name": "job", "condition": "completed"}]},
        {"name": "job", **ONCE},
    )
    job, api = manifest.processes
    assert api.dependencies == [job]
    (requirement,) = api.requirements
    assert (requirement.name, requirement.condition) == ("job", Condition.COMPLETED)


def test_the_order_is_the_given_one_where_nothing_speaks_against_it() -> None:
    manifest = make({"name": "c"}, {"name": "a"}, {"name": "b"})
    assert [process.name for process in manifest.processes] == ["c", "a", "b"]


def test_each_step_may_be_applied_again(base: Path) -> None:
    manifest = make(
        {
            "path": "bin/tool",
            "dependencies": [{"name": "p1", "condition": "started"}],
            "ready_strategy": "file",
            "ready_params": {"path": "ready"},
        },
        {"path": "sh"},
        base_directory=base,
    )
    before = manifest.model_dump()
    for step in (
        manifest.resolve_paths,
        manifest.resolve_dependencies,
        manifest.order_dependencies,
        manifest.validate_ready_config,
        manifest.validate_cpu_affinity,
        manifest.set_working_directory,
    ):
        assert step() is manifest
    assert manifest.model_dump() == before
    assert manifest.processes[1].requirements[0].condition is Condition.STARTED


def test_processes_may_be_given_as_objects() -> None:
    db = Process(name="db", path=Path("/bin/sh"))
    api = Process(name="api", path=Path("/bin/sh"), dependencies=[db])
    manifest = ProcessManifest(processes=[api, db])
    assert [process.name for process in manifest.processes] == ["db", "api"]
    assert manifest.processes[0] is db


# --- what is wrong --------------------------------------------------------------------------------


def test_problems_are_raised_where_nobody_collects_them() -> None:
    with pytest.raises(ValueError, match=re.escape("processes.p0.dependencies")) as caught:
        make({"dependencies": ["p0"]}, {"affinity": [100_000]})
    assert "processes.p1.affinity.0" in str(caught.value)


@pytest.mark.parametrize(
    "step", ["resolve_paths", "resolve_dependencies", "order_dependencies", "validate_ready_config"]
)
def test_each_step_raises_what_it_finds(step: str) -> None:
    found: list[Problem] = []
    processes = [
        {"name": "p", "path": "missing/program", "dependencies": ["q", "x"]},
        {"name": "q", "path": "/bin/sh", "dependencies": ["p"], "ready_strategy": "tcp"},
    ]
    manifest = ProcessManifest.model_validate({"processes": processes}, context=found)
    assert found
    with pytest.raises(ProblemsError):
        getattr(manifest, step)()


@pytest.mark.parametrize(
    ("processes", "where", "what"),
    [
        ([{"path": "/no"}], ("processes", "p0", "path"), "there is no program /no"),
        ([{}, {"name": "p0"}], ("processes", "p0", "name"), "there is already a process 'p0'"),
        (
            [{"name": "cache"}, {"dependencies": ["cahce"]}],
            ("processes", "p1", "dependencies", "cahce"),
            "there is no process 'cahce'; did you mean 'cache'?",
        ),
        (
            [{"dependencies": ["zzz"]}],
            ("processes", "p0", "dependencies", "zzz"),
            "there is no process 'zzz'",
        ),
        (
            [{}, {"dependencies": [{"name": "p0", "condition": "completed"}]}],
            ("processes", "p1", "dependencies", "p0"),
            (
                "'p0' never completes, for it is always restarted;"
                " give it `shutdown_strategy: do_not_restart`"
            ),
        ),
        (
            [{"dependencies": ["p1"]}, {"dependencies": ["p2"]}, {"dependencies": ["p0"]}],
            ("processes", "p0", "dependencies"),
            "circular dependency: p0 -> p1 -> p2 -> p0",
        ),
        (
            [{"dependencies": ["p0"]}],
            ("processes", "p0", "dependencies"),
            "circular dependency: p0 -> p0",
        ),
        (
            [{"ready_strategy": "tcp"}],
            ("processes", "p0", "ready_params", "port"),
            "is missing; the tcp strategy needs it, or `unix`",
        ),
        (
            [{"ready_strategy": "tcp", "ready_params": {"port": None}}],
            ("processes", "p0", "ready_params", "port"),
            "is missing; the tcp strategy needs it, or `unix`",
        ),
        (
            [{"ready_strategy": "file"}],
            ("processes", "p0", "ready_params", "path"),
            "is missing; the file strategy needs it",
        ),
        (
            [{"ready_strategy": "pipe", "ready_params": {}}],
            ("processes", "p0", "ready_params", "path"),
            "is missing; the pipe strategy needs it",
        ),
        (
            [{"affinity": [0, os.cpu_count()]}],
            ("processes", "p0", "affinity", 1),
            f"there is no CPU {os.cpu_count()} here, only 0 to {(os.cpu_count() or 1) - 1}",
        ),
        (
            [{"affinity": [-1]}],
            ("processes", "p0", "affinity", 0),
            f"there is no CPU -1 here, only 0 to {(os.cpu_count() or 1) - 1}",
        ),
        (
            [{"affinity": []}],
            ("processes", "p0", "affinity"),
            "names no CPU; leave it out for all of them",
        ),
    ],
)
def test_a_problem_is_told_with_its_place_and_the_remedy(
    processes: list[dict[str, Any]], where: Any, what: str
) -> None:
    assert problems_of(*processes) == [Problem(where, what)]


@pytest.mark.parametrize("port", [0, 65_536, -1, "http", 80.5, True, [80], "", "0x50"])
def test_a_port_is_a_number_from_1_to_65535(port: object) -> None:
    (problem,) = problems_of({"ready_strategy": "tcp", "ready_params": {"port": port}})
    assert problem.message == "must be a number from 1 to 65535"


@pytest.mark.parametrize("port", [1, 65_535, "8080"])
def test_a_port_may_be_any_of_these(port: object) -> None:
    assert problems_of({"ready_strategy": "tcp", "ready_params": {"port": port}}) == []


@pytest.mark.parametrize(
    "fields",
    [ONCE, {"restart": {"when": "failure"}}, {"restart": {"when": "always", "max_restarts": 3}}],
)
def test_what_may_complete_can_be_waited_for(fields: dict[str, Any]) -> None:
    dependent = {"dependencies": [{"name": "p0", "condition": "completed"}]}
    assert problems_of(fields, dependent) == []


def test_a_manifest_has_one_process_at_least() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        ProcessManifest(processes=[])


@pytest.mark.parametrize(
    "fields",
    [
        *({"kill_timeout": value} for value in (-1, float("inf"), None)),
        *({"stop_within_sec": value} for value in (0, -1, float("nan"))),
        {"base_directory": 5},
        {"control_server": 5},
        {"unknown": 5},
    ],
    ids=str,
)
def test_fields_of_the_manifest_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        make({}, **fields)
