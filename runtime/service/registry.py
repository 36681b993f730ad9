"""The service classes that can be had by name: registered ones, and those of entry points."""

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TypeVar

from ._exceptions import DuplicateServiceClassError
from .plain import ServiceFunction, as_service_class
from .service import Service, derive_name

_logger = logging.getLogger(__name__)

C = TypeVar("C", bound=type[Service] | ServiceFunction)

#: Distributions offer service classes under this group of entry points.
ENTRY_POINT_GROUP = "trio_runtime.services"
# A class registers itself where it is defined, so there has to be one registry for the process.
_classes: dict[str, type[Service]] = {}


def register_service_class(made: C) -> C:
    """Let a service class, or a service in its short form, be had by name; a decorator.

    The name is that of the class in small letters without ``service``. Raises
    `DuplicateServiceClassError`, a `ValueError`, when another class has it already.
    """
    name = derive_name(made)
    known = _classes.get(name)
    if known is not None and _origin(known) != _origin(made):
        raise DuplicateServiceClassError(name)
    _classes[name] = as_service_class(made)
    return made


def get_available_services() -> Mapping[str, type[Service]]:
    """Return every service class that can be had by name.

    Registered ones come first. What an entry point offers that cannot be loaded is left out, with a
    warning in the log; `get_service_class` raises what is wrong with it.
    """
    found = dict(_classes)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name not in found:
            try:
                found[point.name] = as_service_class(point.load())
            except Exception:  # a distribution that is broken hides no other
                _logger.warning("entry point %r cannot be loaded", point.name, exc_info=True)
    return MappingProxyType(found)


def get_service_class(name: str) -> type[Service] | None:
    """Return the service class of this name, None when there is none."""
    if name in _classes:
        return _classes[name]
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        return as_service_class(point.load())
    return None


def _origin(made: object) -> tuple[object, object]:
    return getattr(made, "__module__", None), getattr(made, "__qualname__", None)
