"""What a store in a file of SQLite does beside what every store does."""

# ruff: noqa: ASYNC220, ASYNC240 - children and files of these tests, which nobody waits for

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime.invocation import InvocationNotFoundError
from runtime.invocation.errors import ErrorRecord
from runtime.invocation.models import (
    AppInfo,
    Move,
    NewInvocation,
    OnDuplicate,
    Outcome,
    RunnerRecord,
    WorkflowIdentity,
    new_invocation_id,
)
from runtime.invocation.status import InvocationStatus
from runtime.state_backend import (
    InvocationFilter,
    NotOpenError,
    StateBackendError,
    StoreFileError,
    _sqlite_schema,
    _sqlite_wakeups,
)
from runtime.state_backend import _sqlite_queue as queue
from runtime.state_backend import sqlite as sqlite_module
from runtime.state_backend._sqlite_rows import Step
from runtime.state_backend._sqlite_schema import APPLICATION_ID, MIGRATIONS, migrate
from runtime.state_backend._sqlite_writer import Job, commit_together
from runtime.state_backend.changes import Change
from runtime.state_backend.sqlite import SQLiteStateBackend

S = InvocationStatus
LONG = 30.0


def new(invocation_id: str | None = None, **facts: Any) -> NewInvocation:
    invocation_id = invocation_id or new_invocation_id(datetime.now(UTC))
    return NewInvocation(invocation_id=invocation_id, task="shop.tasks.resize", **facts)


def move(invocation_id: str, status: S, runner_id: str = "r", **facts: Any) -> Move:
    return Move(invocation_id=invocation_id, status=status, runner_id=runner_id, **facts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[SQLiteStateBackend]:
    with trio.fail_after(LONG):
        async with SQLiteStateBackend(url_of(path)) as store:
            yield store


def commits_in(path: Path) -> int:
    """Return the number of commits in the log: each ends with a frame that says so."""
    log = Path(f"{path}-wal").read_bytes()
    frame = 24 + int.from_bytes(log[8:12], "big")
    # Bytes 4 to 8 of the head of a frame: the size of the file after the commit that it ends, or 0.
    ends = (log[at + 4 : at + 8] for at in range(32, len(log) - frame + 1, frame))
    return sum(end != bytes(4) for end in ends)


# --- the writer -----------------------------------------------------------------------------------


async def test_many_callers_share_a_commit(path: Path) -> None:
    async with opened(path) as store:
        before = commits_in(path)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(store.register, [new()])
        # The first of them may be alone, as nobody waits for others to come.
        assert commits_in(path) - before <= 3
        assert await store.count_by_status() == {S.REGISTERED: 50}


async def test_what_a_call_has_written_is_in_the_file_when_it_returns(path: Path) -> None:
    async with opened(path) as store:
        await store.register([new("a")])
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT id FROM invocation").fetchall() == [("a",)]
        other.close()


async def test_one_that_fails_changes_nothing_and_spoils_nothing(path: Path) -> None:
    failed: list[str] = []

    async def submit(store: SQLiteStateBackend, *ids: str) -> None:
        try:
            await store.register([new(each) for each in ids])
        except ValueError as error:
            failed.append(str(error))

    async with opened(path) as store:
        async with trio.open_nursery() as nursery:
            for ids in (["a"], ["b", "c"], ["d", "a"], ["e", "e"], ["f"]):
                nursery.start_soon(submit, store, *ids)
        page = await store.list_invocations()
        there = {each.invocation_id for each in page.invocations}
        # Whoever of the two comes first has "a".
        assert {"a", "b", "c", "f"} <= there
        assert "e" not in there
        assert len(failed) == 2
        assert await store.check_integrity() == []


async def test_all_moves_of_a_call_are_made_or_none(path: Path) -> None:
    async with opened(path) as store:
        await store.register([new("a"), new("b")])
        with pytest.raises(LookupError):
            await store.apply([move("a", S.PENDING), move("nobody", S.PENDING)])
        assert await store.count_by_status() == {S.REGISTERED: 2}
        assert [line.status for line in await store.get_history("a")] == [S.REGISTERED]
        assert await store.check_integrity() == []


async def test_who_is_cancelled_abandons_the_wait_and_not_the_write(path: Path) -> None:
    async with opened(path) as store:
        blocker = apsw.Connection(str(path))
        blocker.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(partial(_cancel_when_blocked, scope))
                await store.register([new("a")])
            assert scope.cancelled_caught
            nursery.start_soon(store.register, [new("b")])  # shares the commit, or the next one
            await wait_all_tasks_blocked()
            blocker.execute("ROLLBACK")
        assert await store.count_by_status() == {S.REGISTERED: 2}
        blocker.close()


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_who_was_cancelled_before_asks_for_nothing(path: Path) -> None:
    async with opened(path) as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.register([new("a")])
        await store.wait_for_all_async_operations()
        assert await store.count_by_status() == {}


async def test_what_was_asked_for_is_written_before_it_closes(path: Path) -> None:
    async with trio.open_nursery() as nursery, opened(path) as store:
        for _ in range(20):
            nursery.start_soon(store.register, [new()])
        await wait_all_tasks_blocked()
    async with opened(path) as store:
        assert await store.count_by_status() == {S.REGISTERED: 20}


async def test_cancelled_in_its_block_it_closes_and_leaves_nothing(path: Path) -> None:
    with trio.fail_after(LONG), trio.CancelScope() as scope:
        async with SQLiteStateBackend(url_of(path)) as store:
            await store.register([new("a")])
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert [each.name for each in path.parent.iterdir()] == ["jobs.db"]


async def test_cancelled_while_it_opens_it_leaves_no_thread(path: Path) -> None:
    for ticks in range(8):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hold_open, path)
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    # Each connection has a thread that ends with it; the folder goes with the last socket in it.
    assert not Path(f"{path}-wake").exists()
    assert not Path(f"{path}-wal").exists()


