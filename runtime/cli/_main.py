"""``python -m runtime``: its commands and their options."""

import atexit
import gc
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from runtime import _late
from runtime.guard import open_guard

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_FLAGS = ("-h", "--help", "--version")
_PATH = click.Path(path_type=Path)
_output_option = click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it; default: standard output.",
)


class _Commands(click.Group):
    """A group in which the name of a manifest alone means `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in _FLAGS:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Commands, context_settings=_CONTEXT, no_args_is_help=True)
@click.version_option(package_name="trio-runtime", prog_name="trio-runtime")
def cli() -> None:
    """Run several things together, as one tree.

    `python -m runtime MANIFEST` is short for `python -m runtime run MANIFEST`, which a file needs
    that is named like a command. `python -m runtime COMMAND --help` tells more of each, and its
    exit status.

    \b
    Examples:
      python -m runtime manifest.yaml
      python -m runtime check manifest.yaml
      python -m runtime graph manifest.yaml --output graph.svg
      python -m runtime schema --output manifest.schema.json
    """  # noqa: D301 - click reads the backspace


@cli.command(no_args_is_help=True, short_help="Run a manifest, until Ctrl-C or its own end.")
@click.argument("manifest", type=_PATH)
@click.option("--keep", is_flag=True, help="Go on when all processes have ended.")
@click.option(
    "--run-directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the lock; default: one for this manifest, in the user's own run folder.",
)
@click.option("--no-guard", is_flag=True, help="Run without the guard that outlives a kill -9.")
def run(manifest: Path, run_directory: Path | None, *, keep: bool, no_guard: bool) -> None:
    """Start everything in MANIFEST, and stop it in order at Ctrl-C or SIGTERM.

    The exit status is 0 when it was asked to stop and when everything has completed well, 2 when
    the manifest is wrong (nothing was started then), 1 when it cannot run, and otherwise that of
    the process that failed or ended the tree, 128 + n for signal n.

    \b
    Examples:
      python -m runtime manifest.yaml
      python -m runtime run --keep examples/quickstart/manifest.yaml
    """  # noqa: D301 - click reads the backspace
    guard = None if no_guard else open_guard()
    # Until the tree listens itself, there is nothing to stop: a signal just ends this process.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:  # nohup
            signal.signal(signum, _leave)
    gc.disable()  # what is loaded from here on is there to the end: no garbage to be looked for
    # Only now, or the guard would carry it all as well.
    _end(_late.command("run").run(manifest, keep, run_directory, guard))


def _end(status: int) -> NoReturn:
    """End this process as `sys.exit` does, but do not take the interpreter apart before.

    Nothing of the tree is left here, and that alone would take longer than its whole stop. Nor is
    a thread waited for that a plugin has left behind: to stop takes a bounded time.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - what multiprocessing calls, too, where its forks end
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it, or somebody has closed it
            if stream is not None:
                stream.flush()
    os._exit(status)


@cli.command(no_args_is_help=True, short_help="Say whether manifests are right.")
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, type=_PATH)
def check(manifests: tuple[Path, ...]) -> None:
    """Say whether each MANIFEST is right, as `run` would, and start nothing.

    A line on standard output for each that is; for the others, every problem on standard error:
    FILE:LINE: where in it: what is wrong. The exit status is 0 when all are right, else 2.

    \b
    Examples:
      python -m runtime check manifest.yaml
      python -m runtime check examples/*/manifest.yaml
    """  # noqa: D301 - click reads the backspace
    sys.exit(_late.command("check").check(manifests))


@cli.command(no_args_is_help=True, short_help="Draw what waits for what.")
@click.argument("manifest", type=_PATH)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["mermaid", "dot", "svg", "png", "pdf"]),
    help="What to draw; default: what the ending of FILE says, else mermaid.",
)
@_output_option
def graph(manifest: Path, format_name: str | None, output: Path | None) -> None:
    """Draw what in MANIFEST waits for what.

    An arrow leads from what is needed to what waits for it, and says for which condition if that
    is not `ready`. Colours tell how a process becomes ready, outlines when it is restarted.
    Mermaid and DOT are text; svg, png and pdf are drawn by Graphviz's program `dot`.

    The exit status is 0, 2 when the manifest is wrong, and 1 when the graph cannot be drawn or
    written.

    \b
    Examples:
      python -m runtime graph manifest.yaml
      python -m runtime graph manifest.yaml --format dot
      python -m runtime graph manifest.yaml --output graph.svg
    """  # noqa: D301 - click reads the backspace
    sys.exit(_late.command("graph").graph(manifest, format_name, output))


@cli.command(short_help="Print the JSON schema of manifests, for editors.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["json", "markdown"]),
    default="json",
    show_default=True,
    help="json: the schema; markdown: the same as a reference for people.",
)
@_output_option
def schema(output: Path | None, format_name: str) -> None:
    """Print the JSON schema of manifests, by which editors complete, explain and check them.

    The first line of a manifest that makes an editor use it:

    \b
      YAML   # yaml-language-server: $schema=./manifest.schema.json
      TOML   #:schema ./manifest.schema.json
      JSON   "$schema": "./manifest.schema.json",     (a key, after the first brace)

    The exit status is 0, and 1 when FILE cannot be written.

    \b
    Examples:
      python -m runtime schema --output manifest.schema.json
      python -m runtime schema --format markdown | less
    """  # noqa: D301 - click reads the backspace
    sys.exit(_late.command("schema").schema(output, format_name))


def _leave(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's
    sys.exit(0)


def main() -> None:
    """Run the command that the arguments say; this ends the process."""
    if sys.platform != "linux":
        sys.exit("trio-runtime runs on Linux only so far (on Windows: inside WSL)")
    _open_missing_streams()
    by_module = Path(sys.argv[0]).name == "__main__.py"
    cli(prog_name="python -m runtime" if by_module else None)


def _open_missing_streams() -> None:
    """Let no file of ours take the number of a standard stream that we were started without."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this
