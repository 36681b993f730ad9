"""``python -m runtime``: its commands and their options."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from runtime import _late
from runtime.guard import open_guard

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_FLAGS = ("-h", "--help", "--version")


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

    `python -m runtime MANIFEST` is short for `python -m runtime run MANIFEST`.

    \b
    Examples:
      python -m runtime manifest.yaml
      python -m runtime run --help       (what a run's exit status means, and its options)
    """  # noqa: D301 - click reads the backspace


@cli.command(no_args_is_help=True)
@click.argument("manifest", type=click.Path(path_type=Path))
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
    # Only now, or the guard would carry it all as well.
    sys.exit(_late.command("run").run(manifest, keep, run_directory, guard))


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
