"""What a task takes and returns, as JSON and back, by the annotations of its function."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, NotRequired

from pydantic import (
    ConfigDict,
    JsonValue,
    PydanticSchemaGenerationError,
    PydanticUndefinedAnnotation,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic_core import CoreConfig, PydanticSerializationError, SchemaSerializer, to_json
from typing_extensions import TypedDict

from runtime._model_errors import in_our_words

from ._exceptions import TaskArgumentsError, TaskDefinitionError, TaskResultError

# Bytes are base64 in JSON, as they need not be text; infinities and NaN are strings.
_CONFIG = ConfigDict(
    extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
)
# A serializer follows the configuration of its outermost type only, and a TypedDict's is not asked.
_SERIALIZING = CoreConfig(ser_json_bytes="base64", ser_json_inf_nan="strings")


# Parameters that can all be given by name.
_PLAIN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Signature:
    """The parameters and the result of one function.

    What has no annotation is whatever JSON can hold. Raises `TaskDefinitionError` for an annotation
    that cannot go through JSON.
    """

    def __init__(self, task: str, function: Callable[..., Any]) -> None:
        self._task = task
        try:
            self._signature = inspect.signature(function, eval_str=True)
        except NameError as error:
            problem = f"an annotation is not known when it is needed: {error}"
            raise TaskDefinitionError(task, problem) from None
        fields = {p.name: self._field(p) for p in self._signature.parameters.values()}
        arguments = with_config(_CONFIG)(TypedDict("Arguments", fields))  # type: ignore[operator]
        self._arguments = self._adapter(arguments)
        self._validate = self._arguments.validator.validate_python
        self._validate_json = self._arguments.validator.validate_json
        self._to_json = SchemaSerializer(self._arguments.core_schema, _SERIALIZING).to_json
        returned = self._signature.return_annotation
        annotation = JsonValue if returned is inspect.Signature.empty else returned
        # In a tuple, for a type with a configuration of its own takes no other one.
        self._result = self._adapter(tuple[annotation], "its result", _CONFIG)  # type: ignore[valid-type]
        self._result_to_json = self._result.serializer.to_json

        self._plain = all(p.kind in _PLAIN for p in self._signature.parameters.values())
        #: Those that may be given by place, in their order.
        self._places = tuple(
            p.name for p in self._signature.parameters.values() if p.kind is _PLAIN[0]
        )
        self._defaults = {
            p.name: p.default
            for p in self._signature.parameters.values()
            if p.default is not inspect.Parameter.empty
        }
        rests: dict[Any, object] = {
            inspect.Parameter.VAR_POSITIONAL: [],
            inspect.Parameter.VAR_KEYWORD: {},
        }
        #: What is stored of those that nobody has given.
        self._unsaid = self._defaults | {
            p.name: rests[p.kind] for p in self._signature.parameters.values() if p.kind in rests
        }

    @staticmethod
    def _field(parameter: inspect.Parameter) -> Any:  # noqa: ANN401 - a type
        annotation: Any = parameter.annotation
        if annotation is inspect.Parameter.empty:
            annotation = JsonValue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            annotation = list[annotation]
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            annotation = dict[str, annotation]
        elif parameter.default is inspect.Parameter.empty:
            return annotation
        return NotRequired[annotation]

    def _adapter(
        self,
        annotation: Any,  # noqa: ANN401 - a type
        what: str = "a parameter",
        config: ConfigDict | None = None,
    ) -> TypeAdapter[Any]:
        try:
            return TypeAdapter(annotation, config=config)
        except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, NameError) as error:
            first = str(error).splitlines()[0]
            problem = f"{what} cannot go through JSON, annotate what pydantic knows: {first}"
            raise TaskDefinitionError(self._task, problem) from None

    @property
    def names(self) -> Collection[str]:
        """The names of the parameters."""
        return self._signature.parameters.keys()

    def dump(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return the arguments of this call as a JSON object; raise `TaskArgumentsError`."""
        if self._plain and len(args) <= len(self._places):
            by_place = dict(zip(self._places, args, strict=False))
            values = {**self._defaults, **by_place, **kwargs}
            if not (kwargs and by_place and by_place.keys() & kwargs.keys()):
                try:
                    return self._to_json(self._validate(values), warnings="error").decode()
                except (ValidationError, PydanticSerializationError, ValueError):
                    pass  # what is wrong with it is told below
        bound = self._bind(args, kwargs)
        return self._dump(lambda: bound)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TaskArgumentsError(self._task, [str(error)]) from None
        bound.apply_defaults()
        return {
            name: list(value) if isinstance(value, tuple) and self._is_rest(name) else value
            for name, value in bound.arguments.items()
        }

    def _is_rest(self, name: str) -> bool:
        kind = self._signature.parameters[name].kind
        return kind is inspect.Parameter.VAR_POSITIONAL

    def check(self, values: Mapping[str, Any]) -> str:
        """Return these arguments, by name and as JSON has them, as those of `dump` are stored.

        So bytes are base64, and times are text. Raises `TaskArgumentsError`.
        """
        return self._dump(lambda: {**self._unsaid, **self._validate_json(to_json(values))})

    def _dump(self, find: Callable[[], dict[str, Any]]) -> str:
        try:
            valid = self._validate(find())
            return self._to_json(valid, warnings="error").decode()
        except ValidationError as error:
            raise TaskArgumentsError(self._task, _problems(error)) from None
        except (PydanticSerializationError, ValueError) as error:
            raise TaskArgumentsError(self._task, [str(error).splitlines()[0]]) from None

    def load(self, text: str) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments to call the function with; raise `TaskArgumentsError`."""
        try:
            values = self._validate_json(text)
        except ValidationError as error:
            raise TaskArgumentsError(self._task, _problems(error)) from None
        if len(values) == len(self._places) == len(self._signature.parameters):
            return [*values.values()], {}  # in the order of the parameters, as they were checked
        return self._spread(values)

    def _spread(self, values: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        positional: list[Any] = []
        by_name: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            if name not in values:
                continue
            value = values[name]
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                positional += value
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                by_name |= value
            elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                by_name[name] = value
            else:
                positional.append(value)
        return positional, by_name

    def pick(self, arguments: str, names: Collection[str]) -> str:
        """Return these of the *arguments*, a JSON object, as a JSON object."""
        values = json.loads(arguments)
        return json.dumps({name: values.get(name) for name in names})

    def dump_result(self, result: Any) -> str:  # noqa: ANN401 - whatever the function returns
        """Return a result as JSON; raise `TaskResultError`."""
        try:
            return self._result_to_json((result,), warnings="error").decode()[1:-1]
        except (PydanticSerializationError, ValueError, TypeError) as error:
            raise TaskResultError(self._task, str(error).splitlines()[0]) from None

    def load_result(self, text: str) -> Any:  # noqa: ANN401 - as above
        """Return a result that was stored; raise `TaskResultError`."""
        try:
            return self._result.validate_json(f"[{text}]")[0]
        except ValidationError as error:
            raise TaskResultError(self._task, "; ".join(_problems(error, within=1))) from None


def _problems(error: ValidationError, within: int = 0) -> list[str]:
    return [
        f"{'.'.join(map(str, each['loc'][within:])) or 'it'}: {in_our_words(each)}"
        for each in error.errors(include_url=False, include_context=False)
    ]


def digest(text: str) -> str:
    """Return a short text that is the same for JSON that says the same."""
    canonical = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
