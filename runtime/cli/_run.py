"""The command `run`: manifest, lock, and then the tree. It is imported below the guard only."""

import resource
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

import click
import trio

from runtime._http_spec import HttpSpec
from runtime._listening import ListenError, check_free, parse_bind
from runtime.application import Application, Face
from runtime.guard import Guard
from runtime.manifest import Manifest
from runtime.process import ProcessExitedError
from runtime.process.host import Host
from runtime.run_directory import (
    LeftoversError,
    RunDirectory,
    RunDirectoryError,
    default_run_directory,
    open_run_directory,
    take_token,
)
from runtime.supervision.graph import Stage

from ._console import Console
from ._garbage import look_seldom
from ._http import http_face
from ._load import WRONG, load_or_tell
from ._logging import log_to_console
from ._report import Report

_FORCE_SIGNAL = signal.SIGQUIT
_HANGS_UP = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # else we run under nohup
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if _HANGS_UP else ()))
_LISTENED = (*_STOP_SIGNALS, _FORCE_SIGNAL)
# Without its guard the runtime has to be gone within a second, the search for leftovers included.
_WITHOUT_GUARD_SEC = 0.7
_LAST_WORDS_SEC = 1.0
_MOST_OPEN_FILES = 2**20


def run(
    manifest: Path,
    keep: bool,
    run_directory: Path | None,
    guard: Guard | None,
    *,
    http: str | None = None,
    no_http: bool = False,
) -> int:
    """Run *manifest* to its end and return the exit status.

    *http* is an address in the place of the manifest's, and *no_http* serves none.
    """
    look_seldom()
    loaded = load_or_tell(manifest)
    if loaded is None:
        return WRONG
    if http is not None or no_http:
        update = {"http": None if http is None else _served_at(http, loaded.http)}
        loaded = loaded.model_copy(update=update)
    try:
        folder = run_directory or loaded.run_directory or default_run_directory(manifest)
        with open_run_directory(
            folder,
            manifest=manifest.absolute(),
            guard_pid=None if guard is None else guard.pid,
            say=partial(click.echo, err=True),
        ) as directory:
            _check_free(loaded)  # before anything runs; the tree before us is gone by now
            _take_token(loaded, directory)
            if guard is not None:
                guard.hold(directory.fileno())
            # The handlers so far end the process. They must not do that inside of Trio's run, so
            # nothing is delivered until the tree listens. Those that are back when it no longer
            # does mind nothing: a mask would not do then, as other threads take signals, too.
            signal.pthread_sigmask(signal.SIG_BLOCK, _LISTENED)
            _handle_signals(lambda *_: None)
            return trio.run(_Tree(loaded, directory, guard, keep=keep).run)
    except RunDirectoryError as error:
        click.echo(error, err=True)
        return 1
    except ListenError as error:
        click.echo(f"{error}; free it, or say another --http, or --no-http", err=True)
        return 1


def _served_at(address: str, said: HttpSpec | None) -> HttpSpec:
    """Return what the manifest has *said*, at another address; a relative path starts here."""
    try:
        bind = str(parse_bind(address, Path.cwd()))
        return (said or HttpSpec()).model_copy(update={"bind": bind})
    except ValueError as error:
        raise click.BadParameter(f"{address!r} {error}", param_hint="'--http'") from error


def _check_free(manifest: Manifest) -> None:
    if manifest.http is not None and manifest.http.bind is not None:
        check_free(parse_bind(manifest.http.bind, manifest.base_directory or Path.cwd()))


def _take_token(manifest: Manifest, directory: RunDirectory) -> None:
    if manifest.http is not None and manifest.http.token_file is not None:
        base = manifest.base_directory or Path.cwd()
        take_token(directory.path, base / manifest.http.token_file)


