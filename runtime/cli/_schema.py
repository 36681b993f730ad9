"""The command `schema`: prints what a manifest may say, for editors or for people."""

import json
from pathlib import Path

from runtime._reference import manifest_reference
from runtime._schema import manifest_schema

from ._output import put


def schema(output: Path | None, format_name: str) -> int:
    """Write the schema to *output*, or to standard output, and return the exit status."""
    if format_name == "markdown":
        text = manifest_reference()
    else:
        text = json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n"
    return put(text.encode(), output)
