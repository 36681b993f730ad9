"""Several runners at one store, against a small model of it, in any order of what may happen.

The store lives in a loop of its own; its clock stands still until a rule lets time pass. The model
knows who holds a running key by looking, and keeps no books of what follows from what.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import anyio.from_thread
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from runtime.invocation import (
    ErrorRecord,
    InvocationNotFoundError,
    InvocationStatus,
    InvocationStatusOwnershipError,
    InvocationStatusTransitionError,
    Move,
    NewInvocation,
    OnDuplicate,
    Outcome,
    RunnerRecord,
    StoredInvocation,
)
from runtime.invocation.models import new_invocation_id
from runtime.invocation.moves import Recovery
from runtime.state_backend import BaseStateBackend, InvocationHistory, make_state_backend

S = InvocationStatus
OWNED = {S.PENDING, S.RUNNING, S.PAUSED, S.RESUMED}
WAITING = {S.REGISTERED, S.REROUTED, S.RETRY}
OVER = {S.SUCCESS, S.FAILED, S.KILLED, S.CONCURRENCY_CONTROLLED_FINAL}
RECOVERING = {S.PENDING_RECOVERY, S.RUNNING_RECOVERY}
BEGIN = datetime(2026, 1, 2, tzinfo=UTC)
QUARANTINE = 2
RUNNERS = ["a", "b", "c"]


@dataclass
class One:
    """An invocation as it has to be."""

    new: NewInvocation
    sequence: int
    since: datetime
    status: S = S.REGISTERED
    owner: str | None = None
    due: datetime | None = None
    attempts: int = 0
    retries: int = 0
    deaths: int = 0
    cancel: bool = False
    result: str | None = None
    error: bool = False
    history: list[S] = field(default_factory=list)

    @property
    def order(self) -> tuple[int, int]:
        return (-self.new.priority, self.sequence)


class Model:
    """What the store has to be, told as simply as it can be."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.ones: dict[str, One] = {}
        self.registered = 0
        self.alive: dict[str, datetime] = {}
        self.changed: set[str] = set()

    def having(self, fits: Callable[[One], object]) -> list[One]:
        return [one for one in self.ones.values() if fits(one)]

    def holder(self, key: str | None, but: One | None = None) -> list[One]:
        return self.having(
            lambda one: key and one.new.running_key == key and one.owner and one is not but
        )

    def add(self, new: NewInvocation) -> One:
        self.registered += 1
        one = One(new, self.registered, self.now, due=new.due_at, history=[S.REGISTERED])
        self.ones[new.invocation_id] = one
        self.changed.add(new.invocation_id)
        return one

    def move(
        self, one: One, status: S, runner: str | None = None, due: datetime | None = None
    ) -> None:
        was_owned = one.owner is not None
        one.status, one.since = status, self.now
        one.history.append(status)
        self.changed.add(one.new.invocation_id)
        if status not in OWNED:
            one.owner, one.cancel = None, False
        elif status is S.PENDING:
            one.owner = runner
        if status in WAITING:
            one.due = due
        one.attempts += status is S.RUNNING
        one.retries += status is S.RETRY
        one.deaths += status is S.RUNNING_RECOVERY
        if status is S.SUCCESS:
            one.error = False
        if was_owned and one.owner is None and not self.holder(one.new.running_key):
            self.let_next_go_on(one.new.running_key)

    def let_next_go_on(self, key: str | None) -> None:
        held = self.having(
            lambda one: (
                key and one.new.running_key == key and one.status is S.CONCURRENCY_CONTROLLED
            )
        )
        if held:
            self.move(min(held, key=lambda one: one.order), S.REROUTED)

    def claim(self, runner: str, limit: int, queue: str | None, *, start: bool) -> Iterator[str]:
        while limit:
            due = self.having(
                lambda one: (
                    one.status in WAITING
                    and (one.due is None or one.due <= self.now)
                    and queue in {None, one.new.queue}
                )
            )
            if not due:
                return
            one = min(due, key=lambda one: one.order)
            if self.holder(one.new.running_key):
                for status in (S.PENDING, S.REROUTED) if one.status is S.RETRY else ():
                    self.move(one, status, runner)
                self.move(one, S.CONCURRENCY_CONTROLLED)
                continue
            self.move(one, S.PENDING, runner)
            if start:
                self.move(one, S.RUNNING)
            limit -= 1
            yield one.new.invocation_id

    def cancel(self, one: One) -> type[Exception] | None:
        if one.status in OVER:
            return InvocationStatusTransitionError
        if one.status in OWNED:
            one.cancel = True
            return None
        if one.status not in WAITING:
            self.move(one, S.REROUTED)
        self.move(one, S.PENDING, "me")
        self.move(one, S.KILLED)
        return None

    def recover(self, one: One) -> None:
        if one.cancel:
            self.move(one, S.KILLED)
        elif one.status is S.PENDING:
            self.move(one, S.PENDING_RECOVERY)
            self.move(one, S.REROUTED)
        elif one.deaths + 1 < QUARANTINE:
            self.move(one, S.RUNNING_RECOVERY)
            self.move(one, S.REROUTED)
        else:
            if one.status is S.PAUSED:
                self.move(one, S.RESUMED)
            self.move(one, S.FAILED)
            one.error = True

    def refusal(self, one: One, status: S, runner: str | None) -> type[Exception] | None:
        """Return what is to be raised by this move."""
        if not one.status.can_transition_to(status):
            return InvocationStatusTransitionError
        if one.status in OWNED and status not in RECOVERING and runner != one.owner:
            return InvocationStatusOwnershipError
        return None


