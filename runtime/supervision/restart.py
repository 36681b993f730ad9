"""When a unit that ended is started again, and how long it waits before. Arithmetic only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class RestartWhen(StrEnum):
    """Which ends are followed by a restart."""

    ALWAYS = "always"  #: every end that was not asked for
    FAILURE = "failure"  #: only ends that were failures
    NEVER = "never"  #: none


class GroupStrategy(StrEnum):
    """Who of a group is restarted together with a member of it."""

    ONE_FOR_ALL = "one_for_all"  #: all others
    REST_FOR_ONE = "rest_for_one"  #: those behind it


def restarted_with(
    strategy: GroupStrategy, members: Sequence[Sequence[str]]
) -> Mapping[str, tuple[str, ...]]:
    """Return for each unit of a group those that are restarted with it.

    A member is one unit or several side by side, such as replicas: none of these is behind another.
    """
    behind: tuple[str, ...] = ()
    found: dict[str, tuple[str, ...]] = {}
    for member in reversed(members):
        found.update(dict.fromkeys(member, behind))
        behind = (*member, *behind)
    if strategy is GroupStrategy.REST_FOR_ONE:
        return found
    return dict.fromkeys(behind, behind)  # that one is restarted with itself says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How a unit comes back after it ended unasked.

    The n-th restart in a row waits ``delay_sec * factor ** (n - 1)`` seconds, at most
    *max_delay_sec*, plus a random part of up to *jitter* times that; with *first_at_once* the
    first one waits for nothing and the others move up by one. A unit that was ready for
    *forgive_after_sec* is forgiven: the row begins anew. After *max_restarts* restarts, within
    *window_sec* seconds or, without a window, since it was last forgiven, it is given up.
    """

    when: RestartWhen = RestartWhen.NEVER
    delay_sec: float = 0.1
    factor: float = 2.0
    max_delay_sec: float = 30.0
    jitter: float = 0.0
    first_at_once: bool = False
    forgive_after_sec: float = 60.0
    max_restarts: int | None = None
    window_sec: float | None = None


@dataclass(frozen=True, slots=True)
class RestartHistory:
    """What the policy remembers: restarts in a row, and when those were that still count."""

    in_a_row: int = 0
    counted: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RestartIn:
    """Start it again after *delay_sec* seconds."""

    delay_sec: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start it again, because it has been tried often enough."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Do not start it again: the policy has no restart for such an end."""


Verdict = RestartIn | GiveUp | Finished


def delay_before(policy: RestartPolicy, restart: int, random: float) -> float:
    """Return the seconds before the *restart*-th restart in a row; *random* is in [0, 1)."""
    exponent = restart - 1
    if policy.first_at_once:
        if restart == 1:
            return 0.0
        exponent -= 1
    try:
        grown = policy.delay_sec * policy.factor**exponent
    except OverflowError:
        grown = policy.max_delay_sec if policy.delay_sec else 0.0
    return min(grown, policy.max_delay_sec) * (1 + policy.jitter * random)


def judge_end(
    policy: RestartPolicy,
    history: RestartHistory,
    *,
    failed: bool,
    ready_sec: float | None,
    now: float,
    random: float,
) -> tuple[Verdict, RestartHistory]:
    """Say what follows an unasked end at *now*, after the unit had been ready for *ready_sec*.

    None: it has never been.
    """
    if policy.when == RestartWhen.NEVER or (policy.when == RestartWhen.FAILURE and not failed):
        return Finished(), history
    if ready_sec is not None and ready_sec >= policy.forgive_after_sec:
        history = RestartHistory(counted=history.counted if policy.window_sec else ())
    if policy.max_restarts is not None:
        since = now - policy.window_sec if policy.window_sec else float("-inf")
        counted = tuple(moment for moment in history.counted if moment > since)
        if len(counted) >= policy.max_restarts:
            return GiveUp(_given_up(policy, counted, now)), history
        history = replace(history, counted=(*counted, now))
    history = replace(history, in_a_row=history.in_a_row + 1)
    return RestartIn(delay_before(policy, history.in_a_row, random)), history


def _given_up(policy: RestartPolicy, counted: Sequence[float], now: float) -> str:
    """Return in words how often it was restarted, and within what time, before it is given up."""
    if not counted:
        return "given up, for it may not be restarted (max_restarts is 0)"
    often = f"{len(counted)} restart{'s' if len(counted) > 1 else ''}"
    if policy.window_sec:
        return f"given up after {often} within {policy.window_sec:g} s"
    return f"given up after {often} in {max(now - counted[0], 0.1):.1f} s"
