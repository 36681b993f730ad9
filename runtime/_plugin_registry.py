"""What the plugins provide, by name, and who asks for what."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

from runtime._plugin_files import PluginFileError, find_plugins
from runtime._problems import Location, Problem, did_you_mean
from runtime.plugin import ControlServerType, Plugin
from runtime.process import Process, ProcessManifest
from runtime.process._executable import is_folder
from runtime.process.models import (
    LifecycleHookType,
    ProcessHookType,
    ReadyStrategyType,
    StatHandlerType,
)
from runtime.process.readiness import STRATEGIES

_logger = logging.getLogger(__name__)
T = TypeVar("T")


class PluginError(ValueError):
    """A plugin has not said what it provides; *question* is the method that was called."""

    def __init__(self, plugin: Plugin, question: str, problem: str) -> None:
        super().__init__(plugin, question, problem)
        self.plugin, self.question, self.problem = plugin, question, problem

    def __str__(self) -> str:
        return f"{self.question} of the plugin {type(self.plugin).__name__} {self.problem}"


class PluginRegistry:
    """The functions of all plugins by the names that a manifest uses; a later plugin's win."""

    def __init__(self) -> None:
        self._hooks: dict[str, Mapping[ProcessHookType, Sequence[LifecycleHookType]]] = {}
        self._ready_strategies: dict[str, ReadyStrategyType] = {}
        self._stat_handlers: dict[str, Sequence[StatHandlerType]] = {}
        self._control_servers: dict[str, ControlServerType] = {}

    def load(self, folder: Path) -> None:
        """Register every plugin that a file in *folder* defines; errors as in `find_plugins`."""
        self.register(find_plugins(folder))

    def register(self, plugins: Sequence[Plugin]) -> None:
        """Register what *plugins* provide; raise `PluginError` when one of them cannot say it."""
        for plugin in plugins:
            self._hooks.update(_ask(plugin, plugin.get_lifecycle_hooks))
            self._ready_strategies.update(_ask(plugin, plugin.get_ready_strategies))
            self._stat_handlers.update(_ask(plugin, plugin.get_stats_handlers))
            self._control_servers.update(_ask(plugin, plugin.get_control_servers))
            _logger.debug("plugin %s is registered", plugin.name)

    def equip(self, process: Process) -> None:
        """Hand *process* the functions that it names."""
        for name in process.lifecycle_hooks:
            for function in chain.from_iterable(self._hooks.get(name, {}).values()):
                process.name_hook(function, name)
        for hook_type, functions in process.lifecycle_hook_functions.items():
            functions[:] = [
                function
                for name in process.lifecycle_hooks
                for function in self._hooks.get(name, {}).get(hook_type, ())
            ]
        process.stats_handler_functions[:] = [
            handler
            for name in process.stat_handlers
            for handler in self._stat_handlers.get(name, ())
        ]
        strategy = self._ready_strategies.get(process.ready_strategy or "")
        if strategy is not None:
            process.provide_ready_strategy(strategy)
        strategy = self._ready_strategies.get(process.health_strategy or "")
        if strategy is not None:
            process.provide_health_strategy(strategy)

    def unknown_names(self, manifest: ProcessManifest) -> list[Problem]:
        """Return a problem for each hook, strategy, handler or control server nobody provides."""
        strategies = {**STRATEGIES, **self._ready_strategies}
        problems: list[Problem] = []
        for process in manifest.processes:
            here = process.location
            hooks = (*here, "lifecycle_hooks")
            problems += _unknown(hooks, process.lifecycle_hooks, self._hooks, problems)
            handlers = (*here, "stat_handlers")
            problems += _unknown(handlers, process.stat_handlers, self._stat_handlers, problems)
            for where, strategy in _strategies(process):
                if strategy not in strategies:
                    message = _no_such(strategy, strategies, problems)
                    problems.append(Problem((*here, *where), message))
        server = manifest.control_server
        if server is not None and server not in self._control_servers:
            message = _no_such(server, self._control_servers, problems)
            problems.append(Problem(("control_server",), message))
        return problems


def _strategies(process: Process) -> Iterator[tuple[Location, str]]:
    """Yield each name of a strategy that *process* has, and where it stands."""
    if process.ready_strategy is not None:
        yield ("ready_strategy",), process.ready_strategy
    if process.health is not None and process.health.strategy is not None:
        yield ("health", "strategy"), process.health.strategy


def _ask(plugin: Plugin, question: Callable[[], Mapping[str, T]]) -> Mapping[str, T]:
    try:
        answer = question()
    except Exception as error:
        problem = f"raised {type(error).__name__}: {error}"
        raise PluginError(plugin, question.__name__, problem) from error
    if not isinstance(answer, Mapping):
        problem = f"returned no mapping but {type(answer).__name__}"
        raise PluginError(plugin, question.__name__, problem)
    return answer


def check_plugins(manifest: ProcessManifest) -> list[Problem]:
    """Return what is wrong with the plugins of *manifest*, and with the names it asks them for."""
    registry = PluginRegistry()
    if manifest.plugins is not None and is_folder(manifest.plugins):
        try:
            registry.load(manifest.plugins)
        except (PluginFileError, PluginError) as error:  # then nobody can say which names there are
            return [Problem(("plugins",), str(error))]
    return registry.unknown_names(manifest)


def _unknown(
    where: Location, names: Sequence[str], known: Mapping[str, object], told: Sequence[Problem]
) -> Iterator[Problem]:
    for place, name in enumerate(names):
        if name not in known:
            yield Problem((*where, place), _no_such(name, known, told))


def _no_such(name: str, known: Mapping[str, object], told: Sequence[Problem]) -> str:
    return f"no plugin provides {name!r}{did_you_mean(name, known, told=told)}"