RUNNER = st.sampled_from(RUNNERS)
QUEUE = st.sampled_from(["p", "q"])
DELAY = st.sampled_from([None, -5, 5, 50])
FACTS = st.fixed_dictionaries(
    {
        "priority": st.integers(0, 2),
        "queue": QUEUE,
        "running_key": st.sampled_from([None, "k", "k", "l"]),
        "registration_key": st.sampled_from([*[None] * 4, "g"]),
        "idempotency_key": st.sampled_from([*[None] * 5, "i"]),
        "on_duplicate": st.sampled_from(OnDuplicate),
    }
)


class Seen(NamedTuple):
    """What the store says."""

    stored: dict[str, StoredInvocation]
    counts: dict[S, int]
    histories: dict[str, list[InvocationHistory]]
    outcomes: dict[str, Outcome]
    owned: dict[str, dict[str, bool]]
    runners: set[str]
    due: datetime | None


Fits = Callable[[One], object]
ANY: Fits = lambda one: True  # noqa: E731 - as the others are


def having(*statuses: S) -> Fits:
    return lambda one: one.status in statuses


def rule_for(fits: Fits, **strategies: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """Make a rule of a method that acts on one of those that fit, while there is one."""

    def decorate(method: Callable[..., None]) -> Any:
        def act(self: StoreMachine, number: int, **drawn: Any) -> None:
            found = self.model.having(fits)
            method(self, found[number % len(found)], **drawn)

        act.__name__ = method.__name__
        made = rule(number=st.integers(0, 50), **strategies)(act)
        return precondition(lambda self: bool(self.model.having(fits)))(made)

    return decorate


class StoreMachine(RuleBasedStateMachine):
    """Rules that do the same with the store and with the model."""

    url = "memory://"

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.portal = self.stack.enter_context(anyio.from_thread.start_blocking_portal("trio"))
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.store: BaseStateBackend = make_state_backend(self.url.format(folder=folder))
        self.stack.enter_context(self.portal.wrap_async_context_manager(self.store))
        self.model = model = Model()
        self.store.now = lambda: model.now  # type: ignore[method-assign]
        self.waiters: list[tuple[str, Future[Outcome]]] = []

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what a coroutine function of the store returns."""

        async def act() -> Any:
            with anyio.fail_after(30):
                return await function(*args, **kwargs)

        return self.portal.call(act)

    def apply(self, moves: list[Move], refused: type[Exception] | None = None) -> None:
        if refused is None:
            self.call(self.store.apply, moves)
        else:
            with pytest.raises(refused):
                self.call(self.store.apply, moves)

    def later(self, delay: int | None) -> datetime | None:
        return None if delay is None else self.model.now + timedelta(seconds=delay)

    # --- what is submitted ------------------------------------------------------------------------

    @initialize(facts=st.lists(FACTS, min_size=3, max_size=6))
    def begin_with(self, facts: list[dict[str, Any]]) -> None:
        self.register(facts, None)
        for runner in RUNNERS[:2]:  # or each sweep takes everything from everybody
            self.beat(runner, 1000)

    @rule(facts=st.lists(FACTS, min_size=1, max_size=4), delay=DELAY)
    def submit(self, facts: list[dict[str, Any]], delay: int | None) -> None:
        self.register(facts, delay)

    def register(self, facts: list[dict[str, Any]], delay: int | None) -> None:
        new = [
            NewInvocation(
                invocation_id=new_invocation_id(self.model.now),
                task="t",
                due_at=self.later(delay),
                **each,
            )
            for each in facts
        ]
        done = self.call(self.store.register, new)
        assert len(done) == len(new)
        for asked, registered in zip(new, done, strict=True):
            self.check_registered(asked, registered.invocation_id, created=registered.created)
            assert registered.status is self.model.ones[registered.invocation_id].status

    def check_registered(self, asked: NewInvocation, got: str, *, created: bool) -> None:
        model, key, again = self.model, asked.registration_key, asked.idempotency_key
        same = model.having(lambda one: again and one.new.idempotency_key == again)
        rivals = model.having(
            lambda one: key and one.new.registration_key == key and one.status not in OVER
        )
        reuse = asked.on_duplicate is OnDuplicate.REUSE
        if same or (rivals and reuse):
            assert not created
            assert got in {one.new.invocation_id for one in same or rivals}
            return
        assert created
        assert got == asked.invocation_id
        one = model.add(asked)
        if rivals:
            model.move(one, S.CONCURRENCY_CONTROLLED_FINAL)

    # --- what runners do --------------------------------------------------------------------------

    @rule(
        runner=RUNNER,
        limit=st.integers(0, 4),
        queue=st.none() | QUEUE,
        start=st.booleans(),
    )
    def claim(self, runner: str, limit: int, queue: str | None, *, start: bool) -> None:
        self.take(runner, limit, queue, start=start)

    def take(self, runner: str, limit: int, queue: str | None, *, start: bool) -> None:
        expected = list(self.model.claim(runner, limit, queue, start=start))
        queues = None if queue is None else [queue]
        claimed = self.call(self.store.claim, runner, limit, queues=queues, start=start)
        assert [each.invocation_id for each in claimed] == expected
        for each in claimed:
            assert each.record.runner_id == runner
            assert each.status is (S.RUNNING if start else S.PENDING)

    @rule(runner=st.sampled_from(RUNNERS[:2]), limit=st.integers(1, 3), start=st.booleans())
    def claim_anything(self, runner: str, limit: int, *, start: bool) -> None:
        self.take(runner, limit, None, start=start)

    def owners_move(self, one: One, statuses: Iterable[S], **more: Any) -> None:
        owner = one.owner
        moves = [
            Move(invocation_id=one.new.invocation_id, status=status, runner_id=owner, **more)
            for status in statuses
        ]
        self.apply(moves)
        for status in statuses:
            self.model.move(one, status, owner, more.get("due_at"))

    @rule_for(having(S.PENDING), back=st.integers(0, 3))
    def begin_or_give_back(self, one: One, back: int) -> None:
        self.owners_move(one, [S.RUNNING if back else S.REROUTED])

    @rule_for(having(S.RUNNING, S.RESUMED), value=st.integers())
    def succeed(self, one: One, value: int) -> None:
        self.owners_move(one, [S.SUCCESS], result=str(value))
        one.result = str(value)

    @rule_for(having(S.RUNNING, S.RESUMED), delay=DELAY, again=st.booleans())
    def fail(self, one: One, delay: int | None, *, again: bool) -> None:
        due = self.later(delay) if again else None
        error = ErrorRecord("ValueError", "bad")
        self.owners_move(one, [S.RETRY if again else S.FAILED], error=error, due_at=due)
        one.error = True

    @rule_for(having(S.RUNNING, S.RESUMED, S.PAUSED))
    def pause_or_resume(self, one: One) -> None:
        self.owners_move(one, [S.RESUMED if one.status is S.PAUSED else S.PAUSED])

    @rule_for(having(*OWNED), again=st.booleans())
    def kill(self, one: One, *, again: bool) -> None:
        self.owners_move(one, [S.KILLED, S.REROUTED] if again else [S.KILLED])

    # --- what others do ---------------------------------------------------------------------------

    @rule_for(
        ANY,
        # Who takes one by hand, or holds it back, has its keys to mind himself.
        status=st.sampled_from(sorted(set(S) - {S.PENDING, S.CONCURRENCY_CONTROLLED})),
        runner=st.none() | RUNNER,
    )
    def try_any_move(self, one: One, status: S, runner: str | None) -> None:
        refused = self.model.refusal(one, status, runner)
        invocation_id = one.new.invocation_id
        result = "7" if status is S.SUCCESS else None
        move = Move(invocation_id=invocation_id, status=status, runner_id=runner, result=result)
        self.apply([move], refused)
        if refused is None:
            self.model.move(one, status, runner)
            one.result = result or one.result

    @rule_for(having(S.RUNNING, S.RESUMED))
    def try_a_list_with_a_bad_move(self, one: One) -> None:
        for bad in self.model.having(having(S.REGISTERED, S.RETRY, S.SUCCESS, S.FAILED))[:1]:
            moves = [
                Move(
                    invocation_id=each.new.invocation_id,
                    status=S.SUCCESS,
                    runner_id=one.owner,
                    result="0",
                )
                for each in (one, bad)
            ]
            self.apply(moves, InvocationStatusTransitionError)

    @rule_for(ANY)
    def cancel(self, one: One) -> None:
        refused = self.model.cancel(one)
        if refused is not None:
            with pytest.raises(refused):
                self.call(self.store.cancel, one.new.invocation_id, "me")
            return
        record = self.call(self.store.cancel, one.new.invocation_id, "me")
        assert (record.status, record.runner_id) == (one.status, one.owner)

    @rule_for(having(S.KILLED, *RECOVERING))
    def reroute_by_hand(self, one: One) -> None:
        self.call(self.store.set_status, one.new.invocation_id, S.REROUTED)
        self.model.move(one, S.REROUTED)

    @rule_for(ANY)
    def wait(self, one: One) -> None:
        invocation_id = one.new.invocation_id
        future = self.portal.start_task_soon(self.store.wait_over, invocation_id)
        self.waiters.append((invocation_id, future))

    # --- time, deaths, and what is made of them ---------------------------------------------------

    @rule(seconds=st.sampled_from([1, 10, 60]))
    def let_time_pass(self, seconds: int) -> None:
        self.model.now += timedelta(seconds=seconds)

    @rule(runner=RUNNER, seconds=st.sampled_from([0, 60, 1000]))
    def heartbeat(self, runner: str, seconds: int) -> None:
        self.beat(runner, seconds)

    def beat(self, runner: str, seconds: int) -> None:
        model = self.model
        until = model.alive[runner] = model.now + timedelta(seconds=seconds)
        record = RunnerRecord(
            runner_id=runner,
            host="here",
            pid_space="b",
            pid=1,
            pid_started=1,
            started_at=BEGIN,
            alive_until=until,
        )
        self.call(self.store.heartbeat, record)

    def recovered(self, lost: list[One], **by: Any) -> None:
        why = Recovery("sweeper", "it is gone", QUARANTINE)
        done = self.call(self.store.recover, why, **by)
        assert sorted(done) == sorted(one.new.invocation_id for one in lost)
        for one in lost:
            self.model.recover(one)

    @rule(pending_for=st.none() | st.integers(0, 30))
    def sweep(self, pending_for: int | None) -> None:
        model = self.model
        alive = {name for name, until in model.alive.items() if until >= model.now}
        before = None if pending_for is None else model.now - timedelta(seconds=pending_for)
        lost = model.having(
            lambda one: (
                one.owner
                and (
                    one.owner not in alive
                    or (before and one.status is S.PENDING and one.since < before)
                )
            )
        )
        self.recovered(lost, pending_before=before)
        model.alive = {name: model.alive[name] for name in alive}

    @rule(runner=RUNNER)
    def a_runner_dies(self, runner: str) -> None:
        self.recovered(self.model.having(lambda one: one.owner == runner), runners=[runner])
        self.model.alive.pop(runner, None)

    @rule_for(having(*OWNED))
    def a_worker_dies(self, one: One) -> None:
        self.recovered([one], runners=(), invocations=[one.new.invocation_id])

    @rule(seconds=st.sampled_from([0, 20, 100]))
    def forget_what_is_over(self, seconds: int) -> None:
        border = self.model.now - timedelta(seconds=seconds)
        old = self.model.having(lambda one: one.status in OVER and one.since < border)
        assert self.call(self.store.purge, over_before=border) == len(old)
        for one in old:
            del self.model.ones[one.new.invocation_id]

    @rule(sure=st.integers(0, 19))
    def forget_everything(self, sure: int) -> None:
        if sure == 19:
            assert self.call(self.store.purge) == len(self.model.ones)
            self.model.ones.clear()

    # --- what always holds ------------------------------------------------------------------------

    async def look(self) -> Seen:
        store, model = self.store, self.model
        changed, model.changed = model.changed & model.ones.keys(), set()
        page = await store.list_invocations(limit=10_000)
        return Seen(
            {each.invocation_id: each for each in page.invocations},
            await store.count_by_status(),
            {each: await store.get_history(each) for each in changed},
            {each: await store.get_outcome(each) for each in changed},
            {runner: await store.get_owned(runner) for runner in RUNNERS},
            {each.runner_id for each in await store.get_runners()},
            await store.next_due(),
        )

    @invariant()
    def everything_is_as_it_has_to_be(self) -> None:
        seen = self.call(self.look)
        self.none_is_lost_and_each_stands_as_it_has_to(seen)
        self.what_has_changed_has_its_history_and_its_outcome(seen)
        self.runners_find_what_they_own(seen)
        self.the_next_time_is_known(seen)
        for key in ("k", "l"):
            self.a_key_has_one_holder_and_nobody_waits_for_it_in_vain(key)
        self.who_waits_is_told_of_the_end_and_only_then()

    def none_is_lost_and_each_stands_as_it_has_to(self, seen: Seen) -> None:
        assert seen.stored.keys() == self.model.ones.keys()
        for invocation_id, one in self.model.ones.items():
            each = seen.stored[invocation_id]
            assert each.record is not None
            assert (each.record.status, each.record.runner_id) == (one.status, one.owner)
            assert (each.record.timestamp, each.due_at) == (one.since, one.due)
            assert (each.attempts, each.retries) == (one.attempts, one.retries)
            assert (each.deaths, each.cancel_requested) == (one.deaths, one.cancel)
        assert seen.counts == Counter(one.status for one in self.model.ones.values())

    def what_has_changed_has_its_history_and_its_outcome(self, seen: Seen) -> None:
        for invocation_id, lines in seen.histories.items():
            one, outcome = self.model.ones[invocation_id], seen.outcomes[invocation_id]
            told = [line.status for line in lines]
            assert told == one.history
            assert told[0] is S.REGISTERED
            for before, after in pairwise(told):
                assert before
                assert after
                assert before.can_transition_to(after)
            assert told.count(S.SUCCESS) + told.count(S.FAILED) <= 1
            times = [line.timestamp for line in lines]
            assert times == sorted(times)
            assert (outcome.status, outcome.result) == (told[-1], one.result)
            assert (outcome.error is not None) == one.error

    def runners_find_what_they_own(self, seen: Seen) -> None:
        owned: dict[str, dict[str, bool]] = {runner: {} for runner in RUNNERS}
        for invocation_id, one in self.model.ones.items():
            if one.owner is not None:
                owned[one.owner][invocation_id] = one.cancel
        assert seen.owned == owned
        assert seen.runners == self.model.alive.keys()

    def the_next_time_is_known(self, seen: Seen) -> None:
        waiting = self.model.having(having(*WAITING))
        future = [one.due for one in waiting if one.due and one.due > self.model.now]
        if seen.due is None or seen.due > self.model.now:  # what is due already may be told as well
            assert seen.due == min(future, default=None)

    def a_key_has_one_holder_and_nobody_waits_for_it_in_vain(self, key: str) -> None:
        of_key = self.model.having(lambda one: one.new.running_key == key)
        holders = [one for one in of_key if one.owner]
        held = [one for one in of_key if one.status is S.CONCURRENCY_CONTROLLED]
        next_ones = [one for one in of_key if one.status in WAITING]
        assert len(holders) <= 1
        assert not held or holders or next_ones

    def who_waits_is_told_of_the_end_and_only_then(self) -> None:
        still: list[tuple[str, Future[Outcome]]] = []
        for invocation_id, future in self.waiters:
            one = self.model.ones.get(invocation_id)
            if one is None:
                with pytest.raises(InvocationNotFoundError):
                    future.result(30)
            elif one.status in OVER:
                outcome = future.result(30)
                assert (outcome.status, outcome.result) == (one.status, one.result)
            else:
                assert not future.done()
                still.append((invocation_id, future))
        self.waiters = still

    def teardown(self) -> None:
        try:
            self.model.changed = set(self.model.ones)
            self.everything_is_as_it_has_to_be()
        finally:
            for _, future in self.waiters:
                future.cancel()
            self.stack.close()


class FileMachine(StoreMachine):
    url = "sqlite:///{folder}/store.db"


def test_in_memory() -> None:
    run_state_machine_as_test(
        StoreMachine, settings=settings(max_examples=35, stateful_step_count=100, deadline=None)
    )


def test_in_a_file() -> None:
    run_state_machine_as_test(
        FileMachine, settings=settings(max_examples=4, stateful_step_count=80, deadline=None)
    )
