"""Ready when a line that matches a pattern is printed."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio
from pydantic import Field

from runtime.process.host import Host
from runtime.process.output import Line

from ._candidate import Candidate, Strategy
from ._params import Expression, Params

#: So many characters of a line are searched: an unlucky pattern takes the square of that in steps.
SEARCHED = 2_000


class LogParams(Params):
    """What is printed once the process is ready."""

    pattern: Expression = Field(
        description="A regular expression of Python's, searched in the first 2,000 characters of"
        " each line of both streams.",
        examples=["listening on port \\d+"],
    )


@contextmanager
def attend_log(params: LogParams, candidate: Candidate) -> Iterator[None]:
    """Listen to *candidate* as long as the block lasts, and keep for `wait_log` what is heard."""
    heard, listeners, pattern = candidate.heard, candidate.output.listeners, params.pattern
    if pattern in heard:  # somebody listens already
        yield
        return
    search, event = re.compile(pattern).search, trio.Event()

    def hear(lines: Sequence[Line]) -> None:
        if any(search(line.text[:SEARCHED]) for line in lines):
            event.set()
            del listeners[event]

    heard[pattern], listeners[event] = event, hear
    try:
        yield
    finally:
        listeners.pop(event, None)
        del heard[pattern]


async def wait_log(params: LogParams, _: Host, candidate: Candidate) -> None:
    """Return once *candidate* has printed a line that matches ``pattern``, in its block.

    Where there is no block, only what it prints from now on is searched.
    """
    candidate.obstacle = f"no line matches {params.pattern!r}"
    with attend_log(params, candidate):
        await candidate.heard[params.pattern].wait()


LOG: Strategy[LogParams] = Strategy(params=LogParams, wait=wait_log, attend=attend_log)
