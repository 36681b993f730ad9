"""What a store asks the event loop at each operation, which loop it is once only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import anyio
import anyio.lowlevel
import trio


class Event(Protocol):
    """Is set once, and lets go on who waits for that."""

    def set(self) -> object:
        """Set it."""

    async def wait(self) -> None:
        """Return when it is set."""


class Loop(NamedTuple):
    """The functions of one event loop."""

    current_time: Callable[[], float]
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]
    cancel_shielded_checkpoint: Callable[[], Awaitable[None]]
    make_event: Callable[[], Event]


#: Works in each loop.
ANY_LOOP = Loop(
    anyio.current_time,
    anyio.lowlevel.checkpoint_if_cancelled,
    anyio.lowlevel.cancel_shielded_checkpoint,
    anyio.Event,
)
_TRIO = Loop(
    trio.current_time,
    trio.lowlevel.checkpoint_if_cancelled,
    trio.lowlevel.cancel_shielded_checkpoint,
    trio.Event,
)


def this_loop() -> Loop:
    """Return the functions of the event loop that runs."""
    return _TRIO if trio.lowlevel.in_trio_run() else ANY_LOOP
