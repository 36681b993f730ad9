"""``python -m runtime``: its commands and their options."""

import atexit
import gc
import math
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click
from click.shell_completion import get_completion_class

from runtime import _late
from runtime.guard import open_guard

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_FLAGS = ("-h", "--help", "--version")
_PATH = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)
#: The console script, and the variable by which a shell asks it for completions.
_PROGRAM, _COMPLETE_VARIABLE = "trio-runtime", "_TRIO_RUNTIME_COMPLETE"
_Command = TypeVar("_Command", bound=Callable[..., object])
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
            if not ctx.resilient_parsing and not args[0].startswith("-"):
                self._refuse_near_miss(ctx, args[0])
            args = ["run", *args]
        elif args and not ctx.resilient_parsing and Path(args[0]).is_file():
            words = f"{args[0]} is taken for the command; the file: python -m runtime run {args[0]}"
            click.echo(words, err=True)
        return super().parse_args(ctx, args)

    def _refuse_near_miss(self, ctx: click.Context, name: str) -> None:
        """Leave with what was meant, where that is no file but nearly a command."""
        if not Path(name).exists() and (hint := _late.did_you_mean(name, self.commands)):
            ctx.fail(f"there is no command and no file {name!r}{hint}")


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
      python -m runtime status
      python -m runtime restart -f manifest.yaml api
    """  # noqa: D301 - click reads the backspace


@cli.command(no_args_is_help=True, short_help="Run a manifest, until Ctrl-C or its own end.")
@click.argument("manifest", type=_PATH)
@click.option("--keep", is_flag=True, help="Go on when all processes have ended.")
@click.option(
    "--run-directory",
    type=_FOLDER,
    help="Folder of the lock; default: one for this manifest, in the user's own run folder.",
)
@click.option(
    "--http",
    metavar="ADDRESS",
    help="Serve HTTP there, HOST:PORT or unix:PATH; default: what the manifest says,"
    " else 127.0.0.1:8410 or the next port that is free.",
)
@click.option("--no-http", is_flag=True, help="Serve no HTTP.")
@click.option("--no-guard", is_flag=True, help="Run without the guard that outlives a kill -9.")
def run(
    manifest: Path,
    run_directory: Path | None,
    http: str | None,
    *,
    keep: bool,
    no_http: bool,
    no_guard: bool,
) -> None:
    """Start everything in MANIFEST, and stop it in order at Ctrl-C or SIGTERM.

    The exit status is 0 when it was asked to stop and when everything has completed well, 2 when
    the manifest is wrong (nothing was started then), 1 when it cannot run, and otherwise that of
    the process that failed or ended the tree, 128 + n for signal n.

    \b
    Examples:
      python -m runtime manifest.yaml
      python -m runtime run --keep examples/quickstart/manifest.yaml
    """  # noqa: D301 - click reads the backspace
    if http is not None and no_http:
        raise click.UsageError("--http and --no-http exclude each other")
    guard = None if no_guard else open_guard()
    # Until the tree listens itself, there is nothing to stop: a signal just ends this process.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:  # nohup
            signal.signal(signum, _leave)
    gc.disable()  # what is loaded from here on is there to the end: no garbage to be looked for
    # Only now, or the guard would carry it all as well.
    options = {"http": http, "no_http": no_http}
    _end(_late.command("run").run(manifest, keep, run_directory, guard, **options))


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


# --- a tree that runs -----------------------------------------------------------------------------


def _complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's
    """Return the names of units of the running tree that begin like this."""
    chosen = {key: ctx.params.get(key) for key in ("file", "run_directory", "url", "token_file")}
    names: list[str] = _late.command("remote").known_names(**chosen)
    return [name for name in names if name.startswith(incomplete)]


def _asks(command: _Command) -> _Command:
    """Give *command* the options that say which tree is meant."""
    options = [
        click.option(
            "-f",
            "--file",
            metavar="MANIFEST",
            type=_PATH,
            default=Path("manifest.yaml"),
            help="The manifest of the tree; default: manifest.yaml here.",
        ),
        click.option(
            "--run-directory",
            type=_FOLDER,
            help="The folder that the tree was started with, in the place of its manifest.",
        ),
        click.option(
            "--url",
            help="Where the tree serves HTTP, http://HOST:PORT or unix:PATH, in the place of both.",
        ),
        click.option(
            "--token-file",
            type=_PATH,
            help="File of the token; default: that of the run directory,"
            " with --url the variable RUNTIME_TOKEN.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


_names = click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=_complete_names)
_some_names = click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=_complete_names
)


def _ask(name: str, options: dict[str, Any], *, by: str = "remote") -> NoReturn:
    """Leave with what the command *name*, of the module *by*, makes of *options*."""
    try:
        sys.exit(_late.command(by).ask(name, options))
    except KeyboardInterrupt:  # while that is loaded; click would say 1
        sys.exit(128 + signal.SIGINT)


@cli.command(short_help="Tell how the units of a running tree stand.")
@_names
@click.option("--watch", is_flag=True, help="Tell it again whenever something happens.")
@_asks
def status(**options: Any) -> None:  # noqa: ANN401 - as click hands them over
    """Tell how the units of a running tree stand: those of these names, or all.

    The name of an entry with replicas stands for all of them, and that of a group for its members.

    The exit status is 0 when each of them is ready, has completed, or is not wanted; 1 when one is
    not; 2 for wrong usage, 3 when no tree answers, 4 for an unknown name, 5 when the token is
    missing or wrong, 130 after Ctrl-C.

    \b
    Examples:
      python -m runtime status
      python -m runtime status -f shop/manifest.yaml api db --json
      python -m runtime status --watch
    """  # noqa: D301 - click reads the backspace
    _ask("status", options)


def _add_verb(verb: str, what: str) -> None:
    @cli.command(verb, no_args_is_help=True, short_help=f"{what}.")
    @_some_names
    @_asks
    def change(**options: Any) -> None:  # noqa: ANN401 - as click hands them over
        _ask("change", {"verb": verb, **options})

    change.help = f"""{what}, and return when that is done.

    The name of an entry with replicas stands for all of them, and that of a group for its members.
    With an unknown name among them nothing is done.

    The exit status is 0 when all of it is done, 1 when one has failed, 2 for wrong usage, 3 when no
    tree answers, 4 for an unknown name, 5 when the token is missing or wrong, 130 after Ctrl-C
    (what was asked for goes on then).

    \b
    Examples:
      python -m runtime {verb} api
      python -m runtime {verb} -f shop/manifest.yaml api worker --json
    """


for _verb, _what in (
    ("start", "Start units of a running tree, and what they need"),
    ("stop", "Stop units of a running tree"),
    ("restart", "Restart units of a running tree"),
):
    _add_verb(_verb, _what)


@cli.command(short_help="Show what processes have printed.")
@_names
@click.option("--follow", is_flag=True, help="Go on with what they print.")
@click.option(
    "--lines",
    metavar="N",
    type=click.IntRange(0, 10_000),
    default=100,
    show_default=True,
    help="How many of the newest lines of each.",
)
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Of one stream only.")
@_asks
def logs(**options: Any) -> None:  # noqa: ANN401 - as click hands them over
    """Show the newest lines that these processes, or all, have printed, the oldest first.

    The exit status is 0, 2 for wrong usage, 3 when no tree answers, 4 for a name that no process
    has, 5 when the token is missing or wrong, and 130 after Ctrl-C.

    \b
    Examples:
      python -m runtime logs api
      python -m runtime logs --follow --lines 0
      python -m runtime logs api --stream stderr --json
    """  # noqa: D301 - click reads the backspace
    _ask("logs", options)


@cli.command(short_help="Show what happens in a running tree.")
@click.option(
    "--after",
    metavar="N",
    type=click.IntRange(0, 10**17),
    help="Begin behind the event of this number; default: with what comes.",
)
@_asks
def events(**options: Any) -> None:  # noqa: ANN401 - as click hands them over
    """Show what happens, as it happens, until the tree ends; with --json one object per line.

    The exit status is 0, 2 for wrong usage, 3 when no tree answers, 5 when the token is missing or
    wrong, and 130 after Ctrl-C.

    \b
    Examples:
      python -m runtime events
      python -m runtime events --after 0 --json
    """  # noqa: D301 - click reads the backspace
    _ask("events", options)


@cli.command(no_args_is_help=True, short_help="Tell what led to the last change of a unit.")
@click.argument("name", shell_complete=_complete_names)
@_asks
def why(**options: Any) -> None:  # noqa: ANN401 - as click hands them over
    """Tell the chain of causes behind the last change of a unit, the newest first.

    The exit status is 0, 2 for wrong usage, 3 when no tree answers, 4 for an unknown name, 5 when
    the token is missing or wrong, and 130 after Ctrl-C.

    \b
    Example:
      python -m runtime why api
    """  # noqa: D301 - click reads the backspace
    _ask("why", options)


# --- the calls of tasks ---------------------------------------------------------------------------


@cli.group(no_args_is_help=True, short_help="Look at the calls of tasks, and change them.")
def tasks() -> None:
    """Look at the calls of tasks, and change them.

    The store that the manifest names is opened, whether the tree runs or not. One that is
    `memory://` the running tree alone has, which is asked over HTTP; so is a tree that is named by
    --url or --run-directory.

    The exit status is 0, 1 when a call is not in the status for that (or has not succeeded, with
    --wait and for result), 2 for wrong usage or a wrong manifest, 3 when there is no store to be
    opened or no tree answers, 4 for an unknown invocation or task, 5 when the token is missing or
    wrong, 130 after Ctrl-C, and 141 when nobody reads on.

    \b
    Examples:
      python -m runtime tasks list --status failed
      python -m runtime tasks history 019ac3c2-...
      python -m runtime tasks submit resize --arguments '{"width": 7}' --wait
    """  # noqa: D301 - click reads the backspace


class _Seconds(click.FloatRange):
    """A number of seconds; what is no number (NaN) is none, which click takes in any range."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return the number in *value*."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


