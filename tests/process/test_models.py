"""What a manifest may say of a process, what stands where nothing is said, and how it is shown."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from runtime.process import (
    Dependency,
    Process,
    ProcessManifest,
    ProcessState,
    ProcessStats,
    ProcessStatus,
    RestartSpec,
)
from runtime.supervision._exceptions import IllegalTransitionError
from runtime.supervision.graph import Condition, Requirement
from runtime.supervision.restart import RestartPolicy, RestartWhen

REQUIRED = object()

RESTART_FIELDS = {
    "when": "failure",
    "delay_sec": 0.1,
    "factor": 2.0,
    "max_delay_sec": 30.0,
    "jitter": 0.0,
    "forgive_after_sec": 60.0,
    "max_restarts": None,
    "window_sec": None,
}


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (RestartSpec, RESTART_FIELDS),
        (Dependency, {"name": REQUIRED, "condition": "ready"}),
    ],
    ids=["RestartSpec", "Dependency"],
)
def test_each_field_has_the_default_that_is_documented(model: Any, known: dict[str, Any]) -> None:
    found = {
        name: REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
    }
    assert found == known


@pytest.mark.parametrize("model", [Process, ProcessManifest, RestartSpec, Dependency])
def test_each_field_is_described(model: Any) -> None:
    assert all(field.description for field in model.model_fields.values())


def make(**fields: Any) -> Process:
    return Process(**{"name": "p", "path": Path("/bin/p"), **fields})


def test_defaults_are_not_shared_between_processes() -> None:
    one, other = make(), make()
    one.args.append("x")
    one.env["X"] = "x"
    one.ready_params["x"] = 1
    one.lifecycle_hook_functions["pre_start"].append(lambda process, popen: None)
    one.stats_handler_functions.append(lambda stats: None)
    assert (other.args, other.env, other.ready_params) == ([], {}, {})
    assert other.lifecycle_hook_functions["pre_start"] == []
    assert other.stats_handler_functions == []


def test_the_command_is_the_path_and_the_arguments() -> None:
    assert make(args=["-v", "two words"]).command == ["/bin/p", "-v", "two words"]


def test_affinity_may_be_spelled_as_processor_affinity() -> None:
    assert Process.model_validate(
        {"name": "p", "path": "p", "processor_affinity": [0]}
    ).affinity == [0]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "a/b"},
        {"name": "a\nb"},
        {"name": "x" * 201},
        {"name": 5},
        {"path": 5},
        {"args": "text"},
        {"args": [1]},
        {"args": ["\0"]},
        {"env": {"A": 1}},
        {"env": {"A": "\0"}},
        {"env": {"A\0": ""}},
        {"env": {"A=B": ""}},
        {"env": {"": "x"}},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "soon"},
        {"shutdown_strategy": "explode"},
        {"dependencies": "db"},
        {"dependencies": [5]},
        {"dependencies": [{"name": "db", "condition": "rady"}]},
        {"dependencies": [{"condition": "ready"}]},
        {"dependencies": [{"name": "db", "when": "ready"}]},
        {"lifecycle_hooks": "hook"},
        {"affinity": ["x"]},
        {"affinity": 1},
        {"ready_timeout_sec": -1},
        {"ready_timeout_sec": None},
        {"ready_params": []},
        {"restart": {"when": "sometimes"}},
        {"restart": {"delay_sec": -1}},
        {"restart": {"factor": 0.5}},
        {"restart": {"jitter": 2}},
        {"restart": {"max_restarts": -1}},
        {"restart": {"window_sec": 0}},
        {"restart": {"often": True}},
        {"restart_dependents": "perhaps"},
        {"stop_signal": "SIGFOO"},
        {"stop_signal": 15},
        {"unknown": 1},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        make(**fields)
    assert caught.value.errors()[0]["loc"][0] in {*fields}


@pytest.mark.parametrize("given", ["SIGINT", "INT", "sigint", "int"])
def test_a_signal_may_be_written_in_short(given: str) -> None:
    process = make(stop_signal=given)
    assert signal.Signals[process.stop_signal] is signal.SIGINT


# --- restarts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "policy"),
    [
        ({}, RestartPolicy(when=RestartWhen.ALWAYS, first_at_once=True)),
        (
            {"shutdown_strategy": None},
            RestartPolicy(when=RestartWhen.ALWAYS, first_at_once=True),
        ),
        ({"shutdown_strategy": "do_not_restart"}, RestartPolicy()),
        ({"shutdown_strategy": "shutdown_everything"}, RestartPolicy()),
        ({"restart": {}}, RestartPolicy(when=RestartWhen.FAILURE)),
        (
            {"shutdown_strategy": "do_not_restart", "restart": {"when": "always", "factor": 1}},
            RestartPolicy(when=RestartWhen.ALWAYS, factor=1),
        ),
        (
            {"restart": {"max_restarts": 3, "window_sec": 60, "jitter": 0.5, "delay_sec": 0}},
            RestartPolicy(
                when=RestartWhen.FAILURE, max_restarts=3, window_sec=60, jitter=0.5, delay_sec=0
            ),
        ),
    ],
)
def test_the_restart_block_comes_before_the_shutdown_strategy(
    fields: dict[str, Any], policy: RestartPolicy
) -> None:
    assert make(**fields).restart_policy == policy


# --- dependencies ---------------------------------------------------------------------------------


def test_requirements_have_all_edges_with_their_conditions() -> None:
    db = make(name="db")
    process = make(
        dependencies=[
            "cache",
            {"name": "migrate", "condition": "completed_successfully"},
            Dependency(name="seed", condition=Condition.COMPLETED),
            db,
            "cache",
        ]
    )
    assert process.requirements == (
        Requirement("cache", Condition.READY),
        Requirement("migrate", Condition.COMPLETED_SUCCESSFULLY),
        Requirement("seed", Condition.COMPLETED),
        Requirement("db", Condition.READY),
    )
    assert process.dependencies[3] is db


# --- the face of the state ------------------------------------------------------------------------


def test_a_process_that_was_never_started_is_stopped() -> None:
    status = make().get_status()
    assert status == ProcessStatus(name="p", pid=0, status=ProcessState.STOPPED, return_code=None)
    with pytest.raises(ValidationError, match="frozen"):
        status.pid = 5  # type: ignore[misc]


def test_the_status_is_updated_through_the_table() -> None:
    process = make()
    process.update_status(ProcessState.STARTING, pid=5)
    assert process.get_status().pid == 5
    process.update_status(ProcessState.RUNNING)
    process.update_status(ProcessState.RUNNING, pid=6)  # that is no move
    assert process.lifecycle.state is ProcessState.RUNNING
    process.update_status(ProcessState.STOPPED, pid=0, return_code=3)
    assert process.get_status().model_dump() == {
        "name": "p",
        "pid": 0,
        "status": "stopped",
        "return_code": 3,
    }
    with pytest.raises(IllegalTransitionError, match="p: stopped cannot become running"):
        process.update_status(ProcessState.RUNNING, pid=7, return_code=0)
    assert process.get_status().pid == 0
    assert process.get_status().return_code == 3


def test_a_new_generation_has_no_return_code_and_an_old_one_no_pid() -> None:
    process = make()
    process.note_spawned(7)
    process.note_ended(4)
    assert (process.get_status().pid, process.get_status().return_code) == (0, 4)
    process.note_spawned(8)
    assert (process.get_status().pid, process.get_status().return_code) == (8, None)


def test_stats_are_what_was_measured_last() -> None:
    process = make()
    before = process.get_stats()
    assert before == ProcessStats("p", Path("/bin/p"), 0.0, 0.0, 0.0, 0.0)
    process.record_process_stats(os.getpid())
    stats = process.get_stats()
    assert (stats.name, stats.path) == ("p", Path("/bin/p"))
    assert stats.memory_usage_mb == stats.max_memory_usage_mb > 1


def test_the_environment_is_ours_then_its_own_then_the_marker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OURS", "ours")
    monkeypatch.setenv("BOTH", "ours")
    process = make(env={"BOTH": "own", "MARK": "own"})
    env = process.merged_env({"MARK": "marker"})
    assert (env["OURS"], env["BOTH"], env["MARK"]) == ("ours", "own", "marker")
    assert process.env == {"BOTH": "own", "MARK": "own"}


def test_a_manifest_is_dumped_as_it_is_written_and_read_again() -> None:
    edges = [[], ["p0"], ["p0", {"name": "p1", "condition": "started"}]]
    entries = [
        {"name": f"p{i}", "path": "sh", "dependencies": each} for i, each in enumerate(edges)
    ]
    manifest = ProcessManifest.model_validate({"processes": entries})
    dumped = manifest.model_dump(mode="json")
    assert [entry["dependencies"] for entry in dumped["processes"]] == edges
    again = ProcessManifest.model_validate(dumped)
    assert [p.requirements for p in again.processes] == [p.requirements for p in manifest.processes]


def test_a_diamond_after_diamond_is_dumped_in_no_time() -> None:
    entries = [
        {"name": f"p{i}", "path": "sh", "dependencies": [f"p{j}" for j in range(max(0, i - 3), i)]}
        for i in range(60)
    ]
    manifest = ProcessManifest.model_validate({"processes": entries})
    assert len(manifest.model_dump_json()) < 100_000
    assert len(repr(manifest)) < 100_000


def test_a_delay_above_its_own_cap_is_refused() -> None:
    with pytest.raises(ValueError, match="delay_sec is above max_delay_sec"):
        RestartSpec(delay_sec=60)
    assert RestartSpec(delay_sec=60, max_delay_sec=60).delay_sec == 60
