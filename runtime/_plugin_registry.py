"""What the plugins provide, by name, and who asks for what."""

import logging
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar, get_args

from runtime import _late
from runtime._plugin_entries import find_offers
from runtime._plugin_files import PluginFileError, find_plugins
from runtime._problems import Location, Problem, did_you_mean
from runtime.plugin import ControlServerType, Plugin
from runtime.plugins._built_in import BuiltInStrategy
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
_BUNDLED_SERVER: Final = "tcp"
_EVENTS: Final[tuple[str, ...]] = get_args(ProcessHookType)
T = TypeVar("T")


class PluginError(ValueError):
    """A plugin has not said what it provides; *question* is the method that was called."""

    def __init__(self, plugin: Plugin, question: str, problem: str) -> None:
        super().__init__(plugin, question, problem)
        self.plugin, self.question, self.problem = plugin, question, problem

    def __str__(self) -> str:
        return f"{self.question} of the plugin {type(self.plugin).__name__} {self.problem}"


class PluginRegistry:
    """The functions of all plugins by the names that a manifest uses; a later plugin's win.

    What distributions offer by entry points is looked for when a name is asked for that nobody else
    provides, and stands behind all others.
    """

    def __init__(self) -> None:
        self._given, self._offered = _Provided(), _Provided()
        self._broken_offers: list[Exception] | None = None  # None: nobody has looked yet

    def load(self, folder: Path) -> None:
        """Register every plugin that a file in *folder* defines; errors as in `find_plugins`."""
        self.register(find_plugins(folder))

    def register(self, plugins: Sequence[Plugin]) -> None:
        """Register what *plugins* provide; raise `PluginError` when one of them cannot say it."""
        for plugin in plugins:
            self._given.take(plugin)

    def equip(self, process: Process) -> None:
        """Hand *process* the functions that it names."""
        hooks, handlers = self._hooks, self._stat_handlers
        for name in process.lifecycle_hooks:
            for function in chain.from_iterable(hooks.get(name, {}).values()):
                process.name_hook(function, name)
        for hook_type, functions in process.lifecycle_hook_functions.items():
            functions[:] = [
                function
                for name in process.lifecycle_hooks
                for function in hooks.get(name, {}).get(hook_type, ())
            ]
        process.stats_handler_functions[:] = [
            handler for name in process.stat_handlers for handler in handlers.get(name, ())
        ]
        strategy = self._strategy(process.ready_strategy)
        if strategy is not None:
            process.provide_ready_strategy(strategy)
        strategy = self._strategy(process.health_strategy)
        if strategy is not None:
            process.provide_health_strategy(strategy)

    def _strategy(self, name: str | None) -> ReadyStrategyType | None:
        """Return the strategy of a plugin, None where there is none, or the built-in one is meant.

        What is built in is done better without a detour: it knows more of the process then.
        """
        if name is None:
            return None
        strategy = self._given.ready_strategies.get(name)
        if strategy is None and name not in STRATEGIES:
            strategy = self._offered.ready_strategies.get(name)
        return None if isinstance(strategy, BuiltInStrategy) else strategy

    def control_server(self, name: str) -> ControlServerType:
        """Return the factory of that control server, a plugin's or the bundled one."""
        if name in self._given.control_servers:
            return self._given.control_servers[name]
        if name == _BUNDLED_SERVER:
            bundled: ControlServerType = _late.tcp_control().TCPControlServer
            return bundled
        return self._offered.control_servers[name]

    @property
    def has_offers(self) -> bool:
        """Whether a name was missing, so that what distributions offer was taken as well."""
        return self._broken_offers is not None

    def find_problems(
        self, manifest: ProcessManifest, *, has_run_directory: bool = True
    ) -> list[Problem]:
        """Return a problem for each name that nobody provides, and for settings of what is bundled.

        What keeps an offer of a distribution from being used is told where a name is missing.
        """
        problems = self.unknown_names(manifest)
        if problems:
            problems += [Problem(("plugins",), str(error)) for error in self._broken_offers or ()]
        server = manifest.control_server
        if server == _BUNDLED_SERVER and server not in self._given.control_servers:
            problems += _late.tcp_control().find_param_problems(
                manifest.control_params,
                manifest.base_directory or Path.cwd(),
                has_run_directory=has_run_directory,
            )
        return problems

    def unknown_names(self, manifest: ProcessManifest) -> list[Problem]:
        """Return a problem for each hook, strategy, handler or control server nobody provides."""
        problems = self._unknown_names(manifest)
        if problems and self._broken_offers is None:
            self._broken_offers = self._take_offers()
            problems = self._unknown_names(manifest)
        return problems

    def _take_offers(self) -> list[Exception]:
        """Take what distributions offer; return what is wrong with the rest."""
        plugins, errors = find_offers()
        broken: list[Exception] = [*errors]
        for plugin in plugins:
            try:
                self._offered.take(plugin)
            except PluginError as error:
                broken.append(error)
        return broken

    def _unknown_names(self, manifest: ProcessManifest) -> list[Problem]:
        hooks, handlers = self._hooks, self._stat_handlers
        strategies = {
            **self._offered.ready_strategies,
            **STRATEGIES,
            **self._given.ready_strategies,
        }
        problems: list[Problem] = []
        for process in manifest.processes:
            here = process.location
            there = (*here, "lifecycle_hooks")
            problems += _unknown(there, process.lifecycle_hooks, hooks, problems)
            there = (*here, "stat_handlers")
            problems += _unknown(there, process.stat_handlers, handlers, problems)
            for where, strategy in _strategies(process):
                if strategy not in strategies:
                    message = _no_such(strategy, strategies, problems)
                    problems.append(Problem((*here, *where), message))
        server = manifest.control_server
        servers = {
            _BUNDLED_SERVER: None,
            **self._offered.control_servers,
            **self._given.control_servers,
        }
        if server is not None and server not in servers:
            message = _no_such(server, servers, problems)
            problems.append(Problem(("control_server",), message))
        return problems

    @property
    def _hooks(self) -> Mapping[str, Mapping[ProcessHookType, Sequence[LifecycleHookType]]]:
        return ChainMap(self._given.hooks, self._offered.hooks)

    @property
    def _stat_handlers(self) -> Mapping[str, Sequence[StatHandlerType]]:
        return ChainMap(self._given.stat_handlers, self._offered.stat_handlers)


