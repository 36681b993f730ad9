"""The description of the routes holds: it is valid, and every answer is as it says."""

from __future__ import annotations

from typing import Any

import schemathesis
import trio
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .conftest import TOKEN, Serve, sleeper

CASES = 15  # for each operation; there are two dozen
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


async def test_every_answer_is_as_described(serve: Serve) -> None:
    load_all_checks()
    manifest: dict[str, Any] = {"processes": [sleeper("db", timeout=1)]}
    async with serve(manifest) as site:
        description = (await site.get("/openapi.json")).json()
        # Streams end with the tree alone.
        del description["paths"]["/events"]
        address = site.address
        done = await trio.to_thread.run_sync(run_cases, description, address)
        assert (await site.get("/healthz")).status_code == 200
    assert done >= 200


def run_cases(description: dict[str, Any], address: str) -> int:
    """Try every operation of the server at *address*; return how many requests that were."""
    schema = schemathesis.openapi.from_dict(description)
    count = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=CASES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @_given(operation)
        def check(case: Any) -> None:
            nonlocal count
            if case.query:
                case.query.pop("follow", None)
            headers = {"authorization": f"Bearer {TOKEN}"}
            response = case.call(base_url=address, headers=headers, timeout=20)
            case.validate_response(response, checks=CHECKS)
            count += 1

        check()
    return count


def _given(operation: Any) -> Any:
    from hypothesis import given

    return given(case=operation.as_strategy())
