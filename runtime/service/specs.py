"""What a manifest may say of a service."""

from collections.abc import Mapping
from operator import eq
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from runtime._problems import Location, Problem, did_you_mean
from runtime._secrets import Secrets, SecretSource, has_secrets, resolve_secrets
from runtime._specs import HealthSpec, NamedEntry, RestartSpec, Seconds
from runtime._user_modules import import_user_module
from runtime.supervision.restart import RestartPolicy

from ._exceptions import ConfigurationError
from ._late_configuration import LateConfiguration
from .plain import as_service_class
from .registry import get_available_services, get_service_class
from .service import Service
from .unit import DEFAULT_TIMEOUT_SEC, check_askable


class ServiceEntry(NamedEntry):
    """One service of a manifest: of which class it is, and how it is configured."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    class_path: str = Field(
        alias="class",
        min_length=1,
        description="Its class, or its function, as `module:Name`, importable from the base"
        " directory; or the name of a registered class.",
        examples=["shop.services:CacheService"],
    )
    configuration: dict[str, Any] | None = Field(
        default=None,
        description="Its configuration, as its class wants it; a value at any depth may refer to"
        " secrets, which are looked up at each start. Unset: none.",
        examples=[{"size": 1000}],
    )
    restart: RestartSpec | None = Field(
        default=None,
        description="When and how it is restarted after it failed; unset: never.",
        examples=[{"when": "failure"}],
    )
    restart_dependents: bool = Field(
        default=False, description="Whether its restarts restart what depends on it."
    )
    timeout: Seconds | None = Field(
        default=DEFAULT_TIMEOUT_SEC,
        description="Seconds that its stop may take; null: what the stop of the tree has left.",
    )
    health: HealthSpec | None = Field(
        default=None,
        description="How often its manager's `check_health` is awaited while it runs; when that has"
        " failed too often, the service has. Unset: never.",
        examples=[{"interval_sec": 5}],
    )
    enabled: bool | None = Field(
        default=None,
        description="Whether it starts with the tree; unset: as its configuration says, or yes.",
        examples=[False],
    )
    autostart: bool = Field(
        default=True,
        description="Whether it starts with the tree; otherwise when it is asked to, or needed.",
    )

    section: ClassVar[Location] = ("services",)
    noun: ClassVar[str] = "service"

    _service_class: type[Service] | None = PrivateAttr(default=None)
    _secret_source: SecretSource = PrivateAttr(default_factory=SecretSource)

    @property
    def restart_policy(self) -> RestartPolicy:
        """The ``restart`` block; without one, it is not restarted."""
        return RestartPolicy() if self.restart is None else self.restart.to_policy()

    # --- the service itself -----------------------------------------------------------------------

    @property
    def late_values(self) -> Mapping[str, object]:
        """What may refer to secrets: its `configuration`."""
        return {"configuration": self.configuration}

    def find_problems(self, folder: Path, source: SecretSource | None = None) -> list[Problem]:
        """Return what is wrong with its class and configuration; *folder* becomes importable.

        Secrets are looked up in *source* from now on.
        """
        try:
            self._service_class = _find_class(self.class_path, folder)
        except ValueError as error:
            return [Problem((*self.location, "class"), str(error))]
        self._secret_source = source or SecretSource(folder)
        secrets = Secrets()
        found, complete = self._judge_configuration(self._service_class, secrets)
        if complete and not found:
            found = self._judge_making(secrets)
        return [Problem(where, secrets.mask(what)) for where, what in found]

    def _judge_configuration(
        self, service_class: type[Service], secrets: Secrets
    ) -> tuple[list[Problem], bool]:
        """Return what is wrong with the configuration, and whether all of its secrets are there.

        A file that is missing is a problem where nothing could make it before the service starts.
        """
        here = (*self.location, "configuration")
        found = resolve_secrets(self.configuration or {}, self._secret_source, here)
        secrets.add(found.values)
        may_come = self.dependencies or not self.autostart or self.enabled is False
        problems = [*found.problems, *(() if may_come else found.missing)]
        unknown = [where for where, _ in (*found.problems, *found.missing)]
        model = service_class.configuration_class
        try:
            model.model_validate(found.data)
        except ValidationError as error:
            if self.configuration is not None:
                problems += [
                    _explain(each, here, model)
                    for each in error.errors(include_url=False)
                    # What is said of a secret that is not there, or of what is around it, may be
                    # wrong.
                    if not any(_overlap((*here, *each["loc"]), place) for place in unknown)
                ]
        return problems, not unknown

    def _judge_making(self, secrets: Secrets) -> list[Problem]:
        here = (*self.location, "configuration")
        try:
            service = self.make(secrets)
            service.check_startable()
            here = (*self.location, "health")
            if self.health is not None:
                check_askable(service)
        except ConfigurationError as error:
            return [Problem(here, error.problem)]
        except Exception as error:  # noqa: BLE001 - a user's constructor: whatever it is is told
            words = f"cannot be made: {type(error).__name__}: {error}"
            return [Problem((*self.location, "class"), words)]
        return []

    def make(self, secrets: Secrets | None = None) -> Service:
        """Return a new service as the entry describes it, configured and not started.

        What it is given as secrets is hidden by *secrets*.
        """
        if self._service_class is None:
            raise ValueError(f"the class of service {self.name!r} has not been resolved")
        service = self._service_class(self.name)
        configuration = dict(self.configuration or {})
        if self.enabled is not None:
            configuration["enabled"] = self.enabled
        if not configuration:
            return service
        configuration["autostart"] = False
        if not has_secrets(configuration):
            service.configure(configuration)
            return service
        late = LateConfiguration(
            self.name,
            configuration,
            self._secret_source,
            Secrets() if secrets is None else secrets,
            at=(*self.location, "configuration"),
        )
        service.configure_late(late)
        return service


def _overlap(one: Location, other: Location) -> bool:
    """Return whether one of two places is within the other, or the same."""
    return all(map(eq, one, other))


def _explain(error: ErrorDetails, here: Location, model: type[BaseModel]) -> Problem:
    location = (*here, *error["loc"])
    if error["type"] == "extra_forbidden":
        hint = did_you_mean(str(location[-1]), model.model_fields)
        return Problem(location, f"unknown key{hint}")
    words = error["msg"].removeprefix("Value error, ")
    return Problem(location, words[:1].lower() + words[1:])


def _find_class(path: str, folder: Path) -> type[Service]:
    """Return the service class behind *path*; raise `ValueError` saying what is wrong."""
    module_name, colon, name = path.partition(":")
    if not colon:
        try:
            found = get_service_class(path)
        except Exception as error:  # whatever the module of an entry point raises
            words = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path!r} is offered, but cannot be loaded: {words}") from error
        if found is None:
            hint = did_you_mean(path, get_available_services())
            raise ValueError(f"no service class is registered as {path!r}{hint}; or `module:Name`")
        return found
    module = import_user_module(module_name, folder)
    made = getattr(module, name, None)
    if made is None:
        hint = did_you_mean(name, vars(module))
        raise ValueError(f"module {module_name!r} has no {name!r}{hint}")
    try:
        return as_service_class(made)
    except TypeError as error:
        raise ValueError(str(error)) from error
