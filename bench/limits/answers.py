"""What an answer of the HTTP server costs, against a bare application on Hypercorn as it is.

Server and client are programs of their own, and what counts is the cpu of the server: as long as
it has a core for itself, that is how many answers it gives. The two servers take turns within each
run.
"""

import subprocess
import sys
import time
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
# Of the clocks of a process the one of its cpu; the number of a clock is made of this and the pid,
# as clock_getcpuclockid(3) does it.
_CPU_OF_A_PROCESS: Final = 2
_REQUESTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Site:
    """A server under way, and how to tell it something."""

    port: int
    pid: int
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

    def cpu_sec(self) -> float:
        """Return the seconds of cpu that it has used."""
        return time.clock_gettime(~self.pid << 3 | _CPU_OF_A_PROCESS)


def measure(runs: int, *, turn_sec: float = _TURN_SEC) -> list[Pair]:
    with open_site("ours") as ours, open_site("bare") as bare, open_site("served") as served:
        whole = size_of(ours, "/")
        asked = {"/": whole, **{path: size_of(ours, path) for path in ("/healthz", "/readyz")}}
        pairs = [
            _compare(
                f"cpu of {_REQUESTS:,} times `GET {path}` ({size:,} bytes), by us and a bare app",
                [(ours, path), (bare, f"/{size}")],
                runs,
                turn_sec,
            )
            for path, size in asked.items()
        ]
        what = (
            f"cpu of {_REQUESTS:,} times {whole:,} bytes of a bare app, served by us and Hypercorn"
        )
        pairs.append(_compare(what, [(served, f"/{whole}"), (bare, f"/{whole}")], runs, turn_sec))
        storms = [(ours, "/"), (bare, f"/{whole}")]
        return [*pairs, *_compare_storms(storms, runs, turn_sec)]


@contextmanager
def open_site(kind: str) -> Generator[Site]:
    """Run a server as long as the block lasts."""
    with open_program("bench.limits.site", kind) as (tells, hears):
        port, pid = map(int, hears.readline().split())
        yield Site(port, pid, tells, hears)


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
    load = Load(site.port, path, connections=1)
    load.run(0)
    return load.size


def _compare(what: str, sides: list[tuple[Site, str]], runs: int, turn_sec: float) -> Pair:
    """Measure the milliseconds of cpu of `_REQUESTS` requests, side by side."""
    pair = Pair(what)
    (ours, path), (limit, limits_path) = sides
    load, limits_load = Load(ours.port, path), Load(limit.port, limits_path)
    for run in range(runs + 1):
        turns = [
            (_cost(ours, load, turn_sec), _cost(limit, limits_load, turn_sec))
            for _ in range(_TURNS)
        ]
        if run > 0:  # the first warms up
            pair.ours.append(mean(turn[0] for turn in turns))
            pair.limit.append(mean(turn[1] for turn in turns))
    return pair


def _cost(site: Site, load: Load, seconds: float) -> float:
    """Return the milliseconds of cpu that `_REQUESTS` answers take, asked on all connections."""
    began = site.cpu_sec()
    answers = len(load.run(seconds))
    return (site.cpu_sec() - began) * 1000 * _REQUESTS / answers


def _compare_storms(sides: list[tuple[Site, str]], runs: int, turn_sec: float) -> Generator[Pair]:
    """Yield how late answers are in a storm, against the quiet, and against a bare storm.

    What of it is the machine's doing, which has to start a hundred programs meanwhile, is what a
    bare app suffers beside bare processes.
    """
    storm = f"99 of 100 `GET /` while {MANY} processes restart all the time"
    own = Pair(f"{storm}, against the quiet ({CONNECTIONS} at once)")
    bare = Pair(f"the same of a bare app beside {MANY} of `open_process`, against its quiet")
    both = Pair(f"{storm}, against a bare app beside {MANY} of `open_process`")
    for _ in range(runs):
        for pair, (site, path) in zip((own, bare), sides, strict=True):
            load = Load(site.port, path)
            load.run(turn_sec)
            pair.limit.append(_late(load.run(turn_sec * _TURNS)))
            site.say("storm", "begun")
            pair.ours.append(_late(load.run(turn_sec * _TURNS)))
            site.say("quiet", "ended")
        both.ours.append(own.ours[-1])
        both.limit.append(bare.ours[-1])
    yield from (own, bare, both)


def _late(taken: list[float]) -> float:
    return percentile(taken, _LATE) * 1000
