"""How a control server runs: the unit that it is, and what it gets of the pilot."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, Protocol, final

import trio

from runtime.plugin import ControlServer, ControlServerType
from runtime.process.hooks import call_plugin
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitHandle

#: Seconds that the end of a control server may take, however much is left of the tree's stop.
STOP_SEC = 5.0
# Nobody can see whether a `start` that goes on serves already: so long it may say that it does not.
_MAY_FAIL_SEC = 0.1
_RESTARTED = RestartPolicy(when=RestartWhen.FAILURE)


class ControlServerError(Exception):
    """A control server is not what it has to be, or has not ended; *problem* says it in words."""

    name: str
    problem: str

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"the control server {self.name!r} {self.problem}"


class TreeEndedError(RuntimeError):
    """A control server has asked for something although its tree does not run any more."""

    method: str

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"{self.method}() has come too late: the tree has ended"


class OnTheLoopError(RuntimeError):
    """A plain control server has called, on the thread of the event loop, what would block it."""

    method: str

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return (
            f"{self.method}() blocks, and would wait for itself on the thread of the event loop;"
            " call it from a thread of the control server's own"
        )


class HasSupervisor(Protocol):
    """As much of a pilot as has to be known here."""

    supervisor: Supervisor


@final
class PilotView:
    """The methods of a pilot, to be called from any thread: each blocks until it is done.

    Those that raise something there raise it here. After the end of the tree whatever would wait
    raises `TreeEndedError`. On the thread of the event loop, where only an asynchronous server
    should be, what is a coroutine method there is one here as well; that of a plain server gets
    `OnTheLoopError`.
    """

    def __init__(self, pilot: HasSupervisor, *, plain: bool) -> None:
        self._pilot, self._plain = pilot, plain
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a pilot has
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._pilot, name)
        return self._bridge(value) if inspect.isroutine(value) else value

    @property
    def stop(self) -> Callable[[], Any]:
        """Stop everything, and return when nothing but what stops last is left.

        The control server itself is among that: nothing that waits for its end can be called in it.
        """
        return self._bridge(self._stop)

    async def _stop(self) -> None:
        self._pilot.supervisor.ask_stop_tree("asked to stop by a control server")
        await self._pilot.supervisor.wait_last_ones()

    def settle(self, *, plain: bool) -> None:
        """Take note of what the server is that was made with this view."""
        self._plain = plain

    def _bridge(self, method: Callable[..., Any]) -> Callable[..., Any]:
        waits = inspect.iscoroutinefunction(method)
        name = method.__name__.removeprefix("_")

        @functools.wraps(method)
        def call(*args: object, **options: object) -> Any:  # noqa: ANN401 - what the method returns
            if threading.get_ident() == self._thread:
                if waits and self._plain:
                    raise OnTheLoopError(name)
                return method(*args, **options)
            there = functools.partial(method, *args, **options)
            try:
                if not waits:
                    return trio.from_thread.run_sync(there, trio_token=self._token)
                return trio.from_thread.run(self._ask, name, there, trio_token=self._token)
            except (trio.RunFinishedError, trio.Cancelled) as error:
                raise TreeEndedError(name) from error

        return call

    async def _ask(self, name: str, there: Callable[[], Any]) -> Any:  # noqa: ANN401 - see above
        if not self._pilot.supervisor.running:
            raise TreeEndedError(name)
        return await there()


def makes_plain_servers(factory: ControlServerType) -> bool | None:
    """Return whether *factory* makes plain servers; None where only a server itself can tell."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    if inspect.isclass(factory):
        return _is_plain(factory)
    return False if inspect.iscoroutinefunction(factory) else None


def _is_plain(server: object) -> bool:
    methods = (getattr(server, name, None) for name in ("start", "stop"))
    return not any(inspect.iscoroutinefunction(method) for method in methods)


