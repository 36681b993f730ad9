"""Routes of single services, which come and go with them.

Quart cannot forget a rule. So a service that has routes of its own gets an application for itself,
which is asked first for what lies below the service's path.
"""

import logging
from typing import Any
from weakref import WeakKeyDictionary

from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable
from quart import Blueprint
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from runtime._secrets import Secrets
from runtime.application import Application
from runtime.service.service import Service

from ._quart import make_app
from .routes.services import ServiceRouter

_PREFIX = "/services/"
logger = logging.getLogger(__name__)


class Dispatcher:
    """An ASGI application: a service's own one where that has the rule, else *app*."""

    def __init__(self, application: Application, app: ASGIFramework) -> None:
        self._application, self._app = application, app
        self._apps: WeakKeyDictionary[Service, QuartTrio | None] = WeakKeyDictionary()

    async def __call__(
        self,
        scope: Any,  # noqa: ANN401 - one of several, by its type
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        """Let one of the applications answer."""
        app = self._app
        if scope["type"] == "http" and scope["path"].startswith(_PREFIX):
            app = self._find(scope["path"], scope["method"]) or app
        await app(scope, receive, send)

    def _find(self, path: str, method: str) -> QuartTrio | None:
        name = path.removeprefix(_PREFIX).partition("/")[0]
        service = self._application.get_service(name)
        if service is None:
            return None
        if service not in self._apps:
            self._apps[service] = _make_or_tell(service, self._application.secrets)
        app = self._apps[service]
        if app is None:
            return None
        try:
            app.url_map.bind("").match(path, method=method)
        except MethodNotAllowed:
            return app
        except HTTPException:
            return None
        return app


def _make_or_tell(service: Service, secrets: Secrets) -> QuartTrio | None:
    """Return the application of a service; one whose routes are wrong has the usual ones."""
    try:
        return _make(service, secrets)
    except Exception:
        logger.exception("the routes of service %s are left out", service.name)
        return None


def _make(service: Service, secrets: Secrets) -> QuartTrio | None:
    router = service.create_router()
    if router is None:
        return None
    if not isinstance(router, Blueprint):
        name = type(router).__name__
        raise TypeError(f"create_router of {service.name} returned no blueprint but {name}")
    app = make_app(f"runtime_http.services.{service.name}", secrets)
    usual = isinstance(router, ServiceRouter)
    app.register_blueprint(router, **({} if usual else {"url_prefix": f"{_PREFIX}{service.name}"}))
    return app
