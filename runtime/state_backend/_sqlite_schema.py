"""The file of a store: its tables, how older files are brought up to date, and what is refused.

Times are whole microseconds since 1970, in UTC. An invocation is one row, which moves rewrite; so
arguments of some size lie in a table of their own, and what has ended is left out of every index
that a claim looks at. What costs is the pages that a commit writes, so what is known otherwise is
not written: that an invocation was registered when it was made is no line in the table of history,
and those that wait or are owned are counted by the indexes that hold them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import apsw

from runtime.invocation.status import InvocationStatus

from ._exceptions import StoreFileError

_I: Final = InvocationStatus

#: In the header of every file of ours ("trio" in ASCII), so that nobody else's is taken for one.
APPLICATION_ID: Final = 0x7472696F

#: How long to wait for other processes that write, in seconds; SQLite looks each millisecond.
BUSY_SEC: Final = 30.0

#: Pages of the write-ahead log after which it is brought into the file, and its size after that.
_CHECKPOINT_PAGES: Final = 4_000
_LOG_SIZE: Final = 64 * 1024 * 1024


def _these(*statuses: InvocationStatus) -> str:
    return ", ".join(f"'{status}'" for status in statuses)


#: Few are in these, or none for long; an index has them all.
RARE: Final = frozenset(
    {
        *(_I.FAILED, _I.KILLED, _I.CONCURRENCY_CONTROLLED_FINAL),
        *(_I.PENDING_RECOVERY, _I.RUNNING_RECOVERY),
    }
)
#: Those whose number is kept; the others are counted by the indexes that they are in.
TALLIED: Final = RARE | {_I.SUCCESS}

# As these stand in the indexes, or SQLite would not see that an index has them.
IS_RARE: Final = f"status IN ({_these(*sorted(RARE))})"
HELD_BACK: Final = f"status = '{_I.CONCURRENCY_CONTROLLED}'"

# rank is the priority with the other sign: row values compare upwards only.
# waiting: 0 no, 1 it may be taken now, 2 when it is due.
_FIRST = f"""
CREATE TABLE invocation (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    status TEXT,
    runner_id TEXT,
    changed_at INTEGER NOT NULL,
    waiting INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER,
    over_at INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    retries INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    lines INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    rank INTEGER NOT NULL,
    idempotency_key TEXT,
    registration_key TEXT,
    on_duplicate TEXT NOT NULL,
    running_key TEXT,
    parent_id TEXT,
    workflow_id TEXT,
    workflow_type TEXT,
    parent_workflow_id TEXT,
    retry_of TEXT,
    arguments TEXT,
    result TEXT,
    error TEXT
);
CREATE INDEX ready ON invocation (queue, rank, seq, status) WHERE waiting = 1;
CREATE INDEX delayed ON invocation (due_at, status) WHERE waiting = 2;
CREATE INDEX owned ON invocation (runner_id, status) WHERE runner_id IS NOT NULL;
CREATE INDEX running ON invocation (running_key)
    WHERE running_key IS NOT NULL AND runner_id IS NOT NULL;
CREATE INDEX held_back ON invocation (running_key, rank, seq)
    WHERE {HELD_BACK};
CREATE INDEX registered ON invocation (registration_key, seq)
    WHERE registration_key IS NOT NULL AND over_at IS NULL;
