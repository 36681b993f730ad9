"""The manifest that the runtime and Process Pilot both read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.tools.base import Child


def write_manifest(path: Path, children: Sequence[Child]) -> None:
    """Write the manifest of *children*: one line for each."""
    entries = [f"  - {json.dumps(_entry(child))}\n" for child in children]
    path.write_text("processes:\n" + "".join(entries))


def _entry(child: Child) -> dict[str, Any]:
    program, *args = child.argv
    entry: dict[str, Any] = {"name": child.name, "path": program, "args": args}
    if child.after is not None:
        entry["dependencies"] = [child.after]
    if child.ready_file is not None:
        entry["ready_strategy"] = "file"
        entry["ready_params"] = {"path": str(child.ready_file)}
    return entry
