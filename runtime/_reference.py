"""The manifest reference for people, in Markdown, made from the models that read a manifest.

It says of every key what the schema for editors says of it, and finds the blocks within blocks by
itself: a new field or block of a model needs no line here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from runtime._schema import manifest_schema
from runtime.process.readiness import STRATEGIES

#: What writes the page again.
COMMAND = "python -m runtime schema --format markdown --output docs/manifest-reference.md"

_HEAD = f"""\
# Manifest reference

<!-- Made from the models by `{COMMAND}`; what is changed here is lost. -->

Every key that [a manifest](manifest.md) may have. In the place of any value a variable may stand,
as `${{NAME}}` or `${{NAME:-default}}`. Where the default is *unset*, `null` says the same. An
example is a line of YAML, in its short form. `python -m runtime schema` tells editors the same.
"""
_TABLE = "| key | type | default | meaning | example |\n|---|---|---|---|---|"
_ROOT = "The file"


class _Generator(GenerateJsonSchema):
    """Says what a value is, not in how many ways it may be written."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:  # noqa: ANN401 - as there
        if "default_factory" in schema and not schema.get("default_factory_takes_data"):
            return schema["default_factory"]()  # type: ignore[call-arg]  # takes no data, as seen
        return super().get_default_value(schema)

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:  # noqa: ARG002 - as there
        return value  # what an example says first stands first


@dataclass
class _Block:
    """A table of the page: what a model says, and the tables in which it is a value."""

    title: str
    schema: Mapping[str, Any]
    parents: list["_Block"] = field(default_factory=list)

    @property
    def link(self) -> str:
        anchor = re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")
        return f"[{self.title}](#{anchor})"


def manifest_reference() -> str:
    """Return the page: a table for the file, and one for each block in it, in their order."""
    schema = manifest_schema(_Generator)
    definitions = schema["$defs"]
    blocks: dict[str, _Block] = {}
    root = _Block(_ROOT, schema)
    _gather(root, definitions, blocks)
    tables = [_tell(block, definitions, blocks) for block in (root, *blocks.values())]
    return "\n".join([_HEAD, *tables, _tell_readiness()])


def _gather(parent: _Block, definitions: Mapping[str, Any], found: dict[str, _Block]) -> None:
    """Find the blocks that are values in *parent*, and those in them, where they are met first."""
    for key, described in parent.schema["properties"].items():
        for name in dict.fromkeys(_references(described)):
            if "properties" not in definitions[name]:
                continue
            if name not in found:
                taken = {block.title for block in found.values()}
                title = f"`{key}`" if f"`{key}`" not in taken else f"`{key}` of {parent.title}"
                found[name] = _Block(title, definitions[name])
                _gather(found[name], definitions, found)
            if parent not in found[name].parents:
                found[name].parents.append(parent)


def _references(described: object) -> Iterator[str]:
    """Yield the names of the definitions that a value may be one of."""
    if isinstance(described, Mapping):
        if "$ref" in described:
            yield str(described["$ref"]).rpartition("/")[2]
        for key in ("items", "prefixItems", "anyOf", "oneOf", "additionalProperties"):
            yield from _references(described.get(key))
    elif isinstance(described, list):
        for each in described:
            yield from _references(each)


# --- one table ------------------------------------------------------------------------------------


def _tell(block: _Block, definitions: Mapping[str, Any], blocks: Mapping[str, _Block]) -> str:
    words = _Words(definitions, blocks)
    about = " ".join(str(block.schema["description"]).split("\n\n")[0].split())
    where = f" In {_either([p.link for p in block.parents], 'and')}." if block.parents else ""
    rows = [
        _row(
            f"`{key}`",
            words.of_type(described),
            _default(key, described, block.schema),
            described.get("description") or words.of_definition(described),
            f"`{_example(key, described, definitions)}`",
        )
        for key, described in block.schema["properties"].items()
    ]
    return f"## {block.title}\n\n{about}{where}\n\n" + "\n".join([_TABLE, *rows]) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def _default(key: str, described: Mapping[str, Any], around: Mapping[str, Any]) -> str:
    if "default" in described:
        default = described["default"]
        return "unset" if default is None else f"`{_flow(default)}`"
    others = [
        name
        for choice in around.get("anyOf", ())
        if key not in choice.get("required", ())
        for name in choice.get("required", ())
    ]
    is_required = key in around.get("required", ())
    return "required" if is_required else f"required, or {_either([f'`{o}`' for o in others])}"


