"""One runtime for processes, services and background work, in one tree of nurseries.

What is exported here is imported when it is first used (PEP 562): the guard is forked from a
process that has imported none of it, and a command pays for what it needs only.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.application import Application as Application
    from runtime.guard import Guard as Guard
    from runtime.guard import open_guard as open_guard
    from runtime.manifest import Manifest as Manifest
    from runtime.manifest import load_manifest as load_manifest
    from runtime.pilot import ProcessPilot as ProcessPilot
    from runtime.plugin import Plugin as Plugin
    from runtime.process import Process as Process
    from runtime.process import ProcessManifest as ProcessManifest
    from runtime.process import ProcessState as ProcessState
    from runtime.process import ProcessStatus as ProcessStatus
    from runtime.service import Service as Service
    from runtime.service import ServiceConfiguration as ServiceConfiguration
    from runtime.service import ServiceManager as ServiceManager
    from runtime.supervision import Condition as Condition
    from runtime.supervision import HealthPolicy as HealthPolicy
    from runtime.supervision import Requirement as Requirement
    from runtime.supervision import RestartPolicy as RestartPolicy
    from runtime.supervision import Supervisor as Supervisor
    from runtime.supervision import Unit as Unit
    from runtime.supervision import current_unit as current_unit
    from runtime.tasks import current_invocation as current_invocation

_ROOMS = {
    "Application": "application",
    "Condition": "supervision",
    "Guard": "guard",
    "HealthPolicy": "supervision",
    "Manifest": "manifest",
    "Plugin": "plugin",
    "Process": "process",
    "ProcessManifest": "process",
    "ProcessPilot": "pilot",
    "ProcessState": "process",
    "ProcessStatus": "process",
    "Requirement": "supervision",
    "RestartPolicy": "supervision",
    "Service": "service",
    "ServiceConfiguration": "service",
    "ServiceManager": "service",
    "Supervisor": "supervision",
    "Unit": "supervision",
    "current_invocation": "tasks",
    "current_unit": "supervision",
    "load_manifest": "manifest",
    "open_guard": "guard",
}


def __getattr__(name: str) -> object:
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
