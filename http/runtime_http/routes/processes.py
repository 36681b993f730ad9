"""Processes: how they stand, what they print and use, and to start, stop and restart them."""

# quart-schema makes answers of models; Quart's types know nothing of that.
# pyright: reportArgumentType=false

from collections.abc import AsyncGenerator

import trio
from quart import Response
from quart_schema import document_response, tag, validate_querystring, validate_response

from runtime.application import Application
from runtime.process import Process
from runtime_http._compress import compress
from runtime_http._quart import Blueprint, last_event_id, stream_response
from runtime_http.feed import ALIVE, encode, next_batch
from runtime_http.models import (
    AllUsage,
    LogLine,
    LogLines,
    LogQuery,
    ProcessList,
    ProcessUsage,
    ProcessView,
)
from runtime_http.usage import UsageWatch
from runtime_http.views import find_process, list_processes, view_line, view_process


def make_processes(application: Application, usage: UsageWatch, shutdown: trio.Event) -> Blueprint:
    """Return the routes of all processes of *application*; streams end at *shutdown*."""
    blueprint = Blueprint("processes", __name__, url_prefix="/processes")

    @blueprint.get("")
    @validate_response(ProcessList)
    @tag(["processes"])
    async def list_all() -> ProcessList:
        """List the processes."""
        processes = list_processes(application)
        return ProcessList(processes=[view_process(application, each) for each in processes])

    @blueprint.get("/<name>")
    @validate_response(ProcessView)
    @tag(["processes"])
    async def show(name: str) -> ProcessView:
        """Tell how a process stands."""
        return view_process(application, find_process(application, name))

    def add(verb: str) -> None:
        @validate_response(ProcessView)
        @tag(["processes"])
        async def act(name: str) -> ProcessView:
            process = find_process(application, name)
            supervisor = application.supervisor
            doing = {
                "start": supervisor.start_unit,
                "stop": supervisor.stop_unit,
                "restart": supervisor.restart_unit,
            }
            await doing[verb](name)
            return view_process(application, process)

        act.__name__ = verb
        act.__doc__ = f"{verb.capitalize()} a process, and answer when it is so."
        blueprint.add_url_rule(f"/<name>/{verb}", verb, act, methods=["POST"])

    for verb in ("start", "stop", "restart"):
        add(verb)

    @blueprint.get("/<name>/logs")
    @validate_querystring(LogQuery)
    @document_response(LogLines)
    @tag(["processes"])
    async def logs(name: str, query_args: LogQuery) -> LogLines | Response:
        """Return the newest lines of a process, or follow them as server-sent events."""
        process = find_process(application, name)
        if query_args.follow:
            return stream_response(_follow(process, query_args, last_event_id(), shutdown))
        return LogLines(lines=_newest(process, query_args))

    @blueprint.get("/<name>/stats")
    @validate_response(ProcessUsage)
    @tag(["processes"])
    async def stats(name: str) -> ProcessUsage:
        """Tell what a process uses now, and has used lately."""
        return await usage.history(find_process(application, name))

    return blueprint


def make_stats(usage: UsageWatch) -> Blueprint:
    """Return the route of what all processes use."""
    blueprint = Blueprint("stats", __name__)
    blueprint.after_request(compress)

    @blueprint.get("/stats")
    @validate_response(AllUsage)
    @tag(["processes"])
    async def all_stats() -> AllUsage:
        """Tell what all processes use now."""
        return AllUsage(stats=dict(await usage.newest()))

    return blueprint


def _newest(process: Process, query: LogQuery) -> list[LogLine]:
    entries = process.output.lines.tail()
    wanted = [entry for entry in entries if query.stream in (None, entry.item.stream)]
    return [view_line(entry) for entry in wanted[len(wanted) - min(query.lines, len(wanted)) :]]


async def _follow(
    process: Process, query: LogQuery, seen: int | None, shutdown: trio.Event
) -> AsyncGenerator[bytes]:
    """Yield the newest lines, or those after number *seen*, and then what comes."""
    journal = process.output.lines
    after = journal.last
    if seen is not None and seen <= after:  # else it is a number of a former tree
        after = seen
    else:
        for line in _newest(process, query):
            yield encode("line", line.model_dump(), line.number)
    while (entries := await next_batch(journal, after, shutdown)) is not None:
        if entries:
            after = entries[-1].sequence
        if entries and entries[0].missed:
            yield encode("missed", {"lines": entries[0].missed})
        chosen = [view_line(e) for e in entries if query.stream in (None, e.item.stream)]
        yield b"".join(encode("line", each.model_dump(), each.number) for each in chosen) or ALIVE