async def _hold_open(path: Path) -> None:
    async with SQLiteStateBackend(url_of(path)):
        await trio.sleep_forever()


async def test_an_error_of_the_block_is_raised_as_it_is(path: Path) -> None:
    with pytest.raises(KeyError):
        async with opened(path):
            raise KeyError("mine")


async def test_outside_its_block_it_is_refused(path: Path) -> None:
    store = SQLiteStateBackend(url_of(path))
    with pytest.raises(NotOpenError):
        await store.register([new()])
    with pytest.raises(NotOpenError):
        await store.count_by_status()
    with pytest.raises(NotOpenError):
        await store.check_integrity()
    async with store:
        pass
    with pytest.raises(NotOpenError):
        await store.register([new()])
    with pytest.raises(NotOpenError):
        await store.get_invocation("a")
    async with store:  # and it may be opened again
        assert await store.count_by_status() == {}


async def test_an_application_that_cannot_be_stored_leaves_nothing_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise StateBackendError("no")

    monkeypatch.setattr(SQLiteStateBackend, "store_app_info", refuse)
    with pytest.raises(StateBackendError, match="no"):
        async with SQLiteStateBackend(url_of(path), AppInfo("shop", "shop.tasks")):
            raise AssertionError("it is not open")
    assert not Path(f"{path}-wake").exists()


async def test_a_disk_that_is_full_fails_who_writes_and_the_store_goes_on(path: Path) -> None:
    async with opened(path) as store:
        await store.register([new("a")])
        limit = "PRAGMA max_page_count = {}"
        size = await store._write(lambda step: step.one("PRAGMA page_count")[0])
        await store._write(lambda step: step.all(limit.format(size)))
        with pytest.raises(StoreFileError, match="disk is full"):
            await store.register([new(arguments='"' + "x" * 100_000 + '"')])
        await store._write(lambda step: step.all(limit.format(size + 1000)))
        await store.register([new("b")])
        assert await store.count_by_status() == {S.REGISTERED: 2}
        assert await store.check_integrity() == []


def test_a_commit_that_fails_fails_all_that_share_it(path: Path) -> None:
    db = apsw.Connection(str(path))
    migrate(db, str(path))
    told: list[Change] = []
    for each in ("BEGIN IMMEDIATE", "COMMIT"):

        def trace(_: object, sql: str, __: object, each: str = each) -> bool:
            if sql == each:
                raise apsw.IOError("disk I/O error")
            return True

        async def jobs() -> deque[Job[Any]]:
            return deque(Job(lambda step, n=n: _register(step, n), anyio.Event()) for n in range(3))

        waiting = trio.run(jobs)
        db.exec_trace = trace
        batch = commit_together(db, str(path), waiting, lambda: Step(db, datetime.now(UTC)))
        db.exec_trace = None
        told += batch.changes
        assert len(batch.jobs) == 3
        for job in batch.jobs:
            with pytest.raises(StoreFileError, match="look at the disk"):
                job.result()
        assert not db.in_transaction
    assert told == []
    assert db.execute("SELECT count(*) FROM invocation").fetchall() == [(0,)]
    db.close()


def _register(step: Step, number: int) -> None:
    step.insert(number + 1, new(), [S.REGISTERED])


