"""The manifest reference says what the models say: every key of every block, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from runtime._reference import COMMAND, manifest_reference
from runtime._schema import manifest_schema
from runtime.cli._schema import schema
from runtime.manifest import Manifest
from runtime.process import Dependency, LogSpec, Process, RestartSpec
from runtime.process.readiness import STRATEGIES
from runtime.service.specs import ServiceEntry

SCHEMA = manifest_schema()
TEXT = manifest_reference()
PAGE = Path(__file__).parents[1] / "docs" / "manifest-reference.md"
BLOCKS: dict[str, type[BaseModel]] = {
    "The file": Manifest,
    "`processes`": Process,
    "`dependencies`": Dependency,
    "`restart`": RestartSpec,
    "`log`": LogSpec,
    "`services`": ServiceEntry,
}


class Row(NamedTuple):
    """One line of a table; *block* is the heading above it."""

    block: str
    key: str
    type: str
    default: str
    meaning: str
    example: str


def rows() -> Iterator[Row]:
    block = ""
    for line in TEXT.splitlines():
        if line.startswith("## "):
            block = line.removeprefix("## ")
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and cells[0].startswith("`"):
            yield Row(block, *cells)


ROWS = {(row.block, row.key.strip("`")): row for row in rows()}


def test_the_page_is_what_the_models_say() -> None:
    up_to_date = PAGE.read_text(encoding="utf-8") == TEXT
    assert up_to_date, f"the models have changed; write the page again: {COMMAND}"


def test_the_command_that_it_names_writes_it(tmp_path: Path) -> None:
    assert COMMAND.endswith(f"--format markdown --output docs/{PAGE.name}")
    assert schema(tmp_path / "reference.md", "markdown") == 0
    assert (tmp_path / "reference.md").read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_has_all_fields_of_its_model_and_tells_their_descriptions(block: str) -> None:
    shown = {key for title, key in ROWS if title == block} - {"processor_affinity"}
    fields = {
        field.alias or name: field
        for name, field in BLOCKS[block].model_fields.items()
        if name != "replica_of"  # the loader's own
    }
    assert shown == fields.keys()
    for key, field in fields.items():
        assert ROWS[block, key].meaning == " ".join((field.description or "").split())
        assert (ROWS[block, key].default.startswith("required")) == field.is_required()


def test_it_finds_every_model_within_the_models() -> None:
    definitions = SCHEMA["$defs"]
    params = {strategy.params.__name__ for strategy in STRATEGIES.values()}  # in one table
    nested = {name for name, each in definitions.items() if each.get("properties")} - params
    assert len({block for block, _ in ROWS}) == len(nested) + 1
    assert nested >= {model.__name__ for model in BLOCKS.values()} - {"Manifest"}


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: f"{row.block}.{row.key}")
def test_an_example_is_a_line_that_a_manifest_may_have(row: Row) -> None:
    example = yaml.safe_load(row.example.strip("`").replace("\\|", "|"))
    assert list(example) == [row.key.strip("`")]
    keys = {key for block, key in ROWS if block == row.block}
    described = next(
        each
        for each in (SCHEMA, *SCHEMA["$defs"].values())
        if each.get("properties", {}).keys() == keys
    )
    alone = {"properties": described["properties"], "$defs": SCHEMA["$defs"]}
    assert list(Draft202012Validator(alone).iter_errors(example)) == []


@pytest.mark.parametrize(
    ("block", "key", "type_", "default"),
    [
        ("`processes`", "path", "path", "required, or `command`"),
        ("`processes`", "args", "list of: text", "`[]`"),
        ("`processes`", "env", "mapping to: text", "`{}`"),
        ("`processes`", "timeout", "number at least 0 or `null`", "`5`"),
        ("`processes`", "nice", "whole number from -20 to 19", "unset"),
        ("`processes`", "restart", "[`restart`](#restart)", "unset"),
        ("`processes`", "dependencies", "list of: text or [`dependencies`](#dependencies)", "`[]`"),
        ("`restart`", "window_sec", "number above 0", "unset"),
        ("`restart`", "when", "`always`, `failure` or `never`", "`failure`"),
        ("`log`", "max_mb", "number above 0, at most 1,000,000,000", "`50`"),
        ("`log`", "timestamps", "`true` or `false`", "`false`"),
        ("`services`", "class", "text", "required"),
    ],
)
def test_types_and_defaults_are_told_in_words(
    block: str, key: str, type_: str, default: str
) -> None:
    row = ROWS[block, key]
    assert (row.type, row.default) == (type_, default)


def test_links_within_the_page_lead_to_its_headings() -> None:
    text = TEXT
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^## (.*)$", text, re.MULTILINE)
    }
    linked = set(re.findall(r"\(#([^)]*)\)", text))
    assert linked <= anchors
    assert len(linked) >= len(BLOCKS)


def test_every_readiness_strategy_is_told_with_its_parameters() -> None:
    told = TEXT.partition("## Readiness parameters")[2]
    for name, strategy in STRATEGIES.items():
        (line,) = (line for line in told.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(f"`{each}`" in line for each in strategy.params.model_fields)