def _example(key: str, described: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return a line of a manifest: the field's own example, else another choice, or the default."""
    default = described.get("default")
    if described.get("examples"):
        return _flow({key: described["examples"][0]})
    choices = _choices(described, definitions)
    return _flow({key: next((each for each in choices if each != default), default)})


def _choices(described: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Any]:
    """Return the values that a field has the choice of; none where it is not so."""
    if described.get("type") == "boolean":
        return [True, False]
    found = [each for name in _references(described) for each in definitions[name].get("enum", ())]
    for each in (described, *described.get("anyOf", ())):
        found += each.get("enum", [])
    return found


def _as_written(value: object) -> object:
    """Return *value* without the fractions of numbers that have none: 5, not 5.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _as_written(each) for key, each in value.items()}
    return [_as_written(each) for each in value] if isinstance(value, list) else value


def _flow(value: object) -> str:
    """Return *value* as YAML on one line; what it needs no quotes for has none."""
    text = yaml.safe_dump(
        _as_written(value),
        default_flow_style=True,
        allow_unicode=True,
        sort_keys=False,
        width=10_000,
    )
    line = text.removesuffix("\n").removesuffix("\n...")
    return line[1:-1] if isinstance(value, Mapping) and len(value) == 1 else line


# --- types in words -------------------------------------------------------------------------------


class _Words:
    """Tells types in words; a block is told by its name, which leads to its table."""

    def __init__(self, definitions: Mapping[str, Any], blocks: Mapping[str, _Block]) -> None:
        self._definitions, self._blocks = definitions, blocks

    def of_definition(self, described: Mapping[str, Any]) -> str:
        """Return what the model behind a field says of itself, for a field that says nothing."""
        return str(self._definitions[next(_references(described))]["description"])

    def of_type(self, described: Mapping[str, Any]) -> str:
        """Return what a value may be; nothing is said of null where it is the default."""
        found = list(self._all_of(described))
        if described.get("default") is None and len(found) > 1:
            found = [each for each in found if each != _NULL]
        return _either(found)

    def _all_of(self, described: Mapping[str, Any]) -> Iterator[str]:
        """Yield all that a value has the choice of."""
        for each in (*described.get("anyOf", ()), *described.get("oneOf", ())):
            yield from self._all_of(each)
        for name in _references(described) if "$ref" in described else ():
            block = self._blocks.get(name)
            yield from [block.link] if block else self._all_of(self._definitions[name])
        values = described.get("enum") or [described[k] for k in ("const",) if k in described]
        yield from (f"`{_flow(each)}`" for each in values)
        if not values and "type" in described:
            yield self._of_kind(described)

    def _of_kind(self, described: Mapping[str, Any]) -> str:
        if described["type"] == "object":
            inner = described.get("additionalProperties")
            return f"mapping to: {self.of_type(inner)}" if isinstance(inner, Mapping) else "mapping"
        if described["type"] != "array":
            return _of_scalar(described)
        if "prefixItems" in described:
            each = list(dict.fromkeys(map(self.of_type, described["prefixItems"])))
            return f"list of {len(described['prefixItems'])}: {', '.join(each)}"
        return f"list of: {self.of_type(described['items'])}"


_NULL = "`null`"
_NOUNS = {"boolean": "`true` or `false`", "null": _NULL, "integer": "whole number"}


def _of_scalar(described: Mapping[str, Any]) -> str:
    kind = str(described["type"])
    if kind == "string":
        return "path" if described.get("format") == "path" else "text"
    limits = ("minimum", "exclusiveMinimum", "maximum")
    least, above, most = (_as_number(described.get(limit)) for limit in limits)
    if least is not None and most is not None:
        bounds = [f"from {least} to {most}"]
    else:
        told = {"at least": least, "above": above, "at most": most}
        bounds = [f"{words} {limit}" for words, limit in told.items() if limit]
    return " ".join([_NOUNS.get(kind, kind), ", ".join(bounds)]).strip()


def _as_number(limit: float | None) -> str | None:
    return None if limit is None else f"{int(limit) if limit == int(limit) else limit:,}"


def _either(words: Sequence[str], last: str = "or") -> str:
    distinct = list(dict.fromkeys(words))
    return f" {last} ".join(filter(None, [", ".join(distinct[:-1]), distinct[-1]]))


# --- parameters of readiness ----------------------------------------------------------------------


def _tell_readiness() -> str:
    rows = [
        _row(f"`{name}`", ", ".join(f"`{each}`" for each in strategy.params.model_fields))
        for name, strategy in STRATEGIES.items()
    ]
    about = "What `ready_params` may say, by `ready_strategy`; see [readiness](readiness.md)."
    head = f"## Readiness parameters\n\n{about}\n"
    return "\n".join([head, "| `ready_strategy` | parameters |\n|---|---|", *rows]) + "\n"
