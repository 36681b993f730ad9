"""The tree as a whole: how every unit stands, what has happened, and why."""

# quart-schema makes answers of models; Quart's types know nothing of that.
# pyright: reportArgumentType=false

from quart import Response
from quart_schema import tag, validate_querystring, validate_response

from runtime.application import Application
from runtime.supervision.events import EventKind
from runtime_http._compress import GZIPPED, takes_gzip
from runtime_http._quart import Blueprint, body_writer, last_event_id, stream_response
from runtime_http.feed import EventFeed
from runtime_http.models import EventList, EventQuery, TreeView, UnitView, Why
from runtime_http.views import view_event, view_tree, view_unit


def make_tree(application: Application, feed: EventFeed) -> Blueprint:
    """Return the routes of the tree of *application*."""
    blueprint = Blueprint("tree", __name__)

    @blueprint.get("/tree")
    @validate_response(TreeView)
    @tag(["tree"])
    async def tree() -> TreeView:
        """Tell how every unit stands, and who waits for whom."""
        return view_tree(application)

    @blueprint.get("/tree/<path:name>")
    @validate_response(UnitView)
    @tag(["tree"])
    async def unit(name: str) -> UnitView:
        """Tell how one unit stands."""
        supervisor, own = application.supervisor.locate(name)
        return view_unit(application, supervisor.status(own))

    @blueprint.get("/why/<path:name>")
    @validate_response(Why)
    @tag(["tree"])
    async def why(name: str) -> Why:
        """Tell the chain of events behind the last change of a unit."""
        supervisor, own = application.supervisor.locate(name)
        chain = supervisor.trace(own)
        return Why(
            name=name,
            reason=supervisor.status(own).reason,
            events=[view_event(entry.sequence, entry.item) for entry in chain],
        )

    @blueprint.get("/events/recent")
    @validate_querystring(EventQuery)
    @validate_response(EventList)
    @tag(["tree"])
    async def recent(query_args: EventQuery) -> EventList:
        """Tell what has happened last to units, whatever has been told of invocations since."""
        newest = application.supervisor.events.tail(
            query_args.limit, where=lambda event: event.kind is not EventKind.INVOCATION
        )
        return EventList(events=[view_event(entry.sequence, entry.item) for entry in newest])

    @blueprint.get("/events")
    @tag(["tree"])
    async def events() -> Response:
        """Follow what happens, as server-sent events; `Last-Event-ID` resumes."""
        after = last_event_id()
        packed = takes_gzip()
        headers = {"vary": "accept-encoding"} | (GZIPPED if packed else {})
        return stream_response(feed.stream(after, body_writer(), packed=packed), headers)

    return blueprint
