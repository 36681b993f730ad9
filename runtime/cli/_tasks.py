"""The commands of `tasks`: they look into the store that a manifest names, and change it.

The store is opened here, whether the tree runs or not; a runner that is told to cancel hears of it.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import trio

from runtime._problems import did_you_mean
from runtime.invocation import (
    InvocationNotFoundError,
    InvocationStatus,
    InvocationStatusError,
    Outcome,
)
from runtime.manifest import Manifest
from runtime.state_backend import BaseStateBackend, InvocationFilter, StateBackendError
from runtime.state_backend.sqlite import SQLiteStateBackend
from runtime.tasks import TaskArgumentsError, TaskHome, UnknownTaskError
from runtime.tasks.invocation import cancel, retry
from runtime.tasks.units import make_state_backend
from runtime_http.models import InvocationView
from runtime_http.task_views import view_briefly, view_history, view_invocation, view_result

from ._load import WRONG, load_or_tell
from ._output import nobody_reads

#: Exit statuses, for scripts; those of the commands that ask a running tree.
FINE, NOT_FINE, USAGE, NO_STORE, UNKNOWN = range(5)
INTERRUPTED = 130
_STATUSES = [each.value for each in InvocationStatus]
_PAGE = 1_000  # how many are read, or forgotten, in one step of the store


class _NoStoreError(Exception):
    """There is no store that this process could open."""


_REFUSALS: Mapping[type[Exception], int] = {
    _NoStoreError: NO_STORE,
    StateBackendError: NO_STORE,
    InvocationNotFoundError: UNKNOWN,
    UnknownTaskError: UNKNOWN,
    InvocationStatusError: NOT_FINE,
    TaskArgumentsError: USAGE,
}


def ask(command: str, file: Path, options: Mapping[str, Any]) -> int:
    """Do what *command* is for with the store of the manifest *file*; return the exit status."""
    if strange := [each for each in options.get("status", ()) if each not in _STATUSES]:
        words = f"there is no status {strange[0]!r}{did_you_mean(strange[0], _STATUSES)}"
        click.echo(f"{words}; there are {', '.join(_STATUSES)}", err=True)
        return USAGE
    manifest = load_or_tell(file)
    if manifest is None:
        return WRONG
    try:
        backend = _backend(manifest, file, makes=command == "submit")
        return trio.run(_talk, command, backend, manifest, options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return nobody_reads()
    except tuple(_REFUSALS) as error:
        click.echo(error, err=True)
        return next(status for kind, status in _REFUSALS.items() if isinstance(error, kind))


def _backend(manifest: Manifest, file: Path, *, makes: bool) -> BaseStateBackend:
    if manifest.tasks is None:
        raise _NoStoreError(f"{file}: there are no tasks; name their modules in tasks")
    backend = make_state_backend(manifest.tasks.store_url(manifest.base_directory or Path.cwd()))
    if backend.url.startswith("memory:"):
        words = "memory:// is seen by the running tree alone; ask it over HTTP, at /invocations"
        raise _NoStoreError(f"{file}: tasks.state_backend: {words}")
    if isinstance(backend, SQLiteStateBackend) and not makes and not Path(backend.path).exists():
        raise _NoStoreError(f"{backend.path}: there is no such file yet; nothing was submitted")
    return backend


async def _talk(
    command: str, backend: BaseStateBackend, manifest: Manifest, options: Mapping[str, Any]
) -> int:
    async with backend:
        if command != "submit":
            return await _COMMANDS[command](backend, **options)
        home: TaskHome = manifest.tasks.home if manifest.tasks is not None else TaskHome()
        with home.using(backend):
            return await submit(backend, home, **options)


# --- to look --------------------------------------------------------------------------------------


async def show_list(
    backend: BaseStateBackend,
    *,
    status: Sequence[str],
    task: str | None,
    limit: int,
    as_json: bool,
) -> int:
    """List the newest *limit* invocations that fit."""
    statuses = {InvocationStatus(each) for each in status} or None
    which = InvocationFilter(statuses=statuses, task=task)
    found: list[InvocationView] = []
    cursor: str | None = None
    while len(found) < limit:
        step = min(_PAGE, limit - len(found))
        page = await backend.list_invocations(which, limit=step, after=cursor)
        # One that was stored and never registered has no status to be shown.
        found += [view_briefly(each) for each in page.invocations if each.record is not None]
        cursor = page.next
        if cursor is None:
            break
    if as_json:
        _put([each.model_dump(mode="json") for each in found])
        return FINE
    width = max((len(each.status) for each in found), default=0)
    for each in found:
        time = each.timestamps.changed_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"{each.invocation_id}  {each.status:<{width}}  {time}  {each.task}")
    return FINE


async def show(backend: BaseStateBackend, *, invocation_id: str, as_json: bool) -> int:
    """Tell how one invocation stands, with its result or its error."""
    view = view_invocation(await backend.get_invocation(invocation_id)).model_dump(mode="json")
    outcome = view_result(await backend.get_outcome(invocation_id)).model_dump(mode="json")
    told = {**view, "result": outcome["result"], "error": outcome["error"]}
    if as_json:
        _put(told)
        return FINE
    told |= told.pop("timestamps")
    width = max(map(len, told))
    for name, value in told.items():
        if name == "error" and value is not None:
            click.echo(f"{name:<{width}}  {value['type']}: {value['message']}")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            click.echo(f"{name:<{width}}  {text}")
    return FINE


async def show_result(
    backend: BaseStateBackend, *, invocation_id: str, wait: bool, as_json: bool
) -> int:
    """Print what one invocation has returned; with *wait* once it is over."""
    if wait:
        return _tell_end(await backend.wait_over(invocation_id), as_json=as_json)
    return _tell_end(await backend.get_outcome(invocation_id), as_json=as_json)


async def show_history(backend: BaseStateBackend, *, invocation_id: str, as_json: bool) -> int:
    """Tell all that has happened to one invocation, the oldest first."""
    lines = view_history(await backend.get_history(invocation_id))
    if as_json:
        _put(lines.model_dump(mode="json"))
        return FINE
    for line in lines.root:
        time = line.timestamp.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        by = "" if line.runner_id is None else f"  by {line.runner_id}"
        more = "" if line.context is None else f"  {json.dumps(line.context, ensure_ascii=False)}"
        click.echo(f"{time}  {line.status or '(remark)'}{by}{more}")
    return FINE


async def check(backend: BaseStateBackend, *, as_json: bool) -> int:
    """Look through the whole store, and tell what is wrong in it."""
    if not isinstance(backend, SQLiteStateBackend):
        raise _NoStoreError(f"{backend.url}: only stores in a file of SQLite can be checked")
    problems = await backend.check_integrity()
    if as_json:
        _put(problems)
    else:
        for problem in problems:
            click.echo(f"{backend.path}: {problem}", err=True)
        if not problems:
            click.echo(f"{backend.path}: all is well")
    return NOT_FINE if problems else FINE


# --- to change ------------------------------------------------------------------------------------


async def cancel_one(backend: BaseStateBackend, *, invocation_id: str, as_json: bool) -> int:
    """Cancel one invocation: at once if it waits, by its runner if it runs."""
    await cancel(backend, invocation_id)
    return await _tell(backend, invocation_id, as_json=as_json)


async def retry_one(backend: BaseStateBackend, *, invocation_id: str, as_json: bool) -> int:
    """Try one invocation again; what is told is the one that is to run."""
    return await _tell(backend, await retry(backend, invocation_id), as_json=as_json)


async def purge(backend: BaseStateBackend, *, over_for_sec: float, as_json: bool) -> int:
    """Forget what has been over for that long, some at a time: others write in between."""
    before = backend.now() - timedelta(seconds=over_for_sec)
    gone = 0
    while (step := await backend.purge(over_before=before, limit=_PAGE)) > 0:
        gone += step
    if as_json:
        _put({"purged": gone})
    else:
        click.echo(f"purged: {gone}")
    return FINE


async def submit(
    backend: BaseStateBackend,
    home: TaskHome,
    *,
    name: str,
    arguments: Mapping[str, Any],
    wait: bool,
    as_json: bool,
) -> int:
    """Submit a call; with *wait* return once it is over, and print what it has returned."""
    invocation = await home.find(name).with_options().submit_arguments(arguments)
    if not wait:
        return await _tell(backend, invocation.invocation_id, as_json=as_json)
    return _tell_end(await invocation.wait(), as_json=as_json)


def _tell_end(outcome: Outcome, *, as_json: bool) -> int:
    view = view_result(outcome)
    good = outcome.status is InvocationStatus.SUCCESS
    if as_json:
        _put({"invocation_id": outcome.invocation_id, **view.model_dump(mode="json")})
    elif good:
        click.echo(outcome.result)
    else:
        why = "" if view.error is None else f": {view.error.type}: {view.error.message}"
        click.echo(f"{outcome.invocation_id}: {outcome.status}{why}", err=True)
    return FINE if good else NOT_FINE


async def _tell(backend: BaseStateBackend, invocation_id: str, *, as_json: bool) -> int:
    view = view_invocation(await backend.get_invocation(invocation_id))
    if as_json:
        _put(view.model_dump(mode="json"))
    else:
        asked = ", its runner is asked to cancel it" if view.cancel_requested else ""
        click.echo(f"{view.invocation_id}: {view.status}{asked}")
    return FINE


def _put(told: object) -> None:
    click.echo(json.dumps(told, indent=2, ensure_ascii=False))


_COMMANDS: Mapping[str, Callable[..., Awaitable[int]]] = {
    "list": show_list,
    "show": show,
    "result": show_result,
    "history": show_history,
    "check": check,
    "cancel": cancel_one,
    "retry": retry_one,
    "purge": purge,
}