CREATE INDEX idempotent ON invocation (task, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX ended ON invocation (over_at) WHERE over_at IS NOT NULL;
CREATE INDEX rare ON invocation (status, seq) WHERE {IS_RARE};
CREATE INDEX by_task ON invocation (task, seq);
CREATE INDEX by_time ON invocation (created_at);
CREATE INDEX by_parent ON invocation (parent_id, seq) WHERE parent_id IS NOT NULL;
CREATE INDEX by_workflow ON invocation (workflow_id, seq) WHERE workflow_id IS NOT NULL;
CREATE TABLE large (
    seq INTEGER PRIMARY KEY,
    arguments TEXT NOT NULL
);
CREATE TABLE history (
    seq INTEGER NOT NULL,
    line INTEGER NOT NULL,
    at INTEGER NOT NULL,
    status TEXT,
    runner_id TEXT,
    context TEXT,
    PRIMARY KEY (seq, line)
) WITHOUT ROWID;
CREATE TRIGGER forgotten AFTER DELETE ON invocation BEGIN
    DELETE FROM history WHERE seq = old.seq;
    DELETE FROM large WHERE seq = old.seq;
END;
CREATE TABLE tally (
    status TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE runner (
    runner_id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid_space TEXT NOT NULL,
    pid INTEGER NOT NULL,
    pid_started INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    alive_until INTEGER NOT NULL
);
CREATE TABLE lease (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE workflow (
    workflow_id TEXT PRIMARY KEY,
    workflow_type TEXT NOT NULL,
    parent_workflow_id TEXT
);
CREATE TABLE workflow_value (
    workflow_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (workflow_id, kind, key)
) WITHOUT ROWID;
CREATE TABLE sub_invocation (
    seq INTEGER PRIMARY KEY,
    workflow_id TEXT NOT NULL,
    invocation_id TEXT NOT NULL,
    UNIQUE (workflow_id, invocation_id)
);
CREATE TABLE app (
    app_id TEXT PRIMARY KEY,
    module TEXT NOT NULL
);
"""

#: The n-th brings a file of version n to version n + 1; a released one is never changed again.
MIGRATIONS: Final[Sequence[str]] = (_FIRST,)


def path_of(url: str) -> str:
    """Return the absolute path that ``sqlite:///PATH`` or ``sqlite:////PATH`` means.

    Raises `StoreFileError` where it names no file.
    """
    rest = url.partition("://")[2]
    path = rest.removeprefix("/")
    if path == ":memory:":
        raise StoreFileError(url, "a store in memory is memory://")
    if not rest.startswith("/") or not path or path.endswith("/"):
        raise StoreFileError(url, "the URL names no file; write sqlite:///jobs.db")
    return str(Path(path).absolute())


def look_at_place(path: str) -> None:
    """Raise `StoreFileError` where no file of this path can be opened for writing."""
    folder, file = Path(path).parent, Path(path)
    if not folder.is_dir():
        raise StoreFileError(path, f"there is no folder {str(folder)!r}; make it first")
    if file.is_dir():
        raise StoreFileError(path, "it is a folder; name a file in it")
    if file.exists() and not os.access(file, os.R_OK | os.W_OK):
        raise StoreFileError(path, "no permission to read and write it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreFileError(path, f"no permission to make files in {str(folder)!r}")


def refusal(path: str, error: apsw.Error) -> StoreFileError:
    """Return what *error* means for the user of the file."""
    reasons: dict[type[apsw.Error], str] = {
        apsw.NotADBError: "it is no file of SQLite; name another one",
        apsw.CorruptError: f"it is damaged ({error}); restore it from a copy",
        apsw.FullError: "the disk is full; make room",
        apsw.IOError: f"reading or writing it failed ({error}); look at the disk",
        apsw.BusyError: f"other processes kept it locked for {BUSY_SEC:g} s; see which use it",
        apsw.ReadOnlyError: "it can be read only; see its permissions and its file system",
        apsw.CantOpenError: f"it cannot be opened ({error}); see its permissions",
    }
    return StoreFileError(path, reasons.get(type(error), f"{type(error).__name__}: {error}"))


def set_up_writer(db: apsw.Connection) -> None:
    """Make *db* wait for others that write, and every commit of it durable."""
    _set_up(db)
    _to_write_ahead(db)
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    db.execute(f"PRAGMA journal_size_limit = {_LOG_SIZE}")
    db.execute("PRAGMA temp_store = MEMORY")


def set_up_reader(db: apsw.Connection) -> None:
    """Make *db* unable to write."""
    _set_up(db)
    db.execute("PRAGMA query_only = ON")


def _set_up(db: apsw.Connection) -> None:
    db.set_busy_timeout(int(BUSY_SEC * 1000))
    db.execute("PRAGMA cache_size = -16000")
    # Otherwise what compares with a parameter is planned anew each time that it is bound, for the
    # sake of statistics (ANALYZE), which there are none of: ten times what the query itself takes.
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def _to_write_ahead(db: apsw.Connection) -> None:
    # That change does not wait for others by itself, whatever the timeout.
    until = time.monotonic() + BUSY_SEC
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
        except apsw.BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _number(db: apsw.Connection, pragma: str) -> int:
    found: Any = db.execute(f"PRAGMA {pragma}").fetchone()
    return int(found[0])


def migrate(db: apsw.Connection, path: str, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the file up to date, as a whole or not at all.

    Raises `StoreFileError` for a file of somebody else, and for one of a later version.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version_to_begin_with(db, path, len(migrations))
        for step in migrations[version:]:
            db.execute(step)
        if version < len(migrations):
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {len(migrations)}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _version_to_begin_with(db: apsw.Connection, path: str, newest: int) -> int:
    version, owner = _number(db, "user_version"), _number(db, "application_id")
    if owner == APPLICATION_ID:
        if version > newest:
            raise StoreFileError(
                path,
                f"it is of version {version}, this program knows up to {newest}; "
                "use a later version of the program",
            )
        return version
    if owner or version or db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        raise StoreFileError(path, "it is a database of another program; name another file")
    return 0


def check(path: str) -> list[str]:
    """Return what is wrong in the file, a sentence each; it may be in use meanwhile."""
    problems: list[str] = []
    with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)) as db:
        set_up_reader(db)
        try:
            db.execute("BEGIN")  # one moment of it
            found = [str(row[0]) for row in db.execute("PRAGMA integrity_check")]
            problems += [] if found == ["ok"] else found
            for sentence, query in _INVARIANTS:
                rows = db.execute(query).fetchall()
                problems += [f"{sentence}: {' '.join(map(str, row))}" for row in rows[:10]]
        except apsw.Error as error:  # what is damaged cannot be asked more
            problems.append(str(refusal(path, error)))
    return problems


_AVAILABLE = _these(_I.REGISTERED, _I.REROUTED, _I.RETRY)
_OWNED = _these(_I.PENDING, _I.RUNNING, _I.PAUSED, _I.RESUMED)
_OVER = _these(_I.SUCCESS, _I.FAILED, _I.KILLED, _I.CONCURRENCY_CONTROLLED_FINAL)
_INVARIANTS: Final = (
    (
        "an invocation whose history does not tell its status",
        """SELECT id, status FROM invocation WHERE lines > 1 AND status IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM history WHERE history.seq = invocation.seq
            AND history.status = invocation.status AND history.at = invocation.changed_at)""",
    ),
    (
        "an invocation with another number of lines of history",
        """SELECT id, lines FROM (
            SELECT id, lines, status,
                (SELECT count(*) FROM history WHERE history.seq = invocation.seq) AS written,
                (SELECT min(line) FROM history WHERE history.seq = invocation.seq) AS first
            FROM invocation)
            WHERE lines <> written + (status IS NOT NULL AND first IS NOT 0)""",
    ),
    (
        "history of no invocation",
        "SELECT DISTINCT seq FROM history WHERE seq NOT IN (SELECT seq FROM invocation)",
    ),
    (
        "an owner where there can be none, or none where there must be one",
        f"""SELECT id, status FROM invocation
            WHERE (runner_id IS NOT NULL) <> coalesce(status IN ({_OWNED}), 0)""",
    ),
    (
        "an invocation that waits in the wrong place",
        f"""SELECT id, status FROM invocation
            WHERE (waiting > 0) <> coalesce(status IN ({_AVAILABLE}), 0)""",
    ),
    (
        "an invocation with the wrong end",
        f"""SELECT id, status FROM invocation
            WHERE (over_at IS NOT NULL) <> coalesce(status IN ({_OVER}), 0)""",
    ),
    (
        "a wrong number of a status",
        f"""SELECT status, sum(number) FROM (
            SELECT status, number FROM tally UNION ALL SELECT status, -count(*) FROM invocation
            WHERE status IN ({_these(*sorted(TALLIED))}) GROUP BY status)
            GROUP BY status HAVING sum(number) <> 0""",
    ),
)
