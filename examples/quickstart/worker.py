"""Looks at the web server every two seconds; it can count on the server being there."""

import signal
import sys
import time
from urllib.request import urlopen


def leave(*_: object) -> None:
    print("the worker has put its tools away")
    sys.exit(0)


signal.signal(signal.SIGTERM, leave)
while True:
    with urlopen(sys.argv[1]) as answer:
        print(f"{answer.status}: {answer.read().decode().strip()}")
    time.sleep(2)
