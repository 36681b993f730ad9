"""Shows what is logged: a service's lines behind its name, the warnings of all others as ours."""

import logging
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import final

import trio

from runtime._secrets import Secrets
from runtime.process.output import Line

from ._console import Console

_SERVICES = "runtime.services."


@contextmanager
def log_to_console(console: Console, secrets: Secrets) -> Generator[None]:
    """Show what is logged while the block lasts, *secrets* hidden; to be entered on the event loop.

    Of the services everything from INFO is shown, of the rest what is a warning at least.
    """
    handler = _ConsoleHandler(console, secrets, trio.lowlevel.current_trio_token())
    root, services = logging.getLogger(), logging.getLogger(_SERVICES.rstrip("."))
    level = services.level
    root.addHandler(handler)
    if level == logging.NOTSET:
        services.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        services.setLevel(level)


@final
class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console, secrets: Secrets, token: trio.lowlevel.TrioToken) -> None:
        super().__init__()
        self._console, self._secrets, self._token = console, secrets, token

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, from whatever thread it comes."""
        try:
            text = self._secrets.mask(self.format(record))
        except Exception:  # noqa: BLE001 - as the library does: a bad record is told, and no harm
            self.handleError(record)
            return
        if trio.lowlevel.in_trio_run():
            self._show(record.name, record.levelno, text)
        else:
            with suppress(trio.RunFinishedError):  # nobody shows anything any more
                self._token.run_sync_soon(self._show, record.name, record.levelno, text)

    def _show(self, logger: str, level: int, text: str) -> None:
        if logger.startswith(_SERVICES):
            now = time.time()
            lines = [Line("stderr", line, now) for line in text.splitlines()]
            self._console.echo(logger.removeprefix(_SERVICES), lines)
        elif level >= logging.WARNING:
            self._console.say(text, bad=True)
