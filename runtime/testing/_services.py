"""A service in a tree of its own, for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, NamedTuple, TypeVar, final, overload

from runtime._tree_block import TreeBlock
from runtime.service.models import ServiceState
from runtime.service.plain import ServiceFunction, as_service_class
from runtime.service.service import Service, ServiceConfiguration
from runtime.service.unit import DEFAULT_TIMEOUT_SEC, service_unit
from runtime.supervision._exceptions import UnitFailedError
from runtime.supervision.events import EventKind, UnitEvent
from runtime.supervision.restart import RestartPolicy
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import UnitStatus

S_co = TypeVar("S_co", bound=Service, covariant=True)
S = TypeVar("S", bound=Service)
_NOT_RESTARTED = RestartPolicy()
Configuration = ServiceConfiguration | Mapping[str, Any]


class StateChange(NamedTuple):
    """A service came to *state*, for *reason*."""

    state: ServiceState
    reason: str


@final
class ServiceUnderTest(Generic[S_co]):
    """A service that runs in a tree of its own; made by `open_service`."""

    def __init__(self, service: S_co, supervisor: Supervisor) -> None:
        self._service, self._supervisor = service, supervisor
        self._may_fail = False

    @property
    def service(self) -> S_co:
        """The service itself, to be called as it would be anywhere."""
        return self._service

    @property
    def supervisor(self) -> Supervisor:
        """What runs it; its ``events`` have all that happened, ``why`` what led to what."""
        return self._supervisor

    @property
    def state(self) -> ServiceState:
        """Where the service is now."""
        return self._service.status.state

    @property
    def unit(self) -> UnitStatus:
        """How it stands as a unit: its restarts, the reason of its last change, what ended it."""
        return self._supervisor.status(self._service.name)

    @property
    def states(self) -> list[StateChange]:
        """All states that it has come to in this block, each with the reason, the oldest first."""
        changes = (self._change(entry.item) for entry in self._supervisor.events.tail())
        return [change for change in changes if change is not None]

    async def wait_state(self, *states: ServiceState | str) -> ServiceState:
        """Return the first of *states* that the service is at, or comes to; no change is missed.

        The caller owns the deadline. Waiting for the state error says that the service may fail.
        Raises `RuntimeError` when the block is left meanwhile.
        """
        wanted = {ServiceState(state) for state in states}
        self._may_fail |= ServiceState.ERROR in wanted
        reader = self._supervisor.events.read()
        if self.state in wanted:
            return self.state
        async for entry in reader:
            change = self._change(entry.item)
            if change is not None and change.state in wanted:
                return change.state
        words = " or ".join(sorted(wanted))
        raise RuntimeError(f"service {self._service.name!r} was left before it was {words}")

    def crash(self, error: Exception | None = None) -> None:
        """Let a background task of the service die of *error*, as one of its own might.

        Raises `RuntimeError` while the service is down.
        """
        self._service.manager.nursery.start_soon(
            _die, error or RuntimeError("crashed by the test"), name="crash"
        )
        self._may_fail = True

    def _change(self, event: UnitEvent) -> StateChange | None:
        if event.kind is not EventKind.MOVED or event.unit != self._service.name:
            return None
        return StateChange(ServiceState(str(event.new)), event.reason)

    async def _start(self) -> None:
        """Start the service; raise what it has failed with."""
        failed: UnitFailedError | None = None
        try:
            await self._supervisor.start_unit(self._service.name)
        except UnitFailedError as error:
            failed = error
        if failed is not None:  # out here, where the failure keeps the cause that it has
            raise self.unit.error or failed

    async def _end(self) -> None:
        """Stop the service; raise what it has failed with, unless the test has reckoned with it."""
        failed_before = self.state is ServiceState.ERROR
        await self._supervisor.stop_unit(self._service.name)
        error = self.unit.error
        if error is not None and not (failed_before and self._may_fail):
            raise error


@overload
def open_service(
    service: S | type[S],
    configuration: Configuration | None = None,
    *,
    name: str | None = None,
    restart: RestartPolicy = ...,
    timeout: float | None = ...,
    start: bool = ...,
) -> AbstractAsyncContextManager[ServiceUnderTest[S]]: ...
@overload
def open_service(
    service: ServiceFunction,
    configuration: Configuration | None = None,
    *,
    name: str | None = None,
    restart: RestartPolicy = ...,
    timeout: float | None = ...,
    start: bool = ...,
) -> AbstractAsyncContextManager[ServiceUnderTest[Service]]: ...
def open_service(
    service: Service | type[Service] | ServiceFunction,
    configuration: Configuration | None = None,
    *,
    name: str | None = None,
    restart: RestartPolicy = _NOT_RESTARTED,
    timeout: float | None = DEFAULT_TIMEOUT_SEC,
    start: bool = True,
) -> AbstractAsyncContextManager[ServiceUnderTest[Any]]:
    """Run a service in a tree of its own for the length of an ``async with`` block.

    *service* is one that was made, or a class or a short form that one is made of, then by *name*
    if there is one. With a *configuration* it is configured; then it is started, unless *start*
    says otherwise. The block begins when it is ready, and ends when it has stopped. *restart* and
    *timeout* are those of `service_unit`.

    What keeps it from starting is raised as it is, and so is what the block raises. When the block
    has come to its end, a stop that fails is raised, too, and a failure before that, unless the
    test has reckoned with one: by waiting for the state error, or by `ServiceUnderTest.crash`.
    """
    if not isinstance(service, Service):
        service = as_service_class(service)(name)
    elif name is not None:
        raise TypeError(f"service {service.name!r} has its name already; give one to its class")
    supervisor = Supervisor(keep=True)
    supervisor.add(service_unit(service, restart=restart, timeout=timeout))
    return _open(ServiceUnderTest(service, supervisor), configuration, start=start)


@asynccontextmanager
async def _open(
    under_test: ServiceUnderTest[S], configuration: Configuration | None, *, start: bool
) -> AsyncGenerator[ServiceUnderTest[S]]:
    service, supervisor = under_test.service, under_test.supervisor
    service.attach(supervisor)
    try:
        if configuration is not None:
            service.configure(configuration)
        async with TreeBlock(supervisor):
            if start:
                await under_test._start()  # noqa: SLF001 - one thing in two pieces
            yield under_test
            await under_test._end()  # noqa: SLF001 - as above
    finally:
        supervisor.events.close()
        service.attach(None)


async def _die(error: Exception) -> None:
    raise error
