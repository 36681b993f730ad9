"""What the stream of a tree's events tells of invocations."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.supervision.events import UnitEvent

from .status import InvocationStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationEvent(UnitEvent):
    """An invocation has come to *status*, or *count* more of them have, which are not named.

    Without a *status* another process has changed invocations in the same store; without an
    *invocation_id* they came too fast to be told one by one. *unit* is empty.
    """

    status: InvocationStatus | None
    invocation_id: str | None = None
    task: str | None = None
    count: int = 1
