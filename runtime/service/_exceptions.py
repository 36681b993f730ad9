"""What can go wrong with a service.

ServiceError
├── ConfigurationError          it has no configuration, or one that does not fit
├── ServiceFailedError          it failed while it ran
├── ServiceStopError            its `stop` was still running when its time was over
├── NotRegisteredError          it belongs to no application that could start it
├── UnknownServiceClassError    (ValueError) nothing is registered under the name
└── DuplicateServiceClassError  (ValueError)
"""

from collections.abc import Iterable

from runtime._problems import did_you_mean


class ServiceError(Exception):
    """The base of every error of a service."""


class ConfigurationError(ServiceError):
    """A service is not configured although it has to be, or *problem* is wrong about it."""

    name: str
    problem: str

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"service {self.name!r} {self.problem}"


class ServiceFailedError(ServiceError):
    """A service failed while it ran: it said so, or one of its background tasks died."""

    name: str
    problem: str

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return self.problem


class ServiceStopError(ServiceError):
    """A service's ``stop`` had not returned after *within_sec* seconds, and was cancelled."""

    name: str
    within_sec: float

    def __init__(self, name: str, within_sec: float) -> None:
        super().__init__(name, within_sec)
        self.name, self.within_sec = name, within_sec

    def __str__(self) -> str:
        return f"stop() was still running after {self.within_sec:.1f} s and was cut off"


class NotRegisteredError(ServiceError, RuntimeError):
    """A service is to be started or stopped that belongs to no application."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"service {self.name!r} belongs to no application; register it with one"


class UnknownServiceClassError(ServiceError, ValueError):
    """No service class is registered under this name."""

    name: str
    known: tuple[str, ...]

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name, self.known = name, tuple(known)
        super().__init__(name, self.known)

    def __str__(self) -> str:
        return f"no service class is registered as {self.name!r}" + did_you_mean(
            self.name, self.known
        )


class DuplicateServiceClassError(ServiceError, ValueError):
    """Two service classes were to be registered under the same name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"a service class is registered as {self.name!r} already; name this one otherwise"
