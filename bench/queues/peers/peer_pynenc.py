# mypy: ignore-errors
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""Measure pynenc: ``main(NUMBER)``, with the file as the first argument of the program.

"memory" for the file keeps nothing.
"""

import json
import os
import statistics
import sys
import threading
import time

from pynenc import PynencBuilder

builder = PynencBuilder().app_id("bench").thread_runner()
builder = builder.memory() if sys.argv[1] == "memory" else builder.sqlite(sys.argv[1])
app = builder.logging_level("error").build()


@app.task
def nothing(number: int) -> int:
    return number


def main(number: int) -> None:
    found = {}
    began = time.perf_counter()
    submitted = [nothing(each) for each in range(number)]
    found["submit"] = number / (time.perf_counter() - began)
    began = time.perf_counter()
    threading.Thread(target=app.runner.run, daemon=True).start()
    for each in submitted:
        _ = each.result  # waits
    found["drain"] = number / (time.perf_counter() - began)
    trips = []
    for each in range(20):
        began = time.perf_counter()
        _ = nothing(each).result
        trips.append(time.perf_counter() - began)
    found["p50_ms"] = 1000 * statistics.median(trips)
    print(json.dumps(found), flush=True)
    os._exit(0)  # its threads do not end
