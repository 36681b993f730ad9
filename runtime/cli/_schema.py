"""The command `schema`: prints what editors check a manifest by."""

import json
from pathlib import Path

from runtime._schema import manifest_schema

from ._output import put


def schema(output: Path | None) -> int:
    """Write the schema to *output*, or to standard output, and return the exit status."""
    text = json.dumps(manifest_schema(), indent=2, ensure_ascii=False)
    return put(f"{text}\n".encode(), output)
