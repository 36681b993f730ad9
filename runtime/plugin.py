"""Plugins: functions of a user that a manifest refers to by name, and the types of these.

What is a plain function on the pages of Process Pilot may be one here, called in a worker thread,
or a coroutine function, called on the loop.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from runtime.process.models import LifecycleHookType as LifecycleHookType
from runtime.process.models import ProcessHookType as ProcessHookType
from runtime.process.models import ReadyStrategyType as ReadyStrategyType
from runtime.process.models import StatHandlerType as StatHandlerType


class ControlServer(Protocol):
    """What a control server provides; either method may also be a coroutine function."""

    def start(self) -> Awaitable[None] | None:
        """Serve; it may return once it serves, or when it has been stopped."""

    def stop(self) -> Awaitable[None] | None:
        """End what `start` began."""


#: Called with the `ProcessPilot`, which stands on a floor above this one.
ControlServerType = Callable[[Any], ControlServer]


class Plugin:
    """Base class of plugins: each method names functions that a manifest may then refer to."""

    @property
    def name(self) -> str:
        """What log lines call the plugin: the name of its class, unless overridden."""
        return type(self).__name__

    def get_lifecycle_hooks(
        self,
    ) -> dict[str, dict[ProcessHookType, list[LifecycleHookType]]]:
        """Return hooks by the name that a process lists in ``lifecycle_hooks``, then by event."""
        return {}

    def get_ready_strategies(self) -> dict[str, ReadyStrategyType]:
        """Return strategies by the name that a process gives as ``ready_strategy``.

        A strategy is called with the process and the seconds between two looks, and returns True
        when the process is ready, False when it gives up on it.
        """
        return {}

    def get_stats_handlers(self) -> dict[str, list[StatHandlerType]]:
        """Return handlers by the name that a process lists in ``stat_handlers``."""
        return {}

    def get_control_servers(self) -> dict[str, ControlServerType]:
        """Return factories by the name that a manifest gives as ``control_server``."""
        return {}
