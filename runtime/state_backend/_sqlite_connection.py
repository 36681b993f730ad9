"""Connections with a thread of their own, from Trio and from asyncio."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import anyio
import apsw
import apsw.aio
import trio

P = ParamSpec("P")
T = TypeVar("T")

#: So many statements are kept prepared by a connection.
_STATEMENTS: Final = 200


class Soon(Protocol):
    """Lets the event loop call a function, from another thread."""

    def __call__(self, function: Callable[..., object], /, *args: Any) -> object:  # noqa: ANN401 - those of the function
        """Have *function* called; return at once."""


def call_soon() -> Soon:
    """Return what lets other threads call functions in this event loop, in the order of calls."""
    if trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_trio_token().run_sync_soon
    return asyncio.get_running_loop().call_soon_threadsafe


def _controller() -> apsw.aio.Trio | apsw.aio.AsyncIO:
    # APSW's own for AnyIO, which it picks by itself, holds the thread until the loop has answered.
    kind = apsw.aio.Trio if trio.lowlevel.in_trio_run() else apsw.aio.AsyncIO
    return kind(thread_name="state backend")


async def open_connection(path: str) -> apsw.AsyncConnection:
    """Open a connection with a thread of its own, which ends when it is closed."""
    make: Any = _controller  # it is called, whatever its type says
    before = apsw.async_controller.set(make)
    try:
        return await apsw.Connection.as_async(path, statementcachesize=_STATEMENTS)
    finally:
        apsw.async_controller.reset(before)


async def close_connection(db: apsw.AsyncConnection) -> None:
    """Close a connection, and end its thread, when it has done what it was asked for."""
    with anyio.CancelScope(shield=True):
        await db.aclose()


async def run(
    db: apsw.AsyncConnection,
    function: Callable[Concatenate[apsw.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run *function* in the thread of *db*; cancelled, its statement ends as soon as it can."""
    # The caller's deadline cancels the caller. By itself APSW would raise another error for it.
    before = apsw.aio.deadline.set(math.inf)
    try:
        result: T = await db.async_run(function, db, *args, **kwargs)
    finally:
        apsw.aio.deadline.reset(before)
    return result
