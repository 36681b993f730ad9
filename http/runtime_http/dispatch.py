"""Routes of single services, which come and go with them.

Quart cannot forget a rule. So a service that has routes of its own gets an application for itself,
which is asked first for what lies below the service's path. It serves from the first request for
anything there until the service is deregistered, or the server ends: that is the time around which
its hooks are run.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Blueprint
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from runtime._secrets import Secrets
from runtime.application import Application
from runtime.service.service import Service
from runtime.supervision._exceptions import in_words
from runtime.supervision.budget import StopBudget

from ._quart import make_app, serving
from ._serving import GRACE_SEC
from .problems import HttpProblem
from .routes.services import ServiceRouter

#: Seconds within which the hooks that come before the first request are done.
START_SEC = 10.0
#: Seconds that the hooks behind the last request may take, or half of what the stop has left.
STOP_SEC = 5.0
#: Seconds for which routes that could not be had are not asked for again.
RETRY_SEC = 1.0
_PREFIX = "/services/"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a service's routes could not be had, and until when they are not asked for again."""

    words: str
    until: float
    in_hooks: bool  #: the routes are there, but their hooks have failed


class _Routes:
    """The application of one service, and the requests that it answers."""

    def __init__(self, service: Service, app: QuartTrio) -> None:
        self.service, self.app = service, app
        self.settled = trio.Event()  #: it serves, or has failed
        self.over = trio.Event()  #: it is to end
        self.serves = False
        self._requests: set[trio.CancelScope] = set()
        self._ended = trio.lowlevel.ParkingLot()

    async def answer(
        self,
        scope: Any,  # noqa: ANN401 - of ASGI
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        """Let the application answer a request, which is cut off when the service goes."""
        with trio.CancelScope() as request:
            self._requests.add(request)
            try:
                await self.app(scope, receive, send)
            finally:
                self._requests.discard(request)
                self._ended.unpark_all()

    async def run(self, budget: StopBudget) -> str:
        """Serve until it is over; return what went wrong, empty where nothing did.

        Neither the hooks before nor those behind it are waited for without a bound.
        """
        failure = ""
        # The one scope around all of it: a hook may open a nursery before its `yield` and close it
        # behind that, so none of ours may be opened or closed in between.
        with trio.CancelScope(deadline=trio.current_time() + START_SEC) as life:
            try:
                async with trio.open_nursery() as watch:
                    watch.start_soon(self._see_service_go)
                    watch.start_soon(self._hasten, life, budget)
                    async with serving(self.app):
                        life.deadline = inf
                        self.serves = True
                        self.settled.set()
                        await self.over.wait()
                        await self._finish_requests()
                        life.deadline = _latest_end(budget)
                    watch.cancel_scope.cancel()
            except Exception as error:  # noqa: BLE001 - of a user's hook: it is told
                failure = _in_words(error)
            except BaseException:
                life.cancel()  # what a hook has left of a scope of its own stays here
                raise
        if life.cancelled_caught and not failure:
            failure = "its hooks took too long, and were cut off"
        return failure

    async def _see_service_go(self) -> None:
        await self.service.wait_deregistered()
        self.over.set()

    async def _hasten(self, life: trio.CancelScope, budget: StopBudget) -> None:
        """Leave hooks that are still to come to their end as much time as those behind have."""
        await self.over.wait()
        if not self.serves:
            life.deadline = min(life.deadline, _latest_end(budget))

    async def _finish_requests(self) -> None:
        for _ in range(2):  # as they like, and cut off
            with trio.move_on_after(GRACE_SEC):
                while self._requests:
                    await self._ended.park()
            for request in self._requests:
                request.cancel()


def _latest_end(budget: StopBudget) -> float:
    return trio.current_time() + min(STOP_SEC, budget.left_sec / 2)


class Dispatcher:
    """An ASGI application: a service's own one where that has the rule, else *app*.

    It answers within the block of `open`.
    """

    def __init__(self, application: Application, app: QuartTrio) -> None:
        self._application, self._app = application, app
        self._routes: dict[Service, _Routes] = {}
        self._failures: WeakKeyDictionary[Service, _Failure] = WeakKeyDictionary()
        self._without: WeakSet[Service] = WeakSet()  # they have none
        self._lives: trio.Nursery | None = None
        self._budget = StopBudget()

    @asynccontextmanager
    async def open(self, budget: StopBudget) -> AsyncGenerator[None]:
        """Let services' own routes serve during the block; when it ends, they are shut down.

        That takes at most `STOP_SEC` seconds, or half of what the *budget* has left. Cancelled,
        they are cut off.
        """
        self._budget = budget
        async with trio.open_nursery() as self._lives:
            yield
            for routes in self._routes.values():
                routes.over.set()

    async def __call__(
        self,
        scope: Any,  # noqa: ANN401 - one of several, by its type
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        """Let one of the applications answer; raises `HttpProblem` where none can."""
        if scope["type"] == "http" and scope["path"].startswith(_PREFIX):
            routes = await self._find(scope["path"], scope["method"])
            if routes is not None:
                await routes.answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _find(self, path: str, method: str) -> _Routes | None:
        """Return the routes that answer this request, once they serve; None: the usual ones do."""
        name = path.removeprefix(_PREFIX).partition("/")[0]
        service = self._application.get_service(name)
        if service is None:
            return None
        routes = self._routes.get(service) or self._begin(service)
        if routes is not None and _has_rule(routes.app, path, method):
            await routes.settled.wait()
            if routes.serves:
                return routes
        failure = self._failures.get(service)
        if failure is not None and failure.in_hooks and not _has_rule(self._app, path, method):
            words = f"the routes of service {name!r} could not be started; its `note` says why"
            raise HttpProblem(503, words, {"name": name})
        return None

    def _begin(self, service: Service) -> _Routes | None:
        """Let the service's own routes be there from now on, where it has some that can be made."""
        failure = self._failures.get(service)
        waits = failure is not None and trio.current_time() < failure.until
        if self._lives is None or waits or service in self._without:
            return None
        try:
            app = _make(service, self._application.secrets)
        except Exception as error:
            if self._note(service, _in_words(error), in_hooks=False):
                logger.exception("the routes of service %s are left out", service.name)
            return None
        if app is None:
            self._without.add(service)
            return None
        routes = self._routes[service] = _Routes(service, app)
        self._lives.start_soon(self._run, routes)
        return routes

    async def _run(self, routes: _Routes) -> None:
        failure = ""
        try:
            failure = await routes.run(self._budget)
        finally:
            del self._routes[routes.service]
            if failure:
                self._tell(routes, failure)
            routes.settled.set()

    def _tell(self, routes: _Routes, failure: str) -> None:
        service, verb = routes.service, "stop" if routes.serves else "start"
        words = f"its routes did not {verb}: {failure}"
        if self._note(service, words, in_hooks=not routes.serves):
            service.logger.error("%s", words)
            if self._application.get_service(service.name) is service:
                self._application.supervisor.note(service.name, words)

    def _note(self, service: Service, words: str, *, in_hooks: bool) -> bool:
        """Note why its routes are not there; return whether that is news."""
        before = self._failures.get(service)
        until = trio.current_time() + RETRY_SEC
        self._failures[service] = _Failure(words, until, in_hooks)
        return before is None or before.words != words


def _has_rule(app: QuartTrio, path: str, method: str) -> bool:
    try:
        app.url_map.bind("").match(path, method=method)
    except MethodNotAllowed:
        return True
    except HTTPException:
        return False
    return True


def _in_words(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {in_words(error)}"


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
