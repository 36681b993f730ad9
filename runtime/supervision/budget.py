"""Stopping takes a bounded time, and being cancelled is the ordinary way to be told to stop.

The shields of every stop are made here. A `StopBudget` knows until when politeness may last and
when all is over; budgets form a tree like the units, and a deadline that is set further up
tightens every shield below it, also those that are already waited in.
"""

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from math import inf
from typing import NamedTuple

import trio

#: Seconds a stop may take when nobody said otherwise.
DEFAULT_STOP_SEC = 30.0
_MOST_KEPT_BACK_SEC = 1.0


class Deadlines(NamedTuple):
    """Until when a stop may wait politely, and when it is over, on Trio's clock."""

    polite_until: float = inf
    over_at: float = inf


class Wait(NamedTuple):
    """How long a wait for the end of something may go on, and how long it may take in all.

    *what* is waited for, in words; empty where nobody has said it.
    """

    left_sec: float
    of_sec: float
    what: str = ""


#: Says in words what is waited for, when somebody asks; it must not block.
What = Callable[[], str]


class _Shield(NamedTuple):
    opened: float
    limit: Callable[[Deadlines, float], float]  #: until when it may last, by what holds at a moment
    whole: bool  #: it is around all of what it shields, and not only around the wait for its end
    what: What


def plan_stop(now: float, within_sec: float) -> Deadlines:
    """Divide *within_sec* seconds; a fifth, at most a second, is kept back for SIGKILL."""
    kept_back = min(_MOST_KEPT_BACK_SEC, within_sec / 5)
    return Deadlines(now + within_sec - kept_back, now + within_sec)


def tighten(one: Deadlines, other: Deadlines) -> Deadlines:
    """Return the earlier of each; a deadline that was set is never put off."""
    return Deadlines(min(one.polite_until, other.polite_until), min(one.over_at, other.over_at))


def _politely(share: float, deadlines: Deadlines, now: float) -> float:
    if share == 1:
        return deadlines.polite_until
    return now + share * max(0.0, deadlines.polite_until - now)


def _to_the_end(deadlines: Deadlines, _: float) -> float:
    return deadlines.over_at


def _in_closing(deadlines: Deadlines, now: float) -> float:
    return max(deadlines.polite_until, (now + deadlines.over_at) / 2)


def share(own_sec: float | None, now: float, until: float) -> float:
    """Return when a wait of *own_sec* seconds (None: no limit) ends, at the latest *until*."""
    return until if own_sec is None else min(now + own_sec, until)


