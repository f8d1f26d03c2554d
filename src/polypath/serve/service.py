"""From a request to an answer: which path, whether in time, decode, wait, name the classes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from polypath.core.checks import check_fields, number, whole
from polypath.deploy.latency import Recent
from polypath.serve.admission import Ticket
from polypath.serve.errors import RequestRejected
from polypath.serve.limits import RequestLimits
from polypath.serve.metrics import Metrics
from polypath.serve.model import Model
from polypath.serve.predict_request import MOST_MS, PredictRequest
from polypath.serve.scheduler import Done, Scheduler
from polypath.serve.times import Times

T = TypeVar("T")
DECODING_S = 0.001  # for an image, before any was seen


def batch_sizes(most: int) -> tuple[int, ...]:
    """1, 2, 4, … up to ``most``: few enough to profile each."""
    return tuple(2**i for i in range(most.bit_length()) if 2**i <= most)


@dataclass(frozen=True)
class Options:
    """How a service answers.

    Args:
        budget_ms: of requests that name none.
        top_k: classes in an answer, likewise.
        max_batch: images in one batch at most; batches have powers of two.
        limits: see :class:`RequestLimits`.

    Raises:
        ValueError: a value outside its range.
    """

    budget_ms: float = 1000.0
    top_k: int = 5
    max_batch: int = 16
    limits: RequestLimits = field(default_factory=RequestLimits)

    def __post_init__(self) -> None:
        check_fields(self, budget_ms=number(above=0, high=MOST_MS), top_k=whole(1), max_batch=whole(1, 256))


class Decoders:
    """Threads that decode images, and how long one more image would wait for them."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._threads, self._waiting, self._seen = threads, 0, Recent()
        self._lock = threading.Lock()

    def expected(self) -> float:
        """Seconds until an image that comes now is decoded."""
        seen = self._seen.quantiles(time.perf_counter())
        return (seen[0] if seen is not None else DECODING_S) * (1 + self._waiting / self._threads)

    def start(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """``function(*args)`` on a thread."""
        with self._lock:
            self._waiting += 1
        return self._pool.submit(self._timed, function, *args)

    def _timed(self, function: Callable[..., T], *args: Any) -> T:
        start = time.perf_counter()
        try:
            return function(*args)
        finally:
            end = time.perf_counter()
            self._seen.add(end - start, end)
            with self._lock:
                self._waiting -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Service:
    """Answers requests on the event loop that was running when it was made.

    Args:
        model: the network.
        times: of ``model``, for :func:`batch_sizes` of ``options.max_batch``.
        options: see :class:`Options`.
        metrics: counters.
    """

    def __init__(self, model: Model, times: Times, options: Options, metrics: Metrics) -> None:
        self.model, self.times, self.options, self.metrics = model, times, options, metrics
        self.paths = {path.name: path for path in model.paths}
        self.scheduler = Scheduler(
            model.run, list(self.paths), self.times, queue=options.limits.queue, watch=metrics.watch
        )
        self.decoders = Decoders(options.limits.decoders)

    async def answer(self, request: PredictRequest, arrived: float) -> tuple[Done, dict[str, Any]]:
        """The answer to ``request``, whose last byte came at ``arrived`` (``time.perf_counter()``).

        Raises:
            RequestRejected: see the modules that it passes through.
        """
        budget_ms = self.options.budget_ms if request.budget_ms is None else request.budget_ms
        deadline = arrived + budget_ms / 1000
        path = request.path or self._best(budget_ms)
        if request.path is not None and not request.allow_cheaper:
            self._possible(request.path, budget_ms)
        decoding = self.decoders.expected()
        ticket = self.scheduler.admit(deadline - decoding, path, cheaper=request.allow_cheaper)
        try:
            self.decoders.start(self._decode, ticket, request.image)
            done = await ticket.future
        except BaseException:
            self.scheduler.withdraw(ticket)
            raise
        finished = time.perf_counter()
        self._count(done, path, finished - arrived, finished > deadline)
        return done, self._reply(request, done, arrived, finished)

    def _best(self, budget_ms: float) -> str:
        """The most accurate path that an idle machine answers within the budget.

        Raises:
            RequestRejected: 422, no path is that fast.
        """
        now = time.perf_counter()
        spare = budget_ms / 1000 - self.times.reply(now)
        for path in self.scheduler.order:
            if self.times.high(path, 1, now) <= spare:
                return path
        cheapest = min(self.scheduler.order, key=lambda name: self.times.idle(name, now))
        self._possible(cheapest, budget_ms)
        return cheapest  # it would do on an idle machine; admission will say that this one is busy

    def _possible(self, path: str, budget_ms: float) -> None:
        needed_ms = 1000 * self.times.idle(path, time.perf_counter())
        if needed_ms > budget_ms:
            raise RequestRejected(
                422,
                f"the budget cannot be met by {path}, which needs {needed_ms:.2f} ms on this machine when it is idle",
                field="budget_ms",
                value=budget_ms,
                legal=f"at least {needed_ms:.2f} for {path}",
                reason="budget",
            )

    def _decode(self, ticket: Ticket, data: bytes) -> None:
        """On a thread of the decoders: the image goes straight to the queue, without a turn of the event loop."""
        try:
            self.scheduler.submit(ticket, self.model.decode(data, self.options.limits.pixels))
        except ValueError as error:
            legal = f"an image file of at most {self.options.limits.pixels} pixels"
            value = f"{len(data)} bytes"
            self.scheduler.fail(
                ticket, RequestRejected(400, f"image: {error}", field="image", value=value, legal=legal)
            )
        except Exception as error:
            self.scheduler.fail(ticket, error)

    def _count(self, done: Done, path: str, total_s: float, late: bool) -> None:
        self.metrics.requests.labels("200").inc()
        self.metrics.answered.labels(done.path).inc()
        self.metrics.total.observe(total_s)
        if late:
            self.metrics.late.labels(done.path).inc()
        if done.path != path:
            self.metrics.cheaper.inc()

    def _reply(self, request: PredictRequest, done: Done, arrived: float, finished: float) -> dict[str, Any]:
        classes = self.model.classes
        most = min(self.options.top_k if request.top_k is None else request.top_k, len(classes))
        best = np.argsort(-done.probabilities, kind="stable")[:most]
        return {
            "path": done.path,
            "error_percent": self.paths[done.path].error,
            "top": [
                {"class": classes[i], "index": int(i), "probability": round(float(done.probabilities[i]), 6)}
                for i in best
            ],
            "ms": {
                "total": round(1000 * (finished - arrived), 3),
                "decode": round(1000 * (done.decoded - arrived), 3),
                "inference": round(1000 * done.inference_s, 3),
            },
            "batch": done.batch,
        }

    async def close(self) -> None:
        """Answer what was accepted, then stop."""
        await self.scheduler.close()
        self.decoders.close()
