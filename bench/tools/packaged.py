"""The peers from PyPI, each of a pinned version in a virtual environment of its own."""

import shlex
import shutil
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from bench.tools.base import NONE, Cannot, Child, Tool
from bench.tools.manifest import write_manifest


class Environment:
    """A virtual environment in *home* with what *requirement* says, made when first asked for."""

    def __init__(self, home: Path, requirement: str) -> None:
        self.home, self._requirement = home, requirement

    def is_there(self) -> bool:
        """Return whether it can be used, or could be made."""
        complete = self.home / "complete"
        if not complete.exists() and not self._install():
            shutil.rmtree(self.home, ignore_errors=True)
            return False
        complete.touch()
        return True

    def _install(self) -> bool:
        print(f"making an environment for {self._requirement}", file=sys.stderr)
        pip = [str(self.home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        made: Sequence[Sequence[str]] = (
            [sys.executable, "-m", "venv", "--clear", str(self.home)],
            [*pip, "install", "--quiet", self._requirement],
        )
        return all(subprocess.run(command, check=False).returncode == 0 for command in made)


class Packaged(Tool):
    """What is common to them: the environment in *peers*, made when it is first asked for."""

    pinned: ClassVar[str]
    program: ClassVar[str]

    def __init__(self, peers: Path) -> None:
        self._home = peers / f"{self.name}-{self.pinned}"

    def version(self) -> str | None:
        environment = Environment(self._home, f"{self.name}=={self.pinned}")
        return self.pinned if environment.is_there() else None

    def command(self, folder: Path) -> list[str]:
        return [str(self._home / "bin" / self.program), *self.arguments(folder)]

    @abstractmethod
    def arguments(self, folder: Path) -> list[str]:
        """Return the arguments of its program."""


class ProcessPilot(Packaged):
    name = "process-pilot"
    pinned = "0.4.7"
    program = "python"
    remark = "it has no command line and hears no signal: a script of its README's lines runs it"
    _SCRIPT = """\
import signal
import sys
from pathlib import Path
from process_pilot.pilot import ProcessPilot
from process_pilot.process import ProcessManifest

def stop(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it sends its own group the signal
    pilot.stop()

pilot = ProcessPilot(ProcessManifest.from_yaml(Path(sys.argv[1])))
signal.signal(signal.SIGTERM, stop)
pilot.start()
"""

    def write_config(self, folder: Path, children: Sequence[Child]) -> None:
        write_manifest(folder / "manifest.yaml", children)
        (folder / "pilot.py").write_text(self._SCRIPT)

    def arguments(self, folder: Path) -> list[str]:
        return [str(folder / "pilot.py"), str(folder / "manifest.yaml")]


class Sectioned(Packaged):
    """What has a file with a section for itself and one for each child."""

    cannot: ClassVar = {"chain": Cannot(NONE, "it orders starts, and has no readiness check")}
    #: Its own section, and the one of a child.
    head: ClassVar[str]
    section: ClassVar[str]
    options: ClassVar[Sequence[str]] = ()

    def write_config(self, folder: Path, children: Sequence[Child]) -> None:
        sections = [
            self.section.format(name=child.name, command=shlex.join(child.argv))
            for child in children
        ]
        (folder / "config.ini").write_text(self.head.format(folder=folder) + "".join(sections))

    def arguments(self, folder: Path) -> list[str]:
        return [*self.options, str(folder / "config.ini")]


class Circus(Sectioned):
    name = "circus"
    pinned = "0.19.0"
    program = "circusd"
    head = """\
[circus]
endpoint = ipc://{folder}/endpoint
pubsub_endpoint = ipc://{folder}/pubsub
"""
    section = "[watcher:{name}]\ncmd = {command}\n"


class Supervisor(Sectioned):
    name = "supervisor"
    pinned = "4.3.0"
    program = "supervisord"
    head = """\
[supervisord]
logfile = {folder}/supervisord.log
pidfile = {folder}/supervisord.pid
childlogdir = {folder}
"""
    section = "[program:{name}]\ncommand = {command}\n"
    options = ("--nodaemon", "--configuration")


class Honcho(Packaged):
    name = "honcho"
    pinned = "2.0.0"
    program = "honcho"
    cannot: ClassVar = {
        "crash": Cannot("never", "it never restarts: when one process ends, it ends the others"),
        "chain": Cannot(NONE, "it has no dependencies"),
    }
    remark = "one process of its own for each child is counted with it"

    def write_config(self, folder: Path, children: Sequence[Child]) -> None:
        lines = [f"{child.name}: {shlex.join(child.argv)}\n" for child in children]
        (folder / "Procfile").write_text("".join(lines))

    def arguments(self, folder: Path) -> list[str]:
        return ["start", "--procfile", str(folder / "Procfile")]
