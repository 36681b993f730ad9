"""What an answer of the HTTP server costs, against a bare application on Hypercorn as it is.

Server and client are programs of their own: with two cores, one for each. The two servers take
turns within each run.
"""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean
from typing import IO, Final

from bench.limits.load import CONNECTIONS, Load, percentile
from bench.limits.pair import Pair
from bench.limits.site import MANY

#: Seconds of one turn, and how many turns each side has in a run.
_TURN_SEC: Final = 0.5
_TURNS: Final = 4
_LATE: Final = 0.99
_REQUESTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Site:
    """A server under way, and how to tell it something."""

    port: int
    tells: IO[str]
    hears: IO[str]

    def say(self, word: str, answer: str) -> list[str]:
        """Say *word* and wait until *answer* comes; return what comes with it."""
        self.tells.write(f"{word}\n")
        self.tells.flush()
        said, *more = self.hears.readline().split() or [""]
        if said != answer:
            raise RuntimeError(f"the site said {said!r} and not {answer!r}")
        return more


def measure(runs: int, *, turn_sec: float = _TURN_SEC) -> list[Pair]:
    with open_site("ours") as ours, open_site("bare") as bare, open_site("served") as served:
        whole = size_of(ours, "/")
        asked = {"/": whole, **{path: size_of(ours, path) for path in ("/healthz", "/readyz")}}
        pairs = [
            _compare(
                f"{_REQUESTS:,} times `GET {path}` ({size:,} bytes), by us and by a bare app",
                [(ours, path), (bare, f"/{size}")],
                runs,
                turn_sec,
            )
            for path, size in asked.items()
        ]
        what = f"{_REQUESTS:,} times {whole:,} bytes of the bare app, served by us and by Hypercorn"
        pairs.append(_compare(what, [(served, f"/{whole}"), (bare, f"/{whole}")], runs, turn_sec))
        pairs.append(_compare_storm(ours, runs, turn_sec))
    return pairs


@contextmanager
def open_site(kind: str) -> Generator[Site]:
    """Run a server as long as the block lasts."""
    with open_program("bench.limits.site", kind) as (tells, hears):
        yield Site(int(hears.readline()), tells, hears)


@contextmanager
def open_program(*command: str) -> Generator[tuple[IO[str], IO[str]]]:
    """Run a module as long as the block lasts; give its standard input and output."""
    program = subprocess.Popen(
        [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            yield program.stdin, program.stdout
        finally:
            program.stdin.close()  # the end of its input is its own
            program.wait()


def size_of(site: Site, path: str) -> int:
    """Return how many bytes *site* answers at *path*."""
    with Load(site.port, path, connections=1) as load:
        load.run(0)
        return load.size


def _compare(what: str, sides: list[tuple[Site, str]], runs: int, turn_sec: float) -> Pair:
    """Measure the milliseconds of `_REQUESTS` requests on all connections, side by side."""
    pair = Pair(what)
    with Load(sides[0][0].port, sides[0][1]) as ours, Load(sides[1][0].port, sides[1][1]) as limit:
        for run in range(runs + 1):
            turns = [(_cost(ours, turn_sec), _cost(limit, turn_sec)) for _ in range(_TURNS)]
            if run > 0:  # the first warms up
                pair.ours.append(mean(turn[0] for turn in turns))
                pair.limit.append(mean(turn[1] for turn in turns))
    return pair


def _cost(load: Load, seconds: float) -> float:
    """Return the milliseconds of `_REQUESTS` answers, one after the other."""
    return mean(load.run(seconds)) * 1000 * _REQUESTS / CONNECTIONS


def _compare_storm(site: Site, runs: int, turn_sec: float) -> Pair:
    what = f"99 of 100 `GET /` while {MANY} processes restart all the time, against the quiet"
    pair = Pair(f"{what} ({CONNECTIONS} at once)")
    with Load(site.port, "/") as load:
        load.run(turn_sec)
        for _ in range(runs):
            pair.limit.append(_late(load.run(turn_sec * _TURNS)))
            site.say("storm", "begun")
            pair.ours.append(_late(load.run(turn_sec * _TURNS)))
            site.say("quiet", "ended")
    return pair


def _late(taken: list[float]) -> float:
    return percentile(taken, _LATE) * 1000
