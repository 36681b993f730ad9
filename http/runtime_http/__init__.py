"""The HTTP face: a Quart application on Hypercorn that shows and steers a tree, and its client.

Imports point one way: `runtime_http` imports `runtime`, and of the whole project only
`runtime.cli` imports `runtime_http`. Names are loaded when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import Client as Client
    from .client import ClientError as ClientError
    from .client import Message as Message
    from .client import NotReachedError as NotReachedError
    from .client import RefusedError as RefusedError
    from .models import ServiceRegistrationRequest as ServiceRegistrationRequest
    from .routes.services import ServiceRouter as ServiceRouter
    from .server import HttpSettings as HttpSettings
    from .server import http_unit as http_unit

_HOMES = {
    "Client": "client",
    "ClientError": "client",
    "HttpSettings": "server",
    "Message": "client",
    "NotReachedError": "client",
    "RefusedError": "client",
    "ServiceRegistrationRequest": "models",
    "ServiceRouter": "routes.services",
    "http_unit": "server",
}


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
