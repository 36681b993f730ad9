"""Every tool that is measured, in the order of the table's columns."""

from pathlib import Path
from typing import Final

from bench.tools.base import Tool
from bench.tools.own import BareTrio, Runtime
from bench.tools.packaged import Circus, Honcho, ProcessPilot, Supervisor
from bench.tools.scanned import S6, Runit

OURS: Final = Runtime.name
FLOOR: Final = BareTrio.name


def make_tools(peers: Path) -> list[Tool]:
    """Return all tools; those from PyPI keep their environments in *peers*."""
    packaged = [kind(peers) for kind in (ProcessPilot, Circus, Supervisor, Honcho)]
    return [Runtime(), BareTrio(), S6(), Runit(), *packaged]