def _json_object(
    ctx: click.Context,  # noqa: ARG001 - click's
    param: click.Parameter,  # noqa: ARG001 - click's
    value: str,
) -> dict[str, Any]:
    """Return the JSON object in *value*."""
    try:
        found = _late.parse_json(value)
    except ValueError as error:
        raise click.BadParameter(f"this is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.BadParameter('this is no JSON object, such as {"width": 7}')
    return found


@tasks.command("list", short_help="List calls, the newest first.")
@click.option(
    "--status",
    multiple=True,
    metavar="STATUS",
    help="Those of this status; may be given several times.",
)
@click.option("--task", metavar="NAME", help="Those of this task, as `module.function`.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, 1_000_000),
    default=100,
    show_default=True,
    help="How many at most.",
)
@_asks
def tasks_list(**options: Any) -> None:  # noqa: ANN401 - as click hands them over
    """List the newest calls: id, status, when it came to that, and the task."""
    _ask("list", options, by="tasks")


def _add_task_verb(verb: str, what: str) -> None:
    @tasks.command(verb, no_args_is_help=True, short_help=f"{what}.", help=f"{what}.")
    @click.argument("invocation_id", metavar="ID")
    @_asks
    def act(**options: Any) -> None:  # noqa: ANN401 - as click hands them over
        _ask(verb, options, by="tasks")


for _verb, _what in (
    ("show", "Tell how a call stands, with its result or its error"),
    ("history", "Tell all that has happened to a call, the oldest first"),
    ("cancel", "Cancel a call: at once if it waits, by its runner if it runs"),
    ("retry", "Try again: a cancelled call goes on, a failed one is made anew"),
):
    _add_task_verb(_verb, _what)


@tasks.command("result", no_args_is_help=True, short_help="Print what a call has returned.")
@click.argument("invocation_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Return once it is over.")
@_asks
def tasks_result(**options: Any) -> None:  # noqa: ANN401 - as click hands them over
    """Print the result of a call as JSON.

    Where it has none, standard error says how the call stands or what it has raised, and the exit
    status is 1.
    """
    _ask("result", options, by="tasks")


@tasks.command("purge", short_help="Forget calls that are over.")
@click.option(
    "--over-for",
    "over_for_sec",
    metavar="SECONDS",
    type=_Seconds(0, 10**9),
    required=True,
    help="Those that have been over for that long; 0: all that are over.",
)
@_asks
def tasks_purge(**options: Any) -> None:  # noqa: ANN401 - as click hands them over
    """Forget calls that are over, with their histories and results; others are never touched.

    It opens the store itself, and asks no tree.
    """
    _ask("purge", options, by="tasks")


@tasks.command("check", short_help="Say whether the file of the store is right.")
@_asks
def tasks_check(**options: Any) -> None:  # noqa: ANN401 - as click hands them over
    """Look through the whole file, and tell what is wrong in it; it may be in use meanwhile.

    It opens the store itself, and asks no tree.
    """
    _ask("check", options, by="tasks")


@tasks.command("submit", no_args_is_help=True, short_help="Call a task.")
@click.argument("name")
@click.option(
    "--arguments",
    metavar="JSON",
    default="{}",
    callback=_json_object,
    help="What it is called with, by name; default: nothing.",
)
@click.option("--delay", "delay_sec", metavar="SECONDS", help="Nobody takes it before that.")
@click.option(
    "--due-at",
    metavar="TIME",
    help="Nobody takes it before that; such as 2026-03-02T09:00:00Z.",
)
@click.option("--priority", metavar="N", help="Higher goes first; default: the task's.")
@click.option("--queue", metavar="NAME", help="The queue that it waits in; default: the task's.")
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Submit it once for each key of the task; after that, it is the call of the first time.",
)
@click.option("--wait", is_flag=True, help="Return once it is over, and print its result.")
@_asks
def tasks_submit(**options: Any) -> None:  # noqa: ANN401 - as click hands them over
    """Call the task NAME, `module.function` or the function's name; a runner of a tree runs it.

    Ctrl-C ends the wait, and not the call.
    """
    _ask("submit", options, by="tasks")


@cli.command(no_args_is_help=True, short_help="Print what makes a shell complete commands.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options, and the names of running units.

    It is for the program `trio-runtime`, which is the same as `python -m runtime`.

    \b
    Examples:
      eval "$(trio-runtime completion bash)"
      eval "$(trio-runtime completion zsh)"
      trio-runtime completion fish > ~/.config/fish/completions/trio-runtime.fish
    """  # noqa: D301 - click reads the backspace
    complete = get_completion_class(shell)
    if complete is None:  # pragma: no cover - click has these three
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(complete(cli, {}, _PROGRAM, _COMPLETE_VARIABLE).source())


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
