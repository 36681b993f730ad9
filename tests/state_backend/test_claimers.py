"""Twenty claimers in four processes on one file: what is submitted runs once, and all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import trio

from runtime.invocation import InvocationStatus, NewInvocation
from runtime.invocation.models import new_invocation_id
from runtime.state_backend import make_state_backend

S = InvocationStatus
PROCESSES, CLAIMERS, NUMBER, KEYED = 4, 5, 200, 24

#: Claims as long as there is something, and tells what it got; begins when it is told to.
CLAIM = """
import json, sys
import trio
from runtime.invocation import InvocationStatus, Move
from runtime.state_backend import make_state_backend

S = InvocationStatus
url, name, claimers, number = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
done = []

async def claim(store, runner):
    while (await store.count_by_status()).get(S.SUCCESS, 0) < number:
        claimed = await store.claim(runner, 1 + len(done) % 3, start=True)
        for taken in claimed:
            done.append([taken.invocation_id, runner])
            move = Move(invocation_id=taken.invocation_id, status=S.SUCCESS, runner_id=runner,
                        result=json.dumps(runner))
            await store.apply([move])
        if not claimed:
            await trio.sleep(0.01)  # the others are to end what they have

async def main():
    async with make_state_backend(url) as store:
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        async with trio.open_nursery() as nursery:
            for each in range(claimers):
                nursery.start_soon(claim, store, f"{name}/{each}")
    print(json.dumps(done))

trio.run(main)
"""


async def test_none_is_lost_and_none_is_taken_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    told: list[tuple[str, str]] = []
    began = 0
    all_began, go = trio.Event(), trio.Event()

    async def run(name: str) -> None:
        nonlocal began
        arguments = [url, name, str(CLAIMERS), str(NUMBER + KEYED)]
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", CLAIM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin
        assert process.stdout
        text = b""
        try:
            async with process.stdin, process.stdout:
                text += await process.stdout.receive_some()
                began += 1
                if began == PROCESSES:
                    all_began.set()
                await go.wait()
                await process.stdin.send_all(b"\n")
                while more := await process.stdout.receive_some():
                    text += more
            assert await process.wait() == 0
        finally:
            process.kill()
            with trio.CancelScope(shield=True):  # it ends at once
                await process.wait()
        ready, lines = text.decode().splitlines()
        assert ready == "ready"
        told.extend((invocation_id, runner) for invocation_id, runner in json.loads(lines))

    with trio.fail_after(100):
        async with make_state_backend(url) as store:
            async with trio.open_nursery() as nursery:
                for number in range(PROCESSES):
                    nursery.start_soon(run, f"p{number}")
                now = store.now()
                new = [
                    NewInvocation(
                        invocation_id=new_invocation_id(now),
                        task="t",
                        running_key=f"k{number % 4}" if number < KEYED else None,
                    )
                    for number in range(NUMBER + KEYED)
                ]
                await store.register(new)
                await all_began.wait()
                go.set()
            wanted = {each.invocation_id for each in new}
            assert Counter(invocation_id for invocation_id, _ in told) == Counter(wanted)
            assert await store.count_by_status() == {S.SUCCESS: NUMBER + KEYED}
            for invocation_id, runner in told:
                lines = await store.get_history(invocation_id)
                steps = [(line.status, line.runner_id) for line in lines]
                assert steps[-3:] == [(S.PENDING, runner), (S.RUNNING, runner), (S.SUCCESS, runner)]
                assert [status for status, _ in steps].count(S.PENDING) == 1
                assert await store.get_result(invocation_id) == runner
            took_part = {runner.partition("/")[0] for _, runner in told}
            assert len(took_part) > 1  # or nothing was shown
            await the_keys_were_exclusive(store, [e for e in new if e.running_key])


async def the_keys_were_exclusive(store: object, keyed: list[NewInvocation]) -> None:
    """Look whether of those with one key one was owned at a time."""
    for key in {each.running_key for each in keyed}:
        spans = []
        for each in keyed:
            if each.running_key == key:
                lines = await store.get_history(each.invocation_id)  # type: ignore[attr-defined]
                of = {line.status: line.timestamp for line in lines}
                spans.append((of[S.PENDING], of[S.SUCCESS]))
        spans.sort()
        for (_, end), (begin, _) in pairwise(spans):
            assert end <= begin
