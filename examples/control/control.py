"""Asks the tree of the manifest beside it: python control.py ACTION [NAME ...]."""

import json
import socket
import sys
from pathlib import Path

action, *names = sys.argv[1:] or ["status"]
request = {"action": action, "processes": names} if names else {"action": action}
with socket.socket(socket.AF_UNIX) as client:
    client.connect(str(Path(__file__).with_name("control.sock")))
    with client.makefile("rw") as lines:
        lines.write(json.dumps(request) + "\n")
        lines.flush()
        answer = json.loads(lines.readline())

if not answer["ok"]:
    sys.exit(answer["error"]["message"])
for process in answer["processes"]:
    print(f"{process['name']:8} {process['status']:10} {process['pid'] or '':>8}")
