"""What users of Process Pilot know is here under the same names, with the same defaults.

The table is that system's public API page, without its plugins.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel

import runtime
from runtime.pilot import ProcessPilot
from runtime.process import (
    Process,
    ProcessManifest,
    ProcessRuntimeInfo,
    ProcessState,
    ProcessStats,
    ProcessStatus,
)

NEEDED = inspect.Parameter.empty

#: Each method with its parameters and their defaults; what waits there is a coroutine here.
METHODS: Mapping[type, Mapping[str, Mapping[str, object]]] = {
    ProcessPilot: {
        "__init__": {
            "manifest": NEEDED,
            "plugin_directory": None,
            "process_poll_interval": 0.1,
            "ready_check_interval": 0.1,
            "logger_config": None,
        },
        "execute_lifecycle_hooks": {"process": NEEDED, "popen": NEEDED, "hook_type": NEEDED},
        "get_manifest_processes": {},
        "get_process_by_name": {"name": NEEDED},
        "get_running_process": {"process_id": None},
        "is_running": {},
        "load_plugins": {"plugin_dir": NEEDED},
        "register_plugins": {"plugins": NEEDED},
        "restart_processes": {"process_names": NEEDED},
        "set_process_affinity": {"process": NEEDED, "affinity": NEEDED},
        "start": {},
        "start_process": {"name": NEEDED},
        "stop": {},
        "stop_process": {"name": NEEDED},
    },
    Process: {
        "get_stats": {},
        "get_status": {},
        "model_post_init": {"context": NEEDED},
        "record_process_stats": {"pid": NEEDED},
        "update_status": {"status": NEEDED, "pid": None, "return_code": None},
        "wait_until_ready": {},
    },
    ProcessManifest: {
        "from_json": {"path": NEEDED},
        "from_yaml": {"path": NEEDED},
        "order_dependencies": {},
        "resolve_dependencies": {},
        "resolve_paths": {},
        "set_working_directory": {},
        "validate_cpu_affinity": {},
        "validate_ready_config": {},
    },
    ProcessRuntimeInfo: {"__init__": {}},
}
WAITING = {
    *("execute_lifecycle_hooks", "restart_processes", "start", "start_process", "stop"),
    *("stop_process", "wait_until_ready"),
}
PROPERTIES = {
    Process: {
        *("command", "lifecycle_hook_functions", "ready_strategy_function"),
        "stats_handler_functions",
    },
    ProcessRuntimeInfo: {
        *("cpu_usage_percent", "max_cpu_usage", "max_memory_usage_mb", "memory_usage_mb"),
    },
}
#: The fields of each model, with their defaults.
FIELDS: Mapping[type[BaseModel], Mapping[str, object]] = {
    Process: {
        "name": NEEDED,
        "working_directory": None,
        "path": NEEDED,
        "args": [],
        "env": {},
        "timeout": 5.0,
        "shutdown_strategy": "restart",
        "dependencies": [],
        "lifecycle_hooks": [],
        "stat_handlers": [],
        "ready_strategy": None,
        "affinity": None,
        "ready_timeout_sec": 5.0,
        "ready_params": {},
    },
    ProcessManifest: {
        "processes": NEEDED,
        "control_server": None,
        "kill_timeout": 5.0,
        "base_directory": None,
    },
    ProcessStatus: {
        "name": NEEDED,
        "pid": NEEDED,
        "status": NEEDED,
        "return_code": NEEDED,
    },
}
#: What is ours, beyond that.
OWN_FIELDS: Mapping[type[BaseModel], Mapping[str, object]] = {
    Process: {
        "health": None,
        "watchdog_sec": None,
        "restart": None,
        "restart_dependents": False,
        "autostart": True,
        "stop_signal": "SIGTERM",
        "command_line": None,
        "replicas": None,
        "replica_of": None,
        "user": None,
        "group": None,
        "umask": None,
        "nice": None,
        "rlimits": {},
        "log": None,
        "success_exit_codes": [0],
        "max_run_sec": None,
        "stop_command": None,
        "hook_failure": "fail",
        "ceilings": None,
    },
    ProcessManifest: {
        "control_params": {},
        "stop_within_sec": 30.0,
        "run_directory": None,
        "env_file": None,
        "plugins": None,
        "groups": [],
        "stats_interval_sec": None,
        "schema_address": None,
    },
}
STATS = [
    *("name", "path", "memory_usage_mb", "cpu_usage_percent"),
    *("max_memory_usage_mb", "max_cpu_usage_percent"),
]


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in METHODS.items() for name in names]
)
def test_a_method_takes_what_it_takes_there(owner: type, name: str) -> None:
    method: Any = inspect.getattr_static(owner, name)
    function = getattr(owner, name)
    is_bound = isinstance(method, classmethod | staticmethod)
    parameters = list(inspect.signature(function).parameters.values())[0 if is_bound else 1 :]
    known = METHODS[owner][name]
    first, rest = parameters[: len(known)], parameters[len(known) :]
    assert {p.name: p.default for p in first} == known
    assert [p.name for p in rest if p.default is NEEDED] == []  # what is ours can be left out
    assert inspect.iscoroutinefunction(function) == (name in WAITING)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner, name) for owner, names in PROPERTIES.items() for name in sorted(names)],
)
def test_a_property_is_one_here_too(owner: type, name: str) -> None:
    assert isinstance(inspect.getattr_static(owner, name), property)


@pytest.mark.parametrize("model", FIELDS, ids=lambda model: model.__name__)
def test_a_model_has_the_fields_and_defaults_that_it_has_there(model: type[BaseModel]) -> None:
    found = {
        name: NEEDED if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
    }
    assert found == {**FIELDS[model], **OWN_FIELDS.get(model, {})}


def test_statistics_have_the_fields_that_they_have_there() -> None:
    assert list(ProcessStats.__dataclass_fields__) == STATS
    assert list(inspect.signature(ProcessStats).parameters) == STATS


def test_the_states_are_those_and_compare_with_strings() -> None:
    assert issubclass(ProcessState, str)
    assert issubclass(ProcessState, Enum)
    assert {state.name: state.value for state in ProcessState} == {
        "RUNNING": "running",
        "STARTING": "starting",
        "STOPPED": "stopped",
        "STOPPING": "stopping",
    }
    assert isinstance(ProcessState.RUNNING, str)


def test_the_pilot_is_where_it_is_looked_for() -> None:
    assert runtime.ProcessPilot is ProcessPilot
