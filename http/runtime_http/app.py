"""The Quart application: all routes over one application of the runtime."""

# quart-schema makes answers of models; Quart's types know nothing of that.
# pyright: reportArgumentType=false

from functools import cache
from importlib.metadata import version as version_of

import trio
from quart import Response
from quart_schema import hide, tag, validate_response
from quart_trio import QuartTrio

from runtime.application import Application
from runtime.service.models import ApplicationStatus

from ._quart import make_app
from .feed import EventFeed
from .metrics import CONTENT_TYPE, make_registry, render
from .models import Probe
from .openapi import describe
from .probes import probe_life, probe_readiness
from .routes.page import make_page
from .routes.processes import make_processes, make_stats
from .routes.services import make_services
from .routes.tasks import make_invocations, make_tasks
from .routes.tree import make_tree
from .usage import UsageWatch


def create_app(
    application: Application, feed: EventFeed, usage: UsageWatch, shutdown: trio.Event
) -> QuartTrio:
    """Return the Quart application that shows and steers *application*."""
    app = make_app(
        "runtime_http",
        application.secrets,
        title="trio-runtime",
        version=version_of("trio-runtime"),
    )

    @app.get("/")
    @validate_response(ApplicationStatus)
    @tag(["application"])
    async def status() -> ApplicationStatus:
        """Tell how the application stands, with all its services."""
        return application.status

    @app.get("/healthz")
    @validate_response(Probe)
    @tag(["probes"])
    async def healthz() -> tuple[Probe, int]:
        """Tell that the runtime answers."""
        return probe_life()

    @app.get("/readyz")
    @validate_response(Probe)
    @validate_response(Probe, 503)
    @tag(["probes"])
    async def readyz() -> tuple[Probe, int]:
        """Tell whether every unit that is to be ready is so."""
        return probe_readiness(application)

    @cache  # the routes are complete when the first request comes
    def description() -> bytes:
        return describe(app.extensions)

    @app.get("/openapi.json")
    @hide
    async def openapi() -> Response:
        return Response(description(), content_type="application/json")

    registry = make_registry(application)

    @app.get("/metrics")
    @hide
    async def metrics() -> Response:
        return Response(render(registry), content_type=CONTENT_TYPE)

    for blueprint in (
        make_services(application),
        make_processes(application, usage, shutdown),
        make_stats(usage),
        make_tasks(application),
        make_invocations(application, shutdown),
        make_tree(application, feed),
        make_page(),
    ):
        app.register_blueprint(blueprint)
    return app
