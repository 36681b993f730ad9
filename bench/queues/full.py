"""Measure claims from a full file: ``python -m bench.queues.full FOLDER FINISHED``; prints JSON.

Two files: one is empty, the other one holds so many invocations that have ended. The same few wait
in both, and are claimed one by one from one file and the other in turn, so that what else the
machine does hits both alike.
"""

import json
import statistics
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw
import trio

from runtime.invocation.models import NewInvocation, new_invocation_id
from runtime.state_backend import BaseStateBackend, make_state_backend

_PAIRS: Final = 300
_WAITING: Final = _PAIRS + 20  # the first ones are to warm up

# All of them as the store itself would have left them, an hour ago: its check finds nothing wrong.
_NUMBERS: Final = """WITH RECURSIVE numbers (n) AS (
    SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)"""
_INVOCATIONS: Final = f"""{_NUMBERS} INSERT INTO invocation
    (seq, id, status, changed_at, due_at, over_at, attempts, lines, created_at, task, queue, rank,
    on_duplicate, arguments, result)
    SELECT n, printf('00000000-0000-7000-8000-%012x', n), 'success', ?2 + n, NULL, ?2 + n, 1, 4,
    ?2 + n - 1000, 'bench.nothing', 'default', 0, 'reuse', '{{"number":1}}', '1' FROM numbers"""
_HISTORY: Final = f"""{_NUMBERS} INSERT INTO history (seq, line, at, status, runner_id)
    SELECT n, line, ?2 + n, status, 'runner' FROM numbers, (SELECT 1 AS line, 'pending' AS status
    UNION ALL SELECT 2, 'running' UNION ALL SELECT 3, 'success')"""
_TALLY: Final = "INSERT INTO tally (status, number) VALUES ('success', ?1)"


def fill(path: Path, finished: int) -> None:
    """Put *finished* invocations into the store *path*, which is there and empty."""
    ended_at = int((time.time() - 3600) * 1e6)
    with closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -200000")
        with db:
            db.execute(_INVOCATIONS, (finished, ended_at))
            db.execute(_HISTORY, (finished, ended_at))
            db.execute(_TALLY, (finished,))
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


async def claim(store: BaseStateBackend) -> float:
    """Claim one invocation; return the seconds that it took."""
    began = time.perf_counter()
    claimed = await store.claim("runner", 1, tasks=["bench.nothing"], start=True)
    took = time.perf_counter() - began
    assert len(claimed) == 1
    return took


async def main(folder: Path, finished: int) -> None:
    """Fill one of the two files, then claim from both in turn."""
    paths = folder / "empty.db", folder / "full.db"
    for path in paths:
        async with make_state_backend(f"sqlite:///{path}"):
            pass
    began = time.perf_counter()
    fill(paths[1], finished)
    filled_sec = time.perf_counter() - began
    empty, full = (make_state_backend(f"sqlite:///{path}") for path in paths)
    async with empty, full:
        for store in (empty, full):
            now = datetime.now(UTC)
            await store.register(
                [
                    NewInvocation(invocation_id=new_invocation_id(now), task="bench.nothing")
                    for _ in range(_WAITING)
                ]
            )
        pairs = [(await claim(empty), await claim(full)) for _ in range(_WAITING)]
    kept = pairs[_WAITING - _PAIRS :]
    found = {
        "filled_sec": filled_sec,
        "empty_ms": 1000 * statistics.median(pair[0] for pair in kept),
        "full_ms": 1000 * statistics.median(pair[1] for pair in kept),
        "times": statistics.median(pair[1] / pair[0] for pair in kept),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
