"""The runtime itself, and the least that does anything like it: a loop around `open_process`."""

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from bench.tools.base import Child, Tool
from bench.tools.manifest import write_manifest
from runtime._procfs import list_children


class Runtime(Tool):
    """``python -m runtime run``, guard included, without its HTTP server: few peers have one."""

    name = "trio-runtime"
    remark = (
        "without its HTTP server (`--no-http`; with it there are 16 MiB more); its guard is "
        "counted with it; for *left behind* runtime and guard are killed in turn, and the worse is "
        "shown"
    )

    def version(self) -> str:
        return version(self.name)

    def write_config(self, folder: Path, children: Sequence[Child]) -> None:
        write_manifest(folder / "manifest.yaml", children)

    def command(self, folder: Path) -> list[str]:
        options = ["--run-directory", str(folder / "run"), "--no-http"]
        return [sys.executable, "-m", "runtime", "run", str(folder / "manifest.yaml"), *options]

    def supervisors(self, pid: int) -> list[int]:
        """Return the runtime, and the guard above it, which is what was started."""
        return [*list_children(pid), pid]


class BareTrio(Tool):
    """The floor: `bare_trio.py`, which has no configuration, no guard and no output to read."""

    name = "bare Trio"
    remark = "the floor: 40 lines around `open_process` that start, restart and stop, and no more"

    def version(self) -> str:
        return version("trio")

    def write_config(self, folder: Path, children: Sequence[Child]) -> None:
        plan = [
            {"argv": child.argv, "ready_file": child.ready_file and str(child.ready_file)}
            for child in children
        ]
        (folder / "plan.json").write_text(json.dumps(plan))

    def command(self, folder: Path) -> list[str]:
        program = Path(__file__).with_name("bare_trio.py")
        return [sys.executable, "-P", str(program), str(folder / "plan.json")]
