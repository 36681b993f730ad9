"""What is exactly at a border of time, in each store; their clocks stand still here."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.invocation.models import Move, NewInvocation
from runtime.invocation.moves import Recovery
from runtime.invocation.status import InvocationStatus
from runtime.state_backend.base import MOST_HELD_BACK
from runtime.state_backend.memory import MemoryStateBackend
from runtime.state_backend.sqlite import SQLiteStateBackend
from runtime.testing.state_backend._kit import runner

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TICK, MINUTE = timedelta(microseconds=1), timedelta(minutes=1)
WHY = Recovery(by="sweeper", reason="a test", quarantine_after=3)


class InMemory(MemoryStateBackend):
    moment: datetime = NOON

    def now(self) -> datetime:
        return self.moment


class InFile(SQLiteStateBackend):
    moment: datetime = NOON

    def now(self) -> datetime:
        return self.moment


Store = InMemory | InFile


@pytest.fixture(params=["memory", "file"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store]:
    made: Store = InMemory()
    if request.param == "file":
        made = InFile(f"sqlite:///{tmp_path}/jobs.db")
    with trio.fail_after(30):
        async with made:
            yield made


async def put(store: Store, *moves: str, **facts: Any) -> None:
    """Register the invocation ``i``, and let the runner ``r`` make these moves of it."""
    await store.register([NewInvocation(invocation_id="i", task="t", **facts)])
    steps = [InvocationStatus(move) for move in moves]
    await store.apply([Move(invocation_id="i", status=each, runner_id="r") for each in steps])


async def test_a_lease_is_over_at_its_end(store: Store) -> None:
    assert await store.take_lease("sweep", "a", 60)
    store.moment = NOON + MINUTE - TICK
    assert not await store.take_lease("sweep", "b", 60)
    store.moment += TICK
    assert await store.take_lease("sweep", "b", 60)


async def test_a_runner_is_alive_until_the_end_of_its_time(store: Store) -> None:
    await store.heartbeat(runner(store, "r", MINUTE))
    await put(store, "pending", "running")
    store.moment = NOON + MINUTE
    assert await store.recover(WHY) == []
    assert len(await store.get_runners()) == 1
    store.moment += TICK
    assert await store.recover(WHY) == ["i"]
    assert await store.get_runners() == []


async def test_what_was_taken_at_the_border_has_been_taken_in_time(store: Store) -> None:
    await put(store, "pending")
    assert await store.recover(WHY, runners=(), pending_before=NOON) == []
    assert await store.recover(WHY, runners=(), pending_before=NOON + TICK) == ["i"]


async def test_what_has_ended_at_the_border_is_kept(store: Store) -> None:
    await put(store, "pending", "running", "success")
    assert await store.purge(over_before=NOON) == 0
    assert await store.purge(over_before=NOON + TICK) == 1


async def test_what_is_due_at_this_moment_may_be_taken(store: Store) -> None:
    await put(store, due_at=NOON + MINUTE)
    store.moment = NOON + MINUTE - TICK
    assert await store.claim("r", 1) == []
    store.moment += TICK
    (claimed,) = await store.claim("r", 1)
    assert claimed.invocation_id == "i"


async def test_a_claim_holds_so_many_back_and_no_more(store: Store) -> None:
    number = MOST_HELD_BACK + 5
    new = [NewInvocation(invocation_id=str(n), task="t", running_key="k") for n in range(number)]
    await store.register([*new, NewInvocation(invocation_id="last", task="t")])
    held_back: list[int] = []
    told: list[str] = []
    with store.changes.listen(
        lambda changes: held_back.append(
            sum(each.status is InvocationStatus.CONCURRENCY_CONTROLLED for each in changes)
        )
    ):
        for _ in range(3):
            told += [each.invocation_id for each in await store.claim("r", 2)]
    assert told == ["0", "last"]
    assert held_back == [MOST_HELD_BACK, 4]
