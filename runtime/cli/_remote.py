"""The commands that ask a running tree, and steer it, over HTTP."""

import json
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, Literal

import click
import trio

from runtime._problems import did_you_mean
from runtime.supervision.graph import Stage
from runtime_http import Client, ClientError, NotReachedError, RefusedError
from runtime_http.models import LogLine, TreeView, UnitView

from ._asking import FINE, NOT_FINE, run_and_tell, status_of, take_whereabouts, words_of
from ._table import render_table
from ._whereabouts import NoTreeError

Verb = Literal["start", "stop", "restart"]
_PAST: Mapping[Verb, str] = {"start": "started", "stop": "stopped", "restart": "restarted"}
_FINE_STAGES = (Stage.READY, Stage.COMPLETED, Stage.IDLE)
#: A shell that waits for completions is not to wait for a tree that does not answer.
_COMPLETE_SEC = 1.0
#: So long a tree may take to say how it stands: it may be busy, and it may hang.
_ANSWER_SEC = 30.0


def ask(command: str, options: Mapping[str, Any]) -> int:
    """Do what *command* is for, as its *options* say; return the exit status."""
    where, rest = take_whereabouts(options)
    act = _COMMANDS[command]

    async def talk() -> int:
        async with Client(*where.find()) as client:
            return await act(client, **rest)

    return run_and_tell(talk)


def known_names(**options: Any) -> list[str]:  # noqa: ANN401 - as click hands them over
    """Return all names that the running tree knows, none when it does not answer."""
    options["file"] = options.get("file") or Path("manifest.yaml")
    where, _ = take_whereabouts(options)

    async def talk() -> list[str]:
        with trio.move_on_after(_COMPLETE_SEC):
            async with Client(*where.find()) as client:
                tree = await client.tree()
                return [*(unit.name for unit in tree.units), *tree.names]
        return []

    try:
        return trio.run(talk)
    except (NoTreeError, ClientError):
        return []


# --- status ---------------------------------------------------------------------------------------


async def show_status(client: Client, names: Sequence[str], *, as_json: bool, watch: bool) -> int:
    """Show how these units stand, or all; with *watch* again whenever that changes."""
    tree = await _read_tree(client)
    status = _show(tree, names, as_json=as_json, watch=watch)
    if not watch:
        return status
    async with aclosing(client.events(after=tree.last_event)) as events:
        async for message in events:
            # What is told of invocations, and that some of it is gone, says nothing of units.
            if message.kind not in ("invocation", "missed") and (
                message.number is None or message.number > tree.last_event
            ):
                try:
                    tree = await _read_tree(client)  # with all that has happened by now
                except NotReachedError:
                    if tree.stopping is None and not message.data.get("stopping"):
                        raise
                    break  # it has ended as it was told to
                status = _show(tree, names, as_json=as_json, watch=True)
    return status


def _show(tree: TreeView, names: Sequence[str], *, as_json: bool, watch: bool) -> int:
    units = _chosen(tree, names)
    if as_json:
        whole = [_plain(unit) for unit in units] if names else _plain(tree)
        click.echo(json.dumps(whole, indent=None if watch else 2))
    else:
        if watch and sys.stdout.isatty():
            click.clear()
        click.echo(_render(units), nl=False)
        if tree.stopping is not None:
            click.echo(f"stopping: {tree.stopping}")
    return FINE if all(unit.stage in _FINE_STAGES for unit in units) else NOT_FINE


def _render(units: Sequence[UnitView]) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    shown = sys.stdout.isatty()
    return render_table(
        units,
        {unit.name: unit.pid or 0 for unit in units},
        coloured=shown and not plain,
        width=get_terminal_size().columns if shown else None,
        now=datetime.now().astimezone(),
    )


async def _read_tree(client: Client) -> TreeView:
    """Return how the tree stands; one that does not say so in time does not answer."""
    with trio.move_on_after(_ANSWER_SEC):
        return await client.tree()
    raise NotReachedError(client.url, f"it has said nothing for {_ANSWER_SEC:g} s")


def _chosen(tree: TreeView, names: Sequence[str]) -> list[UnitView]:
    """Return the units that *names* stand for, each once; all of them without names."""
    known = {unit.name: unit for unit in tree.units}
    chosen: dict[str, UnitView] = {}
    for name in names or known:
        members = [name] if name in known else tree.names.get(name, [])
        if not members:
            near = did_you_mean(name, [*known, *tree.names])
            raise RefusedError(404, f"there is no unit {name!r}{near}")
        chosen.update({each: known[each] for each in members if each in known})
    return list(chosen.values())


# --- changes --------------------------------------------------------------------------------------


async def change(client: Client, verb: Verb, names: Sequence[str], *, as_json: bool) -> int:
    """Start, stop or restart these units side by side; the first refusal decides the status."""
    units = _chosen(await _read_tree(client), names)  # of an unknown name nothing is done
    refusals: dict[str, RefusedError] = {}
    unreached: list[NotReachedError] = []

    async def act(unit: UnitView) -> None:
        try:
            await _change_one(client, unit, verb)
        except RefusedError as refusal:
            refusals[unit.name] = refusal
        except NotReachedError as error:
            unreached.append(error)

    async with trio.open_nursery() as nursery:
        for unit in units:
            nursery.start_soon(act, unit)
    if unreached:
        raise unreached[0]
    for name, refusal in refusals.items():
        click.echo(f"{name}: {words_of(refusal)}", err=True)
    if as_json:
        now = _chosen(await _read_tree(client), [unit.name for unit in units])
        click.echo(json.dumps([_plain(unit) for unit in now], indent=2))
    elif done := [unit.name for unit in units if unit.name not in refusals]:
        click.echo(f"{_PAST[verb]}: {', '.join(done)}")
    return status_of(next(iter(refusals.values()), None))


