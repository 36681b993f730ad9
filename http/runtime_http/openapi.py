"""The description of the routes (OpenAPI 3.1), made from the routes and their models."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from quart_schema import HttpSecurityScheme, OpenAPIProvider
from werkzeug.routing import Rule

from .problems import CONTENT_TYPE

#: The name of the one security scheme.
BEARER = "token"
SECURITY_SCHEMES: dict[str, Any] = {BEARER: HttpSecurityScheme(scheme="bearer")}
_PROBLEM = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}
_DESCRIPTIONS = {
    "401": "It takes the token.",
    "403": "A page of another site has sent it.",
    "404": "There is nothing of that name.",
    "408": "The body did not come in time.",
    "409": "It cannot be done as things stand.",
    "413": "The body is too large.",
    "421": "The request is for another host.",
    "422": "What was sent does not fit.",
    "503": "The store of invocations cannot be used.",
}
#: Anybody may ask these.
PROBES = frozenset({"/healthz", "/readyz"})
_STREAMS = "text/event-stream"


class Provider(OpenAPIProvider):
    """Adds to each operation how it can fail, and that changes take the token."""

    def schema(self) -> dict[str, Any]:
        """Return the whole description."""
        made: dict[str, Any] = json.loads(json.dumps(super().schema(), default=str))
        made["components"]["schemas"]["Problem"] = _PROBLEM
        return made

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        """Build the description of the paths of *rule*."""
        paths, components = super().build_paths(rule)
        for path, operations in paths.items():
            for method, operation in operations.items():
                self._complete(path, method, operation)
        return paths, components

    def _complete(self, path: str, method: str, operation: dict[str, Any]) -> None:
        statuses = [] if path in PROBES else ["401", "421"]
        if operation["parameters"]:
            statuses.append("404")
        if any(each["in"] == "query" for each in operation["parameters"]):
            statuses.append("422")
        if method != "get":
            operation["security"] = [{BEARER: []}]
            statuses += ["403", "404", "408", "409", "413", "422"]
        if path.startswith(("/tasks", "/invocations")):
            statuses.append("503")
        responses = operation["responses"]
        if path == "/events":
            responses["200"] = _stream("What happens, event by event.")
            statuses.append("422")
        if path.endswith("/logs"):
            responses[200]["content"] |= _stream("")["content"]
        for status in sorted(set(statuses)):
            responses[status] = _problem(status)

    def operation_id(self, method: str, path: str, func: Callable[..., object]) -> str | None:  # noqa: ARG002 - the one it overrides
        """Return an id that no other operation has."""
        words = [part.strip("{}") for part in path.split("/") if part]
        return "_".join([method.lower(), *words]) if words else method.lower()


def _problem(status: str) -> dict[str, Any]:
    return {
        "description": _DESCRIPTIONS[status],
        "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _stream(description: str) -> dict[str, Any]:
    return {"description": description, "content": {_STREAMS: {"schema": {"type": "string"}}}}


def describe(extensions: Mapping[str, Any]) -> bytes:
    """Return the description as JSON."""
    schema = extensions["QUART_SCHEMA"].openapi_provider.schema()
    return json.dumps(schema, separators=(",", ":")).encode()
