"""An exception is kept as JSON and comes back as its own class with its data, where that can be."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Self

import hypothesis.strategies as st
import pytest
from hypothesis import given

from runtime.invocation import ErrorRecord, NoResultError, TaskFailedError
from runtime.invocation.errors import MOST_TRACEBACK


class QuotaError(Exception):
    """With data of its own, all of which it is called with."""

    def __init__(self, tenant: str, limit: int) -> None:
        super().__init__(tenant, limit)
        self.tenant, self.limit = tenant, limit

    def __str__(self) -> str:
        return f"{self.tenant} may have {self.limit}"


class SentenceError(Exception):
    """Called with something else than what it hands to its base, as most classes are."""

    def __init__(self, name: str, *, code: int) -> None:
        super().__init__(f"{name} has failed with {code}")
        self.name, self.code = name, code


class PrefixError(Exception):
    """Made again by its arguments it would say another sentence."""

    def __init__(self, text: str) -> None:
        super().__init__(f"prefix: {text}")


class Outer:
    class InnerError(ValueError):
        pass


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class WordlessError(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307 - that is what is wrong with it


class PickyError(Exception):
    """Cannot be made in any way but the one in which it was made."""

    made = 0

    def __new__(cls, *args: object) -> Self:
        cls.made += 1
        if cls.made > 1:
            raise SystemError("once only")
        return super().__new__(cls)


class MutableError(Exception):
    def __str__(self) -> str:
        return str(getattr(self, "said", "nothing"))


def sent(error: BaseException) -> Exception:
    """Return what comes back of *error* by way of JSON."""
    text = ErrorRecord.of(error).to_json()
    assert ErrorRecord.from_json(text).to_json() == text
    return ErrorRecord.from_json(text).to_exception()


def test_an_error_comes_back_with_its_data() -> None:
    back = sent(QuotaError("acme", 3))
    assert type(back) is QuotaError
    assert (back.tenant, back.limit, back.args) == ("acme", 3, ("acme", 3))


def test_an_error_that_hands_a_sentence_to_its_base_comes_back_too() -> None:
    back = sent(SentenceError("acme", code=3))
    assert type(back) is SentenceError
    assert (back.name, back.code, str(back)) == ("acme", 3, "acme has failed with 3")


def test_a_sentence_is_not_built_upon_itself() -> None:
    back = sent(PrefixError("x"))
    assert type(back) is PrefixError
    assert (str(back), back.args) == ("prefix: x", ("prefix: x",))


def test_attributes_that_were_set_later_come_along() -> None:
    error = MutableError()
    error.said = "much"  # type: ignore[attr-defined]
    back = sent(error)
    assert type(back) is MutableError
    assert (str(back), vars(back)) == ("much", {"said": "much"})


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 1, 2.5, None, True, ["a"], {"b": {}}),
        KeyError("käse"),
        FileNotFoundError(2, "gone", "/a"),
        TimeoutError(),
        ValueError("\ud800 half a letter"),
        NoResultError("a", "result"),
    ],
    ids=repr,
)
def test_errors_of_python_and_ours(error: Exception) -> None:
    back = sent(error)
    assert (type(back), str(back), back.args) == (type(error), str(error), error.args)


def test_a_nested_class_is_found() -> None:
    assert type(sent(Outer.InnerError("x"))) is Outer.InnerError


def test_a_class_of_a_function_is_not() -> None:
    class LocalError(Exception):
        pass

    back = sent(LocalError("x"))
    assert isinstance(back, TaskFailedError)
    assert (back.type, back.message) == (f"{LocalError.__qualname__}", "x")


@pytest.mark.parametrize(
    "argument",
    [
        pytest.param(object(), id="object"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param((1, 2), id="tuple"),
        pytest.param({1: 2}, id="keys that are no strings"),
        pytest.param(float("nan"), id="nan"),
        pytest.param(float("inf"), id="infinite"),
        pytest.param({"set"}, id="set"),
    ],
)
def test_what_json_does_not_hold_comes_back_as_words(argument: object) -> None:
    record = ErrorRecord.of(ValueError(argument))
    assert record.arguments is record.attributes is None
    back = sent(ValueError(argument))
    assert isinstance(back, TaskFailedError)
    assert (back.type, back.message) == ("ValueError", str(argument))
    assert str(back) == f"ValueError: {argument}"


def test_an_argument_that_holds_itself_comes_back_as_words() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert isinstance(sent(ValueError(endless)), TaskFailedError)
    deep: list[object] = []
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    assert isinstance(sent(QuotaError(deep, 1)), TaskFailedError)  # type: ignore[arg-type]


def test_an_attribute_that_json_does_not_hold_makes_it_words() -> None:
    error = QuotaError("acme", 3)
    error.extra = object()  # type: ignore[attr-defined]
    back = sent(error)
    assert isinstance(back, TaskFailedError)
    assert back.message == "acme may have 3"


@pytest.mark.parametrize(
    ("kind", "failure"), [(HostileError, "RuntimeError"), (WordlessError, "TypeError")]
)
def test_an_error_whose_text_cannot_be_had(kind: type[Exception], failure: str) -> None:
    back = sent(kind("x"))
    assert isinstance(back, TaskFailedError)
    assert back.message == f"(its text cannot be had: {failure})"
    assert kind.__name__ in back.traceback_text


def test_an_error_that_can_be_made_once_only() -> None:
    PickyError.made = 0
    back = sent(PickyError())
    assert isinstance(back, TaskFailedError)
    assert back.type == "PickyError"


def test_a_class_that_is_not_there_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("of_a_plugin")
    exec("class GoneError(Exception): pass", vars(module))  # noqa: S102 - a module made here
    monkeypatch.setitem(sys.modules, "of_a_plugin", module)
    record = ErrorRecord.of(module.GoneError("x"))
    assert type(record.to_exception()) is module.GoneError
    vars(module)["GoneError"] = "something else now"
    assert isinstance(record.to_exception(), TaskFailedError)
    del vars(module)["GoneError"]
    assert isinstance(record.to_exception(), TaskFailedError)
    monkeypatch.delitem(sys.modules, "of_a_plugin")
    assert isinstance(record.to_exception(), TaskFailedError)
    assert "of_a_plugin" not in sys.modules  # nothing was imported


@pytest.mark.parametrize("error", [KeyboardInterrupt("x"), SystemExit(3), GeneratorExit()])
def test_what_is_no_ordinary_exception_is_never_made(error: BaseException) -> None:
    back = sent(error)
    assert isinstance(back, TaskFailedError)
    assert back.type == type(error).__name__


@pytest.mark.parametrize("name", ["exit", "Outer", "sent", ""])
def test_what_is_no_exception_is_never_called(name: str) -> None:
    record = ErrorRecord(name, "x", module=__name__, arguments=["x"], attributes={})
    assert isinstance(record.to_exception(), TaskFailedError)


def test_a_group_comes_back_as_words() -> None:
    back = sent(ExceptionGroup("two", [ValueError("a"), KeyError("b")]))
    assert isinstance(back, TaskFailedError)
    assert "ValueError: a" in back.traceback_text


def raised(words: str) -> ValueError:
    with pytest.raises(ValueError, match=words) as caught:
        raise ValueError(words) from KeyError("the cause")
    return caught.value


def test_the_traceback_is_kept_and_has_an_end() -> None:
    record = ErrorRecord.of(raised("x" * MOST_TRACEBACK))
    assert len(record.traceback) == MOST_TRACEBACK
    assert record.traceback.endswith("x\n")
    record = ErrorRecord.of(raised("short"))
    assert "the cause" in record.traceback
    assert "in raised" in record.traceback


TEXTS = st.text() | st.text(st.characters(), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(arguments=st.lists(VALUES, max_size=4), attributes=st.dictionaries(TEXTS, VALUES))
def test_whatever_json_holds_comes_back(
    arguments: list[object], attributes: dict[str, object]
) -> None:
    error = LookupError(*arguments)
    attributes.pop("__notes__", None)
    vars(error).update(attributes)
    record = ErrorRecord.of(error)
    back = sent(error)
    if record.arguments is None:  # infinite, for example
        assert isinstance(back, TaskFailedError)
    else:
        assert type(back) is LookupError
        assert (list(back.args), vars(back)) == (arguments, attributes)
    json.loads(record.to_json())
