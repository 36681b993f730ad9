"""A one-shot: writes nginx's configuration, and makes the database cluster unless there is one."""

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from string import Template

data = Path(os.environ["STACK_DATA"])


def configure_nginx(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    template = Template(Path("nginx.conf.in").read_text())
    (folder / "nginx.conf").write_text(template.safe_substitute(os.environ))


def make_cluster(folder: Path) -> None:
    """Make a cluster with a user and a password of its own, all of it or nothing."""
    unfinished = folder.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by one that was killed
    password = secrets.token_hex()
    (initdb,) = Path("/").glob(os.environ["STACK_POSTGRES"].lstrip("/") + "/initdb")
    options = ["--username=stack", "--auth=scram-sha-256", "--pwfile=/dev/stdin"]
    options += ["--encoding=UTF8", "--no-locale", f"--pgdata={unfinished}"]
    subprocess.run(
        [initdb, *options], input=password, text=True, stdout=subprocess.DEVNULL, check=True
    )
    passfile = unfinished / "pgpass"
    passfile.touch(mode=0o600)
    passfile.write_text(f"*:*:*:stack:{password}\n")
    unfinished.rename(folder)


configure_nginx(data / "nginx")
if not (data / "postgres").exists():
    make_cluster(data / "postgres")
    print("the database cluster is made")
