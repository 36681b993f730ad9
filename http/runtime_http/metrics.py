"""The state of the tree as metrics for Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from runtime.application import Application

CONTENT_TYPE = CONTENT_TYPE_LATEST


class _TreeCollector(Collector):
    """Reads the tree when somebody asks; nothing is counted beside it."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def collect(self) -> Iterator[Metric]:
        """Yield what is known of all units."""
        supervisor = self._application.supervisor
        labels = ["unit", "kind"]
        ready = GaugeMetricFamily("runtime_unit_ready", "Whether a unit is ready.", labels=labels)
        stage = GaugeMetricFamily(
            "runtime_unit_stage", "The stage at which a unit stands.", labels=[*labels, "stage"]
        )
        starts = CounterMetricFamily("runtime_unit_starts", "Starts of a unit.", labels=labels)
        restarts = CounterMetricFamily(
            "runtime_unit_restarts", "Restarts of a unit by its policy.", labels=labels
        )
        since = GaugeMetricFamily(
            "runtime_unit_start_time_seconds", "When a unit was started last.", labels=labels
        )
        for status in supervisor.statuses():
            names = [status.name, status.kind]
            ready.add_metric(names, float(status.ready))
            stage.add_metric([*names, status.stage], 1.0)
            starts.add_metric(names, status.generation)
            restarts.add_metric(names, status.restarts)
            if status.started_at is not None:
                since.add_metric(names, status.started_at.timestamp())
        yield from (ready, stage, starts, restarts, since)
        yield CounterMetricFamily(
            "runtime_events", "Events of the tree.", value=supervisor.events.last
        )
        yield GaugeMetricFamily(
            "runtime_stopping",
            "Whether the whole tree stops.",
            value=float(supervisor.stopping is not None),
        )


def make_registry(application: Application) -> CollectorRegistry:
    """Return the registry of the metrics of *application*."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_TreeCollector(application))
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """Return all metrics in the text format."""
    return generate_latest(registry)