async def test_it_waits_for_another_process_that_writes(path: Path) -> None:
    async with opened(path) as store:
        with subprocess.Popen(
            [sys.executable, "-c", HOLD_LOCK, path], stdout=subprocess.PIPE, stdin=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            assert other.stdin is not None
            assert other.stdout.readline() == b"locked\n"
            done = trio.Event()

            async def submit() -> None:
                await store.register([new("a")])
                done.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(submit)
                await wait_all_tasks_blocked()
                # Those who read wait for nobody.
                assert await store.count_by_status() == {}
                assert not done.is_set()
                other.stdin.close()
        assert await store.count_by_status() == {S.REGISTERED: 1}


HOLD_LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
db.execute("ROLLBACK")
"""


async def test_who_keeps_the_file_for_too_long_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_schema, "BUSY_SEC", 0.05)
    async with opened(path) as store:
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFileError, match=r"kept it locked for 0\.05 s"):
            await store.register([new("a")])
        other.close()
        await store.register([new("b")])
        assert await store.count_by_status() == {S.REGISTERED: 1}


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        pytest.param("sqlite://", "names no file", id="nothing"),
        pytest.param("sqlite:///", "names no file", id="no path"),
        pytest.param("sqlite:///here/", "names no file", id="a folder"),
        pytest.param("sqlite://jobs.db", "sqlite:///jobs.db", id="a host"),
        pytest.param("sqlite:///:memory:", "memory://", id="in memory"),
    ],
)
def test_a_url_that_names_no_file_is_refused(url: str, reason: str) -> None:
    with pytest.raises(StoreFileError, match=reason):
        SQLiteStateBackend(url)


def test_a_relative_path_starts_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert SQLiteStateBackend("sqlite:///data/jobs.db").path == f"{tmp_path}/data/jobs.db"
    assert SQLiteStateBackend("sqlite:////data/jobs.db").path == "/data/jobs.db"


def _other_program(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (a)")
    db.close()


def _later_version(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        pytest.param(lambda path: path.write_text("text " * 1000), "no file of SQLite", id="text"),
        pytest.param(Path.mkdir, "it is a folder", id="a folder"),
        pytest.param(_other_program, "of another program", id="not ours"),
        pytest.param(_later_version, "use a later version of the program", id="of a later version"),
    ],
)
async def test_what_is_no_file_of_ours_is_refused_and_left(
    path: Path, prepare: Callable[[Path], object], reason: str
) -> None:
    prepare(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreFileError, match=reason) as caught:
        async with opened(path):
            raise AssertionError("it is not open")
    assert caught.value.path == str(path)
    assert (path.read_bytes() if path.is_file() else b"")[100:] == before[100:]


async def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreFileError, match=r"there is no folder '.*missing'; make it first"):
        async with opened(tmp_path / "missing" / "jobs.db"):
            raise AssertionError("it is not open")


@pytest.mark.parametrize(
    ("forbidden", "reason"),
    [("jobs.db", "no permission to read and write it"), ("", "no permission to make files in")],
)
async def test_a_missing_permission_is_said(
    path: Path, forbidden: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    place = path.parent / forbidden
    # Root may do everything, whatever the mode.
    monkeypatch.setattr(os, "access", lambda what, _: Path(what) != place)
    with pytest.raises(StoreFileError, match=reason):
        async with opened(path):
            raise AssertionError("it is not open")


def test_an_older_file_is_brought_up_to_date_as_a_whole_or_not_at_all(path: Path) -> None:
    db = apsw.Connection(str(path))
    steps = [*MIGRATIONS, "CREATE TABLE more (a); INSERT INTO more VALUES (1);", "CREATE TABLE"]
    migrate(db, str(path), steps[:1])
    with pytest.raises(apsw.SQLError):
        migrate(db, str(path), steps)
    assert db.pragma("user_version") == 1
    migrate(db, str(path), steps[:2])
    assert db.pragma("user_version") == 2
    assert db.execute("SELECT a FROM more").fetchall() == [(1,)]
    migrate(db, str(path), steps[:2])  # nothing is done twice
    assert db.execute("SELECT a FROM more").fetchall() == [(1,)]
    assert db.pragma("application_id") == APPLICATION_ID
    db.close()


async def test_many_open_a_new_file_at_the_same_time(path: Path) -> None:
    async def use(number: int) -> None:
        async with opened(path) as store:
            await store.register([new(str(number))])

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(use, number)
    async with opened(path) as store:
        assert await store.count_by_status() == {S.REGISTERED: 8}
        assert await store.check_integrity() == []


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            "UPDATE invocation SET status = 'success', lines = 2 WHERE id = 'a'",
            "does not tell its status: a",
        ),
        ("UPDATE invocation SET status = 'success' WHERE id = 'a'", "with the wrong end: a"),
        (
            "UPDATE invocation SET runner_id = 'x' WHERE id = 'a'",
            "an owner where there can be none",
        ),
        ("UPDATE invocation SET waiting = 0 WHERE id = 'a'", "waits in the wrong place: a"),
        ("UPDATE invocation SET lines = 7 WHERE id = 'a'", "another number of lines of history: a"),
        ("INSERT INTO history VALUES (99, 0, 0, NULL, NULL, NULL)", "history of no invocation: 99"),
        ("INSERT INTO tally VALUES ('failed', 9)", "a wrong number of a status: failed 9"),
    ],
)
async def test_what_is_wrong_in_a_file_is_found(path: Path, damage: str, sentence: str) -> None:
    async with opened(path) as store:
        await store.register([new("a"), new("b")])
        assert await store.check_integrity() == []
        await store._write(lambda step: step.all(damage))
        assert any(sentence in problem for problem in await store.check_integrity())


async def test_a_damaged_page_is_found(path: Path) -> None:
    async with opened(path) as store:
        await store.register([new(arguments='"' + "x" * 2000 + '"') for _ in range(200)])
    with path.open("r+b") as file:
        for page in range(60, path.stat().st_size // 4096):  # the first ones are needed to open it
            file.seek(page * 4096)
            file.write(b"\xff" * 64)
    async with opened(path) as store:
        assert await store.check_integrity() != []
        with pytest.raises(StoreFileError, match="damaged"):
            await store.list_invocations(limit=500)


async def test_large_arguments_are_not_written_again_with_each_move(path: Path) -> None:
    arguments = '{"image": "' + "x" * 1_000_000 + '"}'
    async with opened(path) as store:
        await store.register([new("a", arguments=arguments)])
        log = Path(f"{path}-wal")
        before = log.stat().st_size
        [taken] = await store.claim("r", 1, start=True)
        await store.apply([move("a", S.SUCCESS, result="1")])
        assert log.stat().st_size - before < 200_000
        assert taken.arguments == arguments
        await store.upsert_invocation(new("a", arguments="{}"))
        assert (await store.get_invocation("a")).arguments == "{}"
        await store.upsert_invocation(new("a", arguments=arguments))
        assert (await store.get_invocation("a")).arguments == arguments
        assert await store.purge(over_before=store.now() + timedelta(days=1)) == 1
        assert await store._read(lambda db: db.execute("SELECT * FROM large").fetchall()) == []
        assert await store._read(lambda db: db.execute("SELECT * FROM history").fetchall()) == []


CLAIM_PLANS = (
    "SEARCH invocation USING INDEX ready",
    "SEARCH invocation USING COVERING INDEX ready",
    "SEARCH invocation USING INDEX delayed",
)


def test_a_claim_looks_at_nothing_that_has_ended(path: Path) -> None:
    from runtime.state_backend import _sqlite_queue as queue

    db = apsw.Connection(str(path))
    migrate(db, str(path))
    for sql in (queue._DUE, queue._QUEUES, queue._READY, queue._READY_OF_TASKS):
        values = (1,) * sql.count("?")
        plan = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        looks = [step for step in plan if " invocation" in step]
        assert looks
        assert all(step.startswith(CLAIM_PLANS) for step in looks)
    db.close()


async def test_a_filter_of_what_is_rare_looks_at_nothing_else(path: Path) -> None:
    async with opened(path) as store:
        await store.register([new("a"), new("b"), new("c")])
        await store.claim("r", 3, start=True)
        await store.apply([move("a", S.SUCCESS, result="1")])
        await store.apply([move("b", S.FAILED, error=ErrorRecord("E", "bad"))])
        for statuses, ids in (
            ({S.FAILED, S.KILLED}, ["b"]),
            ({S.RUNNING}, ["c"]),
            ({S.SUCCESS, S.RUNNING}, ["c", "a"]),
        ):
            page = await store.list_invocations(InvocationFilter(statuses=statuses))
            assert [each.invocation_id for each in page.invocations] == ids


# --- several on one file --------------------------------------------------------------------------


async def test_the_others_are_told_of_what_one_has_changed(path: Path) -> None:
    async with opened(path) as one, opened(path) as other:
        told: list[Change] = []
        done = trio.Event()

        def listen(changes: list[Change]) -> None:
            told.extend(changes)
            if changes and changes[-1].status is S.SUCCESS:
                done.set()

        with other.changes.listen(listen):
            await one.register([new("a")])
            await one.claim("r", 1, start=True)
            await one.cancel("a", "somebody")
            await one.apply([move("a", S.SUCCESS, result="1")])
            await done.wait()
        assert [(each.status, each.cancel) for each in told] == [
            *((S.REGISTERED, False), (S.PENDING, False), (S.RUNNING, False)),
            *((S.RUNNING, True), (S.SUCCESS, False)),
        ]
        assert all(each.outcome is None for each in told)


async def test_who_waits_hears_of_the_end_without_reading_it(path: Path) -> None:
    async with opened(path) as store:
        await store.register([new("a")])
        await store.claim("r", 1, start=True)
        with store.changes.watch("a") as watch:
            await store.apply([move("a", S.SUCCESS, result="[1]")])
        assert watch.outcome is not None
        assert watch.outcome.result == "[1]"


async def test_too_many_changes_for_a_message_are_to_be_looked_for(path: Path) -> None:
    async with opened(path) as one, opened(path) as other:
        ids = [str(number) for number in range(600)]
        await one.register([new(each) for each in ids])
        await one.claim("r", 600, start=True)
        unknown = trio.Event()
        with other.changes.listen(lambda changes: None if changes else unknown.set()):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other.wait_over, "599")
                await wait_all_tasks_blocked()
                await one.apply([move(each, S.SUCCESS, result="1") for each in ids])
            await unknown.wait()


async def test_one_reading_serves_all_who_wait(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "LOOK_SEC", 1_000)
    readings: list[str] = []
    read: Any = SQLiteStateBackend._read

    async def note(store: SQLiteStateBackend, look: Any, *args: Any) -> Any:
        readings.append(look.__name__)
        return await read(store, look, *args)

    monkeypatch.setattr(SQLiteStateBackend, "_read", note)
    ids = [str(number) for number in range(1_000)]  # more than a message holds
    outcomes: dict[str, Outcome] = {}
    async with opened(path) as one, opened(path) as other:
        await one.register([new(each) for each in ids])

        async def wait(invocation_id: str) -> None:
            outcomes[invocation_id] = await other.wait_over(invocation_id)

        async with trio.open_nursery() as nursery:
            for each in ids[:50]:
                nursery.start_soon(wait, each)
            while len(other.changes.watched) < 50:  # noqa: ASYNC110 - there is no event for that
                await trio.sleep(0.01)
            readings.clear()  # each has looked at the beginning
            await one.claim("r", len(ids), start=True)
            while not readings:  # noqa: ASYNC110 - as above
                await trio.sleep(0.01)
            await one.apply([move(each, S.SUCCESS, result=each) for each in ids])
        assert {each.result for each in outcomes.values()} == set(ids[:50])
        assert readings == ["ends"] * len(readings)
        assert len(readings) <= 3


async def test_a_reading_that_fails_is_owed_to_those_who_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_sqlite_wakeups.Wakeups, "tell", lambda *_: None)
    monkeypatch.setattr(sqlite_module, "LOOK_SEC", 0.02)
    ends: Any = sqlite_module.looks.ends
    failed: list[object] = []

    def fail_once(db: apsw.Connection, invocation_ids: list[str]) -> Any:
        found = ends(db, invocation_ids)
        if found and not failed:
            failed.append(found)
            raise apsw.IOError("the disk is gone")
        return found

    monkeypatch.setattr(sqlite_module.looks, "ends", fail_once)
    async with opened(path) as one, opened(path) as other:
        await one.register([new("a")])
        with other.changes.watch("a") as watch:
            await one.cancel("a", "me")
            await watch.wait()
        assert watch.outcome is not None
        assert watch.outcome.status is S.KILLED
    assert "the disk is gone" in caplog.text


async def test_the_socket_of_one_that_was_killed_is_taken_away(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_OPEN, url_of(path)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        other.kill()
    folder = Path(f"{path}-wake")
    assert len(list(folder.iterdir())) == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    async with opened(path) as store:
        assert len(list(folder.iterdir())) == 2
        await store.register([new()])
        await store.wait_for_all_async_operations()  # the others are told after who waits
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()


async def test_others_are_told_of_a_new_runner_and_of_no_heartbeat(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "LOOK_SEC", 1_000)
    told: list[object] = []
    async with opened(path) as one, opened(path) as other:
        now = one.now()
        alive = RunnerRecord(
            runner_id="r",
            host="here",
            pid_space="b",
            pid=7,
            pid_started=1,
            started_at=now,
            alive_until=now,
        )
        ended = trio.Event()

        def hear(changes: list[Change]) -> None:
            told.append([each.status for each in changes])
            if changes:
                ended.set()

        with other.changes.listen(hear):
            for _ in range(3):
                await one.heartbeat(alive)
            await one.register([new("a")])
            await ended.wait()
    assert told == [[], [S.REGISTERED]]


HOLD_OPEN = """
import sys, trio
from runtime.state_backend import make_state_backend
async def main():
    async with make_state_backend(sys.argv[1]):
        print("open", flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


async def test_who_hears_nothing_looks_now_and_then(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_wakeups.Wakeups, "tell", lambda *_: None)
    monkeypatch.setattr(sqlite_module, "LOOK_SEC", 0.02)
    async with opened(path) as one, opened(path) as other:
        await one.register([new("a")])
        await one.claim("r", 1, start=True)
        unknown = trio.Event()
        with other.changes.listen(lambda changes: None if changes else unknown.set()):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other.wait_over, "a")
                await unknown.wait()
                await one.apply([move("a", S.SUCCESS, result="1")])


async def test_a_look_that_fails_is_logged_and_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[int] = []
    twice = trio.Event()

    async def fail(_: object) -> None:
        looks.append(1)
        if len(looks) == 2:
            twice.set()
        raise StoreFileError("jobs.db", "the disk is gone")

    monkeypatch.setattr(SQLiteStateBackend, "_look", fail)
    monkeypatch.setattr(sqlite_module, "LOOK_SEC", 0.01)
    async with opened(path) as store:
        with store.changes.listen(lambda _: None):
            await twice.wait()
    assert "the disk is gone" in caplog.text


@pytest.mark.parametrize(("lost", "opens"), [(2, True), (99, False)])
def test_a_folder_that_somebody_has_just_taken_away_is_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, lost: int, opens: bool
) -> None:
    real, times = _sqlite_wakeups._open, []

    def lose(folder: Path) -> _sqlite_wakeups.Wakeups:
        times.append(folder)
        if len(times) <= lost:
            raise FileNotFoundError(folder)
        return real(folder)

    monkeypatch.setattr(_sqlite_wakeups, "_open", lose)
    found = _sqlite_wakeups.open_wakeups(str(path))
    assert (found is not None) is opens
    if found is not None:
        found.close()


