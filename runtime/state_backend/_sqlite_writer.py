"""The one writer of a file: what comes while a commit is under way shares the next one.

Whoever wants something written leaves it in a queue and waits. The writer's task hands the queue to
the thread of the connection, which empties it inside one transaction and commits; then all of them
are answered together. Each operation has a savepoint of its own, so one that fails changes nothing
and spoils nothing. Who is cancelled abandons the wait: what is in the queue is done.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Final, Generic, NamedTuple, ParamSpec, TypeVar

import anyio
import apsw

from runtime.invocation.status import InvocationStatus

from ._exceptions import NotOpenError
from ._loop import Event, this_loop
from ._sqlite_rows import Step
from ._sqlite_schema import refusal
from .changes import Change

P = ParamSpec("P")
T = TypeVar("T")

#: So many share a commit at most; it bounds how long the first of them waits.
MOST_TOGETHER: Final = 2_000

_TALLY = """INSERT INTO tally (status, number) VALUES (?, ?)
    ON CONFLICT (status) DO UPDATE SET number = number + excluded.number"""


class Job(Generic[T]):
    """An operation that somebody waits for, and what became of it."""

    __slots__ = ("_error", "_result", "done", "operation")

    def __init__(self, operation: Callable[[Step], T], done: Event) -> None:
        self.operation: Final = operation
        self.done: Final = done
        self._result: list[T] = []
        self._error: Exception | None = None

    def succeed(self, result: T) -> None:
        """Note what it has returned."""
        self._result = [result]

    def fail(self, error: Exception) -> None:
        """Note why it has not happened."""
        self._error = error

    def result(self) -> T:
        """Return what it has returned, or raise what it has raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # or it and its traceback would hold each other
        return self._result[0]


Queue = deque[Job[Any]]


class Batch(NamedTuple):
    """What belongs to one transaction: whom to answer, and what has changed when it is committed.

    *untold*: something has changed that none of the changes tells; *stale*: and something that is
    over, which others may remember.
    """

    jobs: list[Job[Any]]
    changes: list[Change]
    untold: bool
    stale: bool


class _Transaction:
    """The operations that share one commit."""

    def __init__(self, db: apsw.Connection, make_step: Callable[[], Step]) -> None:
        self._db, self._make_step = db, make_step
        self.jobs: Final[list[Job[Any]]] = []
        self.changes: Final[list[Change]] = []
        self.untold = self.stale = False
        self._tally: Counter[InvocationStatus | None] = Counter()

    def run(self, queue: Queue) -> None:
        """Do what is in the queue, and commit; raises `apsw.Error` when nothing of it was done."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            while queue and len(self.jobs) < MOST_TOGETHER:
                job = queue.popleft()
                self.jobs.append(job)
                self._do(job)
            self._db.executemany(_TALLY, [each for each in self._tally.items() if each[1]])
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _do(self, job: Job[Any]) -> None:
        self._db.execute("SAVEPOINT operation")
        step = self._make_step()
        try:
            result = job.operation(step)
            step.flush()
        except Exception as error:
            if not self._db.in_transaction:  # that was about the file, and ended it for all
                raise
            self._db.execute("ROLLBACK TO operation")
            job.fail(error)
        else:
            job.succeed(result)
            self.changes.extend(step.changes)
            if step.tally:
                self._tally.update(step.tally)
            self.untold |= step.untold
            self.stale |= step.stale
        finally:
            step.cursor.close()
        self._db.execute("RELEASE operation")


def commit_together(
    db: apsw.Connection, path: str, queue: Queue, make_step: Callable[[], Step]
) -> Batch:
    """Do what is in the queue in one transaction; never raises, what went wrong is in the jobs."""
    transaction = _Transaction(db, make_step)
    try:
        transaction.run(queue)
    except Exception as error:  # noqa: BLE001 - whatever it was, somebody waits for each of them
        failure = refusal(path, error) if isinstance(error, apsw.Error) else error
        jobs = transaction.jobs or [queue.popleft() for _ in range(len(queue))]
        for job in jobs:
            job.fail(failure)
        return Batch(jobs, [], untold=False, stale=False)
    return Batch(transaction.jobs, transaction.changes, transaction.untold, transaction.stale)


class Writer:
    """The queue, and who empties it.

    *commit* is to empty the queue and to call `answer` in the event loop; *tell* is called after
    each commit.
    """

    def __init__(
        self,
        url: str,
        commit: Callable[[Queue], Awaitable[None]],
        tell: Callable[[Batch], None],
    ) -> None:
        self._url, self._commit, self._tell = url, commit, tell
        self._queue: Queue = deque()
        self._loop = this_loop()
        self._work = self._loop.make_event()
        self._open = True

    async def do(
        self, operation: Callable[Concatenate[Step, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what *operation* has returned, once that is committed."""
        await self._loop.checkpoint_if_cancelled()
        if not self._open:
            raise NotOpenError(self._url)
        job: Job[T] = Job(lambda step: operation(step, *args, **kwargs), self._loop.make_event())
        self._queue.append(job)
        self._work.set()
        await job.done.wait()
        return job.result()

    def answer(self, batch: Batch) -> None:
        """Let go on who waits for what is committed, and tell the others."""
        for job in batch.jobs:
            job.done.set()
        self._tell(batch)

    def close(self) -> None:
        """Take nothing more; `run` ends when all is written."""
        self._open = False
        self._work.set()

    async def run(self) -> None:
        """Write until it is closed and the queue is empty, also when it is cancelled.

        The shield lasts as long as a commit waits for others and the disk takes; what is asked for
        meanwhile shares one more.
        """
        with anyio.CancelScope(shield=True):
            while self._open or self._queue:
                if not self._queue:
                    self._work = self._loop.make_event()
                    await self._work.wait()
                    continue
                await self._commit(self._queue)
