"""Counts the events of one service, in its own Prometheus registry."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of a service. Their names start with ``polypath_``. Times are in seconds."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "polypath_requests", "Requests for predictions, by status.", ["status"], registry=registry
        )
        self.refused = Counter("polypath_refused", "Requests not answered, by reason.", ["reason"], registry=registry)
        self.answered = Counter("polypath_answered", "Predictions given, by path.", ["path"], registry=registry)
        self.late = Counter(
            "polypath_late", "Predictions given after their deadline, by path.", ["path"], registry=registry
        )
        self.dropped = Counter(
            "polypath_dropped", "Requests accepted, then refused as too late, by path.", ["path"], registry=registry
        )
        self.cheaper = Counter("polypath_cheaper", "Predictions by a cheaper path than requested.", registry=registry)
        self.total = Histogram(
            "polypath_request_seconds",
            "Seconds from the complete request to its answer.",
            buckets=SECONDS,
            registry=registry,
        )
        self.inference = Histogram(
            "polypath_batch_seconds",
            "Seconds of a batch's inference, by path.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "polypath_batch_images", "Number of images in a batch.", buckets=SIZES, registry=registry
        )
        self.queue = Gauge("polypath_queue", "Accepted requests that wait.", registry=registry)
        self.open = Gauge("polypath_in_flight", "Requests being answered.", registry=registry)

    def gauges(self, queue: Callable[[], float], in_flight: Callable[[], float]) -> None:
        """Set the functions that return the values of the two gauges."""
        self.queue.set_function(queue)
        self.open.set_function(in_flight)

    def answer(self, path: str, total_s: float, budget_s: float, asked: str) -> None:
        """Count a prediction by ``path`` that took ``total_s`` seconds. ``asked`` is the path that was requested."""
        self.requests.labels("200").inc()
        self.answered.labels(path).inc()
        self.total.observe(total_s)
        if total_s > budget_s:
            self.late.labels(path).inc()
        if path != asked:
            self.cheaper.inc()

    def refuse(self, status: int, reason: str) -> None:
        """Count a request that got no prediction."""
        self.requests.labels(str(status)).inc()
        self.refused.labels(reason).inc()

    def watch(self, event: str, number: float, path: str) -> None:
        """Count an event of the scheduler."""
        if event == "batch":
            self.batch.observe(number)
        elif event == "seconds":
            self.inference.labels(path).observe(number)
        else:
            self.dropped.labels(path).inc(number)

    def text(self) -> bytes:
        """Return all counters in Prometheus's text format."""
        return generate_latest(self.registry)