async def test_a_folder_for_sockets_that_cannot_be_looked_into_ends_nothing(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    async with opened(path) as one, opened(path) as other:
        with monkeypatch.context() as patch:
            patch.setattr(_sqlite_wakeups.os, "scandir", fail)
            for _ in range(3):
                await one.register([new()])
            await one.wait_for_all_async_operations()
        assert sum("too many open files" in each for each in caplog.messages) == 1
        heard = trio.Event()
        with other.changes.listen(lambda _: heard.set()):
            await one.register([new()])
            await heard.wait()
        assert await one.count_by_status() == {S.REGISTERED: 4}


async def test_who_comes_within_a_tick_of_the_last_look_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "LOOK_SEC", 1_000)
    folder = Path(f"{path}-wake")
    async with opened(path) as one:
        await one.register([new()])
        await one.wait_for_all_async_operations()
        seen = folder.stat()
        async with opened(path) as other:
            os.utime(folder, ns=(seen.st_atime_ns, seen.st_mtime_ns))
            heard = trio.Event()
            with other.changes.listen(lambda _: heard.set()):
                await one.register([new()])
                await heard.wait()


async def test_what_is_remembered_is_forgotten_while_nobody_looks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_wakeups.Wakeups, "tell", lambda *_: None)
    monkeypatch.setattr(sqlite_module, "LOOK_SEC", 0.02)
    async with opened(path) as one, opened(path) as other:
        await one.register([new("a")])
        await one.claim("r", 1, start=True)
        await one.apply([move("a", S.SUCCESS, result="1")])
        assert (await one.wait_over("a")).result == "1"
        await other.purge()
        while one.changes._known:  # noqa: ASYNC110 - there is no event for what is forgotten
            await trio.sleep(0.01)
        with pytest.raises(InvocationNotFoundError):
            await one.wait_over("a")


