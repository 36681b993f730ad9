"""s6 and runit: a folder that holds a folder for each service, with a script that starts it."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from bench.tools.base import NONE, Cannot, Child, Tool


class Scanned(Tool):
    """What both have in common; their folders are alike."""

    program: ClassVar[str]
    options: ClassVar[Sequence[str]] = ()
    #: What the script of a service does before it becomes the child.
    first_line: ClassVar[str] = ""

    def version(self) -> str | None:
        if shutil.which(self.program) is None:
            return None
        query = ["dpkg-query", "--show", "--showformat=${Version}", self.name]
        try:
            asked = subprocess.run(query, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError):
            return "of unknown version"  # neither has an option that tells
        return asked.stdout

    def write_config(self, folder: Path, children: Sequence[Child]) -> None:
        services = folder / "services"
        for child in children:
            script = services / child.name / "run"
            script.parent.mkdir(parents=True)
            script.write_text(f"#!/bin/sh\n{self.first_line}exec {shlex.join(child.argv)}\n")
            script.chmod(0o755)
            self.write_more(script.parent)
        # runit waits a second when it finds the folder just changed, which in use it is not.
        before = time.time() - 60
        os.utime(services, (before, before))

    def write_more(self, service: Path) -> None:
        """Write what else the folder of a *service* needs."""

    def command(self, folder: Path) -> list[str]:
        return [self.program, *self.options, str(folder / "services")]


class S6(Scanned):
    name = "s6"
    program = "s6-svscan"
    cannot: ClassVar = {"chain": Cannot(NONE, "its `s6-svscan` has no dependencies (s6-rc has)")}
    first_line = "echo >&3; exec 3>&-\n"
    remark = (
        "one `s6-supervise` for each child is counted with it; children start through `sh`, which "
        "notifies it of their readiness, or each restart would wait a second"
    )

    def write_more(self, service: Path) -> None:
        (service / "notification-fd").write_text("3\n")


class Runit(Scanned):
    name = "runit"
    program = "runsvdir"
    options = ("-P",)
    cannot: ClassVar = {"chain": Cannot(NONE, "it has no dependencies")}
    stop_signal = signal.SIGHUP  # at SIGTERM it leaves, and its children go on
    remark = (
        "one `runsv` for each child is counted with it; children start through `sh`; it is stopped "
        "by SIGHUP, because SIGTERM leaves its children running"
    )
