"""Ids of invocations sort by time and are UUIDs of version 7; what models are by default."""

from __future__ import annotations

import uuid
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import given

from runtime.invocation import InvocationStatus, InvocationStatusRecord
from runtime.invocation.models import (
    NewInvocation,
    OnDuplicate,
    StoredInvocation,
    new_invocation_id,
)

TIMES = st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1), timezones=st.just(UTC))


@given(at=TIMES)
def test_an_id_is_a_uuid_of_version_7_with_its_time(at: datetime) -> None:
    text = new_invocation_id(at)
    made = uuid.UUID(text)
    assert str(made) == text
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == int(at.timestamp() * 1000)


@given(at=TIMES, later_ms=st.integers(1, 10**10))
def test_ids_sort_by_time(at: datetime, later_ms: int) -> None:
    later = at + timedelta(milliseconds=later_ms + 1)
    assert new_invocation_id(at) < new_invocation_id(later)


def test_ids_of_one_moment_differ_in_all_that_is_not_time() -> None:
    at = datetime.now(UTC)
    made = [uuid.UUID(new_invocation_id(at)).int & (1 << 80) - 1 for _ in range(2000)]
    assert len(set(made)) == 2000
    ever_set = ever_unset = 0
    for noise in made:
        ever_set |= noise
        ever_unset |= ~noise
    fixed = 0xF << 76 | 0b11 << 62  # version and variant
    assert ever_set | fixed == (1 << 80) - 1
    assert ever_unset & ~fixed & (1 << 80) - 1 == ~fixed & (1 << 80) - 1


def test_what_is_asked_for_by_default() -> None:
    new = NewInvocation(invocation_id="i", task="t")
    assert (new.arguments, new.queue, new.priority) == ("{}", "default", 0)
    assert new.on_duplicate is OnDuplicate.REUSE
    unset = {name for name in NewInvocation.__slots__ if getattr(new, name) is None}
    assert unset == {
        *("due_at", "idempotency_key", "registration_key", "running_key", "parent_id"),
        *("workflow", "retry_of"),
    }
    with pytest.raises(FrozenInstanceError):
        new.task = "u"  # type: ignore[misc]


def test_a_stored_one_has_a_status_once_it_is_registered() -> None:
    now = datetime.now(UTC)
    stored = StoredInvocation(invocation_id="i", task="t", created_at=now, record=None)
    assert stored.status is None
    assert (stored.attempts, stored.retries, stored.deaths) == (0, 0, 0)
    assert not stored.cancel_requested
    record = InvocationStatusRecord(InvocationStatus.RETRY, None, now)
    registered = StoredInvocation(invocation_id="i", task="t", created_at=now, record=record)
    assert registered.status is InvocationStatus.RETRY