async def test_others_are_told_that_what_is_over_was_changed_or_forgotten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "LOOK_SEC", 1_000)
    async with opened(path) as one, opened(path) as other:
        told: list[list[Change]] = []
        await one.register([new("a"), new("b")])
        await one.claim("r", 1, start=True)
        await one.apply([move("a", S.SUCCESS, result="1")])
        await other.set_result("a", 2)
        while one.changes._known:  # noqa: ASYNC110 - there is no event for what is forgotten
            await trio.sleep(0.01)
        assert (await one.wait_over("a")).result == "2"
        await one.cancel("b", "me")
        assert (await one.wait_over("b")).status is S.KILLED
        with one.changes.listen(told.append):
            assert await other.purge(over_before=other.now() + timedelta(seconds=1)) == 2
            while one.changes._known:  # noqa: ASYNC110 - as above
                await trio.sleep(0.01)
        with pytest.raises(InvocationNotFoundError):
            await one.wait_over("b")
        assert told == []  # nobody has to look for anything


async def test_who_is_alone_is_never_told_to_look(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "LOOK_SEC", 0.01)
    async with opened(path) as store:
        told: list[list[Change]] = []
        with store.changes.listen(told.append):
            for _ in range(10):
                await store.register([new()])
                await store._look()
        assert all(told)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(Path.touch, "exists", id="a file"),
        pytest.param(partial(Path.mkdir, mode=0o755), "others may enter it", id="open to others"),
        pytest.param(lambda folder: folder.symlink_to(folder.parent), "", id="somewhere else"),
    ],
)
async def test_without_a_folder_for_sockets_it_works_as_well(
    path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], object], reason: str
) -> None:
    make(Path(f"{path}-wake"))
    async with opened(path) as store:
        await store.register([new("a")])
        assert await store.count_by_status() == {S.REGISTERED: 1}
    assert "no wake-ups" in caplog.text
    assert reason in caplog.text