class _Tree:
    """One run of a manifest, with all that stands around it."""

    def __init__(
        self, manifest: Manifest, directory: RunDirectory, guard: Guard | None, *, keep: bool
    ) -> None:
        self._directory, self._guard = directory, guard
        self._console = Console([entry.name for entry in manifest.entries()])
        host = Host(
            tree_id=directory.tree_id,
            echo=self._console.echo,
            open_files=_raise_open_files(),
            close_on_exec=True,
            roster=directory.roster,
            folder=directory.path,
        )
        if guard is not None and guard.subreaper:
            host = replace(host, orphans=guard.orphans)
        faces: list[Face] = []
        if manifest.http is not None:
            base = manifest.base_directory or Path.cwd()
            faces.append(partial(http_face, manifest.http, directory, base, self._console.say))
        self._application = Application(manifest, host=host, keep=keep, faces=faces)
        self._report = Report(self._application, self._console)
        self._supervisor = self._application.supervisor
        self._told_to_stop = False
        self._forced_by: int | None = None
        self._guard_lost = False

    async def run(self) -> int:
        """Run the tree and return the exit status."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._console.run)
            async with trio.open_nursery() as telling:
                telling.start_soon(self._report.run)
                with log_to_console(self._console, self._application.secrets):
                    await self._run_tree()
                _handle_signals(signal.SIG_IGN)  # to the very end, when Python's handlers are gone
                self._supervisor.events.close()
            if self._guard_lost:
                await self._end_leftovers()
            self._console.close()
            # A terminal that nobody reads from must not keep us.
            nursery.cancel_scope.deadline = trio.current_time() + _LAST_WORDS_SEC
        return self._status()

    async def _run_tree(self) -> None:
        with trio.open_signal_receiver(*_LISTENED) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _LISTENED)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear, signals)
                nursery.start_soon(self._note_stopping)
                nursery.start_soon(self._report.tell_start)
                nursery.start_soon(self._report.tell_stop)
                if self._guard is not None:
                    nursery.start_soon(self._watch, self._guard)
                await self._application.start()
                nursery.cancel_scope.cancel()

    async def _hear(self, signals: AsyncIterator[int]) -> None:
        async for signum in signals:
            if not self._told_to_stop and signum != _FORCE_SIGNAL:
                self._told_to_stop = True
                self._supervisor.ask_stop_tree(f"{signal.Signals(signum).name} received")
                if self._console.is_terminal:
                    self._console.say("stopping; once more kills what is left then")
            elif self._forced_by is None:
                self._forced_by = signum
                self._console.say("killing what is left", bad=True)
                self._supervisor.force()

    async def _watch(self, guard: Guard) -> None:
        await trio.lowlevel.wait_readable(guard.fileno())
        self._guard_lost = True
        self._supervisor.ask_stop_tree("the guard has died", within_sec=_WITHOUT_GUARD_SEC)

    async def _note_stopping(self) -> None:
        await self._supervisor.wait_stopping()
        await trio.to_thread.run_sync(self._directory.note_stopping)

    async def _end_leftovers(self) -> None:
        """Do the guard's last work: end what left its group, its session and its parents."""

        def say(sentence: str) -> None:
            trio.from_thread.run_sync(self._console.say, sentence)

        with suppress(LeftoversError):  # it says so itself, to the next tree
            await trio.to_thread.run_sync(self._directory.end_leftovers, say)

    def _status(self) -> int:
        """Return the exit status, as the help of the command says."""
        if self._forced_by is not None:
            return 128 + self._forced_by
        if self._guard_lost:
            return 1
        if self._supervisor.ended_by is not None:
            return _exit_status(self._supervisor.status(self._supervisor.ended_by).error)
        if self._supervisor.stopping != "everything has ended":
            return 0
        bad = [s for s in self._supervisor.statuses() if s.stage in (Stage.FAILED, Stage.HELD)]
        failed = [s for s in bad if s.stage is Stage.FAILED]
        return _exit_status(failed[0].error) if failed else int(bool(bad))


def _raise_open_files() -> tuple[int, int] | None:
    """Let us open as many files as we may; return the limits before, None where they are as before.

    Each child costs three descriptors, and the usual limit is there for those who use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return None
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return soft, hard


def _handle_signals(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for signum in _LISTENED:
        signal.signal(signum, handler)


def _exit_status(error: Exception | None) -> int:
    """Return the status that stands for the end of a process."""
    if error is None:
        return 0
    if isinstance(error, ProcessExitedError) and error.returncode:
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    return 1
