"""Variables and replicas are told apart before the models read a manifest."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from runtime import Condition, Manifest, load_manifest
from runtime._problems import ProblemsError
from runtime.exceptions import ManifestError
from runtime.process import Process, ProcessManifest

Write = Any
NUMBER = "input should be a valid number, unable to parse string as a number"
NEVER_COMPLETES = (
    "'api' never completes, for it is always restarted; give it `shutdown_strategy: do_not_restart`"
)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str, name: str = "m.yaml") -> Path:
        path = tmp_path / name
        path.write_text(dedent(text).lstrip("\n"))
        return path

    return write_file


def problems(path: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    return [line.removeprefix(f"{path}:") for line in caught.value.lines]


# --- variables ------------------------------------------------------------------------------------


def test_references_are_resolved_everywhere(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL_NAME", "sh")
    monkeypatch.setenv("FROM_BOTH", "environment")
    write("FROM_BOTH=file\nFROM_FILE=file\nPORT=5432\n", "shop.env")
    monkeypatch.setenv("SHOP", "shop")
    path = write(
        """
        env_file: ${SHOP}.env
        stop_within_sec: ${STOP:-7}
        processes:
          - name: ${SHOP}-db
            path: ${SHELL_NAME}
            args: ["${FROM_BOTH}", "${FROM_FILE}"]
            restart_dependents: ${DEPENDENTS:-true}
            ready_strategy: tcp
            ready_params: {port: "${PORT}"}
        """
    )
    for manifest in (load_manifest(path), ProcessManifest.from_yaml(path)):
        (process,) = manifest.processes
        assert (process.name, process.path.name) == ("shop-db", "sh")
        assert process.args == ["environment", "file"]
        assert process.restart_dependents is True
        assert process.ready_params == {"port": "5432"}
        assert manifest.stop_within_sec == 7
        assert manifest.env_file == path.parent / "shop.env"


def test_the_file_of_variables_reaches_the_processes_and_all_others_win_over_it(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWO", "environment")
    monkeypatch.delenv("ONE", raising=False)
    write("ONE=file\nTWO=file\nTHREE=file\n", ".env")
    path = write(
        """
        env_file: .env
        processes:
          - {name: p, path: sh, env: {THREE: own}}
        """
    )
    env = load_manifest(path).processes[0].merged_env({})
    assert (env["ONE"], env["TWO"], env["THREE"]) == ("file", "environment", "own")
    made = ProcessManifest.model_validate(
        {"processes": [{"name": "p", "path": "sh"}], "env_file": path.parent / ".env"}
    )
    assert made.processes[0].merged_env({})["ONE"] == "file"


def test_a_missing_variable_is_told_with_line_and_key_and_hides_nothing_else(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MISSING", raising=False)
    path = write(
        """
        processes:
          - name: api
            path: ${MISSING}/api
            args:
              - ok
              - ${MISSING}
            timeout: soon
          - name: web
            path: sh
            dependencies: [apy]
        kill_timeout: ${MISSING}
        """
    )
    unset = "${MISSING} is not set; set it, or give a default: ${MISSING:-default}"
    assert problems(path) == [
        f"3: processes.api.path: {unset}",
        f"6: processes.api.args.1: {unset}",
        f"7: processes.api.timeout: {NUMBER}",
        "10: processes.web.dependencies.0: there is no process 'apy'; did you mean 'api'?",
        f"11: kill_timeout: {unset}",
    ]


def test_a_file_of_variables_that_cannot_be_read_is_the_one_problem_of_what_it_sets(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PORT", raising=False)
    path = write(
        """
        env_file: missing.env
        processes:
          - {name: p, path: sh, args: ["${PORT}"]}
          - {name: q, path: sh, tiemout: 3}
        """
    )
    assert problems(path) == [
        f"1: env_file: {tmp_path}/missing.env: there is no such file",
        "4: processes.q.tiemout: unknown key; did you mean 'timeout'?",
    ]
    monkeypatch.chdir(tmp_path)
    assert len(problems(Path(path.name))) == 2
    with pytest.raises(ProblemsError, match="there is no such file"):
        ProcessManifest.from_yaml(path)
    with pytest.raises(ValueError, match=r"env_file: .*there is no such file"):
        ProcessManifest(processes=[Process(name="p", path=Path("/bin/sh"))], env_file=Path("/no"))


@pytest.mark.parametrize("key", ["base_directory", "env_file"])
def test_a_missing_variable_in_what_the_others_depend_on_is_told(write: Write, key: str) -> None:
    path = write(f"{key}: ${{NEVER_SET}}\nprocesses:\n  - {{name: p, path: no-such}}\n")
    found = problems(path)
    assert found[0].startswith(f"1: {key}: ${{NEVER_SET}} is not set")


# --- replicas -------------------------------------------------------------------------------------


def test_an_entry_with_replicas_stands_for_as_many_processes(write: Write) -> None:
    path = write(
        """
        processes:
          - name: web
            path: sh
            dependencies: [{name: api, condition: started}]
          - name: api
            path: sh
            args: [-c, "exec sleep ${REPLICA}00", "${REPLICA:-none}"]
            replicas: ${COUNT:-2}
            dependencies: [db]
            env: {PORT: "808${REPLICA}"}
            ready_strategy: tcp
            ready_params: {port: "808${REPLICA}"}
          - {name: db, path: sh, replicas: 1, env: {REPLICA: mine}}
        """
    )
    manifest = load_manifest(path)
    by_name = {process.name: process for process in manifest.processes}
    assert list(by_name) == ["db-0", "api-0", "api-1", "web"]
    for number, name in enumerate(["api-0", "api-1"]):
        process = by_name[name]
        assert process.args == ["-c", f"exec sleep {number}00", str(number)]
        assert process.env == {"REPLICA": str(number), "PORT": f"808{number}"}
        assert process.ready_params == {"port": f"808{number}"}
        assert (process.replicas, process.replica_of) == (None, "api")
        assert process.dependencies == [by_name["db-0"]]
    assert by_name["db-0"].env == {"REPLICA": "mine"}
    assert by_name["web"].dependencies == [by_name["api-0"], by_name["api-1"]]
    assert {r.condition for r in by_name["web"].requirements} == {Condition.STARTED}
    assert [p.name for p in manifest.members_by_name()["api"]] == ["api-0", "api-1"]
    assert [p.name for p in manifest.members_by_name()["web"]] == ["web"]
    assert "nobody" not in manifest.members_by_name()


def test_a_dump_of_a_manifest_with_replicas_reads_as_the_same(write: Write) -> None:
    path = write(
        """
        processes:
          - {name: api, command: "exec sleep ${REPLICA}", replicas: 2}
          - {name: web, path: sh, dependencies: [api]}
        """
    )
    dump = load_manifest(path).model_dump()
    assert Manifest.model_validate(dump).model_dump() == dump


def test_replicas_may_be_asked_for_in_python() -> None:
    entry = Process(name="api", path=Path("/bin/sh"), args=["${REPLICA}"], replicas=2)
    web = Process(name="web", path=Path("/bin/sh"), dependencies=["api"])
    manifest = ProcessManifest(processes=[entry, web])
    assert [process.name for process in manifest.processes] == ["api-0", "api-1", "web"]
    assert [process.args for process in manifest.processes] == [["0"], ["1"], []]
    assert manifest.processes[2] is web


@pytest.mark.parametrize("count", [0, -1, 1001, "many", True, 1.5, [2]])
def test_a_number_of_replicas_that_makes_no_sense_is_refused(write: Write, count: object) -> None:
    path = write(f"processes:\n  - name: api\n    path: sh\n    replicas: {count}\n")
    (line,) = problems(path)
    wrong = "must be a number, not true or false" if count is True else "input should be "
    assert line.startswith(f"4: processes.api.replicas: {wrong}")


@pytest.mark.parametrize("count", ["2.0", "' 2 '", "'2.0'"])
def test_a_number_is_one_however_it_is_written(write: Write, count: str) -> None:
    path = write(f"processes:\n- {{name: api, path: sh, replicas: {count}}}\n")
    assert [process.name for process in load_manifest(path).processes] == ["api-0", "api-1"]


@pytest.mark.parametrize("value", ["db", "null", "[]"])
def test_nobody_but_us_says_what_is_a_replica(write: Write, value: str) -> None:
    path = write(
        f"""
        processes:
          - {{name: db, path: sh, replicas: 2}}
          - {{name: api, path: sh, replica_of: {value}}}
        """
    )
    assert problems(path) == [
        "3: processes.api.replica_of: unknown key; did you mean 'replicas'?",
    ]


def test_what_follows_an_entry_with_replicas_keeps_its_line(write: Write) -> None:
    path = write(
        """
        processes:
          - {name: api, path: sh, replicas: 3, args: ["${REPLICA}"]}
          - {name: db, path: sh, timeout: "${NOT_SET_ANYWHERE}", nice: 99}
          - {name: [x], path: sh, replicas: 3}
          - {name: cache, path: no-such-program}
        """
    )
    assert [line[:35] for line in problems(path)] == [
        "3: processes.db.nice: input should ",
        "3: processes.db.timeout: ${NOT_SET_",
        "4: processes.2.name: input should b",
        "5: processes.cache.path: there is n",
    ]


def test_one_text_cannot_be_repeated_by_replicas_beyond_measure(write: Write) -> None:
    text = f"processes:\n- {{name: api, path: sh, replicas: 1000, args: ['{'x' * 20_000}']}}\n"
    (line,) = problems(write(text))
    assert line.startswith("1: processes: there are more than 1000 processes, replicas counted")


def test_a_problem_of_a_replica_is_told_once_at_its_entry(write: Write) -> None:
    path = write(
        """
        processes:
          - {name: api, path: no-such, replicas: 3}
          - {name: web, path: sh, tiemout: 3}
          - name: last
            path: sh
            replicas: 2
            ready_strategy: tcp
            ready_params: {port: "x${REPLICA}"}
            dependencies: [last, {name: api, condition: completed}]
        """
    )
    found = [line.replace(str(path.parent), "FOLDER") for line in problems(path)]
    assert found == [
        "2: processes.api.path: there is no 'no-such' in FOLDER nor on PATH",
        "3: processes.web.tiemout: unknown key; did you mean 'timeout'?",
        "8: processes.last.ready_params.port: must be a number from 1 to 65535",
        f"9: processes.last.dependencies.api: {NEVER_COMPLETES}",
        "9: processes.last.dependencies: circular dependency: last-0 -> last-0",
    ]


def test_the_name_of_an_entry_with_replicas_is_taken(write: Write) -> None:
    path = write(
        """
        processes:
          - {name: api, path: sh, replicas: 2}
          - {name: api, path: sh}
          - {name: api-1, path: sh}
        """
    )
    assert problems(path) == [
        "3: processes.api.name: there is already a process 'api'",
        "4: processes.api-1.name: there is already a process 'api-1'",
    ]


def test_a_problem_of_a_duplicate_is_told_at_its_own_line(write: Write) -> None:
    path = write("processes:\n- {name: a, path: sh}\n- {name: a,\n   path: nowhere/x}\n")
    assert [line.partition(": there")[0] for line in problems(path)] == [
        "3: processes.a.name",
        "4: processes.a.path",
    ]


# --- a line for the shell -------------------------------------------------------------------------


def test_a_line_for_the_shell_stands_in_the_place_of_a_program(write: Write) -> None:
    path = write("processes:\n  - {name: p, command: 'echo $HOME | cat'}\n")
    (process,) = load_manifest(path).processes
    assert process.command == ["/bin/sh", "-c", "echo $HOME | cat"]
    assert process.working_directory == path.parent


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("command: ls, path: sh", "has both `command` and `path` or `args`; leave one of them out"),
        ("command: ls, args: [x]", "has both `command` and `path` or `args`"),
        ("command: ''", "command: string should have at least 1 character"),
        ("command: [ls]", "command: input should be a valid string"),
        ("comand: ls", "comand: unknown key; did you mean 'command'?"),
        ('command: "a\\0b"', "command: must not contain a NUL character"),
    ],
)
def test_a_line_for_the_shell_that_makes_no_sense_is_refused(
    write: Write, fields: str, problem: str
) -> None:
    found = problems(write(f"processes:\n  - {{name: p, {fields}}}\n"))
    assert any(problem in line for line in found), found


@pytest.mark.parametrize("key", ["path", "working_directory"])
def test_a_name_that_no_file_can_have_is_told_like_any_other(write: Write, key: str) -> None:
    path = {"path": "sh", key: "x/" + "y" * 5000}
    fields = ", ".join(f"{name}: {value}" for name, value in path.items())
    (line,) = problems(write(f"processes:\n  - {{name: p, {fields}}}\n"))
    assert line == f"2: processes.p.{key}: is longer than 4095 bytes; no path may be"


@pytest.mark.parametrize("key", ["path", "working_directory"])
def test_nor_does_a_path_lead_through_a_forest_of_folders(write: Write, key: str) -> None:
    path = {"path": "sh", key: "x/" * 101 + "y"}
    fields = ", ".join(f"{name}: {value}" for name, value in path.items())
    (line,) = problems(write(f"processes:\n  - {{name: p, {fields}}}\n"))
    assert line == f"2: processes.p.{key}: goes through more than 100 folders"


@pytest.mark.parametrize("key", ["plugins", "base_directory", "env_file"])
def test_a_folder_that_cannot_be_is_told_like_any_other(write: Write, key: str) -> None:
    text = f"{key}: {'y' * 5000}\nprocesses:\n  - {{name: p, path: sh}}\n"
    assert problems(write(text))
