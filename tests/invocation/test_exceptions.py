"""Errors of invocations: their fields, their sentences, and that they survive pickling."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping

import pytest

from runtime import exceptions
from runtime.invocation import _exceptions as errors
from runtime.supervision._exceptions import IllegalTransitionError

ALLOWED = frozenset({"pending", "killed"})
#: Each error with its fields and its sentence.
SAID: list[tuple[Exception, Mapping[str, object], str]] = [
    (
        errors.InvocationStatusTransitionError("retry", "success", ["pending", "killed"]),
        {"from_status": "retry", "to_status": "success", "allowed_statuses": ALLOWED},
        "invocation: retry cannot become success (allowed: killed, pending)",
    ),
    (
        errors.InvocationStatusTransitionError(None, "success", ["registered"]),
        {"from_status": None, "to_status": "success", "allowed_statuses": {"registered"}},
        "invocation: None cannot become success (allowed: registered)",
    ),
    (
        errors.InvocationStatusTransitionError("failed", "success", []),
        {"from_status": "failed", "to_status": "success", "allowed_statuses": set()},
        "invocation: failed cannot become success (allowed: nothing, it is final)",
    ),
    (
        errors.InvocationStatusOwnershipError("running", "success", "a", "b", "so it is"),
        {
            "from_status": "running",
            "to_status": "success",
            "current_owner": "a",
            "attempted_owner": "b",
            "reason": "so it is",
        },
        "running cannot become success: so it is (owner: a, tried by b)",
    ),
    (
        errors.InvocationStatusOwnershipError("registered", "pending", None, None, "so it is"),
        {"current_owner": None, "attempted_owner": None},
        "registered cannot become pending: so it is (owner: nobody, tried by nobody)",
    ),
    (
        errors.InvocationNotFoundError("i"),
        {"invocation_id": "i"},
        "there is no invocation 'i'",
    ),
    (
        errors.NoResultError("i", "result"),
        {"invocation_id": "i", "wanted": "result"},
        "invocation 'i' has no result",
    ),
    (
        errors.InvocationCancelledError("i"),
        {"invocation_id": "i"},
        "invocation 'i' was cancelled",
    ),
    (
        errors.InvocationRejectedError("i"),
        {"invocation_id": "i"},
        "invocation 'i' was refused: one of its key is not over yet",
    ),
    (
        errors.TaskFailedError("ValueError", "bad", "Traceback"),
        {"type": "ValueError", "message": "bad", "traceback_text": "Traceback"},
        "ValueError: bad",
    ),
]


@pytest.mark.parametrize(("error", "fields", "sentence"), SAID, ids=lambda given: str(given)[:40])
def test_an_error_has_its_fields_and_its_sentence(
    error: Exception, fields: Mapping[str, object], sentence: str
) -> None:
    for one in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own
        assert type(one) is type(error)
        assert str(one) == sentence
        assert {name: getattr(one, name) for name in fields} == fields
    assert isinstance(error, errors.InvocationError)


def test_every_error_is_looked_at_here() -> None:
    concrete = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.InvocationError)
    } - {errors.InvocationError, errors.InvocationStatusError}
    assert {type(error) for error, *_ in SAID} == concrete


def test_who_catches_what() -> None:
    assert issubclass(errors.InvocationStatusTransitionError, IllegalTransitionError)
    for kind in (errors.InvocationStatusTransitionError, errors.InvocationStatusOwnershipError):
        assert issubclass(kind, errors.InvocationStatusError)
    for kind in (errors.InvocationNotFoundError, errors.NoResultError):
        assert issubclass(kind, LookupError)


@pytest.mark.parametrize(
    "name",
    [
        *("InvocationStatusTransitionError", "InvocationStatusOwnershipError"),
        *("InvocationNotFoundError", "InvocationCancelledError", "InvocationRejectedError"),
        *("InvocationError", "InvocationStatusError", "NoResultError", "TaskFailedError"),
    ],
)
def test_users_find_them_among_the_others(name: str) -> None:
    assert getattr(exceptions, name) is getattr(errors, name)
