"""The models of services and of the application that they belong to: how these stand."""

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class ServiceState(StrEnum):
    """Where a service, or an application, is in its life."""

    INITIALIZED = "initialized"  #: made, not configured yet
    CONFIGURED = "configured"  #: its configuration fits
    STARTING = "starting"  #: its start is under way
    RUNNING = "running"  #: it has said that it is ready
    STOPPING = "stopping"  #: its stop is under way
    STOPPED = "stopped"  #: nothing of it runs
    ERROR = "error"  #: something went wrong; the error says what


class ServiceStatus(BaseModel):
    """How a service stands at one moment."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    state: ServiceState = Field(description="Its state.")
    error: str | None = Field(default=None, description="What went wrong, if the state is error.")
    metadata: dict[str, Any] = Field(
        default_factory=dict,
        description="What the service says of itself; its configuration until it says something.",
    )
    is_configured: bool = Field(
        default=False, description="Whether it has been given a configuration that fits."
    )


class ApplicationStatus(BaseModel):
    """How an application stands at one moment, with all its services."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    version: str = Field(description="The version of the application.")
    state: ServiceState = Field(description="Its state, which follows that of its units.")
    services: dict[str, ServiceStatus] = Field(description="How each service stands, by name.")
