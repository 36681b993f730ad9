"""``python -m bench.limits RUNS``: measure, and print what was measured as JSON.

A program of its own, because it imports what it measures, which the harness must not.
"""

import json
import sys
from dataclasses import asdict

from bench.limits import answers, health, restart, sampling, services, startup
from runtime import open_guard


def main() -> None:
    runs = int(sys.argv[1])
    guard = open_guard()  # as the command line does; from here on this is its child
    pairs = [
        *startup.measure(runs),
        *restart.measure(runs, guard),
        *health.measure(runs, guard),
        *services.measure(runs),
        *sampling.measure(runs, guard),
        *answers.measure(runs),
    ]
    print(json.dumps([asdict(pair) for pair in pairs]))


if __name__ == "__main__":
    main()
