"""What is public is what the documents say, and every name can be had."""

import subprocess
import sys
from importlib import import_module

import pytest

import runtime

PACKAGES = (
    *("runtime.process", "runtime.service", "runtime.supervision", "runtime.exceptions"),
    *("runtime.invocation", "runtime.state_backend", "runtime.tasks"),
)
PUBLIC = {
    "runtime": {
        *("Application", "Condition", "Guard", "Manifest", "Plugin", "Process", "ProcessManifest"),
        "HealthPolicy",
        *("ProcessPilot", "Service", "ServiceConfiguration", "ServiceManager"),
        *("ProcessState", "ProcessStatus", "Requirement", "RestartPolicy", "Supervisor", "Unit"),
        *("current_invocation", "current_unit", "load_manifest", "open_guard"),
    },
    "runtime.process": {
        *("CeilingError", "CeilingsSpec", "Dependency", "HookError", "LogSpec", "NotReadyError"),
        *("NotRunningError", "Pass", "Process", "ProcessError", "ProcessSample", "RunLimitError"),
        "Sampler",
        *("ProcessExitedError", "ProcessManifest", "ProcessRuntimeInfo", "ProcessState"),
        *("ProcessStats", "ProcessStatus", "RestartSpec", "SpawnError", "SurvivorsError"),
        "UnresponsiveError",
    },
    "runtime.plugin": {
        *("ControlServer", "ControlServerType", "LifecycleHookType", "Plugin"),
        *("ProcessHookType", "ReadyStrategyType", "StatHandlerType"),
    },
    "runtime.pilot": {"ProcessPilot"},
    "runtime.application": {"Application"},
    "runtime.manifest": {"Manifest", "ManifestError", "load_manifest"},
    "runtime.service": {
        *("ApplicationStatus", "ConfigurationError", "DuplicateServiceClassError"),
        *("NotRegisteredError", "Service", "ServiceConfiguration", "ServiceError"),
        *("ServiceFailedError", "ServiceManager", "ServiceState", "ServiceStatus"),
        *("ServiceStopError", "UnknownServiceClassError", "as_service_class"),
        *("get_available_services", "get_service_class", "register_service_class"),
        "service_unit",
    },
    "runtime.service.models": {"ApplicationStatus", "ServiceState", "ServiceStatus"},
    "runtime.testing": {"ServiceUnderTest", "StateChange", "open_service"},
    "runtime.testing.state_backend": {"SharedStateBackendSuite", "StateBackendSuite"},
    "runtime.supervision": {
        "HealthPolicy",
        *(
            "Condition",
            "EventKind",
            "GroupStrategy",
            "Journal",
            "Lifecycle",
            "Requirement",
            "RestartPolicy",
        ),
        *("RestartWhen", "Stage", "Stages", "StopBudget", "Supervisor", "TransitionTable"),
        *("Unit", "UnitEvent", "UnitHandle", "UnitState", "UnitStatus", "current_unit"),
    },
    "runtime.exceptions": {
        *("AlreadyRunningError", "CeilingError", "DependencyCycleError", "DuplicateUnitError"),
        *("ControlServerError", "OnTheLoopError", "TreeEndedError"),
        *("ConfigurationError", "DuplicateServiceClassError", "NotRegisteredError"),
        *("ServiceError", "ServiceFailedError", "ServiceStopError", "UnknownServiceClassError"),
        *("EndedBeforeReadyError", "IllegalTransitionError", "ManifestError", "NotReadyError"),
        *("InvocationCancelledError", "InvocationError", "InvocationNotFoundError"),
        *("InvocationRejectedError", "InvocationStatusError", "InvocationStatusOwnershipError"),
        *("InvocationStatusTransitionError", "NoResultError", "TaskFailedError"),
        *("NotOpenError", "StateBackendError", "StoreFileError", "UnknownCursorError"),
        *("ProcessError", "ProcessExitedError", "RunDirectoryError", "SpawnError", "HookError"),
        *("NotRunningError", "RunLimitError"),
        *("SupervisionError", "SurvivorsError", "UnitFailedError", "UnitInUseError"),
        *("UnhealthyError", "UnitNameError", "UnresponsiveError"),
        *("SecretError", "UnknownUnitError"),
        *("InvocationCancelledError", "InvocationError", "InvocationNotFoundError"),
        *("InvocationRejectedError", "InvocationStatusError", "InvocationStatusOwnershipError"),
        *("InvocationStatusTransitionError", "NoResultError", "TaskFailedError"),
        "UnknownStateBackendError",
        *("DuplicateTaskError", "TaskArgumentsError", "TaskDefinitionError", "TaskError"),
        *("JobFailedError", "OnlySubmitsError", "TaskResultError", "UnknownTaskError"),
    },
    "runtime.invocation": {
        *("AppInfo", "ErrorRecord", "InvocationCancelledError", "InvocationError"),
        *("InvocationNotFoundError", "InvocationRejectedError", "InvocationStatus"),
        *("InvocationStatusError", "InvocationStatusOwnershipError", "InvocationStatusRecord"),
        *("InvocationStatusTransitionError", "Move", "NewInvocation", "NoResultError"),
        *("OnDuplicate", "Outcome", "Registered", "RunnerRecord", "StoredInvocation"),
        *("TaskFailedError", "WorkflowIdentity"),
    },
    "runtime.invocation.status": {
        *("InvocationStatus", "InvocationStatusRecord", "StatusConfiguration", "StatusDefinition"),
        *("compute_new_owner", "get_status_definition", "status_record_transition"),
        *("validate_ownership", "validate_transition"),
    },
    "runtime.state_backend": {
        *("AppInfo", "BaseStateBackend", "Change", "Changes", "InvocationFilter"),
        *("InvocationHistory", "NotOpenError", "Page", "StateBackendError", "StoreFileError"),
        *("UnknownCursorError", "UnknownStateBackendError", "WorkflowIdentity"),
        "make_state_backend",
    },
    "runtime.tasks": {
        *("AsyncTask", "Call", "ConcurrencyControl", "DuplicateTaskError", "Invocation"),
        *("OnDuplicate", "PlainTask"),
        *("RunnerSettings", "Task", "TaskArgumentsError", "TaskDefinitionError", "TaskError"),
        *(
            "BlockingClient",
            "OnlySubmitsError",
            "TaskHome",
            "TaskOptions",
            "TaskResultError",
            "UnknownTaskError",
        ),
        "JobFailedError",
        "current_invocation",
    },
}


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module, names in PUBLIC.items() for name in sorted(names)],
)
def test_every_public_name_can_be_had(module: str, name: str) -> None:
    assert getattr(import_module(module), name) is not None


@pytest.mark.parametrize("module", [*PACKAGES])
def test_a_package_exports_nothing_else(module: str) -> None:
    found = {
        name
        for name, value in vars(import_module(module)).items()
        if not name.startswith("_") and type(value).__name__ != "module"
    }
    assert found == PUBLIC[module]


def test_the_top_level_lists_what_it_exports_and_refuses_the_rest() -> None:
    assert set(dir(runtime)) >= PUBLIC["runtime"]
    assert set(runtime._ROOMS) == PUBLIC["runtime"]
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        runtime.Nonsense  # noqa: B018 - the access is what is tested


def test_importing_the_top_level_imports_nothing_large() -> None:
    code = "import sys, runtime; print('trio' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]
