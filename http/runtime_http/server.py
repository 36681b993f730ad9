"""The HTTP server as a unit of the tree."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from runtime._listening import is_of_this_host, open_listeners, parse_bind
from runtime.application import Application
from runtime.supervision.events import EventKind, UnitEvent
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.unit import Unit, UnitHandle

from ._serving import serve
from .access import Access
from .app import create_app
from .dispatch import Dispatcher
from .feed import EventFeed
from .gate import Gate, Ready
from .models import Probe
from .probes import KIND, probe_life, probe_readiness
from .usage import UsageWatch
from .views import EventDescriber, describe_tree

DEFAULT_BIND = "127.0.0.1:8410"
#: Seconds for which an answer is given again although nothing is known to have happened.
REMEMBERED_SEC = 0.1
_MOST_LOOKED_AT = 200
_RESTART = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=0.2, max_delay_sec=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Where a server listens, and what it asks of a request.

    *bind* is ``HOST:PORT`` or ``unix:PATH``, a relative path starting at *base*; None is
    `DEFAULT_BIND`, or the next port that is free. *token* is what changes take, and at addresses
    that are not of this host everything. *hosts* are further names that requests may give as their
    host. *announce* is called with the address, in a thread, and with None when it is gone.
    """

    token: str
    bind: str | None = None
    base: Path = Path()
    hosts: tuple[str, ...] = ()
    announce: Callable[[str | None], None] = field(default=lambda _: None)


class _Server:
    """The body of the unit."""

    def __init__(self, application: Application, settings: HttpSettings) -> None:
        self._application, self._settings = application, settings

    async def __call__(self, *, task_status: UnitHandle) -> None:
        settings = self._settings
        bind = parse_bind(settings.bind or DEFAULT_BIND, settings.base.absolute())
        shutdown = trio.Event()
        async with open_listeners(bind, or_next=settings.bind is None) as (address, listeners):
            local, private = is_of_this_host(listeners), bind.path is not None
            usage = UsageWatch(self._application.pilot)
            feed = self._make_feed()
            quart = create_app(self._application, feed, usage, shutdown)
            dispatcher = Dispatcher(self._application, quart)
            gate = self._make_gate(dispatcher, local=local, private=private)

            async def serve_all() -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(usage.run)
                    nursery.start_soon(feed.run, shutdown)
                    async with dispatcher.open(task_status.budget):
                        await serve(gate, listeners, shutdown=shutdown, task_status=task_status)
                    nursery.cancel_scope.cancel()

            shown = address if private else f"http://{address}"
            await trio.to_thread.run_sync(settings.announce, shown)
            try:
                await task_status.hold(serve_all, ask_to_stop=shutdown.set)
            finally:
                settings.announce(None)

    def _make_feed(self) -> EventFeed:
        application = self._application
        return EventFeed(
            application.supervisor.events,
            partial(describe_tree, application),
            EventDescriber(application),
        )

    def _make_gate(self, dispatcher: Dispatcher, *, local: bool, private: bool) -> Gate:
        application, settings = self._application, self._settings
        access = Access(
            token=None if private else settings.token,
            token_to_read=not local,
            hosts=settings.hosts,
            any_host=private,
        )
        ready: dict[str, Ready] = {
            "/": Remembered(application, self._status, self._is_of_status),
            "/healthz": _alive,
            "/readyz": Remembered(application, self._readiness, _is_of_tree),
        }
        return Gate(dispatcher, access, ready)

    def _status(self) -> tuple[int, bytes]:
        return 200, self._application.status.model_dump_json().encode()

    def _is_of_status(self, event: UnitEvent) -> bool:
        """Return whether an event may change what is told of services, or of the tree itself."""
        if not event.unit:
            return _is_of_tree(event)
        return self._application.get_service(event.unit) is not None

    def _readiness(self) -> tuple[int, bytes]:
        return _as_answer(*probe_readiness(self._application))


class Remembered:
    """An answer that is made anew when something has happened, and for a moment at most.

    A service may change what its status shows without an event. What *concerns* says no to leaves
    the answer as it is, unless it has changed how the whole application stands.
    """

    def __init__(
        self,
        application: Application,
        make: Ready,
        concerns: Callable[[UnitEvent], bool] = lambda _: True,
    ) -> None:
        self._application, self._make, self._concerns = application, make, concerns
        self._events = application.supervisor.events
        self._number = -1
        self._until = 0.0
        self._state: object = None
        self._answer = (200, b"")

    def __call__(self) -> tuple[int, bytes]:
        """Return the status and the body."""
        last, now = self._events.last, trio.current_time()
        if now >= self._until or (self._number != last and self._is_stale()):
            self._answer, self._state = self._make(), self._application.state
            self._until = now + REMEMBERED_SEC
        self._number = last
        return self._answer

    def _is_stale(self) -> bool:
        news = self._events.after(self._number, _MOST_LOOKED_AT)
        return (
            len(news) == _MOST_LOOKED_AT
            or any(self._concerns(entry.item) for entry in news)
            or self._application.state != self._state
        )


def _is_of_tree(event: UnitEvent) -> bool:
    return event.kind is not EventKind.INVOCATION


def _as_answer(probe: Probe, status: int) -> tuple[int, bytes]:
    return status, probe.model_dump_json().encode()


def _alive() -> tuple[int, bytes]:
    return _as_answer(*probe_life())


def http_unit(application: Application, settings: HttpSettings, *, name: str = "http") -> Unit:
    """Return the unit that serves *application* over HTTP.

    It is restarted when it dies, and nothing else is; it keeps no tree alive, and it is stopped
    when all others are down: what holds these up can be seen as long as it does.
    """
    return Unit(
        name=name,
        body=_Server(application, settings),
        kind=KIND,
        restart=_RESTART,
        keeps_alive=False,
        stops_last=True,
    )
