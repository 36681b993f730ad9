"""What can be wrong with a move of an invocation, or with what is asked of one.

InvocationError
├── InvocationStatusError
│   ├── InvocationStatusTransitionError  (IllegalTransitionError) the table does not allow the move
│   └── InvocationStatusOwnershipError   somebody else owns the invocation
├── InvocationNotFoundError              (LookupError)
├── NoResultError                        (LookupError) it has not ended so
├── InvocationCancelledError             its result was asked for, and it was cancelled
├── InvocationRejectedError              its result was asked for, and it was refused as a duplicate
└── TaskFailedError                      its body raised what cannot be made again from JSON
"""

from __future__ import annotations

from collections.abc import Iterable

from runtime.supervision._exceptions import IllegalTransitionError


class InvocationError(Exception):
    """The base of every error of this package."""


class InvocationStatusError(InvocationError):
    """A move of an invocation was refused; nothing was changed."""


class InvocationStatusTransitionError(InvocationStatusError, IllegalTransitionError):
    """An invocation was to have a status that may not follow the one it has."""

    from_status: str | None
    to_status: str
    allowed_statuses: frozenset[str]

    def __init__(
        self, from_status: str | None, to_status: str, allowed_statuses: Iterable[str]
    ) -> None:
        self.from_status, self.to_status = from_status, to_status
        self.allowed_statuses = frozenset(allowed_statuses)
        IllegalTransitionError.__init__(
            self, "invocation", from_status, to_status, self.allowed_statuses
        )
        # The base has had other arguments; these are what makes it again from a pickle.
        super().__setattr__("args", (from_status, to_status, self.allowed_statuses))


class InvocationStatusOwnershipError(InvocationStatusError):
    """Somebody else owns the invocation, or an owner is needed and none was named."""

    from_status: str
    to_status: str
    current_owner: str | None
    attempted_owner: str | None
    reason: str

    def __init__(
        self,
        from_status: str,
        to_status: str,
        current_owner: str | None,
        attempted_owner: str | None,
        reason: str,
    ) -> None:
        super().__init__(from_status, to_status, current_owner, attempted_owner, reason)
        self.from_status, self.to_status = from_status, to_status
        self.current_owner, self.attempted_owner = current_owner, attempted_owner
        self.reason = reason

    def __str__(self) -> str:
        owner, other = self.current_owner or "nobody", self.attempted_owner or "nobody"
        who = f"owner: {owner}, tried by {other}"
        return f"{self.from_status} cannot become {self.to_status}: {self.reason} ({who})"


class InvocationNotFoundError(InvocationError, LookupError):
    """There is no invocation of this id in the store; it may have been purged."""

    invocation_id: str

    def __init__(self, invocation_id: str) -> None:
        super().__init__(invocation_id)
        self.invocation_id = invocation_id

    def __str__(self) -> str:
        return f"there is no invocation {self.invocation_id!r}"


class NoResultError(InvocationError, LookupError):
    """The invocation has no result, or no exception, as it has not ended so."""

    invocation_id: str
    wanted: str

    def __init__(self, invocation_id: str, wanted: str) -> None:
        super().__init__(invocation_id, wanted)
        self.invocation_id, self.wanted = invocation_id, wanted

    def __str__(self) -> str:
        return f"invocation {self.invocation_id!r} has no {self.wanted}"


class InvocationCancelledError(InvocationError):
    """The invocation was cancelled, so it has no result."""

    invocation_id: str

    def __init__(self, invocation_id: str) -> None:
        super().__init__(invocation_id)
        self.invocation_id = invocation_id

    def __str__(self) -> str:
        return f"invocation {self.invocation_id!r} was cancelled"


class InvocationRejectedError(InvocationError):
    """The invocation was refused when it was submitted: another one of its key is not over."""

    invocation_id: str

    def __init__(self, invocation_id: str) -> None:
        super().__init__(invocation_id)
        self.invocation_id = invocation_id

    def __str__(self) -> str:
        return f"invocation {self.invocation_id!r} was refused: one of its key is not over yet"


class TaskFailedError(InvocationError):
    """The body of a task raised an error of a class that cannot be made again here.

    *type* is the name of its class, *message* its sentence, *traceback_text* what Python showed.
    """

    type: str
    message: str
    traceback_text: str

    def __init__(self, type: str, message: str, traceback_text: str = "") -> None:  # noqa: A002 - the field's name
        super().__init__(type, message, traceback_text)
        self.type, self.message, self.traceback_text = type, message, traceback_text

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"
