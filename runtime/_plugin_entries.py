"""Finds the plugins that installed distributions offer by entry points."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from runtime import _late
from runtime.plugin import Plugin

#: Distributions offer `Plugin` classes under this group of entry points.
ENTRY_POINT_GROUP = "trio_runtime.plugins"


class PluginEntryError(ValueError):
    """What a *distribution* offers as a plugin cannot be used; *problem* says why, in words."""

    def __init__(self, distribution: str, entry: str, problem: str) -> None:
        super().__init__(distribution, entry, problem)
        self.distribution, self.entry, self.problem = distribution, entry, problem

    def __str__(self) -> str:
        return f"{self.distribution} offers a plugin {self.entry!r} that {self.problem}"


class Offers(NamedTuple):
    """What can be used, and what is wrong with the rest: a broken one hides no other."""

    plugins: tuple[Plugin, ...]
    errors: tuple[PluginEntryError, ...]


def find_offers() -> Offers:
    """Return an instance of each class that is offered, in the order of the entries' names."""
    plugins: list[Plugin] = []
    errors: list[PluginEntryError] = []
    for point in _once(_late.entry_points(ENTRY_POINT_GROUP)):
        try:
            plugins.append(_make(point))
        except PluginEntryError as error:
            errors.append(error)
    return Offers(tuple(plugins), tuple(errors))


def _once(points: Iterable[Any]) -> Iterator[Any]:
    """Yield each of *points* once: a folder may be found twice, and a distribution with it."""
    found = {(point.name, point.value): point for point in points}
    for key in sorted(found):
        yield found[key]


def _make(point: Any) -> Plugin:  # noqa: ANN401 - an entry point: its module is imported late
    who = "a distribution" if point.dist is None else f"the distribution {point.dist.name}"
    try:
        offered = point.load()
    except (Exception, SystemExit) as error:
        raise PluginEntryError(who, point.name, f"cannot be loaded: {_in_words(error)}") from error
    if not (isinstance(offered, type) and issubclass(offered, Plugin)):
        raise PluginEntryError(who, point.name, "is no class derived from Plugin")
    try:
        return offered()
    except (Exception, SystemExit) as error:
        raise PluginEntryError(who, point.name, f"cannot be made: {_in_words(error)}") from error


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
