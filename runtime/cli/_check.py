"""The command `check`: says what `run` would say of a manifest, and starts nothing."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from runtime.manifest import Manifest

from ._load import WRONG, load_or_tell


def check(manifests: Sequence[Path]) -> int:
    """Check each of *manifests*, tell how it is, and return the exit status."""
    sys.dont_write_bytecode = True  # what looks at a folder of plugins leaves nothing there
    status = 0
    for path in manifests:
        manifest = load_or_tell(path)
        if manifest is None:
            status = WRONG
        else:
            click.echo(f"{click.format_filename(path)}: fine: {describe(manifest)}")
    return status


def describe(manifest: Manifest) -> str:
    """Return how much there is in *manifest*."""
    edges = sum(len(entry.requirements) for entry in manifest.entries())
    counts = [
        _count(len(manifest.processes), "process", "processes"),
        *(
            _count(len(entries), each, f"{each}s")
            for each, entries in (
                ("service", manifest.services),
                ("runner", manifest.runners),
                ("job", manifest.jobs),
            )
            if entries
        ),
        _count(edges, "dependency", "dependencies"),
    ]
    return ", ".join(counts)


def _count(number: int, one: str, many: str) -> str:
    return f"{number or 'no'} {one if number == 1 else many}"