async def _change_one(client: Client, unit: UnitView, verb: Verb) -> None:
    if unit.kind == "process":
        await client.change_process(unit.name, verb)
    elif unit.kind == "service":
        await client.change_service(unit.name, verb)
    else:
        raise RefusedError(409, f"only processes and services can be told to {verb}")


# --- what was printed, what happened, and why -----------------------------------------------------


async def show_logs(
    client: Client,
    names: Sequence[str],
    *,
    lines: int,
    stream: str | None,
    follow: bool,
    as_json: bool,
) -> int:
    """Show what processes have printed, and with *follow* what they go on to print."""
    units = _chosen(await _read_tree(client), names)
    # Of an entry or a group that was named, those are shown that print something.
    if stranger := next((u for u in units if u.name in names and u.kind != "process"), None):
        where = (
            "its lines are on the console" if stranger.kind == "worker" else "prints nothing itself"
        )
        raise RefusedError(
            404, f"{stranger.name} is no process (kind: {stranger.kind}), and {where}"
        )
    chosen = [unit.name for unit in units if unit.kind == "process"]
    printer = _Printer(chosen, as_json=as_json)

    def follow_one(name: str) -> AsyncGenerator[LogLine]:
        """Follow it behind the lines that have been shown, or from the newest ones."""
        seen = next((line.number for line in reversed(found[name])), None)
        told = partial(printer.tell_missed, name)
        return client.follow_logs(name, lines=lines, stream=stream, after=seen, on_missed=told)

    found = {name: await client.logs(name, lines=lines, stream=stream) for name in chosen}
    told = [(name, line) for name, its_lines in found.items() for line in its_lines]
    for name, line in sorted(told, key=lambda each: each[1].timestamp):
        printer.put(name, line)
    if follow:
        await _follow({name: follow_one(name) for name in chosen}, printer)
    return FINE


class _Printer:
    """Prints lines of processes, behind their names if there are several."""

    def __init__(self, names: Sequence[str], *, as_json: bool) -> None:
        self._several, self._as_json = len(names) != 1, as_json
        self._width = max(map(len, names), default=0)

    def put(self, name: str, line: LogLine) -> None:
        if self._as_json:
            click.echo(json.dumps({"process": name, **_plain(line)}))
        else:
            prefix = f"{name:<{self._width}} | " if self._several else ""
            click.echo(f"{prefix}{line.text}")

    def tell_missed(self, name: str, count: int) -> None:
        click.echo(f"({count} lines of {name} came too fast)", err=True)


async def _follow(streams: Mapping[str, AsyncGenerator[LogLine]], printer: _Printer) -> None:
    """Print what comes of each process, until all streams have ended."""
    failures: list[Exception] = []

    async def follow_one(name: str, stream: AsyncGenerator[LogLine]) -> None:
        try:
            async with aclosing(stream) as new:
                async for line in new:
                    printer.put(name, line)
        except (ClientError, BrokenPipeError) as failure:
            failures.append(failure)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for name, stream in streams.items():
            nursery.start_soon(follow_one, name, stream)
    if failures:
        raise failures[0]


async def show_events(client: Client, *, after: int | None, as_json: bool) -> int:
    """Show what happens, as it happens."""
    async with aclosing(client.events(after=after)) as events:
        async for message in events:
            if message.kind in ("resync", "missed"):
                why = "came too fast" if message.kind == "resync" else "of invocations are gone"
                click.echo(f"({message.data['missed']} events {why})", err=True)
            elif message.kind != "snapshot" and as_json:
                click.echo(json.dumps({k: v for k, v in message.data.items() if k != "now"}))
            elif message.kind != "snapshot":
                click.echo(_in_words(message.data))
    return FINE


async def show_why(client: Client, name: str, *, as_json: bool) -> int:
    """Show the chain of events behind the last change of a unit."""
    try:
        why = await client.why(name)
    except RefusedError as refusal:
        members = (await _read_tree(client)).names.get(name) if refusal.status == 404 else None
        if members is None:
            raise
        words = f"{name} stands for {', '.join(members)}: ask for one of them"
        raise RefusedError(404, words) from refusal
    if as_json:
        click.echo(json.dumps(_plain(why), indent=2))
        return FINE
    click.echo(f"{name}: {why.reason}")
    for event in why.events:
        click.echo(_in_words(_plain(event)))
    return FINE


def _in_words(event: Mapping[str, Any]) -> str:
    time = datetime.fromisoformat(event["timestamp"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    moved = f"{event['old']} -> {event['new']}: " if event["new"] else ""
    who = event["unit"] or ("invocation" if event["kind"] == "invocation" else "the tree")
    return f"{event['number']:>6} {time} {who}: {moved}{event['reason']}"


def _plain(model: Any) -> Any:  # noqa: ANN401 - a model, and what JSON has for it
    return model.model_dump(mode="json")


_COMMANDS: Mapping[str, Callable[..., Awaitable[int]]] = {
    "status": show_status,
    "change": change,
    "logs": show_logs,
    "events": show_events,
    "why": show_why,
}