def test_what_others_send_is_not_trusted() -> None:
    changes = [Change("a", S.RUNNING, cancel=True), Change("b", S.FAILED)]
    heard = [replace(each, elsewhere=True) for each in changes]
    assert _sqlite_wakeups.unpack(_sqlite_wakeups.pack(changes)) == heard
    for message in (b"look", b"", b"\xff", b"[1]", b'[["a","nothing",false]]', b"7", b"{}x"):
        assert _sqlite_wakeups.unpack(message) is None


async def test_who_cannot_take_more_messages_is_told_to_look_later(path: Path) -> None:
    async with opened(path) as store:
        deaf = _sqlite_wakeups.open_wakeups(str(path))
        assert deaf is not None
        try:
            kept = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
            for _ in range(kept + 2):
                await store.register([new()])
            await store.wait_for_all_async_operations()
            received: list[list[Change] | None] = []
            while some := deaf._received():
                received += some
            await store.register([new()])
            await store.wait_for_all_async_operations()
            assert None not in received
            assert deaf._received() == [None]
        finally:
            deaf.close()


# --- processes ------------------------------------------------------------------------------------

SUBMIT = """
import sys, trio
from datetime import UTC, datetime
from runtime.invocation.models import NewInvocation, new_invocation_id
from runtime.state_backend import make_state_backend
async def submit(store, name):
    number = 0
    while True:
        two = [NewInvocation(invocation_id=f"{name}-{number}-{each}", task="t") for each in "ab"]
        await store.register(two)
        print(f"{name}-{number}", flush=True)
        number += 1
async def main():
    async with make_state_backend(sys.argv[1]) as store, trio.open_nursery() as nursery:
        for name in range(8):
            nursery.start_soon(submit, store, name)
trio.run(main)
"""


