"""``python -m bench.queues``: measure our queue beside the peers; print a table in Markdown."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from bench import table
from bench.tools.packaged import Environment

_HERE: Final = Path(__file__).parent
_LIMIT_SEC: Final = 300
_ROWS: Final = ("submit", "drain", "p50_ms")


class Contender(NamedTuple):
    """Who is measured: what is run (FILE stands for a new file), and what its answer is worth."""

    name: str
    durability: str
    program: tuple[str, ...]
    requirement: str | None = None
    slow: bool = False  #: a tenth of the number is enough


def _own(what: str, durability: str, url: str, callers: int) -> Contender:
    return Contender(what, durability, ("-m", "bench.queues.own", url, "NUMBER", str(callers)))


def _peer(package: str, version: str, durability: str, file: str = "FILE") -> Contender:
    # Imported: pynenc has no tasks in the program that is started.
    code = (
        f"import sys; sys.path.insert(0, {str(_HERE / 'peers')!r}); import peer_{package} as peer; "
    )
    program = ("-c", f"{code}peer.main(int(sys.argv[2]))", file, "NUMBER")
    kept = "memory" if file == "memory" else "SQLite"
    name = f"{package} {version}, {kept}"
    return Contender(name, durability, program, f"{package}=={version}", slow=file != "memory")


_SYNCED: Final = "fsync before each answer"
CONTENDERS: Final = (
    _own("ours, memory, ten callers", "none", "memory://", 10),
    _peer("pynenc", "0.1.1", "none", "memory"),
    _own("ours, SQLite, one caller", _SYNCED, "sqlite:///FILE", 1),
    _own("ours, SQLite, ten callers", _SYNCED, "sqlite:///FILE", 10),
    _peer("huey", "3.5.4", f"{_SYNCED}; no history"),
    _peer("dbos", "3.4.0", "its default for SQLite"),
    _peer("pynenc", "0.1.1", "no fsync"),
    *(
        Contender(
            f"bare SQLite, {callers} waiting",
            _SYNCED,
            ("-m", "bench.queues.limit", "FILE", "NUMBER", str(callers)),
        )
        for callers in (1, 10, 100)
    ),
)


def measure(contender: Contender, number: int, peers: Path) -> dict[str, float] | None:
    """Return its figures, or None where it is not there or fails."""
    python = sys.executable
    if contender.requirement is not None:
        environment = Environment(
            peers / contender.requirement.replace("==", "-"), contender.requirement
        )
        if not environment.is_there():
            return None
        python = str(environment.home / "bin" / "python")
    number = max(number // 10, 10) if contender.slow else number
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as folder:
        words = {"FILE": f"{folder}/queue.db", "NUMBER": str(number)}
        command = [python]
        for word in contender.program:
            for name, value in words.items():
                word = word.replace(name, value)  # noqa: PLW2901 - step by step
            command.append(word)
        return _run(contender.name, command)


def _run(name: str, command: list[str]) -> dict[str, float] | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_SEC, check=True
        )
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", None) or ""
        print(f"{name}: {error}\n{said}", file=sys.stderr)
        return None
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def render(figures: dict[str, list[dict[str, float] | None]]) -> str:
    """Return the table: medians of the runs."""
    lines = [
        "| no-op task | submit/s | drain/s | round trip p50, ms | durability |",
        "|---|---:|---:|---:|---|",
    ]
    for each in CONTENDERS:
        if each.name in figures:
            known = [run for run in figures[each.name] if run is not None]
            cells = [_cell(run[row] for run in known if row in run) for row in _ROWS]
            lines.append(f"| {each.name} | {' | '.join(cells)} | {each.durability} |")
    return "\n".join(lines)


def measure_claims(finished: int) -> dict[str, float] | None:
    """Return what a claim takes from a file with so many that have ended, and from an empty one."""
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as folder:
        command = [sys.executable, "-m", "bench.queues.full", folder, str(finished)]
        return _run("claims", command)


def render_claims(finished: int, found: dict[str, float]) -> str:
    """Return the table of the claims."""
    return "\n".join(
        [
            "| a claim of one, SQLite | p50, ms | against an empty file |",
            "|---|---:|---:|",
            f"| from an empty file | {found['empty_ms']:.2f} | |",
            f"| {finished:,} finished | {found['full_ms']:.2f} | {found['times']:.2f} times |",
        ]
    )


def _cell(values: Iterable[float]) -> str:
    known = list(values)
    if not known:
        return "–"  # noqa: RUF001 - a dash is what it is
    median = statistics.median(known)
    return f"{median:,.0f}" if median >= 100 else f"{median:.2f}"


def main() -> int:
    """Do what the arguments say; return 1 if one of them gave no figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.queues", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs in which all take turns (3)")
    parser.add_argument("--number", type=int, default=5000, help="tasks in a run (5000)")
    parser.add_argument("--ours", action="store_true", help="no peers, which have to be installed")
    parser.add_argument(
        "--write",
        type=table.QUEUES.file,
        metavar="FILE",
        help=f"put the tables between {table.QUEUES.begin} and {table.QUEUES.end} there as well",
    )
    parser.add_argument("--peers", type=Path, default=Path(sys.prefix, "bench-peers"))
    parser.add_argument(
        "--finished",
        type=int,
        default=1_000_000,
        help="so many finished invocations are in the file from which claims are measured,"
        " beside an empty one (1000000; takes half a minute, and 0 leaves it out)",
    )
    options = parser.parse_args()
    wanted = [each for each in CONTENDERS if not (options.ours and each.requirement)]
    figures: dict[str, list[dict[str, float] | None]] = {each.name: [] for each in wanted}
    for _ in range(options.runs):
        for each in wanted:
            figures[each.name].append(measure(each, options.number, options.peers))
    tables = [_caption(options), render(figures)]
    failed = any(run is None for runs in figures.values() for run in runs)
    if options.finished:
        claims = measure_claims(options.finished)
        failed |= claims is None
        if claims is not None:
            tables.append(render_claims(options.finished, claims))
    markdown = "\n\n".join(tables)
    print(markdown)
    if options.write is not None:
        table.QUEUES.write(options.write, markdown)
    return int(failed)


def _caption(options: argparse.Namespace) -> str:
    return (
        f"Medians of {options.runs} runs in which all took turns, {table.machine()}: "
        f"{options.number:,} tasks, a tenth of that for DBOS and for pynenc in a file, which take "
        "long. First they are submitted while nothing runs, then a runner takes them all and each "
        "result is asked for, then one is submitted and waited for after the other. Whatever runs "
        "them is in the same process as who asks."
    )


if __name__ == "__main__":
    sys.exit(main())
