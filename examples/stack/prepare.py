"""A one-shot: makes the folder for all that the stack writes, for whom its servers run as."""

import os
import shutil
import sys
from pathlib import Path

user = os.environ["STACK_USER"]
if os.geteuid() == 0 and not user:
    sys.exit("PostgreSQL refuses to run as root; say who is to run it, such as STACK_USER=postgres")

data = Path(os.environ["STACK_DATA"])
data.mkdir(parents=True, exist_ok=True)
if user:
    shutil.chown(data, int(user) if user.isdigit() else user)
