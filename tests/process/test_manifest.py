"""Every problem of a manifest is one line with its place, and all are told at once."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from runtime._problems import Problem
from runtime.manifest import ManifestError, load_manifest
from runtime.process import ProcessManifest

Tell = Callable[..., list[str]]


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    """Return the lines about a manifest, without the path of the file and its colon."""

    def tell_problems(text: str, name: str = "m.yaml", **options: Any) -> list[str]:
        path = tmp_path / name
        path.write_text(dedent(text).lstrip("\n"))
        with pytest.raises(ManifestError) as caught:
            load_manifest(path, **options)
        error = caught.value
        assert error.path == path
        assert all("\n" not in line for line in error.lines)
        assert str(error) == "\n".join(error.lines)
        return [line.removeprefix(f"{path}:") for line in error.lines]

    return tell_problems


def test_a_manifest_without_a_problem_is_loaded_from_yaml_and_json(tmp_path: Path) -> None:
    data = {
        "processes": [
            {"name": "api", "path": "sh", "args": ["-c", "exit"], "dependencies": ["db"]},
            {
                "name": "db",
                "path": "sh",
                "ready_strategy": "tcp",
                "ready_params": {"port": 5432},
                "restart": {"when": "failure", "max_restarts": 3},
            },
        ],
        "stop_within_sec": 10,
    }
    for name in ("m.json", "m.yaml"):
        (tmp_path / name).write_text(json.dumps(data))
        manifest = load_manifest(tmp_path / name)
        assert [process.name for process in manifest.processes] == ["db", "api"]
        assert manifest.base_directory == tmp_path
        assert manifest.stop_within_sec == 10


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tell: Tell, tmp_path: Path) -> None:
    text = """
        processes:
          - name: api
            path: no-such-program
            args: [8080]
            timeout: soon
            env: {PORT: 80}
            dependencies: [cahce, {name: job, condition: completd}, {nam: job}]
            restart: {when: sometimes, facto: 3}
            shutdown_strategy: explode
            ready_strategy: tcp
            ready_params: {prot: 5432}
            stop_signal: SIGFOO
            affinity: [one]
            lifecycle_hook: [x]
          - name: cache
            path: sh
            working_directory: missing
            processor_affinity: [100000]
          - path: sh
            ready_strategy: file
          - name: job
            path: sh
            dependencies: [last]
          - name: cache
            path: sh
          - 7
          - name: last
            path: [sh]
            dependencies: [job]
        kill_timout: 3
        stop_within_sec: 0
    """
    found = [line.replace(str(tmp_path), "FOLDER") for line in tell(text)]
    number = "input should be a valid number, unable to parse string as a number"
    integer = "input should be a valid integer, unable to parse string as an integer"
    conditions = "'started', 'ready', 'completed' or 'completed_successfully'"
    strategies = "'restart', 'do_not_restart' or 'shutdown_everything'"
    signal = "there is no signal 'SIGFOO' here; SIGTERM, SIGINT and SIGQUIT are usual"
    cpus = f"only 0 to {(os.cpu_count() or 1) - 1}"
    expected = f"""
        3: processes.api.path: there is no 'no-such-program' in FOLDER nor on PATH
        4: processes.api.args.0: must be text; put it in quotes
        5: processes.api.timeout: {number}
        6: processes.api.env.PORT: must be text; put it in quotes
        7: processes.api.dependencies.0: there is no process 'cahce'; did you mean 'cache'?
        7: processes.api.dependencies.2.nam: unknown key; did you mean 'name'?
        7: processes.api.dependencies.2.name: is missing
        7: processes.api.dependencies.job.condition: input should be {conditions}
        8: processes.api.restart.facto: unknown key; did you mean 'factor'?
        8: processes.api.restart.when: input should be 'always', 'failure' or 'never'
        9: processes.api.shutdown_strategy: input should be {strategies}
        11: processes.api.ready_params.prot: unknown key; did you mean 'port'?
        12: processes.api.stop_signal: {signal}
        13: processes.api.affinity.0: {integer}
        14: processes.api.lifecycle_hook: unknown key; did you mean 'lifecycle_hooks'?
        17: processes.cache.working_directory: there is no such folder
        18: processes.cache.processor_affinity.0: there is no CPU 100000 here, {cpus}
        19: processes.2.name: is missing
        19: processes.2.ready_params.path: is missing; the file strategy needs it
        23: processes.job.dependencies: circular dependency: job -> last -> job
        24: processes.cache.name: there is already a process 'cache'
        26: processes.5: must be a mapping of keys to values
        28: processes.last.path: must be a path
        30: kill_timout: unknown key; did you mean 'kill_timeout'?
        31: stop_within_sec: input should be greater than 0
    """
    assert found == dedent(expected).strip().splitlines()


CPUS = os.cpu_count() or 1
NOTHING = "there is nothing to run; name processes, services, or tasks"
INTEGER = "input should be a valid integer, unable to parse string as an integer"
WHOLE = "input should be a valid integer, got a number with a fractional part"
BOOLEAN = "input should be a valid boolean, unable to interpret input"
USUAL = "SIGTERM, SIGINT and SIGQUIT are usual"


def in_yaml(process: str, rest: str = "") -> str:
    """Return a manifest whose second line begins the only process, with this on the third."""
    return f"processes:\n- {{name: api, path: sh,\n{process}}}\n{rest}"


@pytest.mark.parametrize(
    ("process", "line"),
    [
        ("tiemout: 5", "3: processes.api.tiemout: unknown key; did you mean 'timeout'?"),
        ("zzz: 5", "3: processes.api.zzz: unknown key"),
        ("timeout: -1", "3: processes.api.timeout: input should be greater than or equal to 0"),
        (
            "ready_timeout_sec: .inf",
            "3: processes.api.ready_timeout_sec: input should be a finite number",
        ),
        ("args: -v", "3: processes.api.args: input should be a valid list"),
        ("args: [a, [b]]", "3: processes.api.args.1: input should be a valid string"),
        ("env: [A=1]", "3: processes.api.env: input should be a valid dictionary"),
        (
            'env: {"A=B": c}',
            "3: processes.api.env.A=B: the name of a variable must not be empty nor contain '='",
        ),
        ('args: ["\\0"]', "3: processes.api.args.0: must not contain a NUL character"),
        (
            "stop_signal: TREM",
            f"3: processes.api.stop_signal: there is no signal 'SIGTREM' here; {USUAL}",
        ),
        ("dependencies: [bd, api-2]", "3: processes.api.dependencies.0: there is no process 'bd'"),
        ("dependencies: [api]", "3: processes.api.dependencies: circular dependency: api -> api"),
        (
            "dependencies: [{name: x, conditon: ready}]",
            "3: processes.api.dependencies.x.conditon: unknown key; did you mean 'condition'?",
        ),
        (
            "dependencies: [[]]",
            "3: processes.api.dependencies.0: must be a mapping of keys to values",
        ),
        ("restart: always", "3: processes.api.restart: must be a mapping of keys to values"),
        (
            "restart: {max_restarts: 1.5}",
            f"3: processes.api.restart.max_restarts: {WHOLE}",
        ),
        (
            "restart: {jitter: 2}",
            "3: processes.api.restart.jitter: input should be less than or equal to 1",
        ),
        (
            "ready_strategy: tcp",
            "2: processes.api.ready_params.port: is missing; the tcp strategy needs it, or `unix`",
        ),
        (
            "ready_strategy: tcp, ready_params: {port: 70000}",
            "3: processes.api.ready_params.port: must be a number from 1 to 65535",
        ),
        (
            "ready_strategy: file, ready_params: [x]",
            "3: processes.api.ready_params: input should be a valid dictionary",
        ),
        (
            "affinity: [0, 100000]",
            f"3: processes.api.affinity.1: there is no CPU 100000 here, only 0 to {CPUS - 1}",
        ),
        (
            "processor_affinity: []",
            "3: processes.api.processor_affinity: names no CPU; leave it out for all of them",
        ),
        (
            "processor_affinity: [x]",
            f"3: processes.api.processor_affinity.0: {INTEGER}",
        ),
        (
            "working_directory: missing",
            "3: processes.api.working_directory: there is no such folder",
        ),
        ("working_directory: 5", "3: processes.api.working_directory: must be a path"),
        (
            "restart_dependents: perhaps",
            f"3: processes.api.restart_dependents: {BOOLEAN}",
        ),
        ("name: again", "3: the key 'name' stands here twice"),
        ("5: x", "3: the key 5 is no text; put it in quotes"),
    ],
)
def test_each_problem_has_its_line_and_place_in_yaml(tell: Tell, process: str, line: str) -> None:
    found = tell(in_yaml(process))
    assert found[0] == line
    assert len(found) == 1 + process.count("api-2")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"tiemout": 5}, "6: processes.api.tiemout: unknown key; did you mean 'timeout'?"),
        ({"args": "-v"}, "6: processes.api.args: input should be a valid list"),
        ({"env": {"A": True}}, "7: processes.api.env.A: must be text; put it in quotes"),
        (
            {"env": {"": "x"}},
            "7: processes.api.env.'': the name of a variable must not be empty nor contain '='",
        ),
        ({"args": ["\0"]}, "7: processes.api.args.0: must not contain a NUL character"),
        ({"path": "/no/such"}, "5: processes.api.path: there is no program /no/such"),
        ({"path": "/etc"}, "5: processes.api.path: /etc is a folder, not a program"),
        (
            {"path": "/etc/passwd"},
            "5: processes.api.path: /etc/passwd is not executable; `chmod +x` it",
        ),
        (
            {"name": "a/b"},
            "4: processes.a/b.name: string should match pattern '^[^/\\x00-\\x1f]+$'",
        ),
        ({"name": None}, "4: processes.0.name: input should be a valid string"),
        (
            {"ready_strategy": "pipe"},
            "3: processes.api.ready_params.path: is missing; the pipe strategy needs it",
        ),
        (
            {"restart": {"facto": 2}},
            "7: processes.api.restart.facto: unknown key; did you mean 'factor'?",
        ),
    ],
)
def test_each_problem_has_its_line_and_place_in_json(
    tell: Tell, fields: dict[str, Any], line: str
) -> None:
    process = {"name": "api", "path": "sh", **fields}
    assert tell(json.dumps({"processes": [process]}, indent="\t"), "m.json") == [line]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{}", f"1: processes: {NOTHING}"),
        ("processes: []", f"1: processes: {NOTHING}"),
        ("processes: {api: {path: sh}}", "1: processes: input should be a valid list"),
        ("processes: null", "1: processes: input should be a valid list"),
        ("processes: [5]", "1: processes.0: must be a mapping of keys to values"),
        ("- processes", "1: must be a mapping of keys to values"),
        ("hello", "1: must be a mapping of keys to values"),
        ("", "1: is empty"),
        ("processes: [", "1: a [ or { is not closed where the text ends"),
    ],
)
def test_a_file_that_is_no_manifest_is_told_in_one_line(tell: Tell, text: str, line: str) -> None:
    assert tell(text) == [line]


@pytest.mark.parametrize(
    ("rest", "line"),
    [
        ("kill_timeout: -1", "4: kill_timeout: input should be greater than or equal to 0"),
        ("stop_within: 5", "4: stop_within: unknown key; did you mean 'stop_within_sec'?"),
        ("stop_within_sec: 0", "4: stop_within_sec: input should be greater than 0"),
        ("control_server: [x]", "4: control_server: input should be a valid string"),
        ("base_directory: 5", "4: base_directory: must be a path"),
        ("run_directory: [x]", "4: run_directory: must be a path"),
    ],
)
def test_problems_of_the_manifest_itself_have_their_lines(tell: Tell, rest: str, line: str) -> None:
    assert tell(in_yaml("timeout: 5", rest)) == [line]


def test_a_base_directory_that_is_not_there_is_told_where_it_matters(tell: Tell) -> None:
    text = "base_directory: missing\nprocesses:\n- {name: api, path: sh}\n- {name: b, path: ./x}"
    assert [line.partition(": ")[2].partition(":")[0] for line in tell(text)] == [
        "processes.api.working_directory",
        "processes.b.path",
    ]


@pytest.mark.parametrize(
    "faulty",
    [
        "name: [job]",
        "name: job, shutdown_strategy: explode",
        "name: job, restart: sometimes",
        "name: job, restart: {when: sometimes}",
        "name: job, shutdown_strategy: do_not_restart, env: {A: 1}, args: [1], affinity: [x]",
        "name: job, shutdown_strategy: do_not_restart, processor_affinity: [x]",
        "name: job, shutdown_strategy: do_not_restart, ready_strategy: tcp, ready_params: 5",
        "name: job, shutdown_strategy: do_not_restart, path: [sh]",
        "name: job, shutdown_strategy: do_not_restart, zzz: 5",
    ],
)
def test_a_value_that_cannot_be_read_is_not_the_cause_of_other_problems(
    tell: Tell, faulty: str
) -> None:
    path = "" if "path" in faulty else "path: sh, "
    needs = "" if "[job]" in faulty else "{name: job, condition: completed}"
    text = f"""
        processes:
          - {{{path}{faulty}}}
          - {{name: api, path: sh, dependencies: [{needs}]}}
    """
    found = tell(text)
    assert len(found) == 1 + 2 * ("env" in faulty)
    assert {line.partition(":")[0] for line in found} == {"2"}


def test_a_check_may_find_more_in_a_manifest_that_is_fine_so_far(tell: Tell) -> None:
    def check(manifest: ProcessManifest) -> list[Problem]:
        assert [process.name for process in manifest.processes] == ["api"]
        return [
            Problem(("processes", "api", "lifecycle_hooks", 1), "no plugin provides 'x'"),
            Problem((), "and that"),
        ]

    text = in_yaml("lifecycle_hooks: [\ny,\nx]")
    assert tell(text, check=check) == [
        "1: and that",
        "5: processes.api.lifecycle_hooks.1: no plugin provides 'x'",
    ]
    assert tell(in_yaml("affinity: []"), check=check) == [
        "1: and that",
        "2: processes.api.lifecycle_hooks.1: no plugin provides 'x'",
        "3: processes.api.affinity: names no CPU; leave it out for all of them",
    ]


def test_a_missing_file_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / "missing.yaml")
    assert caught.value.lines == (f"{tmp_path}/missing.yaml:1: No such file or directory",)


def test_an_error_survives_a_pickle() -> None:
    error = ManifestError(Path("m.yaml"), ["one", "two"])
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (copy.path, copy.lines, str(copy)) == (Path("m.yaml"), ("one", "two"), "one\ntwo")
