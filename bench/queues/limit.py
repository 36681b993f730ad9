"""Measure the bare file: ``python -m bench.queues.limit FILE NUMBER CALLERS``; prints JSON.

One thread writes, a row for each caller that waits, and all that wait share a commit.
"""

import json
import sys
import time

import apsw
import trio


async def main(path: str, number: int, callers: int) -> None:
    """Have so many rows written by so many callers, each of which waits for its own."""
    waiting: list[trio.Event] = []
    work = trio.Event()
    left = iter(range(number))
    db = apsw.Connection(path)
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, content BLOB)")

    def commit(rows: int) -> None:
        with db:
            db.executemany("INSERT INTO row (content) VALUES (?)", [(bytes(200),)] * rows)

    async def write() -> None:
        nonlocal work, waiting
        while True:
            await work.wait()
            work, batch, waiting = trio.Event(), waiting, []
            await trio.to_thread.run_sync(commit, len(batch))
            for each in batch:
                each.set()

    async def call() -> None:
        for _ in left:
            done = trio.Event()
            waiting.append(done)
            work.set()
            await done.wait()

    async with trio.open_nursery() as writer:
        writer.start_soon(write)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(call)
        took = time.perf_counter() - began
        writer.cancel_scope.cancel()
    print(json.dumps({"submit": number / took}))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
