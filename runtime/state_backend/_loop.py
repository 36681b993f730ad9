"""What a store asks the event loop at each operation, which loop it is once only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import anyio
import anyio.lowlevel
import trio


class Loop(NamedTuple):
    """The functions of one event loop."""

    current_time: Callable[[], float]
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]
    cancel_shielded_checkpoint: Callable[[], Awaitable[None]]


#: Works in each loop.
ANY_LOOP = Loop(
    anyio.current_time,
    anyio.lowlevel.checkpoint_if_cancelled,
    anyio.lowlevel.cancel_shielded_checkpoint,
)
_TRIO = Loop(
    trio.current_time,
    trio.lowlevel.checkpoint_if_cancelled,
    trio.lowlevel.cancel_shielded_checkpoint,
)


def this_loop() -> Loop:
    """Return the functions of the event loop that runs."""
    return _TRIO if trio.lowlevel.in_trio_run() else ANY_LOOP
