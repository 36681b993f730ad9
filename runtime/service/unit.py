"""How a service runs: the body of its unit."""

from collections.abc import Iterable

import trio

from runtime.supervision._exceptions import UnhealthyError, in_words
from runtime.supervision._health_watch import watch_health
from runtime.supervision.graph import Requirement
from runtime.supervision.health import HealthPolicy, spread_of
from runtime.supervision.restart import RestartPolicy
from runtime.supervision.unit import Unit, UnitHandle, cut_off_by

from ._exceptions import ConfigurationError, ServiceError, ServiceFailedError, ServiceStopError
from .service import Hook, Service, takes_task_status

#: Seconds that `Service.stop` may take, unless something else is said.
DEFAULT_TIMEOUT_SEC = 5.0
_NOT_RESTARTED = RestartPolicy()


class Generation:
    """One life of a service, from its start to its stop."""

    def __init__(
        self,
        service: Service,
        unit: UnitHandle,
        timeout: float | None,
        health: HealthPolicy | None = None,
    ) -> None:
        self._service, self._unit, self._timeout = service, unit, timeout
        self._health = health
        self._checking = trio.CancelScope()
        self._failure: Exception | None = None
        self._told = False  # the state says that it has failed
        self._started = _Started()
        self._starting = trio.CancelScope()
        self._start_hook: Hook | None = None
        self._stopped = False
        self._over = trio.Event()  # it is to stop, or has failed, or its work is done

    async def run(self) -> None:
        """Start the service, keep it, and stop it when that is asked for by a cancellation.

        Raises what went wrong; a pending `Cancelled` gives way to that.
        """
        try:
            await self._unit.hold(self._live, ask_to_stop=self._end)
        except trio.Cancelled:
            if self._failure is None:
                raise
        if self._failure is not None:
            raise self._failure

    def fail(self, failure: Exception) -> None:
        """End it, for this reason; the first one counts."""
        if self._failure is None:
            self._failure = failure
        if self._told:
            self._unit.note(in_words(failure))
        else:
            self._told = True
            words = in_words(self._failure)
            self._service.note_error(words)
            self._unit.failing(words)
        self._end()

    def _end(self) -> None:
        self._over.set()
        self._checking.cancel()
        if not self._started.told:
            self._starting.cancel()

    async def _live(self) -> None:
        manager = self._service.manager
        if manager.is_taken:
            words = "shares its manager with one that runs; create_manager has to make a new one"
            raise ServiceFailedError(self._service.name, words)
        try:
            async with trio.open_nursery() as nursery:
                manager.enter(nursery, self._over.set)
                await self._start(nursery)
                if self._failure is None and self._started.told:
                    self._unit.started()
                    if self._health is not None:
                        nursery.start_soon(self._watch_health, self._health)
                    await self._over.wait()
                await self._stop()
                nursery.cancel_scope.cancel()
        except ExceptionGroup as group:
            self._note(_died(self._service.name, group))
        finally:
            await self._stop()  # where a death, or worse, went before it
            manager.enter(None, None)

    async def _start(self, nursery: trio.Nursery) -> None:
        """Start the service; return when it is ready, has failed, or is to stop."""
        try:
            with self._starting:
                await trio.lowlevel.checkpoint_if_cancelled()
                if takes_task_status(type(self._service.manager)):
                    await nursery.start(self._run_start)
                else:
                    await self._run_start()
        except Exception as error:  # noqa: BLE001 - the edge of a service: whatever it is is told
            self._note(error)

    async def _run_start(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self._started.pass_on_to(task_status)
        self._start_hook = Hook("start", self._started)
        try:
            await self._service.call(self._start_hook)
        except Exception as error:
            if self._started.told:  # then it is like any background task
                raise
            self._note(error)  # here, as a nursery would make another group of a group
            task_status.started()
        else:
            self._started.started()

    async def _watch_health(self, policy: HealthPolicy) -> None:
        """Check the service's health until it is to stop; end it when that has failed too often."""
        name, manager = self._service.name, self._service.manager
        with self._checking:
            failing = await watch_health(
                manager.check_health, policy, self._unit.report_health, spread=spread_of(name)
            )
            if not self._over.is_set():  # else it ends for another reason
                self._note(UnhealthyError(name, "check_health", *failing))

    @property
    def _has_begun(self) -> bool:
        """Whether something is to be stopped: also where an override fails behind the manager."""
        hook = self._start_hook
        return self._started.told or (hook is not None and hook.succeeded)

    async def _stop(self) -> None:
        """Call the service's `stop` if that is due, shielded and bounded; note what goes wrong."""
        if self._stopped or not self._has_begun:
            return
        self._stopped = True
        self._unit.ending("its work is done")
        began = trio.current_time()
        error: Exception | None = None
        patience: trio.CancelScope | None = None
        try:
            what = f"stop() of {type(self._service).__name__}"
            with self._unit.budget.polite(self._timeout, what=lambda: what) as patience:
                await self._service.call(Hook("stop"))
        except Exception as raised:  # noqa: BLE001 - the edge of a service
            error = raised
        if patience is not None and patience.cancelled_caught:
            self._note(ServiceStopError(self._service.name, trio.current_time() - began))
        if error is not None:
            self._note(error)

    def _note(self, failure: Exception) -> None:
        """Let the service tell a failure, which also ends it; what comes later is told, too."""
        if self._failure is None:
            self._failure = failure
        try:
            self._service.set_error(in_words(failure))
        except Exception as error:  # noqa: BLE001 - a user's override
            self._unit.note(f"set_error failed: {in_words(error)}")
        if not self._told:  # an override that keeps it to itself
            self.fail(failure)


def _died(name: str, group: ExceptionGroup[Exception]) -> ServiceFailedError:
    deaths: list[BaseException] = [group]
    while isinstance(deaths[0], BaseExceptionGroup):
        deaths[:1] = deaths[0].exceptions
    first, *more = deaths
    words = f"a background task died: {type(first).__name__}: {first}".removesuffix(": ")
    error = ServiceFailedError(name, words + (f" (and {len(more)} more)" if more else ""))
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


def check_askable(service: Service) -> None:
    """Raise `ConfigurationError` when the manager of *service* cannot be asked for its health."""
    if not service.manager.has_health_check:
        problem = (
            "cannot be asked for its health; override check_health in its ServiceManager"
            " (a function or generator has none)"
        )
        raise ConfigurationError(service.name, problem)


def service_unit(
    service: Service,
    *,
    requirements: Iterable[Requirement] = (),
    restart: RestartPolicy = _NOT_RESTARTED,
    restart_dependents: bool = False,
    restarts_also: tuple[str, ...] = (),
    timeout: float | None = DEFAULT_TIMEOUT_SEC,
    health: HealthPolicy | None = None,
    autostart: bool = False,
) -> Unit:
    """Return the unit that runs *service*; *timeout* seconds bound its stop, None: the budget.

    With *health* its manager's `check_health` is awaited time after time while it runs. When that
    has failed too often the service has, as if one of its background tasks had died.
    """

    async def run(*, task_status: UnitHandle) -> None:
        if service.is_live:
            raise ServiceError(f"service {service.name!r} runs already, in another tree")
        generation = Generation(service, task_status, timeout, health)
        service.note_error(None)
        service.enter(generation)
        try:
            await service.look_up_secrets()
            if health is not None:
                check_askable(service)
            await generation.run()
        except BaseException as error:
            words = in_words(error) if isinstance(error, Exception) else cut_off_by(error)
            service.note_error(words)
            raise
        finally:
            service.enter(None)

    def admit() -> None:
        try:
            service.check_startable()
            if health is not None and not service.lacks_secrets:
                check_askable(service)
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
        restarts_also=restarts_also,
        autostart=autostart,
    )
