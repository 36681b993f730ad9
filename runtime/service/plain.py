"""A service in its short form: an async function, an async generator, or a context manager."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import Parameter, isasyncgenfunction, iscoroutinefunction, signature, unwrap
from types import SimpleNamespace
from typing import Any, ClassVar, get_type_hints

import trio

from .manager import ServiceManager
from .service import Service, ServiceConfiguration

#: What a service in its short form may be.
ServiceFunction = (
    Callable[..., Awaitable[None]]
    | Callable[..., AsyncGenerator[object, None]]
    | Callable[..., AbstractAsyncContextManager[object]]
)
_TASK_STATUS = "task_status"


def as_service_class(made: type[Service] | ServiceFunction) -> type[Service]:
    """Return the service class that *made* is, or stands for.

    - An async function runs as long as the service. It is ready at once; where it has a parameter
      *task_status*, when it calls ``task_status.started()``. When it returns, the service has
      completed.
    - An async generator, or a function made by `asynccontextmanager`, is ready when it yields, and
      goes on behind that to stop.

    The first parameter, if there is one besides *task_status*, is the configuration; its annotation
    says of which class. Where all of its fields have defaults it need not be configured.
    Cancellation stops them like any service. Raises `TypeError` for what is none of these.
    """
    if isinstance(made, type):
        if issubclass(made, Service):
            return made
        raise TypeError(f"{made.__qualname__} is no Service; derive it from that")
    form = _manager_for(made)
    if form is None or not hasattr(made, "__qualname__"):
        raise TypeError(f"{made!r} is no Service, async function, generator or context manager")
    configuration = _configuration_of(made, form)
    return type(
        made.__name__,
        (_PlainService,),
        {
            "__doc__": made.__doc__,
            "__module__": made.__module__,
            "__qualname__": made.__qualname__,
            "configuration_class": configuration or ServiceConfiguration,
            "function": staticmethod(made),
            "manager_class": form,
            "takes_configuration": configuration is not None,
        },
    )


def _manager_for(made: Any) -> type[_PlainManager] | None:  # noqa: ANN401 - whatever it is
    if iscoroutinefunction(made):
        return _FunctionManager
    wrapped = getattr(made, "__wrapped__", None)
    return _ContextManager if isasyncgenfunction(made) or isasyncgenfunction(wrapped) else None


def _configuration_of(made: Any, form: type[_PlainManager]) -> type[ServiceConfiguration] | None:  # noqa: ANN401
    parameters = [
        parameter
        for parameter in signature(made).parameters.values()
        if parameter.name != _TASK_STATUS or not _can_be_told(parameter, form)
    ]
    first = parameters[0] if parameters and parameters[0].kind in _POSITIONAL else None
    for parameter in parameters:
        if parameter is not first and _has_to_be_given(parameter):
            raise _wrong(made, form)
    if first is None:
        return None
    wanted = _annotation(made, first)
    if isinstance(wanted, type) and issubclass(wanted, ServiceConfiguration):
        return wanted
    raise _wrong(made, form)


_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def _can_be_told(parameter: Parameter, form: type[_PlainManager]) -> bool:
    by_name = parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return by_name and form is _FunctionManager


def _has_to_be_given(parameter: Parameter) -> bool:
    variable = parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return not variable and parameter.default is Parameter.empty


def _annotation(made: Any, parameter: Parameter) -> object:  # noqa: ANN401
    """Return what a parameter is annotated with; what the others are need not be importable."""
    written = parameter.annotation
    holder = SimpleNamespace(__annotations__={parameter.name: written})
    try:
        return get_type_hints(holder, unwrap(made).__globals__)[parameter.name]
    except (NameError, AttributeError) as error:
        words = f"{made.__qualname__}: {error}, which annotates its parameter {parameter.name!r}"
        raise TypeError(words) from error


def _wrong(made: Any, form: type[_PlainManager]) -> TypeError:  # noqa: ANN401
    wanted = "its configuration, annotated with a class derived from ServiceConfiguration"
    if form is _FunctionManager:
        wanted += ", and task_status"
    return TypeError(f"{made.__qualname__}{signature(made)}: such a service takes {wanted}")


class _PlainService(Service):
    """What is common to all services in the short form."""

    function: ClassVar[Callable[..., Any]]
    manager_class: ClassVar[type[_PlainManager]]
    takes_configuration: ClassVar[bool]

    def requires_configuration(self) -> bool:
        fields = self.configuration_class.model_fields.values()
        return any(field.is_required() for field in fields)

    def create_manager(self) -> ServiceManager:
        config = self.config or self.configuration_class()
        arguments = (config,) if self.takes_configuration else ()
        return self.manager_class(self, arguments)


class _PlainManager(ServiceManager):
    def __init__(self, service: _PlainService, arguments: tuple[ServiceConfiguration, ...]) -> None:
        super().__init__(service.logger)
        self._function, self._arguments = type(service).function, arguments

    async def stop(self) -> None:
        """Nothing more: the task is cancelled with the nursery that it runs in."""


class _FunctionManager(_PlainManager):
    async def start(self) -> None:
        if _TASK_STATUS in signature(self._function).parameters:
            await self.nursery.start(self._run)
        else:
            self.nursery.start_soon(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        options = (
            {_TASK_STATUS: task_status}
            if _TASK_STATUS in signature(self._function).parameters
            else {}
        )
        await self._function(*self._arguments, **options)
        self.finish()


class _ContextManager(_PlainManager):
    """Holds a context manager open in a task of its own, where it may have nurseries."""

    _leave: trio.Event
    _left: trio.Event
    _failure: Exception | None

    async def start(self) -> None:
        self._leave, self._left, self._failure = trio.Event(), trio.Event(), None
        await self.nursery.start(self._hold)

    async def stop(self) -> None:
        self._leave.set()
        await self._left.wait()
        if self._failure is not None:
            raise self._failure

    async def _hold(self, *, task_status: trio.TaskStatus[None]) -> None:
        function = self._function
        opened = function if not isasyncgenfunction(function) else asynccontextmanager(function)
        entered = False
        try:
            async with opened(*self._arguments):
                entered = True
                task_status.started()
                await self._leave.wait()
            if not self._leave.is_set():  # it has ended what it was held open for
                self.finish()
        except Exception as error:
            if not entered or not self._leave.is_set():
                raise
            self._failure = error  # the stop tells it
        finally:
            self._left.set()


async def idle() -> None:
    """Do nothing for as long as the service lives; it holds a place."""
    await trio.sleep_forever()
