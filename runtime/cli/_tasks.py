"""The commands of `tasks`: they look at the calls of tasks, and change them.

They ask the tree that runs, over HTTP, where it is named or alone has the store; else the store is
opened here, whether a tree runs or not, and a runner that is told to cancel hears of it.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import click
from pydantic import ValidationError

from runtime._model_errors import in_our_words
from runtime._problems import did_you_mean
from runtime.invocation import (
    InvocationNotFoundError,
    InvocationStatus,
    InvocationStatusError,
)
from runtime.manifest import Manifest
from runtime.state_backend import BaseStateBackend, StateBackendError
from runtime.state_backend.sqlite import SQLiteStateBackend
from runtime.tasks import TaskArgumentsError, TaskHome, UnknownTaskError
from runtime.tasks.units import make_state_backend
from runtime_http import Client
from runtime_http.invocations import StoreInvocations
from runtime_http.models import (
    LONGEST_WAIT_SEC,
    HistoryLine,
    InvocationList,
    InvocationResult,
    InvocationView,
    Submitted,
    TaskSubmission,
)

from ._asking import FINE, NOBODY, NOT_FINE, UNKNOWN, USAGE, run_and_tell, take_whereabouts
from ._load import WRONG, load_or_tell
from ._whereabouts import ForeignTreeError, NoTreeError, Whereabouts

_STATUSES = [each.value for each in InvocationStatus]
_PAGE = 1_000  # how many are read, or forgotten, in one step of the store
_REMEDIES = {
    "purge": "a tree forgets by itself what has been over for tasks.keep_results_sec",
    "check": "only stores in a file of SQLite can be checked",
}
#: What may be said of a submission, and by which options.
_SAID = {
    "delay_sec": "--delay",
    "due_at": "--due-at",
    "priority": "--priority",
    "queue": "--queue",
    "idempotency_key": "--idempotency-key",
}
#: Seconds that a call may wait for a runner before somebody is told that it does.
_MOMENT_SEC = 1.0


class _NoStoreError(Exception):
    """There is no store that this process could open."""


class _UselessOptionError(Exception):
    """An option does nothing in the place where it was given."""


_ENDS: Mapping[type[Exception], int] = {
    _NoStoreError: NOBODY,
    _UselessOptionError: USAGE,
    StateBackendError: NOBODY,
    InvocationNotFoundError: UNKNOWN,
    UnknownTaskError: UNKNOWN,
    InvocationStatusError: NOT_FINE,
    TaskArgumentsError: USAGE,
}


class Invocations(Protocol):
    """What the commands ask: a running tree (`Client`), or an open store (`StoreInvocations`)."""

    async def submit(
        self,
        task: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        delay_sec: float = 0,
        due_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        idempotency_key: str | None = None,
    ) -> Submitted: ...

    async def invocations(
        self,
        *,
        status: Sequence[str] | None = None,
        task: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> InvocationList: ...

    async def invocation(self, invocation_id: str) -> InvocationView: ...

    async def history(self, invocation_id: str) -> list[HistoryLine]: ...

    async def result(self, invocation_id: str, *, wait_sec: float = 0) -> InvocationResult: ...

    async def change_invocation(
        self, invocation_id: str, verb: Literal["cancel", "retry"]
    ) -> InvocationView: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who is asked, and what to say of a call that nobody takes."""

    calls: Invocations
    remedy: str


def ask(command: str, options: Mapping[str, Any]) -> int:
    """Do what *command* is for, as its *options* say; return the exit status."""
    if strange := [each for each in options.get("status", ()) if each not in _STATUSES]:
        words = f"there is no status {strange[0]!r}{did_you_mean(strange[0], _STATUSES)}"
        click.echo(f"{words}; there are {', '.join(_STATUSES)}", err=True)
        return USAGE
    where, rest = take_whereabouts(options)
    try:
        rest = _read_submission(rest) if command == "submit" else rest
    except ValidationError as error:
        for each in error.errors():
            click.echo(f"{_SAID[str(each['loc'][0])]}: {in_our_words(each)}", err=True)
        return USAGE
    if where.url is not None or where.run_directory is not None:
        return run_and_tell(partial(_ask_tree, command, where, rest), _ENDS)
    manifest = load_or_tell(where.manifest)
    if manifest is None:
        return WRONG
    return run_and_tell(partial(_ask_as_manifest_says, command, where, manifest, rest), _ENDS)