class _Provided:
    """What some plugins provide, by name."""

    def __init__(self) -> None:
        self.hooks: dict[str, Mapping[ProcessHookType, Sequence[LifecycleHookType]]] = {}
        self.ready_strategies: dict[str, ReadyStrategyType] = {}
        self.stat_handlers: dict[str, Sequence[StatHandlerType]] = {}
        self.control_servers: dict[str, ControlServerType] = {}

    def take(self, plugin: Plugin) -> None:
        """Take all that *plugin* provides; raise `PluginError` with nothing taken."""
        hooks = _ask(plugin, plugin.get_lifecycle_hooks, _judge_hooks)
        strategies = _ask(plugin, plugin.get_ready_strategies, _judge_function)
        handlers = _ask(plugin, plugin.get_stats_handlers, _judge_functions)
        servers = _ask(plugin, plugin.get_control_servers, _judge_function)
        self.hooks.update(hooks)
        self.ready_strategies.update(strategies)
        self.stat_handlers.update(handlers)
        self.control_servers.update(servers)
        _logger.debug("plugin %s is registered", plugin.name)


def _strategies(process: Process) -> Iterator[tuple[Location, str]]:
    """Yield each name of a strategy that *process* has, and where it stands."""
    if process.ready_strategy is not None:
        yield ("ready_strategy",), process.ready_strategy
    if process.health is not None and process.health.strategy is not None:
        yield ("health", "strategy"), process.health.strategy


def _ask(
    plugin: Plugin, question: Callable[[], Mapping[str, T]], judge: Callable[[object], str]
) -> Mapping[str, T]:
    """Return what *plugin* answers; *judge* returns what is wrong with what it has for a name."""
    try:
        answer = question()
    except Exception as error:
        problem = f"raised {type(error).__name__}: {error}"
        raise PluginError(plugin, question.__name__, problem) from error
    if not isinstance(answer, Mapping):
        problem = f"returned no mapping but {type(answer).__name__}"
        raise PluginError(plugin, question.__name__, problem)
    for name, provided in answer.items():
        if problem := judge(provided):
            raise PluginError(plugin, question.__name__, f"has for {name!r} {problem}")
    return answer


def _judge_hooks(events: object) -> str:
    if not isinstance(events, Mapping):
        return f"no mapping of events to functions but {type(events).__name__}"
    for event, functions in events.items():
        if event not in _EVENTS:
            return f"the event {event!r}, which there is not{did_you_mean(str(event), _EVENTS)}"
        if problem := _judge_functions(functions):
            return f"and {event} {problem}"
    return ""


def _judge_functions(functions: object) -> str:
    if not isinstance(functions, Sequence) or isinstance(functions, str):
        return f"no list of functions but {type(functions).__name__}"
    return next(filter(None, map(_judge_function, functions)), "")


def _judge_function(function: object) -> str:
    return "" if callable(function) else f"no function but {type(function).__name__}"


def check_plugins(manifest: ProcessManifest) -> list[Problem]:
    """Return what is wrong with the plugins of *manifest*, and with the names it asks them for."""
    registry = PluginRegistry()
    if manifest.plugins is not None and is_folder(manifest.plugins):
        try:
            registry.load(manifest.plugins)
        except (PluginFileError, PluginError) as error:  # then nobody can say which names there are
            return [Problem(("plugins",), str(error))]
    return registry.find_problems(manifest)


def _unknown(
    where: Location, names: Sequence[str], known: Mapping[str, object], told: Sequence[Problem]
) -> Iterator[Problem]:
    for place, name in enumerate(names):
        if name not in known:
            yield Problem((*where, place), _no_such(name, known, told))


def _no_such(name: str, known: Mapping[str, object], told: Sequence[Problem]) -> str:
    return f"no plugin provides {name!r}{did_you_mean(name, known, told=told)}"
