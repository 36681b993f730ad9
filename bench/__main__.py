"""``python -m bench``: measure, and print one table of medians and ratios.

Machines are noisy, so the ratio is the figure to quote: numerator and denominator take turns.
"""

import argparse
import statistics
from collections.abc import Callable

from bench import restart, startup
from runtime import Guard, open_guard

Measurement = Callable[[int, Guard], list[tuple[str, list[float], list[float]]]]
_MEASUREMENTS: dict[str, Measurement] = {
    "startup": startup.measure,
    "restart": restart.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("only", nargs="*", choices=[[], *_MEASUREMENTS], help="default: all")
    parser.add_argument("--runs", type=int, default=7, help="runs of each (default: 7)")
    options = parser.parse_args()
    guard = open_guard()  # as the command line does; from here on this is its child
    print("| what | runtime, ms | limit, ms | ratio |\n|---|---|---|---|")
    for name, measure in _MEASUREMENTS.items():
        if options.only and name not in options.only:
            continue
        for what, ours, limit in measure(options.runs, guard):
            ratio = statistics.median(a / b for a, b in zip(ours, limit, strict=True))
            figures = f"{statistics.median(ours):.2f} | {statistics.median(limit):.2f}"
            print(f"| {what} | {figures} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
