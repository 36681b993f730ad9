"""What a model has against a value, in words that name the remedy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from runtime._problems import Location, Problem, did_you_mean

_WORDS = {"model_type": "must be a mapping of keys to values", "path_type": "must be a path"}


def explain(
    error: ErrorDetails,
    model: type[BaseModel],
    data: object,
    *,
    told: Sequence[Problem] = (),
    spell: Callable[[str | int, object], str | int] = lambda step, _: step,
) -> Problem:
    """Return what *model* has against *data* as a problem, at its place in the data.

    *told* are the problems found before. *spell* returns how the data spells a key of the model.
    """
    location = place_in(error["loc"], data, spell)
    key = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        hint = did_you_mean(key, _keys_at(model, error["loc"][:-1]), told=told)
        return Problem(location, f"unknown key{hint}")
    if error["type"] == "missing":
        return Problem((*location, key) if location[-1:] != (key,) else location, "is missing")
    if error["type"] == "string_type" and isinstance(error["input"], int | float):
        return Problem(location, "must be text; put it in quotes")
    return Problem(location, in_our_words(error))


def in_our_words(error: ErrorDetails) -> str:
    """Return what is wrong with a value, wherever it stands."""
    words = _WORDS.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    return words[:1].lower() + words[1:]


def place_in(
    loc: Sequence[str | int], data: object, spell: Callable[[str | int, object], str | int]
) -> Location:
    """Return *loc* without the steps that only the model knows, such as a union's choice."""
    location: Location = ()
    here: Any = data
    for each in loc:
        step = spell(each, here)
        in_list = isinstance(here, list) and isinstance(step, int) and step < len(here)
        if in_list or (isinstance(here, Mapping) and step in here):
            around: Any = here
            location, here = (*location, step), around[step]
    return location


def _keys_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Return the keys that the model at *loc* knows."""
    for step in loc:
        for name, field in model.model_fields.items():
            if step in (name, field.alias):
                model = next(_models_in(field.annotation), model)
                break
    return [_key(name, field) for name, field in model.model_fields.items()]


def _key(name: str, field: FieldInfo) -> str:
    return field.alias or name


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
