"""How a service runs: the body of its unit."""

from collections.abc import Iterable

import trio

from runtime.supervision._exceptions import in_words
from runtime.supervision.graph import Requirement
from runtime.supervision.restart import RestartPolicy
from runtime.supervision.unit import Unit, UnitHandle

from ._exceptions import ServiceFailedError, ServiceStopError
from .service import Service, call_hook, takes_task_status

#: Seconds that `Service.stop` may take, unless something else is said.
DEFAULT_TIMEOUT_SEC = 5.0
_NOT_RESTARTED = RestartPolicy()


class Generation:
    """One life of a service, from its start to its stop."""

    def __init__(self, service: Service, unit: UnitHandle, timeout: float | None) -> None:
        self._service, self._unit, self._timeout = service, unit, timeout
        self._failure: Exception | None = None
        self._started = _Started()
        self._nursery: trio.Nursery | None = None
        self._over = trio.Event()  # it is to stop, or has failed, or its work is done

    async def run(self) -> None:
        """Start the service, keep it, and stop it when that is asked for by a cancellation.

        Raises what went wrong; a pending `Cancelled` gives way to that.
        """
        try:
            await self._unit.hold(self._live, ask_to_stop=self._end)
        finally:
            if self._failure is not None:
                raise self._failure

    def fail(self, failure: Exception) -> None:
        """End it, for this reason; the first one counts."""
        if self._failure is None:
            self._failure = failure
            self._unit.failing(in_words(failure))
        self._end()

    def _end(self) -> None:
        self._over.set()
        if self._nursery is not None and not self._started.told:
            self._nursery.cancel_scope.cancel()  # there is nothing to be stopped yet

    async def _live(self) -> None:
        manager = self._service.manager
        stopped = False
        try:
            async with trio.open_nursery() as self._nursery:
                manager.enter(self._nursery, self._over.set)
                await self._start(self._nursery)
                if self._failure is None:
                    self._unit.started()
                    await self._over.wait()
                if self._started.told:
                    stopped = True
                    await self._stop()
                self._nursery.cancel_scope.cancel()
        except ExceptionGroup as group:
            self._note(self._died(group))
        finally:
            manager.enter(None, None)
        if self._started.told and not stopped:
            await self._stop()

    async def _start(self, nursery: trio.Nursery) -> None:
        """Start the service; return when it is ready, or has failed."""
        if self._over.is_set():  # told to stop before it began
            nursery.cancel_scope.cancel()
        try:
            if takes_task_status(type(self._service.manager)):
                await nursery.start(self._run_start)
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
                await call_hook(self._service, "start")
                self._started.started()
        except Exception as error:  # noqa: BLE001 - the edge of a service: whatever it is is told
            self._note(error)

    async def _run_start(self, *, task_status: trio.TaskStatus[None]) -> None:
        self._started.pass_on_to(task_status)
        await call_hook(self._service, "start", self._started)
        self._started.started()

    async def _stop(self) -> None:
        """Call the service's `stop`, shielded and bounded; note what goes wrong."""
        began = trio.current_time()
        with self._unit.budget.polite(self._timeout) as patience:
            try:
                await call_hook(self._service, "stop")
            except Exception as error:  # noqa: BLE001 - the edge of a service
                self._note(error)
        if patience.cancelled_caught:
            late = ServiceStopError(self._service.name, trio.current_time() - began)
            self._unit.note(str(late))
            self._note(late)

    def _note(self, failure: Exception) -> None:
        """Keep the first failure; what comes later is told, too."""
        if self._failure is None:
            self._failure = failure
            self._unit.ending(in_words(failure))
        elif failure is not self._failure:
            self._unit.note(in_words(failure))

    def _died(self, group: ExceptionGroup[Exception]) -> ServiceFailedError:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        words = f"a background task died: {type(first).__name__}: {first}".rstrip(": ")
        error = ServiceFailedError(self._service.name, words)
        error.__cause__ = group
        return error


class _Started:
    """A task status that may be told twice: by the manager, and when its start returns."""

    def __init__(self) -> None:
        self.told = False
        self._task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED

    def pass_on_to(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status

    def started(self, value: None = None) -> None:
        if not self.told:
            self.told = True
            self._task_status.started(value)


def service_unit(
    service: Service,
    *,
    requirements: Iterable[Requirement] = (),
    restart: RestartPolicy = _NOT_RESTARTED,
    restart_dependents: bool = False,
    timeout: float | None = DEFAULT_TIMEOUT_SEC,
    autostart: bool = False,
) -> Unit:
    """Return the unit that runs *service*; *timeout* seconds bound its stop, None: the budget."""

    async def run(*, task_status: UnitHandle) -> None:
        generation = Generation(service, task_status, timeout)
        service.note_error(None)
        service.enter(generation)
        try:
            await generation.run()
        except Exception as error:
            service.note_error(in_words(error))
            raise
        finally:
            service.enter(None)

    def admit() -> None:
        try:
            service.check_startable()
        except Exception as error:
            service.note_error(in_words(error))
            raise

    return Unit(
        name=service.name,
        body=run,
        kind="service",
        lifecycle=service.lifecycle,
        requirements=tuple(requirements),
        admit=admit,
        restart=restart,
        restart_dependents=restart_dependents,
        autostart=autostart,
    )
