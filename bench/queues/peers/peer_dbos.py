# mypy: ignore-errors
# pyright: basic, reportMissingImports=false
"""Measure DBOS: ``main(NUMBER)``, with the file as the first argument of the program."""

import json
import os
import statistics
import sys
import time

from dbos import DBOS

DBOS(
    config={
        "name": "bench",
        "system_database_url": f"sqlite:///{sys.argv[1]}",
        "log_level": "ERROR",
        "run_admin_server": False,
    }
)


@DBOS.workflow()
def nothing(number: int) -> int:
    return number


def main(number: int) -> None:
    DBOS.launch()
    DBOS.register_queue("queue", concurrency=10)
    queue = DBOS.retrieve_queue("queue")
    found = {}
    began = time.perf_counter()
    submitted = [queue.enqueue(nothing, each) for each in range(number)]
    found["submit"] = number / (time.perf_counter() - began)
    began = time.perf_counter()
    for each in submitted:
        each.get_result()
    found["drain"] = number / (time.perf_counter() - began)
    trips = []
    for each in range(10):
        began = time.perf_counter()
        queue.enqueue(nothing, each).get_result()
        trips.append(time.perf_counter() - began)
    found["p50_ms"] = 1000 * statistics.median(trips)
    print(json.dumps(found), flush=True)
    os._exit(0)  # its threads do not end
