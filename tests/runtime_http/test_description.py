"""The description of the routes holds: it is valid, and every answer is as it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, seed, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from runtime import Application
from runtime_http import Client

from .conftest import TOKEN, Serve, sleeper

CASES = 8  # of each kind for an operation, of which there are two dozen
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


async def test_the_description_is_valid(serve: Serve) -> None:
    async with serve() as site:
        description = (await site.get("/openapi.json")).json()
    assert description["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(description).validate()
    ids = [
        operation["operationId"]
        for operations in description["paths"].values()
        for operation in operations.values()
    ]
    assert len(ids) == len(set(ids)) >= 24


# The slow rounds are the same with other data: 2,000 requests together.
@pytest.mark.parametrize(
    "number", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in range(1, 11))]
)
async def test_every_answer_is_as_described(serve: Serve, number: int) -> None:
    load_all_checks()
    manifest: dict[str, Any] = {
        "processes": [sleeper("db", timeout=1)],
        "services": [{"name": "idle", "class": "runtime.service.plain:idle"}],
    }

    def define(application: Application) -> None:
        @application.task
        async def echo(words: str) -> str:
            return words

    async with serve(manifest, set_up=define) as site:
        description = (await site.get("/openapi.json")).json()
        # Streams end with the tree alone.
        del description["paths"]["/events"]
        async with Client(site.address, TOKEN) as client:
            known = (await client.submit("echo", {"words": "x"})).invocation_id
        address = site.address
        done = await trio.to_thread.run_sync(run_cases, description, address, known, number)
        assert (await site.get("/healthz")).status_code == 200
    paths = description["paths"].items()
    assert done.keys() == {f"{method.upper()} {path}" for path, each in paths for method in each}
    assert sum(done.values()) >= 200


def run_cases(description: dict[str, Any], address: str, known: str, number: int) -> Counter[str]:
    """Try every operation of the server at *address*; return how many requests each got.

    *known* is an invocation that there is.
    """
    schema = schemathesis.openapi.from_dict(description)
    schema.config.generation.update(with_security_parameters=False)  # all of them bear the token
    limited = settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    done: Counter[str] = Counter()

    def check(case: Any) -> None:
        if isinstance(case.query, dict):
            case.query.pop("follow", None)
        headers = {"authorization": f"Bearer {TOKEN}"}
        response = case.call(base_url=address, headers=headers, timeout=60)
        case.validate_response(response, checks=CHECKS)
        done[case.operation.label] += 1

    for result in schema.get_all_operations():
        for strategy in strategies(result.ok(), known):
            seed(number)(limited(given(case=strategy)(check)))()
    return done


def strategies(operation: Any, known: str) -> Iterator[Any]:
    """Yield what makes cases: of any name and of one there is; such as fit, and such as do not."""
    names: list[dict[str, Any]] = [{}]
    if "{name}" in operation.path:
        kind = operation.path.split("/")[1]
        name = {"services": "idle", "tasks": "echo"}.get(kind, "db")
        names.append({"path_parameters": {"name": name}})
    if "{invocation_id}" in operation.path:
        names.append({"path_parameters": {"invocation_id": known}})
    for fixed in names:
        yield operation.as_strategy(**fixed)
        if operation.query or operation.body:  # any name fits
            yield operation.as_strategy(generation_mode=GenerationMode.NEGATIVE, **fixed)