def _read_submission(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return *options* with what is said of the submission in one; it is checked as over HTTP."""
    rest = dict(options)
    told = {name: text for name in _SAID if (text := rest.pop(name)) is not None}
    wanted = TaskSubmission.model_validate(told)
    return {**rest, "said": {name: getattr(wanted, name) for name in told}}


async def _ask_as_manifest_says(
    command: str, where: Whereabouts, manifest: Manifest, options: Mapping[str, Any]
) -> int:
    if manifest.tasks is None:
        raise _NoStoreError(f"{where.manifest}: there are no tasks; name their modules in tasks")
    backend = make_state_backend(manifest.tasks.store_url(manifest.base_directory or Path.cwd()))
    if backend.url.startswith("memory:"):
        return await _ask_tree(command, where, options, alone=True)
    if where.token_file is not None:
        words = "--token-file is for a tree that is asked over HTTP, by --url or --run-directory"
        raise _UselessOptionError(f"{words}; {backend.url} is opened here and takes no token")
    if isinstance(backend, SQLiteStateBackend) and command != "submit":
        _check_exists(backend.path)
    home: TaskHome = manifest.tasks.home
    async with backend:
        if command in _STORE_COMMANDS:
            return await _STORE_COMMANDS[command](backend, **options)
        with home.using(backend):
            remedy = f"it needs a runner that is free, of python -m runtime {where.manifest}"
            return await _COMMANDS[command](_Asked(StoreInvocations(home), remedy), **options)


def _check_exists(path: str) -> None:
    if not Path(path).exists():
        raise _NoStoreError(f"{path}: there is no such file yet; nothing was submitted")


async def _ask_tree(
    command: str, where: Whereabouts, options: Mapping[str, Any], *, alone: bool = False
) -> int:
    """Ask a running tree; *alone*: the one that has the store of this manifest in its memory."""
    if command in _STORE_COMMANDS:
        raise _NoStoreError(_words_without_store(command, where, in_memory=alone))
    async with Client(*_find(where, alone=alone)) as client:
        remedy = "the runners of the tree are busy, or it has none (tasks.runners)"
        return await _COMMANDS[command](_Asked(client, remedy), **options)


def _find(where: Whereabouts, *, alone: bool) -> tuple[str, str | None]:
    try:
        return where.find()
    except NoTreeError as error:
        if not alone or isinstance(error, ForeignTreeError):
            raise
        words = f"memory:// is seen by the running tree alone, and {error.problem}"
        raise NoTreeError(error.where, words) from error


def _words_without_store(command: str, where: Whereabouts, *, in_memory: bool) -> str:
    if in_memory:
        words = f"memory:// cannot be opened by tasks {command}; {_REMEDIES[command]}"
        return f"{where.manifest}: tasks.state_backend: {words}"
    words = "opens the store itself and asks no tree; name the manifest of the store by -f alone"
    return f"tasks {command} {words}, without --url and --run-directory"


# --- to look --------------------------------------------------------------------------------------


async def show_list(
    asked: _Asked,
    *,
    status: Sequence[str],
    task: str | None,
    limit: int,
    as_json: bool,
) -> int:
    """List the newest *limit* invocations that fit."""
    found: list[InvocationView] = []
    cursor: str | None = None
    while len(found) < limit:
        page = await asked.calls.invocations(
            status=status, task=task, limit=min(_PAGE, limit - len(found)), after=cursor
        )
        found += page.invocations
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


async def show(asked: _Asked, *, invocation_id: str, as_json: bool) -> int:
    """Tell how one invocation stands, with its result or its error."""
    view = (await asked.calls.invocation(invocation_id)).model_dump(mode="json")
    outcome = (await asked.calls.result(invocation_id)).model_dump(mode="json")
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


async def show_result(asked: _Asked, *, invocation_id: str, wait: bool, as_json: bool) -> int:
    """Print what one invocation has returned; with *wait* once it is over."""
    result = await (_wait(asked, invocation_id) if wait else asked.calls.result(invocation_id))
    return _tell_end(invocation_id, result, as_json=as_json)


async def _wait(asked: _Asked, invocation_id: str) -> InvocationResult:
    """Return how an invocation has ended, once it has; say so if nobody takes it."""
    result = await asked.calls.result(invocation_id, wait_sec=_MOMENT_SEC)
    if result.status is InvocationStatus.REGISTERED:
        due_at = (await asked.calls.invocation(invocation_id)).timestamps.due_at
        if due_at is None or due_at <= datetime.now(UTC):
            click.echo(f"{invocation_id}: nobody has taken it yet; {asked.remedy}", err=True)
    while not result.status.is_over():
        result = await asked.calls.result(invocation_id, wait_sec=LONGEST_WAIT_SEC)
    return result


async def show_history(asked: _Asked, *, invocation_id: str, as_json: bool) -> int:
    """Tell all that has happened to one invocation, the oldest first."""
    lines = await asked.calls.history(invocation_id)
    if as_json:
        _put([line.model_dump(mode="json") for line in lines])
        return FINE
    for line in lines:
        time = line.timestamp.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        by = "" if line.runner_id is None else f"  by {line.runner_id}"
        more = "" if line.context is None else f"  {json.dumps(line.context, ensure_ascii=False)}"
        click.echo(f"{time}  {line.status or '(remark)'}{by}{more}")
    return FINE


# --- to change ------------------------------------------------------------------------------------


async def change(
    asked: _Asked, verb: Literal["cancel", "retry"], *, invocation_id: str, as_json: bool
) -> int:
    """Cancel one invocation, or try it again; what is told is the one that is to run then."""
    return _tell(await asked.calls.change_invocation(invocation_id, verb), as_json=as_json)


async def submit(
    asked: _Asked,
    *,
    name: str,
    arguments: Mapping[str, Any],
    said: Mapping[str, Any],
    wait: bool,
    as_json: bool,
) -> int:
    """Submit a call; with *wait* return once it is over, and print what it has returned."""
    invocation_id = (await asked.calls.submit(name, arguments, **said)).invocation_id
    if not wait:
        return _tell(await asked.calls.invocation(invocation_id), as_json=as_json)
    return _tell_end(invocation_id, await _wait(asked, invocation_id), as_json=as_json)


def _tell_end(invocation_id: str, result: InvocationResult, *, as_json: bool) -> int:
    good = result.status is InvocationStatus.SUCCESS
    if as_json:
        _put({"invocation_id": invocation_id, **result.model_dump(mode="json")})
    elif good:
        _put(result.result)
    else:
        why = "" if result.error is None else f": {result.error.type}: {result.error.message}"
        click.echo(f"{invocation_id}: {result.status}{why}", err=True)
    return FINE if good else NOT_FINE


def _tell(view: InvocationView, *, as_json: bool) -> int:
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
    "cancel": partial(change, verb="cancel"),
    "retry": partial(change, verb="retry"),
    "submit": submit,
}

# --- with a store alone ---------------------------------------------------------------------------


async def check(backend: BaseStateBackend, *, as_json: bool) -> int:
    """Look through the whole store, and tell what is wrong in it."""
    if not isinstance(backend, SQLiteStateBackend):
        raise _NoStoreError(f"{backend.url}: {_REMEDIES['check']}")
    problems = await backend.check_integrity()
    if as_json:
        _put(problems)
    else:
        for problem in problems:
            click.echo(f"{backend.path}: {problem}", err=True)
        if not problems:
            click.echo(f"{backend.path}: all is well")
    return NOT_FINE if problems else FINE


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


_STORE_COMMANDS: Mapping[str, Callable[..., Awaitable[int]]] = {"check": check, "purge": purge}