class StopBudget:
    """What is left of the time to stop, for one unit or for a tree of them."""

    def __init__(self) -> None:
        self._deadlines = Deadlines()
        self._children: set[StopBudget] = set()
        self._shields: dict[trio.CancelScope, _Shield] = {}

    @property
    def begun(self) -> bool:
        """Whether a stop is under way."""
        return self._deadlines.over_at < inf

    @property
    def left_sec(self) -> float:
        """Seconds until all is over; infinite while no stop is under way."""
        return max(0.0, self._deadlines.over_at - trio.current_time()) if self.begun else inf

    @property
    def wait(self) -> Wait | None:
        """How long what is waited for now has left; None while nothing is.

        It is the newest shield around a wait, or, in a stop, what was named by `name`.
        """
        waits = [
            (scope.deadline, shield)
            for scope, shield in self._shields.items()
            if not shield.whole and scope.deadline < inf
        ]
        if not waits:
            return None
        until, shield = waits[-1]
        left_sec = max(0.0, until - trio.current_time())
        return Wait(left_sec, until - shield.opened, shield.what())

    def begin(self, within_sec: float) -> None:
        """Begin the stop; called again, it can only make the time shorter."""
        self._tighten(plan_stop(trio.current_time(), within_sec))

    def force(self, within_sec: float) -> None:
        """End all politeness now, and everything in *within_sec* seconds."""
        now = trio.current_time()
        self._tighten(Deadlines(now, now + within_sec))

    @contextmanager
    def open_child(self) -> Generator["StopBudget"]:
        """Yield a budget that never ends later than this one."""
        child = StopBudget()
        child._deadlines = self._deadlines
        self._children.add(child)
        try:
            yield child
        finally:
            self._children.discard(child)

    def polite(
        self, own_sec: float | None, *, share: float = 1, what: What = str
    ) -> AbstractContextManager[trio.CancelScope]:
        """Shield a wait for something that was asked to end: at most *own_sec* seconds.

        With a *share* of less than 1 it has so much of these seconds, and of what politeness has
        left: the rest is there for another such wait.

        A stop that nobody has begun begins with that. *what* says what it is that is waited for, to
        who asks for `wait`. So it is with the shields below.
        """
        self._begin_at_last()
        own_sec = None if own_sec is None else own_sec * share
        return self._open_shield(own_sec, partial(_politely, share), what=what)

    def final(
        self, own_sec: float | None, *, what: What = str
    ) -> AbstractContextManager[trio.CancelScope]:
        """Shield what comes after SIGKILL: at most *own_sec* seconds, to the budget's end."""
        self._begin_at_last()
        return self._open_shield(own_sec, _to_the_end, what=what)

    def closing(
        self, own_sec: float | None, *, what: What = str
    ) -> AbstractContextManager[trio.CancelScope]:
        """Shield what is due when all is down: at most *own_sec* seconds, or what politeness has.

        Where that has less, half of what is left to the budget's end is there for it.
        """
        self._begin_at_last()
        return self._open_shield(own_sec, _in_closing, what=what)

    @contextmanager
    def name(self, what: What) -> Generator[None]:
        """Say what the block is about, for a stop that has to wait for it; nothing is shielded."""
        scope = trio.CancelScope(deadline=self._deadlines.over_at)  # for its deadline only
        self._shields[scope] = _Shield(trio.current_time(), _to_the_end, whole=False, what=what)
        try:
            yield
        finally:
            del self._shields[scope]

    def to_the_end(self) -> AbstractContextManager[trio.CancelScope]:
        """Shield what stops by itself when it is asked to: until a stop that is begun is over."""
        return self._open_shield(None, _to_the_end, whole=True)

    def _begin_at_last(self) -> None:
        if not self.begun:  # a body that is run without a supervisor: its stop has a bound too
            self.begin(DEFAULT_STOP_SEC)

    @contextmanager
    def _open_shield(
        self,
        own_sec: float | None,
        limit: Callable[[Deadlines, float], float],
        *,
        whole: bool = False,
        what: What = str,
    ) -> Generator[trio.CancelScope]:
        now = trio.current_time()
        until = share(own_sec, now, limit(self._deadlines, now))
        with trio.CancelScope(shield=True, deadline=until) as scope:
            self._shields[scope] = _Shield(now, limit, whole, what)
            try:
                yield scope
            finally:
                del self._shields[scope]

    def _tighten(self, deadlines: Deadlines) -> None:
        self._deadlines = tighten(self._deadlines, deadlines)
        now = trio.current_time()
        for scope, shield in self._shields.items():
            scope.deadline = min(scope.deadline, shield.limit(self._deadlines, now))
        for child in self._children:
            child._tighten(self._deadlines)  # noqa: SLF001 - another of the same class

    async def hold(
        self, body: Callable[[], Awaitable[object]], *, ask_to_stop: Callable[[], object]
    ) -> None:
        """Run *body* to its own end, even while the caller is being cancelled.

        The cancellation calls *ask_to_stop*, which has to `begin` this budget; when that is over,
        *body* is cancelled for good. In every case a pending `Cancelled` travels on from here.
        """
        ended = False

        async def hear_cancellation() -> None:
            try:
                await trio.sleep_forever()
            finally:
                if not ended:
                    ask_to_stop()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear_cancellation)
            with self.to_the_end():
                await body()
            ended = True
            nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint_if_cancelled()
