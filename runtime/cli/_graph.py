"""The command `graph`: draws who waits for whom."""

import subprocess
import sys
from pathlib import Path

import click

from ._drawing import draw, to_dot, to_mermaid
from ._load import WRONG, load_or_tell
from ._output import put

_ENDINGS = {
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".dot": "dot",
    ".gv": "dot",
    ".svg": "svg",
    ".png": "png",
    ".pdf": "pdf",
}
_NOT_FOR_TERMINALS = ("png", "pdf")
_REMEDY = (
    "install the package graphviz (`apt-get install graphviz`, `dnf install graphviz`),"
    " or use --format mermaid or dot, which need nothing"
)


class DrawingError(Exception):
    """Graphviz cannot draw; *problem* says why, and what to do about it."""

    problem: str

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


def graph(manifest: Path, format_name: str | None, output: Path | None) -> int:
    """Draw *manifest* into *output*, or on standard output, and return the exit status."""
    chosen = choose_format(format_name, output, terminal=sys.stdout.isatty())
    loaded = load_or_tell(manifest)
    if loaded is None:
        return WRONG
    drawing = draw(loaded)
    if chosen == "mermaid":
        return put(to_mermaid(drawing).encode(), output)
    dot = to_dot(drawing).encode()
    try:
        return put(dot if chosen == "dot" else render(dot, chosen), output)
    except DrawingError as error:
        click.echo(error, err=True)
        return 1


def choose_format(given: str | None, output: Path | None, *, terminal: bool) -> str:
    """Return the format that was given, else the one of the file's ending, else Mermaid.

    Raises `click.UsageError` for an ending that says nothing, and for a picture on a terminal.
    """
    if given is None and output is not None:
        given = _ENDINGS.get(output.suffix.lower())
        if given is None:
            known = ", ".join(_ENDINGS)
            raise click.UsageError(
                f"{click.format_filename(output)!r} ends in none of {known}: give --format as well"
            )
    chosen = given or "mermaid"
    if chosen in _NOT_FOR_TERMINALS and output is None and terminal:
        raise click.UsageError(f"a terminal cannot show {chosen}: give --output FILE")
    return chosen


def render(dot: bytes, format_name: str) -> bytes:
    """Return what Graphviz's program `dot` makes of *dot*; raise `DrawingError` if it cannot."""
    try:
        done = subprocess.run(
            ["dot", f"-T{format_name}"], check=False, input=dot, capture_output=True
        )
    except OSError as error:
        reason = "is not there" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise DrawingError(
            f"{format_name} is drawn by Graphviz's program `dot`, which {reason}: {_REMEDY}"
        ) from error
    if done.returncode != 0:
        words = " ".join(done.stderr.decode(errors="replace").split()) or "no reason given"
        raise DrawingError(f"`dot -T{format_name}` failed with {done.returncode}: {words}")
    return done.stdout
