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


class Packaged(Tool):
    """What is common to them: the environment in *peers*, made when it is first asked for."""

    pinned: ClassVar[str]
    program: ClassVar[str]

    def __init__(self, peers: Path) -> None:
        self._home = peers / f"{self.name}-{self.pinned}"

    def version(self) -> str | None:
        complete = self._home / "complete"
        if not complete.exists() and not self._install():
            shutil.rmtree(self._home, ignore_errors=True)
            return None
        complete.touch()
        return self.pinned

    def _install(self) -> bool:
        requirement = f"{self.name}=={self.pinned}"
        print(f"making an environment for {requirement}", file=sys.stderr)
        pip = [str(self._home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        made: Sequence[Sequence[str]] = (
            [sys.executable, "-m", "venv", "--clear", str(self._home)],
            [*pip, "install", "--quiet", requirement],
        )
        return all(subprocess.run(command, check=False).returncode == 0 for command in made)

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


class Circus(Packaged):
    name = "circus"
    pinned = "0.19.0"
    program = "circusd"
    cannot: ClassVar = {"chain": Cannot(NONE, "it orders starts, and has no readiness check")}

    def write_config(self, folder: Path, children: Sequence[Child]) -> None:
        head = (
            f"[circus]\nendpoint = ipc://{folder}/endpoint\n"
            f"pubsub_endpoint = ipc://{folder}/pubsub\n"
        )
        watchers = [f"[watcher:{c.name}]\ncmd = {shlex.join(c.argv)}\n" for c in children]
        (folder / "circus.ini").write_text("\n".join([head, *watchers]))

    def arguments(self, folder: Path) -> list[str]:
        return [str(folder / "circus.ini")]


class Supervisor(Packaged):
    name = "supervisor"
    pinned = "4.3.0"
    program = "supervisord"
    cannot: ClassVar = {"chain": Cannot(NONE, "it orders starts, and has no readiness check")}

    def write_config(self, folder: Path, children: Sequence[Child]) -> None:
        head = (
            f"[supervisord]\nlogfile = {folder}/supervisord.log\n"
            f"pidfile = {folder}/supervisord.pid\nchildlogdir = {folder}\n"
        )
        programs = [f"[program:{c.name}]\ncommand = {shlex.join(c.argv)}\n" for c in children]
        (folder / "supervisord.conf").write_text("\n".join([head, *programs]))

    def arguments(self, folder: Path) -> list[str]:
        return ["--nodaemon", "--configuration", str(folder / "supervisord.conf")]


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
