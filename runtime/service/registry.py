"""The service classes that can be had by name: registered ones, and those of entry points."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TypeVar

from ._exceptions import DuplicateServiceClassError
from .plain import ServiceFunction, as_service_class
from .service import Service, derive_name

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
    """Return every service class that can be had by name; registered ones come first."""
    found = {
        point.name: as_service_class(point.load())
        for point in entry_points(group=ENTRY_POINT_GROUP)
    }
    return MappingProxyType({**found, **_classes})


def get_service_class(name: str) -> type[Service] | None:
    """Return the service class of this name, None when there is none."""
    if name in _classes:
        return _classes[name]
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        return as_service_class(point.load())
    return None


def _origin(made: object) -> tuple[object, object]:
    return getattr(made, "__module__", None), getattr(made, "__name__", None)
