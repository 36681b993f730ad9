"""What the commands have in common that ask a tree or a store: how they end, and by which error."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import click
import trio

from runtime_http import NotReachedError, RefusedError

from ._output import nobody_reads
from ._whereabouts import TOKEN_VARIABLE, ForeignTreeError, NoTreeError, Whereabouts

#: Exit statuses, for scripts.
FINE, NOT_FINE, USAGE, NOBODY, UNKNOWN, NOT_ALLOWED = range(6)
INTERRUPTED: Final = 130  # as of a shell's program that SIGINT has ended
_STATUSES = {401: NOT_ALLOWED, 404: UNKNOWN, 421: NOT_ALLOWED, 422: USAGE, 503: NOBODY}
_ENDS: Mapping[type[Exception], int] = {
    ForeignTreeError: NOT_ALLOWED,  # which is a NoTreeError
    NoTreeError: NOBODY,
    NotReachedError: NOBODY,
}


def run_and_tell(
    act: Callable[[], Awaitable[int]], more: Mapping[type[Exception], int] | None = None
) -> int:
    """Do *act*, and return its exit status, or that of the error that it raises, which is told.

    *more* are exit statuses of further errors.
    """
    ends = {**_ENDS, **(more or {})}
    try:
        return trio.run(act)
    except RefusedError as refusal:
        click.echo(words_of(refusal), err=True)
        return status_of(refusal)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:  # it came while one of several tasks was busy
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        return INTERRUPTED
    except BrokenPipeError:
        return nobody_reads()
    except tuple(ends) as error:
        click.echo(error, err=True)
        return next(status for kind, status in ends.items() if isinstance(error, kind))


def words_of(refusal: RefusedError) -> str:
    """Return what a server has refused, and what to do about it here."""
    if refusal.status != 401:
        return str(refusal)
    return (
        "this takes the right token, which is in the file `token` of the run directory of the tree:"
        f" name that file by --token-file, or with --url have the token in ${TOKEN_VARIABLE}"
    )


def status_of(refusal: RefusedError | None) -> int:
    """Return the exit status for what a server has refused."""
    return FINE if refusal is None else _STATUSES.get(refusal.status, NOT_FINE)


def take_whereabouts(options: Mapping[str, Any]) -> tuple[Whereabouts, dict[str, Any]]:
    """Return which tree is meant by the *options* of a command, and the other options."""
    rest = dict(options)
    where = Whereabouts(
        manifest=rest.pop("file"),
        **{key: rest.pop(key) for key in ("run_directory", "url", "token_file")},
    )
    return where, rest