class _Generation:
    """One life of a control server, from its factory to its end."""

    def __init__(
        self, name: str, pilot: HasSupervisor, factory: ControlServerType, unit: UnitHandle
    ) -> None:
        self._name, self._pilot, self._factory, self._unit = name, pilot, factory, unit
        # One for each generation: a thread that was left must not keep the next one from starting.
        self._limiter = trio.CapacityLimiter(2)
        self._server: ControlServer | None = None
        self._plain = True
        self._made, self._served, self._over = trio.Event(), trio.Event(), trio.Event()
        self._serves = False
        self._failure: Exception | None = None

    async def run(self) -> None:
        """Serve until it is told to stop; raise what went wrong."""
        try:
            await self._unit.hold(self._live, ask_to_stop=self._over.set)
        except trio.Cancelled:
            if self._failure is None:
                raise
        if self._failure is not None:
            raise self._failure

    def started(self, value: object = None) -> None:  # noqa: ARG002 - the protocol of Trio's TaskStatus
        """Say that it serves; this may be known more than once."""
        if not self._serves:
            self._serves = True
            self._unit.started()

    async def _live(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, nursery)
            await self._over.wait()
            if self._failure is None:
                await self._end()
            nursery.cancel_scope.cancel()

    async def _serve(self, nursery: trio.Nursery) -> None:
        try:
            self._server = await self._make()
            self._made.set()
            start: Callable[..., Any] = self._server.start
            if takes_task_status(start):
                start = functools.partial(start, task_status=self)
            else:
                nursery.start_soon(self._take_it_to_serve)
            await self._call(start)
            self.started()
        except Exception as error:  # noqa: BLE001 - the edge of a unit: whatever it is is told
            self._fail(error)
        finally:
            self._made.set()
            self._served.set()

    async def _take_it_to_serve(self) -> None:
        await trio.sleep(_MAY_FAIL_SEC)
        if self._failure is None:
            self.started()

    async def _make(self) -> ControlServer:
        plain = makes_plain_servers(self._factory)
        server: ControlServer
        if plain is False:
            server = await _called_here(self._factory, self._pilot)
        else:
            view = PilotView(self._pilot, plain=plain is True)
            server = await self._call(self._factory, view)
            view.settle(plain=_is_plain(server))
        self._plain = _is_plain(server)
        for method in ("start", "stop"):
            if not callable(getattr(server, method, None)):
                raise ControlServerError(self._name, f"has no method {method}")
        return server

    async def _call(self, function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - a plugin's
        return await call_plugin(
            function, *args, limiter=self._limiter, thread_name=f"control server {self._name}"
        )

    async def _end(self) -> None:
        """Call its `stop`, and wait for a thread of its `start`, for a bounded time."""
        waits_for = "its factory"
        # Others may have used up all politeness: a part of what follows it is kept for this.
        with self._unit.budget.final(STOP_SEC) as patience:
            await self._made.wait()
            if self._server is None:
                return  # it has failed meanwhile
            waits_for = "stop()"
            try:
                await self._call(self._server.stop)
            except Exception as error:  # noqa: BLE001 - the edge of a unit
                self._fail(error)
            waits_for = "start()"
            if self._plain:
                await self._served.wait()
        if patience.cancelled_caught:
            left = "; its thread is left" if self._plain else ""
            self._fail(ControlServerError(self._name, f"does not end: {waits_for} goes on{left}"))

    def _fail(self, failure: Exception) -> None:
        self._failure = self._failure or failure
        self._over.set()


async def _called_here(factory: ControlServerType, pilot: HasSupervisor) -> Any:  # noqa: ANN401 - a plugin's
    server = factory(pilot)
    return await server if inspect.isawaitable(server) else server


def takes_task_status(start: Callable[..., Any]) -> bool:
    """Return whether a coroutine function wants to say itself when it serves, as Trio's do."""
    return (
        inspect.iscoroutinefunction(start) and "task_status" in inspect.signature(start).parameters
    )


def control_unit(name: str, pilot: HasSupervisor, find: Callable[[str], ControlServerType]) -> Unit:
    """Return the unit that runs the control server *name*, whose factory *find* returns.

    It keeps no tree alive, is started again when it dies, and stops last.
    """

    async def run(*, task_status: UnitHandle) -> None:
        await _Generation(name, pilot, find(name), task_status).run()

    return Unit(
        name=name,
        body=run,
        kind="control server",
        restart=_RESTARTED,
        keeps_alive=False,
        stops_last=True,
    )
