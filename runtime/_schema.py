"""The JSON schema of the manifest file, for editors, made from the models that read it.

It gives no false alarm: what the loader takes, it takes as well, numbers in quotes and ``${NAME}``
in any place included. The rest (programs, folders, names, circles) only the loader can know.
"""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from runtime.manifest import OTHER_SPELLINGS, Manifest
from runtime.process.models import SHELL
from runtime.process.readiness import STRATEGIES, Params

_VARIABLE = r"\$\{"
_NUMBER = r"^\s*[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_WHOLE = r"^\s*[-+]?\d[\d_]*(\.0*)?\s*$"
# What YAML 1.1 calls true and false, but an editor, by YAML 1.2, takes for text.
_TRUTH = (
    "^([01yYnNtTfF]|[oO][nN]|[oO][fF][fF]|[yY][eE][sS]|[nN][oO]"
    "|[tT][rR][uU][eE]|[fF][aA][lL][sS][eE])$"
)


class _Generator(GenerateJsonSchema):
    """Makes of each type what a file may say for it, which is a variable as well."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return _or_text(super().float_schema(schema), ["number"], _NUMBER)

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return _or_text(super().int_schema(schema), ["integer"], _WHOLE)

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        bits = {**super().bool_schema(schema), "minimum": 0, "maximum": 1}
        return _or_text(bits, ["boolean", "integer"], _TRUTH)

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        return _or_variable(super().enum_schema(schema))

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        return _or_variable(super().literal_schema(schema))

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        text = super().str_schema(schema)
        return _or_variable(text) if text.keys() - {"type"} else text

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - as there
        return False  # "Ready Timeout Sec" says nothing that the name does not


def _or_text(schema: JsonSchemaValue, types: list[str], pattern: str) -> JsonSchemaValue:
    # A bound says nothing about text, nor a pattern about numbers: they can stand side by side.
    return {**schema, "type": [*types, "string"], "pattern": f"{pattern}|{_VARIABLE}"}


def _or_variable(schema: JsonSchemaValue) -> JsonSchemaValue:
    about: JsonSchemaValue = {
        key: schema.pop(key) for key in ("title", "description") if key in schema
    }
    return {**about, "anyOf": [schema, {"type": "string", "pattern": _VARIABLE}]}


def manifest_schema(generator: type[GenerateJsonSchema] = _Generator) -> dict[str, Any]:
    """Return the schema: JSON Schema, draft 2020-12, closed to unknown keys.

    *generator* says what each type is; by default, all that a file may say for it.
    """
    made = Manifest.model_json_schema(schema_generator=generator)
    made["anyOf"] = [
        {"required": [kind], "properties": {kind: {"minItems": 1}}}
        for kind in ("processes", "services")
    ] + [{"required": ["tasks"], "properties": {"tasks": {"type": "object"}}}]
    process = made["$defs"]["Process"]
    for name, other in OTHER_SPELLINGS.items():
        properties = process["properties"]
        same = {**properties[name], "description": f"Another spelling of `{name}`."}
        process["properties"] = {**properties, other: same}
    process["description"] = "One program: what is to be run, and how."
    process["required"] = [name for name in process["required"] if name != "path"]
    process["anyOf"] = [{"required": ["path"]}, {"required": ["command"]}]
    process["allOf"] = [
        {
            "if": {"properties": {"command": {"type": "string"}}, "required": ["command"]},
            "then": {"properties": {"path": {"const": SHELL}, "args": {"maxItems": 0}}},
        },
        *(_has_params(name, strategy.params) for name, strategy in STRATEGIES.items()),
    ]
    made["$defs"]["ProcessHealthSpec"]["allOf"] = [
        {
            "if": {"properties": {"strategy": {"const": name}}, "required": ["strategy"]},
            "then": {"properties": {"params": _params_or_none(strategy.params)}},
        }
        for name, strategy in STRATEGIES.items()
        if strategy.probe is not None
    ]
    about = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": "urn:trio-runtime:manifest",
        "title": "Manifest of trio-runtime",
        "description": "What is to run together, as one tree: `python -m runtime manifest.yaml`.",
    }
    definitions = made.pop("$defs")
    for strategy in STRATEGIES.values():
        params = strategy.params
        definitions[params.__name__] = params.model_json_schema(schema_generator=_Generator)
    return {**about, **{k: v for k, v in made.items() if k not in about}, "$defs": definitions}


def _params_or_none(params: type[Params]) -> JsonSchemaValue:
    return {"anyOf": [{"$ref": f"#/$defs/{params.__name__}"}, {"type": "null"}]}


def _has_params(strategy: str, params: type[Params]) -> JsonSchemaValue:
    """Return that a process with *strategy* has these *params*."""
    named = {"properties": {"ready_strategy": {"const": strategy}}, "required": ["ready_strategy"]}
    given = {"properties": {"ready_params": {"$ref": f"#/$defs/{params.__name__}"}}}
    # None is required where it takes one of several, as its schema says then.
    needed = {"required", "anyOf"} & params.model_json_schema().keys()
    return {"if": named, "then": {**given, "required": ["ready_params"]} if needed else given}