@pytest.mark.parametrize("after", [1, 40, 150])
async def test_killed_in_the_middle_of_commits_the_file_has_whole_operations_only(
    path: Path, after: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUBMIT, url_of(path)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        answered = [other.stdout.readline().split()[0].decode() for _ in range(after)]
        other.send_signal(signal.SIGKILL)
        answered += [line.split()[0].decode() for line in other.stdout if line.endswith(b"\n")]
    async with opened(path) as store:
        assert await store.check_integrity() == []
        found: list[Any] = await store._read(
            lambda db: db.execute("SELECT id FROM invocation").fetchall()
        )
        there = {row[0] for row in found}
        assert {each.rpartition("-")[0] + "-a" for each in there} <= there
        assert {each.rpartition("-")[0] + "-b" for each in there} <= there
        assert {f"{each}-a" for each in answered} <= there
        assert await store.count_by_status() == {S.REGISTERED: len(there)}


DRAIN = """
import sys, trio
from runtime.invocation.models import Move
from runtime.invocation.status import InvocationStatus as S
from runtime.state_backend import make_state_backend
async def drain(store, runner):
    while taken := await store.claim(runner, 3, start=True):
        for each in taken:
            print(each.invocation_id, runner, flush=True)
            done = Move(invocation_id=each.invocation_id, status=S.SUCCESS, runner_id=runner)
            await store.apply([done])
async def main():
    async with make_state_backend(sys.argv[1]) as store, trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(drain, store, f"{sys.argv[2]}-{number}")
trio.run(main)
"""


async def test_who_waits_hears_from_another_process(path: Path) -> None:
    async with opened(path) as store:
        await store.register([new("a"), new("b")])
        told: list[Change] = []
        with (
            store.changes.listen(told.extend),
            subprocess.Popen(
                [sys.executable, "-c", DRAIN, url_of(path), "x"], stdout=subprocess.DEVNULL
            ) as other,
        ):
            outcomes = [await store.wait_over(each) for each in ("a", "b")]
            await trio.to_thread.run_sync(other.wait)
        assert [each.status for each in outcomes] == [S.SUCCESS, S.SUCCESS]
        assert {each.invocation_id for each in told} == {"a", "b"}
        history = await store.get_history("a")
        assert [line.status for line in history] == [
            *(S.REGISTERED, S.PENDING, S.RUNNING, S.SUCCESS)
        ]


async def test_what_was_heard_of_is_not_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    get_outcome = SQLiteStateBackend.get_outcome

    async def look(self: SQLiteStateBackend, invocation_id: str) -> Outcome:
        read.append(invocation_id)
        return await get_outcome(self, invocation_id)

    monkeypatch.setattr(SQLiteStateBackend, "get_outcome", look)
    ids = [str(number) for number in range(20)]
    async with opened(path) as store:
        await store.register([new(each) for each in ids])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.wait_over, ids[-1])
            await wait_all_tasks_blocked()
            await store.claim("r", len(ids), start=True)
            await store.apply([move(each, S.SUCCESS, result=each) for each in ids])
        assert [(await store.wait_over(each)).result for each in ids] == ids
        assert read == []
    async with opened(path) as store:  # it has heard of nothing
        assert (await store.wait_over("7")).result == "7"
        assert read == ["7"]


