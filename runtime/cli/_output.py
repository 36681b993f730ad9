"""Puts what a command has made where it was told to: into a file, or on standard output."""

from pathlib import Path

import click


def put(data: bytes, output: Path | None) -> int:
    """Write *data* to *output*, or to standard output, and return the exit status."""
    if output is None:
        click.echo(data, nl=False)
        return 0
    try:
        output.write_bytes(data)
    except OSError as error:
        name = click.format_filename(output)
        click.echo(f"cannot write {name}: {error.strerror or error}", err=True)
        return 1
    return 0
