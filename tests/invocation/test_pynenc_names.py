"""What users of pynenc know is here under the same names, with the same fields and defaults.

The tables are that system's public API pages of invocation statuses and of state backends.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, get_type_hints

import pytest

import runtime.state_backend
from runtime import exceptions
from runtime.invocation import status
from runtime.invocation.status import InvocationStatus
from runtime.state_backend import BaseStateBackend, InvocationHistory

NEEDED = inspect.Parameter.empty

STATUSES = [
    *("REGISTERED", "CONCURRENCY_CONTROLLED", "CONCURRENCY_CONTROLLED_FINAL", "REROUTED"),
    *("PENDING", "PENDING_RECOVERY", "RUNNING", "RUNNING_RECOVERY", "PAUSED", "RESUMED"),
    *("KILLED", "SUCCESS", "FAILED", "RETRY"),
]
#: The fields of each class in their order, with their defaults; a function makes one.
FIELDS: Mapping[type, Mapping[str, object]] = {
    status.InvocationStatusRecord: {
        "status": NEEDED,
        "runner_id": None,
        "timestamp": datetime,
    },
    status.StatusDefinition: {
        "allowed_transitions": frozenset,
        "is_final": False,
        "available_for_run": False,
        "requires_ownership": False,
        "acquires_ownership": False,
        "releases_ownership": False,
        "overrides_ownership": False,
    },
    status.StatusConfiguration: {"definitions": NEEDED},
    InvocationHistory: {
        "invocation_id": NEEDED,
        "_timestamp": datetime,
        "status": None,
        "execution_context": None,
        "runner_id": None,  # ours
    },
}
FUNCTIONS: Mapping[Callable[..., object], list[str]] = {
    status.get_status_definition: ["status"],
    status.validate_transition: ["from_status", "to_status"],
    status.validate_ownership: ["current_record", "new_status", "runner_id"],
    status.compute_new_owner: ["current_record", "new_status", "runner_id"],
    status.status_record_transition: ["current_record", "new_status", "runner_id"],
    status.StatusConfiguration.get_definition: ["self", "status"],
    InvocationStatus.can_transition_to: ["self", "target"],
    InvocationStatus.get_final_statuses: [],
    InvocationStatus.get_available_for_run_statuses: [],
    status.InvocationStatusRecord.from_json: ["json_dict"],
    InvocationHistory.to_json: ["self"],
    InvocationHistory.from_json: ["json_str"],
}
SETS = [
    *("final_statuses", "available_for_run_statuses", "ownership_required_statuses"),
    *("ownership_acquire_statuses", "ownership_release_statuses"),
]
#: What a store does; what waits there is a coroutine here.
METHODS: Mapping[str, Mapping[str, object]] = {
    "wait_for_all_async_operations": {},
    "wait_for_invocation_async_operations": {"invocation_id": NEEDED},
    "_upsert_invocation": {"invocation": NEEDED},
    "_get_invocation": {"invocation_id": NEEDED},
    "_add_history": {"invocation": NEEDED, "invocation_history": NEEDED},
    "_get_history": {"invocation": NEEDED},
    "_get_result": {"invocation": NEEDED},
    "_set_result": {"invocation": NEEDED, "result": NEEDED},
    "_get_exception": {"invocation": NEEDED},
    "_set_exception": {"invocation": NEEDED, "exception": NEEDED},
    "upsert_invocation": {"invocation": NEEDED},
    "get_invocation": {"invocation_id": NEEDED},
    "add_history": {"invocation": NEEDED, "status": None, "execution_context": None},
    "get_history": {"invocation": NEEDED},
    "set_result": {"invocation": NEEDED, "result": NEEDED},
    "get_result": {"invocation": NEEDED},
    "set_exception": {"invocation": NEEDED, "exception": NEEDED},
    "get_exception": {"invocation": NEEDED},
    "set_workflow_data": {"workflow_identity": NEEDED, "key": NEEDED, "value": NEEDED},
    "get_workflow_data": {"workflow_identity": NEEDED, "key": NEEDED, "default": None},
    "get_workflow_deterministic_value": {"workflow": NEEDED, "key": NEEDED},
    "set_workflow_deterministic_value": {"workflow": NEEDED, "key": NEEDED, "value": NEEDED},
    "store_app_info": {"app_info": NEEDED},
    "get_app_info": {},
    "get_all_app_infos": {},
    "store_workflow_run": {"workflow_identity": NEEDED},
    "get_all_workflows": {},
    "get_all_workflows_runs": {},
    "get_workflow_runs": {"workflow_task_id": NEEDED},
    "store_workflow_sub_invocation": {"parent_workflow_id": NEEDED, "sub_invocation_id": NEEDED},
    "get_workflow_sub_invocations": {"workflow_id": NEEDED},
}
ITERATORS = {
    *("get_all_workflows", "get_all_workflows_runs", "get_workflow_runs"),
    "get_workflow_sub_invocations",
}
ABSTRACT = {
    *("_upsert_invocation", "_get_invocation", "_add_history", "_get_history", "_get_result"),
    *("_set_result", "_get_exception", "_set_exception"),
}


def test_the_statuses_are_strings_in_that_order() -> None:
    assert issubclass(InvocationStatus, StrEnum)
    assert [each.name for each in InvocationStatus] == STATUSES
    assert [each.value for each in InvocationStatus] == [name.lower() for name in STATUSES]


@pytest.mark.parametrize("owner", FIELDS, ids=lambda owner: owner.__name__)
def test_a_class_has_the_fields_and_defaults_that_it_has_there(owner: Any) -> None:
    found = {}
    for each in dataclasses.fields(owner):
        made = None if each.default_factory is dataclasses.MISSING else each.default_factory()
        default = NEEDED if each.default is dataclasses.MISSING else each.default
        found[each.name] = default if made is None else type(made)
    assert list(found.items()) == list(FIELDS[owner].items())
    assert owner.__dataclass_params__.frozen


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__qualname__)
def test_a_function_takes_what_it_takes_there(function: Callable[..., object]) -> None:
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert names == FUNCTIONS[function]
    assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is NEEDED] == []


@pytest.mark.parametrize("name", SETS)
def test_the_sets_of_a_configuration_are_properties(name: str) -> None:
    assert isinstance(getattr(status._CONFIG, name), frozenset)
    assert isinstance(status._CONFIG, status.StatusConfiguration)


@pytest.mark.parametrize("name", METHODS)
def test_a_store_does_what_it_does_there(name: str) -> None:
    method = getattr(BaseStateBackend, name)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    assert {p.name: p.default for p in parameters} == METHODS[name]
    if name in ITERATORS:
        assert get_type_hints(method)["return"].__origin__ is AsyncIterator
    else:
        assert inspect.iscoroutinefunction(method)


def test_a_store_is_abstract() -> None:
    assert issubclass(BaseStateBackend, ABC)
    assert BaseStateBackend.__abstractmethods__ >= ABSTRACT
    with pytest.raises(TypeError, match="abstract"):
        BaseStateBackend("nowhere://")  # type: ignore[abstract]


@pytest.mark.parametrize(
    "line",
    [
        InvocationHistory("i"),
        InvocationHistory("i", datetime(2026, 1, 2, tzinfo=UTC), InvocationStatus.RETRY),
        InvocationHistory("i", status=InvocationStatus.FAILED, execution_context='{"a": 1}'),
        InvocationHistory("i", runner_id="r"),
    ],
    ids=["made now", "of a status", "with a context", "of a runner"],
)
def test_a_line_of_history_comes_back_from_json(line: InvocationHistory) -> None:
    back = InvocationHistory.from_json(line.to_json())
    assert back == line
    assert back.timestamp == line._timestamp
    assert back.status is line.status


@pytest.mark.parametrize("text", ["", "{}", '{"invocation_id": 1}', '{"status": "odd"}'])
def test_what_is_no_line_of_history_is_refused(text: str) -> None:
    with pytest.raises((KeyError, ValueError)):
        InvocationHistory.from_json(text)


def test_the_names_are_where_they_are_looked_for() -> None:
    for name in (
        *("InvocationStatusTransitionError", "InvocationStatusOwnershipError"),
        "InvocationNotFoundError",
    ):
        assert issubclass(getattr(exceptions, name), Exception)
    for name in ("InvocationHistory", "BaseStateBackend", "WorkflowIdentity", "AppInfo"):
        assert hasattr(runtime.state_backend, name)
