"""What supervision can refuse or report.

SupervisionError
├── IllegalTransitionError    a move that the table forbids; nothing was changed
├── UnitNameError             (ValueError)
├── UnknownUnitError          (ValueError)
├── DuplicateUnitError        (ValueError)
├── DependencyCycleError      (ValueError)
├── UnitInUseError            (ValueError)
├── EndedBeforeReadyError     a unit's body returned without saying that it was ready
├── UnhealthyError            a unit failed by its health check, and was stopped
└── UnitFailedError           somebody waited for a unit that has failed for good
"""

from collections.abc import Iterable, Sequence

from runtime._problems import did_you_mean


class SupervisionError(Exception):
    """The base of every error of this package."""


class IllegalTransitionError(SupervisionError):
    """A state was to be followed by one that its table does not allow; nothing was changed."""

    subject: str
    old: str | None
    new: str
    allowed: tuple[str, ...]

    def __init__(self, subject: str, old: str | None, new: str, allowed: Iterable[str]) -> None:
        self.subject, self.old, self.new = subject, old, new
        self.allowed = tuple(sorted(allowed))
        super().__init__(subject, old, new, self.allowed)

    def __str__(self) -> str:
        allowed = ", ".join(self.allowed) or "nothing, it is final"
        return f"{self.subject}: {self.old} cannot become {self.new} (allowed: {allowed})"


class UnitNameError(SupervisionError, ValueError):
    """No unit can have this name."""

    name: str

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name!r} cannot be the name of a unit: it is empty, or has a '/'"


class UnknownUnitError(SupervisionError, ValueError):
    """No unit has this name."""

    name: str
    known: tuple[str, ...]

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name, self.known = name, tuple(known)
        super().__init__(name, self.known)

    def __str__(self) -> str:
        return f"there is no unit {self.name!r}{did_you_mean(self.name, self.known)}"


class DuplicateUnitError(SupervisionError, ValueError):
    """Two units of one supervisor were to have the same name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is already a unit {self.name!r}; give this one another name"


class DependencyCycleError(SupervisionError, ValueError):
    """Units wait for each other in a circle; *cycle* begins and ends with the same name."""

    cycle: tuple[str, ...]

    def __init__(self, cycle: Sequence[str]) -> None:
        self.cycle = tuple(cycle)
        super().__init__(self.cycle)

    def __str__(self) -> str:
        return f"circular dependency: {' -> '.join(self.cycle)}"


class UnitInUseError(SupervisionError, ValueError):
    """A unit cannot be removed while others depend on it."""

    name: str
    dependents: tuple[str, ...]

    def __init__(self, name: str, dependents: Sequence[str]) -> None:
        self.name, self.dependents = name, tuple(dependents)
        super().__init__(name, self.dependents)

    def __str__(self) -> str:
        return f"{self.name!r} cannot be removed, it is needed by {', '.join(self.dependents)}"


class EndedBeforeReadyError(SupervisionError):
    """The unit's body returned although it never called ``task_status.started()``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name} ended without ever reporting that it was ready"


class UnhealthyError(SupervisionError):
    """A unit has failed *failures* checks of its health, by *strategy*, and was stopped for that.

    *obstacle* is what the last of them found, in words.
    """

    name: str
    strategy: str
    failures: int
    obstacle: str

    def __init__(self, name: str, strategy: str, failures: int, obstacle: str) -> None:
        super().__init__(name, strategy, failures, obstacle)
        self.name, self.strategy, self.failures = name, strategy, failures
        self.obstacle = obstacle

    def __str__(self) -> str:
        checks = "a health check" if self.failures == 1 else f"{self.failures} health checks"
        limit = f"by {self.strategy}; the limit is health.failures"
        return f"unhealthy, it failed {checks} ({limit}): {self.obstacle}"


class UnitFailedError(SupervisionError):
    """The unit that was waited for is not coming: it has ended for good, or the tree stops."""

    name: str
    reason: str

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} did not become ready: {self.reason}"


def in_words(error: Exception) -> str:
    """Return what a person needs to hear of an error: a group is told by its first member."""
    if isinstance(error, ExceptionGroup):
        first: Exception = error.exceptions[0]
        return in_words(first)
    return str(error) or type(error).__name__
