# mypy: ignore-errors
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""Measure huey: ``main(NUMBER)``, with the file as the first argument of the program."""

import json
import os
import statistics
import sys
import time

from huey import SqliteHuey

huey = SqliteHuey(filename=sys.argv[1], fsync=True)
WAIT = {"blocking": True, "backoff": 1.0}


@huey.task()
def nothing(number: int) -> int:
    return number


def main(number: int) -> None:
    found = {}
    began = time.perf_counter()
    submitted = [nothing(each) for each in range(number)]
    found["submit"] = number / (time.perf_counter() - began)
    consumer = huey.create_consumer(
        workers=10, initial_delay=0.01, backoff=1.0, max_delay=0.01, periodic=False
    )
    began = time.perf_counter()
    consumer.start()
    for each in submitted:
        each.get(**WAIT, max_delay=0.01)
    found["drain"] = number / (time.perf_counter() - began)
    trips = []
    for each in range(30):
        began = time.perf_counter()
        nothing(each).get(**WAIT, max_delay=0.001)
        trips.append(time.perf_counter() - began)
    found["p50_ms"] = 1000 * statistics.median(trips)
    print(json.dumps(found), flush=True)
    os._exit(0)  # its threads do not end