TASKS = ["shop.tasks.resize"]


def test_what_a_queue_asks_again_and_again_is_planned_once(path: Path) -> None:
    planned: list[int] = []
    with closing(apsw.Connection(str(path))) as db:
        _sqlite_schema.set_up_writer(db)
        migrate(db, str(path))

        def work(number: int) -> None:
            _do(db, path, lambda step: queue.register(step, [new(str(number))]))
            (taken,) = _do(
                db,
                path,
                lambda step: queue.claim(step, "r", 9, queues=["default"], tasks=TASKS, start=True),
            )
            ended = [[move(taken.invocation_id, S.SUCCESS, result="1")]]
            _do(db, path, lambda step: queue.apply_each(step, ended))

        def note(action: int, *_: str | None) -> int:  # called for what is planned
            planned.append(action)
            return apsw.SQLITE_OK

        db.authorizer = note
        for number in range(5):
            work(number)
        assert planned
        planned.clear()
        for number in range(5, 10):
            work(number)
        db.authorizer = None
    assert planned == []


def _do(db: apsw.Connection, path: Path, operation: Callable[[Step], Any]) -> Any:
    job: Job[Any] = Job(operation, anyio.Event())
    commit_together(db, str(path), deque([job]), lambda: Step(db, datetime.now(UTC)))
    return job.result()


# --- asyncio --------------------------------------------------------------------------------------


def test_on_asyncio_it_is_the_same(path: Path) -> None:
    async def main() -> None:
        async with SQLiteStateBackend(url_of(path), AppInfo("shop", "shop.tasks")) as store:
            with anyio.fail_after(LONG):
                async with anyio.create_task_group() as group:
                    group.start_soon(store.wait_over, "a")  # there is none: it raises
                    with anyio.CancelScope() as scope:
                        scope.cancel()
                        await store.register([new("never")])

    with pytest.raises(BaseExceptionGroup) as caught:
        anyio.run(main, backend="asyncio")
    assert caught.group_contains(LookupError)

    async def again() -> None:
        async with SQLiteStateBackend(url_of(path)) as store:
            assert await store.count_by_status() == {}
            assert await store.get_all_app_infos() == {"shop": AppInfo("shop", "shop.tasks")}
            await store.register([new("a", workflow=WorkflowIdentity("w", "t"))])
            await store.claim("r", 1, start=True)
            await store.apply([move("a", S.SUCCESS, result="1")])
            assert (await store.wait_over("a")).result == "1"

    anyio.run(again, backend="asyncio")


async def test_a_second_of_its_key_that_is_refused_ends_at_once(path: Path) -> None:
    async with opened(path) as store:
        first, second = (
            new("a", registration_key="k"),
            new("b", registration_key="k", on_duplicate=OnDuplicate.REJECT),
        )
        done = await store.register([first, second])
        assert [each.status for each in done] == [S.REGISTERED, S.CONCURRENCY_CONTROLLED_FINAL]
        assert await store.check_integrity() == []


async def test_every_commit_is_on_the_disk_and_the_reader_cannot_write(path: Path) -> None:
    async with opened(path) as store:
        synchronous = await store._write(lambda step: step.one("PRAGMA synchronous"))
        assert synchronous == (2,)  # FULL
        with pytest.raises(StoreFileError):
            await store._read(lambda db: db.execute("DELETE FROM invocation").fetchall())
