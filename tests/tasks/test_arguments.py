"""Arguments and results are JSON, by the annotations of the function."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict

from runtime.exceptions import TaskArgumentsError, TaskDefinitionError, TaskResultError
from runtime.tasks.arguments import Signature, digest


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


@dataclass
class Point:
    x: int
    y: int = 0
    seal: bytes = b""


class Order(BaseModel):
    model_config = ConfigDict(frozen=True)
    number: int
    at: datetime
    lines: dict[str, Decimal]


ORDER = Order(number=1, at=datetime(2026, 1, 2, tzinfo=UTC), lines={"tea": Decimal("3.50")})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(int, 2**70, id="a large number"),
        pytest.param(float, math.inf, id="infinity"),
        pytest.param(str, "ä\u2028\0", id="text"),
        pytest.param(bytes, bytes(range(256)), id="bytes that are no text"),
        pytest.param(datetime, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), id="a time"),
        pytest.param(date, date(2026, 1, 2), id="a day"),
        pytest.param(timedelta, timedelta(days=1, microseconds=5), id="a duration"),
        pytest.param(UUID, UUID(int=5), id="a UUID"),
        pytest.param(Path, Path("/tmp/x"), id="a path"),
        pytest.param(Decimal, Decimal("0.10"), id="a decimal"),
        pytest.param(Colour, Colour.RED, id="an enum"),
        pytest.param(Size, Size.LARGE, id="an enum of numbers"),
        pytest.param(Point, Point(1, 2, b"\xff\xfe"), id="a dataclass"),
        pytest.param(Order, ORDER, id="a model"),
        pytest.param(list[Order], [ORDER], id="models in a list"),
        pytest.param(tuple[int, str], (1, "a"), id="a tuple"),
        pytest.param(set[int], {1, 2}, id="a set"),
        pytest.param(int | None, None, id="nothing"),
    ],
)
def test_what_is_annotated_goes_through_json_and_back(kind: Any, value: object) -> None:
    def function(value: Any) -> Any: ...

    function.__annotations__ = {"value": kind, "return": kind}
    signature = Signature("task", function)
    text = signature.dump((value,), {})
    json.loads(text)
    ([back], by_name) = signature.load(text)
    assert back == value
    assert type(back) is type(value)
    assert by_name == {}
    back = signature.load_result(signature.dump_result(value))
    assert back == value
    assert type(back) is type(value)


def everything(a: int, /, b: str = "b", *rest: Path, c: bytes, d: float = 1.5, **more: int) -> None:
    pass


@pytest.mark.parametrize(
    ("args", "kwargs", "called_with"),
    [
        pytest.param((1,), {"c": b"c"}, ([1, "b"], {"c": b"c", "d": 1.5}), id="defaults"),
        pytest.param(
            (1, "x", Path("p"), Path("q")),
            {"c": b"", "d": 2, "e": 5},
            ([1, "x", Path("p"), Path("q")], {"c": b"", "d": 2.0, "e": 5}),
            id="everything",
        ),
        pytest.param(
            (1,), {"c": b"", "b": "by name"}, ([1, "by name"], {"c": b"", "d": 1.5}), id="b"
        ),
    ],
)
def test_every_kind_of_parameter(
    args: tuple[Any, ...], kwargs: dict[str, Any], called_with: tuple[list[Any], dict[str, Any]]
) -> None:
    signature = Signature("task", everything)
    assert signature.load(signature.dump(args, kwargs)) == called_with


def plain(value, *, other=None):  # type: ignore[no-untyped-def]
    return value


def two(a: int, b: Path) -> None: ...


@pytest.mark.parametrize(
    ("function", "args", "problems"),
    [
        pytest.param(two, ("x", 5), ("a: ", "b: "), id="all that is wrong at once"),
        pytest.param(two, (1,), ("missing a required argument: 'b'",), id="too few"),
        pytest.param(two, (1, "p", 3), ("too many positional arguments",), id="too many"),
        pytest.param(plain, (object(),), ("value",), id="no JSON"),
        pytest.param(plain, (Path(),), ("value",), id="a path without an annotation"),
        pytest.param(plain, ({1: 2},), ("value",), id="keys that are no text"),
    ],
)
def test_what_does_not_fit_is_refused(
    function: Callable[..., Any], args: tuple[Any, ...], problems: tuple[str, ...]
) -> None:
    with pytest.raises(TaskArgumentsError, match="task t cannot be called so") as caught:
        Signature("t", function).dump(args, {})
    assert len(caught.value.problems) == len(problems)
    for problem, start in zip(caught.value.problems, problems, strict=True):
        assert problem.startswith(start)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    at: datetime


def by_name(data: bytes, strict: Strict, *rest: int, longest: int = 128) -> None: ...


def test_arguments_by_name_are_what_json_has_and_are_stored_as_any_others() -> None:
    signature, at = Signature("t", by_name), datetime(2026, 3, 1, tzinfo=UTC)
    told = signature.check({"data": "AP8=", "strict": {"at": "2026-03-01T00:00:00Z"}})
    assert json.loads(told) == json.loads(signature.dump((b"\x00\xff", Strict(at=at)), {}))
    assert signature.load(told) == ([b"\x00\xff", Strict(at=at)], {"longest": 128})
    with pytest.raises(TaskArgumentsError, match=r"data: .*strict: "):
        signature.check({"data": "not base64!"})


def test_arguments_that_were_stored_are_checked_when_they_are_taken_out() -> None:
    with pytest.raises(TaskArgumentsError):
        Signature("t", two).load('{"a": 1}')
    with pytest.raises(TaskArgumentsError, match="c: "):
        Signature("t", two).load('{"a": 1, "b": "x", "c": 1}')


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(int, "text", id="another type"),
        pytest.param(list[int], [1, "x"], id="another type within"),
        pytest.param(Order, object(), id="no model"),
        pytest.param(None, 5, id="something and not nothing"),
    ],
)
def test_a_result_that_does_not_fit_is_refused(kind: Any, value: object) -> None:
    def function() -> Any: ...

    function.__annotations__ = {"return": kind}
    with pytest.raises(TaskResultError, match="has returned what it may not"):
        Signature("t", function).dump_result(value)


def test_a_result_of_no_annotation_is_whatever_json_can_hold() -> None:
    signature = Signature("t", plain)
    assert signature.load_result(signature.dump_result({"a": [1, None]})) == {"a": [1, None]}
    with pytest.raises(TaskResultError):
        signature.dump_result(object())


def test_a_stored_result_that_fits_no_more_is_an_error_of_its_own() -> None:
    def function() -> int: ...  # type: ignore[empty-body]

    with pytest.raises(TaskResultError):
        Signature("t", function).load_result('"text"')


def test_an_annotation_that_json_cannot_hold_is_an_error_of_the_definition() -> None:
    class Handle:
        pass

    def takes(value: Any) -> None: ...
    def returns() -> Any: ...
    def forward(value: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    takes.__annotations__ = {"value": Handle}
    returns.__annotations__ = {"return": Handle}
    with pytest.raises(TaskDefinitionError, match="a parameter cannot go through JSON"):
        Signature("t", takes)
    with pytest.raises(TaskDefinitionError, match="its result cannot go through JSON"):
        Signature("t", returns)
    with pytest.raises(TaskDefinitionError, match="not known when it is needed"):
        Signature("t", forward)


def test_what_says_the_same_has_the_same_digest() -> None:
    assert digest('{"a": 1, "b": 2}') == digest('{"b":2,"a":1}')
    assert digest('{"a": 1}') != digest('{"a": 2}')
    signature = Signature("t", two)
    assert json.loads(signature.pick('{"a": 1, "b": "x"}', ["a", "z"])) == {"a": 1, "z": None}
