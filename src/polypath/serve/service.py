"""Answers requests: chooses a path, checks the deadline, decodes the image, and waits for inference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polypath.core.checks import check_fields, number, whole
from polypath.data.images import LargeImage
from polypath.deploy.decoder import Cancellation, DecodingCancelled, DecodingLate
from polypath.serve.admission import Ticket
from polypath.serve.decoding import Lane
from polypath.serve.errors import RequestRejected
from polypath.serve.limits import RequestLimits
from polypath.serve.metrics import Metrics
from polypath.serve.model import Model
from polypath.serve.predict_request import MOST_MS, PredictRequest
from polypath.serve.scheduler import Done, Scheduler
from polypath.serve.times import Times

DECODING_S = 0.001  # assumed time to decode a small image, before any is measured
TINY = 2**15  # images of at most so many pixels and bytes are decoded on the event loop: 0.1 to 1.3 ms, by format
WORK_S = 20e-9  # assumed time for a unit of work on a large image, before any is measured
PULSE_S = 0.025  # time between measurements of the event loop's lag
WAIT_S = 5.0  # the longest expected time in the queue of large images
DRAIN_S = 3.0  # time for accepted large images when the service shuts down

Receive = Callable[[], Awaitable[Any]]
"""ASGI's ``receive``, which returns ``http.disconnect`` once the client has left."""


def batch_sizes(most: int) -> tuple[int, ...]:
    """Return the batch sizes 1, 2, 4, … up to ``most``. There are so few that each of them can be profiled."""
    return tuple(2**i for i in range(most.bit_length()) if 2**i <= most)


def check_budget(path: str, needed_ms: float, budget_ms: float) -> None:
    """Check that ``path`` fits the budget on an idle machine.

    Raises:
        RequestRejected: 422, the path needs more time than the budget.
    """
    if needed_ms > budget_ms:
        raise RequestRejected(
            422,
            f"the budget cannot be met by {path}, which needs {needed_ms:.2f} ms on this machine even if it is idle",
            field="budget_ms",
            value=budget_ms,
            legal=f"at least {needed_ms:.2f} for {path}",
            reason="budget",
        )


@dataclass(frozen=True)
class Options:
    """Options of a service.

    Args:
        budget_ms: budget of requests that do not state one.
        top_k: number of classes in the answer to a request that does not state a number.
        max_batch: the largest number of images in a batch. Batch sizes are powers of two.
        limits: limits on requests (:class:`RequestLimits`).

    Raises:
        ValueError: a value is out of range.
    """

    budget_ms: float = 1000.0
    top_k: int = 5
    max_batch: int = 16
    limits: RequestLimits = field(default_factory=RequestLimits)

    def __post_init__(self) -> None:
        check_fields(self, budget_ms=number(above=0, high=MOST_MS), top_k=whole(1), max_batch=whole(1, 256))


@dataclass(eq=False)
class Decoding:
    """The decoding of one request's image."""

    ticket: Ticket
    data: bytes
    arrived: float
    deadline: float
    work: int = 0
    cancellation: Cancellation = field(default_factory=Cancellation)
    futures: list[Future[None]] = field(default_factory=list)

    def cancel(self) -> None:
        """Stop the decoding, since the image is no longer wanted."""
        self.cancellation.cancel()
        for future in self.futures:
            future.cancel()


