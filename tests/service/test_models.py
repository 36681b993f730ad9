"""The models say what the pages of users show, to the letter."""

import pytest
from pydantic import ValidationError

from runtime.service.models import ApplicationStatus, ServiceState, ServiceStatus


def test_states_are_strings() -> None:
    assert ServiceState.RUNNING == "running"
    assert str(ServiceState.RUNNING) == "running"
    assert [state.name.lower() for state in ServiceState] == [*ServiceState]
    assert {*ServiceState} == {
        *("initialized", "configured", "starting", "running", "stopping", "stopped", "error")
    }


def test_a_status_has_defaults_and_its_json() -> None:
    status = ServiceStatus(state=ServiceState.RUNNING)
    assert (status.error, status.metadata, status.is_configured) == (None, {}, False)
    assert status.model_dump_json() == (
        '{"state":"running","error":null,"metadata":{},"is_configured":false}'
    )
    assert status.model_dump(mode="json") == {
        "state": "running",
        "error": None,
        "metadata": {},
        "is_configured": False,
    }


def test_an_application_shows_its_services() -> None:
    status = ApplicationStatus(
        version="2.0.0",
        state=ServiceState.RUNNING,
        services={"counter": ServiceStatus(state=ServiceState.RUNNING, is_configured=True)},
    )
    assert status.model_dump_json() == (
        '{"version":"2.0.0","state":"running","services":{"counter":'
        '{"state":"running","error":null,"metadata":{},"is_configured":true}}}'
    )


def test_what_is_now_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ServiceStatus(state=ServiceState.RUNNING).state = ServiceState.ERROR  # type: ignore[misc]
