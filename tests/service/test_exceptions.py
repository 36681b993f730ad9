"""Errors carry their facts, and survive being pickled."""

import pickle

import pytest

from runtime.service import (
    ConfigurationError,
    DuplicateServiceClassError,
    NotRegisteredError,
    ServiceError,
    ServiceFailedError,
    ServiceStopError,
    UnknownServiceClassError,
)

ERRORS = [
    (ConfigurationError("a", "has no size"), "service 'a' has no size"),
    (ServiceFailedError("a", "boom"), "boom"),
    (ServiceStopError("a", 5), "stop() was still running after 5.0 s and was cut off"),
    (NotRegisteredError("a"), "service 'a' belongs to no application; register it with one"),
    (
        UnknownServiceClassError("cach", ["cache"]),
        "no service class is registered as 'cach'; did you mean 'cache'?",
    ),
    (
        DuplicateServiceClassError("a"),
        "a service class is registered as 'a' already; name this one otherwise",
    ),
]


@pytest.mark.parametrize(("error", "words"), ERRORS)
def test_an_error_says_what_is_wrong_also_when_it_comes_from_afar(
    error: ServiceError, words: str
) -> None:
    for each in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert str(each) == words
        assert each.name == error.name  # type: ignore[attr-defined]
        assert vars(each) == vars(error)


def test_those_that_concern_names_are_value_errors() -> None:
    assert isinstance(UnknownServiceClassError("a", []), ValueError)
    assert isinstance(DuplicateServiceClassError("a"), ValueError)
    assert isinstance(NotRegisteredError("a"), RuntimeError)
