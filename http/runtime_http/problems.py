"""Errors as documents (RFC 9457), and which error of the runtime is which."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from runtime._secrets import SecretError, Secrets
from runtime.invocation import InvocationNotFoundError, InvocationStatusOwnershipError
from runtime.service import ConfigurationError
from runtime.service._exceptions import (
    NotRegisteredError,
    ServiceError,
    UnknownServiceClassError,
)
from runtime.state_backend import StateBackendError, UnknownCursorError
from runtime.supervision._exceptions import (
    DuplicateUnitError,
    IllegalTransitionError,
    UnitFailedError,
    UnitInUseError,
    UnitNameError,
    UnknownUnitError,
)
from runtime.tasks import TaskArgumentsError, UnknownTaskError

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class HttpProblem(Exception):  # noqa: N818 - it is a document, as the standard calls it
    """What a client is told of a request that could not be met.

    *fields* are further members of the document; *headers* go with the answer.
    """

    status: int
    detail: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The phrase that belongs to the status."""
        return HTTPStatus(self.status).phrase

    def document(self) -> dict[str, Any]:
        """Return the members of the document."""
        return {
            **self.fields,
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }

    def body(self) -> bytes:
        """Return the document as JSON."""
        return json.dumps(self.document(), default=str).encode()


def explain(error: Exception, secrets: Secrets) -> HttpProblem | None:
    """Return what a client is told of an error of the runtime, None for one that is none of these.

    No traceback is ever in it, and none of the *secrets* in what comes from a unit. (In what comes
    from the client they stay: else it would learn whether it has guessed one.)
    """
    problem = _explain(error)
    if problem is None or not isinstance(error, UnitFailedError | ServiceError):
        return problem
    fields = {key: secrets.mask_data(value) for key, value in problem.fields.items()}
    return replace(problem, detail=secrets.mask(problem.detail), fields=fields)


def _explain(error: Exception) -> HttpProblem | None:  # noqa: PLR0911 - a table of them
    match error:
        case HttpProblem():
            return error
        case UnknownUnitError() | UnknownServiceClassError():
            return HttpProblem(404, str(error), {"name": error.name})
        case IllegalTransitionError():
            fields = {"from": error.old, "to": error.new, "allowed": error.allowed}
            return HttpProblem(409, str(error), fields)
        case UnitFailedError():
            return HttpProblem(409, str(error), {"name": error.name, "reason": error.reason})
        case UnitInUseError():
            return HttpProblem(409, str(error), {"dependents": error.dependents})
        case DuplicateUnitError() | NotRegisteredError():
            return HttpProblem(409, str(error))
        case SecretError():
            return HttpProblem(409, str(error), {"name": error.name})
        case ConfigurationError() | UnitNameError():
            return HttpProblem(422, str(error))
        case ServiceError():
            return HttpProblem(409, str(error))
    return _explain_of_tasks(error)


def _explain_of_tasks(error: Exception) -> HttpProblem | None:
    match error:
        case UnknownTaskError():
            several = {"tasks": error.known} if error.ambiguous else {}
            return HttpProblem(404, str(error), {"name": error.name, **several})
        case InvocationNotFoundError():
            return HttpProblem(404, str(error), {"invocation_id": error.invocation_id})
        case InvocationStatusOwnershipError():
            fields = {"from": error.from_status, "to": error.to_status}
            return HttpProblem(409, str(error), {**fields, "owner": error.current_owner})
        case StateBackendError():
            return HttpProblem(422 if isinstance(error, UnknownCursorError) else 503, str(error))
        case TaskArgumentsError():
            return HttpProblem(422, str(error), {"problems": error.problems})
    return None
