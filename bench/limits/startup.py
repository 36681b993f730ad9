"""From launch to the first child, against the imports that cannot be done without."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.limits.pair import Pair

_IMPORTS = "import trio, pydantic"
# What is measured is an installed program, and those have their bytecode.
_ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def measure(runs: int) -> list[Pair]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = folder / "manifest.yaml"
        manifest.write_text(
            "processes:\n"
            "  - {name: now, path: date, args: ['+%s%N'], shutdown_strategy: do_not_restart}\n"
        )
        pair = Pair(f'launch to first child, against `python -c "{_IMPORTS}"`')
        for run in range(runs + 1):
            ours, limit = _until_first_child(manifest, folder), _until_imported()
            if run > 0:  # the first warms the caches
                pair.ours.append(ours)
                pair.limit.append(limit)
    return [pair]


def _until_first_child(manifest: Path, folder: Path) -> float:
    began = time.time_ns()
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "run", manifest, "--run-directory", folder / "run"],
        check=True,
        capture_output=True,
        text=True,
        env=_ENVIRONMENT,
    )
    return (int(done.stdout.rpartition("| ")[2]) - began) / 1e6


def _until_imported() -> float:
    code = f"{_IMPORTS}, time; print(time.time_ns())"
    began = time.time_ns()
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=_ENVIRONMENT)
    return (int(done.stdout) - began) / 1e6
