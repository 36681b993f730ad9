"""Puts what a command has made where it was told to: into a file, or on standard output."""

import os
import sys
from pathlib import Path

import click

#: As of a shell's program that SIGPIPE has ended.
NOT_READ = 141


def nobody_reads() -> int:
    """Return the exit status of a command whose output nobody reads any more.

    What is flushed at the end finds somebody who does.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return NOT_READ


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