class Service:
    """A service that answers requests, on the event loop that was running when the service was made.

    Args:
        model: the model that answers.
        times: times of ``model`` for the batch sizes ``batch_sizes(options.max_batch)``.
        options: see :class:`Options`.
        metrics: counters of events.
    """

    def __init__(self, model: Model, times: Times, options: Options, metrics: Metrics) -> None:
        self.model, self.times, self.options, self.metrics = model, times, options, metrics
        self.paths = {path.name: path for path in model.paths}
        self.scheduler = Scheduler(
            model.run, list(self.paths), self.times, queue=options.limits.queue, watch=metrics.watch
        )
        self.decoders = Lane("decode", options.limits.decoders, DECODING_S)
        self.large = Lane("decode-large", 1, WORK_S)
        self._large: set[Decoding] = set()
        self._loop = asyncio.get_running_loop()
        self._pulse = self._loop.create_task(self._feel_lag())

    async def answer(
        self, request: PredictRequest, arrived: float, receive: Receive | None = None
    ) -> tuple[Done, dict[str, Any]]:
        """Answer ``request``, whose last byte came at ``arrived`` (``time.perf_counter()``). If ``receive`` reports
        that the client has left, all work for the request stops.

        Raises:
            RequestRejected: the request is refused, at any step from admission to inference.
        """
        budget_ms, path = self._wanted(request)
        ticket = self.scheduler.admit(self._deadline(arrived, budget_ms), path, cheaper=request.allow_cheaper)
        decoding = Decoding(ticket, request.image, arrived, arrived + budget_ms / 1000)
        if not self._decode_tiny(decoding):
            decoding.futures.append(self.decoders.start(self._decode, decoding))
        watch = None if receive is None else self._loop.create_task(_watch(receive, ticket))
        try:
            done = await ticket.future
        except BaseException:
            self.scheduler.withdraw(ticket)
            decoding.cancel()
            raise
        finally:
            if watch is not None:
                watch.cancel()
        finished = time.perf_counter()
        self.metrics.answer(done.path, finished - arrived, budget_ms / 1000, path)
        return done, self._reply(request, done, arrived, finished)

    def check(self, request: PredictRequest, arrived: float) -> None:
        """Check ``request`` without decoding its image or reserving anything.

        Raises:
            RequestRejected: :meth:`answer` would refuse the request now.
        """
        budget_ms, path = self._wanted(request)
        self.scheduler.check(self._deadline(arrived, budget_ms), path, cheaper=request.allow_cheaper)

    def _deadline(self, arrived: float, budget_ms: float) -> float:
        """Return the time by which inference must be done. It is the request's deadline, minus the expected time for
        decoding, minus the time for which the request may have waited before the event loop read it."""
        return arrived + budget_ms / 1000 - self.decoders.expected() - self.times.lag(time.perf_counter())

    async def _feel_lag(self) -> None:
        while True:
            due = time.perf_counter() + PULSE_S
            await asyncio.sleep(PULSE_S)
            now = time.perf_counter()
            self.times.observe_lag(max(0.0, now - due), now)

    def _wanted(self, request: PredictRequest) -> tuple[float, str]:
        """Return the budget in milliseconds, and the path.

        Raises:
            RequestRejected: 422, the path is too slow for the budget.
        """
        budget_ms = self.options.budget_ms if request.budget_ms is None else request.budget_ms
        if request.path is not None and not request.allow_cheaper:
            self._possible(request.path, budget_ms)
        return budget_ms, request.path or self._best(budget_ms)

    def _best(self, budget_ms: float) -> str:
        """Return the most accurate path that fits the budget if no other request is running.

        Raises:
            RequestRejected: 422, no path is fast enough for the budget.
        """
        now = time.perf_counter()
        spare = budget_ms / 1000 - self.times.reply(now)
        for path in self.scheduler.order:
            if self.times.high(path, 1, now) <= spare:
                return path
        cheapest = min(self.scheduler.order, key=lambda name: self.times.idle(name, now))
        self._possible(cheapest, budget_ms)
        return cheapest  # it fits on an idle machine; if the machine is busy, admission refuses the request

    def _possible(self, path: str, budget_ms: float) -> None:
        check_budget(path, 1000 * self.times.idle(path, time.perf_counter()), budget_ms)

    def _decode_tiny(self, decoding: Decoding) -> bool:
        """Decode an image on the event loop if it is tiny. Return whether it was decoded. A thread would wait several
        times for the interpreter's lock. This would take longer than decoding, especially while many requests are
        refused."""
        if len(decoding.data) > TINY:
            return False
        try:
            self._decode_here(decoding, TINY)
        except LargeImage:
            return False
        return True

    def _decode(self, decoding: Decoding) -> None:
        """Decode an image on a thread of the decoders, or queue it if it is large."""
        try:
            self._decode_here(decoding)
        except LargeImage as large:
            decoding.work = large.work
            self._begin_large(decoding)

    def _decode_here(self, decoding: Decoding, most: int | None = None) -> None:
        """Decode an image in this thread, and submit it at once, without waiting for the event loop.

        Raises:
            LargeImage: decoding needs more work than ``most``, or than this process may do.
        """
        try:
            image = self.model.decode(decoding.data, self.options.limits.pixels, most)
        except LargeImage:
            raise
        except Exception as error:
            self._fail(decoding, error)
        else:
            self.scheduler.submit(decoding.ticket, image)

    def _begin_large(self, decoding: Decoding) -> None:
        """Queue an image behind the other large images, if it will be in time. If there are none, always queue it."""
        expected_s = self.large.expected(decoding.work)
        if self.large.pieces and expected_s > min(WAIT_S, decoding.deadline - time.perf_counter()):
            message = f"{self.large.pieces} large images are already in the queue for decoding"
            self._fail(decoding, RequestRejected(503, message, retry_s=expected_s, reason="busy"))
            return
        self._large.add(decoding)
        decoding.ticket.away = True
        future = self.large.start(self._decode_large, decoding, units=decoding.work)
        future.add_done_callback(lambda _: self._large.discard(decoding))
        decoding.futures.append(future)

    def _decode_large(self, decoding: Decoding) -> None:
        try:
            image = self.model.decode_apart(
                decoding.data, self.options.limits.pixels, decoding.deadline, decoding.cancellation
            )
        except DecodingCancelled:
            pass
        except Exception as error:
            self._fail(decoding, error)
        else:
            self.scheduler.submit(decoding.ticket, image)
        finally:
            self.model.renew()

    def _fail(self, decoding: Decoding, error: Exception) -> None:
        limit = self.options.limits.pixels
        if isinstance(error, DecodingLate):
            budget_ms = 1000 * (decoding.deadline - decoding.arrived)
            if error.seconds < 0.5e-3 * budget_ms:  # other images took the time
                message = "the image was not decoded in time, since other images came first"
                error = RequestRejected(503, message, retry_s=self.large.expected(decoding.work), reason="late")
            else:
                message = "decoding this image takes longer than the budget allows"
                legal = "a larger budget, or an image that is faster to decode"
                error = RequestRejected(
                    422, message, field="budget_ms", value=round(budget_ms, 1), legal=legal, reason="decoding"
                )
        elif isinstance(error, ValueError):
            legal, value = f"an image file of at most {limit} pixels", f"{len(decoding.data)} bytes"
            error = RequestRejected(400, f"image: {error}", field="image", value=value, legal=legal)
        elif isinstance(error, RuntimeError):  # no process can be started
            error = RequestRejected(503, "large images cannot be decoded now", retry_s=1.0, reason="decoding")
        self.scheduler.fail(decoding.ticket, error)

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

    def drain(self) -> None:
        """Prepare for the shutdown. Large images that are not decoded soon are refused, so that they do not delay the
        shutdown. This method can be called from any thread."""
        self._loop.call_soon_threadsafe(self._loop.call_later, DRAIN_S, self._give_up_large)

    def _give_up_large(self) -> None:
        for decoding in list(self._large):
            refusal = RequestRejected(503, "the service is shutting down", retry_s=1.0, reason="draining")
            self.scheduler.fail(decoding.ticket, refusal)

    async def close(self) -> None:
        """Answer the accepted requests, then stop."""
        await self.scheduler.close()
        self._pulse.cancel()
        for decoding in list(self._large):
            decoding.cancel()
        self.decoders.close()
        self.large.close()


async def _watch(receive: Receive, ticket: Ticket) -> None:
    message = await receive()
    if message["type"] == "http.disconnect" and not ticket.future.done():
        ticket.future.set_exception(RequestRejected(400, "the client has left", reason="left"))
