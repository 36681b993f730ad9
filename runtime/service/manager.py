"""The manager of a service: what it does."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable

import trio

from ._exceptions import ServiceError

_unnamed = logging.getLogger(__name__)


class ServiceManager(ABC):
    """The work of a service: a subclass says how it starts and how it stops.

    `start` may ask for a *task_status*, as functions for ``nursery.start`` do; then the service is
    ready once that is told so, and `start` may go on for as long as the service lives. Otherwise
    the service is ready when `start` returns.
    """

    # Here, so that a subclass need not call our constructor.
    _logger: logging.Logger = _unnamed
    _nursery: trio.Nursery | None = None
    _finish: Callable[[], None] | None = None

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or _unnamed

    @property
    def logger(self) -> logging.Logger:
        """The logger that is named after the service."""
        return self._logger

    @property
    def nursery(self) -> trio.Nursery:
        """The service's own task group: what is started in it lives as long as the service.

        A task that raises puts the service into the state error. While `stop` runs, the tasks are
        still there; they are cancelled after it. Raises `RuntimeError` while the service is down.
        """
        if self._nursery is None:
            raise RuntimeError("the service is down; start background tasks in start()")
        return self._nursery

    def finish(self) -> None:
        """Say that the work is done: the service is stopped, and has completed."""
        if self._finish is not None:
            self._finish()

    @property
    def is_taken(self) -> bool:
        """Whether a generation of a service has it."""
        return self._nursery is not None

    def enter(self, nursery: trio.Nursery | None, finish: Callable[[], None] | None) -> None:
        """Take the task group of the generation that begins, or lose that of the one that ended."""
        self._nursery, self._finish = nursery, finish

    @abstractmethod
    async def start(self) -> None:
        """Get ready to work; what it raises puts the service into the state error.

        Cancelled, the service is being stopped: `stop` is not called then, so a start that holds
        something undoes that itself.
        """

    async def check_health(self) -> None:
        """Return if the service is well, and raise what is wrong if it is not.

        A subclass that overrides it can be asked again and again while the service runs: see
        ``health`` of `service_unit`. Cancelled, it has taken too long, or the service stops.
        Not overridden, it raises `ServiceError`: nobody asks it then.
        """
        raise ServiceError(f"{type(self).__qualname__} has no check_health of its own")

    @property
    def has_health_check(self) -> bool:
        """Whether `check_health` is overridden."""
        return type(self).check_health is not ServiceManager.check_health

    @abstractmethod
    async def stop(self) -> None:
        """Let go of what `start` took; also called after a background task has died.

        When its time is over it is cancelled.
        """
