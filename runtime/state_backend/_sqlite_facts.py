"""What is stored beside invocations: runners, leases, workflows, applications."""

from __future__ import annotations

from datetime import timedelta

from runtime.invocation.models import AppInfo, RunnerRecord, WorkflowIdentity

from ._sqlite_rows import Step, micros

_HEARTBEAT = """INSERT INTO runner
    (runner_id, host, pid_space, pid, pid_started, started_at, alive_until)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (runner_id) DO UPDATE SET host = ?2, pid_space = ?3, pid = ?4, pid_started = ?5,
    started_at = ?6, alive_until = ?7"""
_IS_KNOWN = "SELECT 1 FROM runner WHERE runner_id = ?"
_LEASE = """INSERT INTO lease (name, holder, until) VALUES (?1, ?2, ?3)
    ON CONFLICT (name) DO UPDATE SET holder = ?2, until = ?3 WHERE holder = ?2 OR until <= ?4
    RETURNING holder"""
_PUT_VALUE = """INSERT INTO workflow_value (workflow_id, kind, key, value) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET value = excluded.value"""
_DECIDE = "INSERT OR IGNORE INTO workflow_value (workflow_id, kind, key, value) VALUES (?, ?, ?, ?)"
_RUN = """INSERT INTO workflow (workflow_id, workflow_type, parent_workflow_id) VALUES (?, ?, ?)
    ON CONFLICT (workflow_id) DO UPDATE SET workflow_type = excluded.workflow_type,
    parent_workflow_id = excluded.parent_workflow_id"""
_SUB_INVOCATION = """INSERT OR IGNORE INTO sub_invocation (workflow_id, invocation_id)
    VALUES (?, ?)"""
_APP = """INSERT INTO app (app_id, module) VALUES (?, ?)
    ON CONFLICT (app_id) DO UPDATE SET module = excluded.module"""


def heartbeat(step: Step, runner: RunnerRecord) -> None:
    """See `BaseStateBackend.heartbeat`."""
    step.untold = step.one(_IS_KNOWN, runner.runner_id) is None
    step.execute(
        _HEARTBEAT,
        *(runner.runner_id, runner.host, runner.pid_space, runner.pid, runner.pid_started),
        *(micros(runner.started_at), micros(runner.alive_until)),
    )


def remove_runner(step: Step, runner_id: str) -> None:
    """See `BaseStateBackend.remove_runner`."""
    step.execute("DELETE FROM runner WHERE runner_id = ?", runner_id)


def take_lease(step: Step, name: str, holder: str, lease_sec: float) -> bool:
    """See `BaseStateBackend.take_lease`."""
    until = micros(step.now + timedelta(seconds=lease_sec))
    return step.one(_LEASE, name, holder, until, micros(step.now)) is not None


def set_workflow_value(step: Step, workflow_id: str, key: str, text: str) -> None:
    """Store a value of a workflow, as JSON text."""
    step.execute(_PUT_VALUE, workflow_id, "data", key, text)


def decide_workflow_value(step: Step, workflow_id: str, key: str, text: str) -> None:
    """Store what was decided in a workflow; the first value stays."""
    step.execute(_DECIDE, workflow_id, "decided", key, text)


def store_app(step: Step, app: AppInfo) -> None:
    """Store an application."""
    step.execute(_APP, app.app_id, app.module)


def store_run(step: Step, workflow: WorkflowIdentity) -> None:
    """Store a run of a workflow."""
    step.execute(_RUN, workflow.workflow_id, workflow.workflow_type, workflow.parent_workflow_id)


def store_sub_invocation(step: Step, workflow_id: str, invocation_id: str) -> None:
    """Store that an invocation runs inside a workflow."""
    step.execute(_SUB_INVOCATION, workflow_id, invocation_id)
