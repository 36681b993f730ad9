"""Loads a manifest for every command that needs one, so that all of them judge it alike."""

from pathlib import Path

import click

from runtime._plugin_registry import check_plugins
from runtime.manifest import Manifest, ManifestError, load_manifest

#: The exit status when a manifest is wrong.
WRONG = 2


def load_or_tell(manifest: Path) -> Manifest | None:
    """Return what *manifest* says, or tell all that is wrong with it and return None."""
    try:
        return load_manifest(manifest, check=check_plugins)
    except ManifestError as error:
        click.echo(error, err=True)
        return None
