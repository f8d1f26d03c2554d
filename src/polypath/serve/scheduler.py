"""Defines the queue between the event loop and the one thread that runs the network."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from polypath.serve.admission import Queue, Ticket
from polypath.serve.errors import RequestRejected
from polypath.serve.times import Times

T = TypeVar("T")
Run = Callable[[str, np.ndarray], np.ndarray]
"""``run(path, images (N, …))`` returns probabilities (N, classes)."""
Watch = Callable[[str, float, str], None]
STUCK_S = 30.0  # if a batch takes longer than this, the thread hangs


@dataclass(frozen=True)
class Done:
    """The result of a request. ``decoded`` and ``finished`` are the times, by ``time.perf_counter()``, at which its
    image was decoded and its batch was finished."""

    probabilities: np.ndarray
    path: str
    batch: int
    inference_s: float
    decoded: float
    finished: float


class Scheduler:
    """A scheduler that admits requests, collects them into batches, and runs the batches. Its methods must be called on
    the event loop that was running when it was made, unless their docstrings say otherwise.

    Args:
        run: the function that runs the network. Only one thread calls it.
        order: names of the paths, the most accurate first.
        times: how long batches take. Only batch sizes in ``times`` are used.
        queue: the largest number of tickets at a time.
        watch: called for the metrics: ``("batch", size, path)``, ``("seconds", s, path)``, ``("late", 1, path)``.

    Raises:
        ValueError: ``order`` and ``times`` have different paths.
    """

    def __init__(
        self,
        run: Run,
        order: Sequence[str],
        times: Times,
        *,
        queue: int = 256,
        watch: Watch = lambda event, number, path: None,
    ) -> None:
        self._queue = Queue(order, times, queue)
        self._run, self.order, self.times, self._watch = run, self._queue.order, times, watch
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Condition()
        self._started: float | None = None  # when the current batch began
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    def admit(self, deadline: float, path: str, *, cheaper: bool = False) -> Ticket:
        """Admit a request that must be answered before ``deadline`` (``time.perf_counter()``), and return its ticket.

        Raises:
            RequestRejected: 503, the request would be late, or would make another request late.
        """
        ticket = self._place(self._queue.admit, deadline, path, cheaper)
        ticket.future = self._loop.create_future()
        return ticket

    def check(self, deadline: float, path: str, *, cheaper: bool = False) -> None:
        """Check a request without reserving anything. If :meth:`admit` would raise an error now, raise this error."""
        self._place(self._queue.place, deadline, path, cheaper)

    def _place(self, place: Callable[..., T | None], deadline: float, path: str, cheaper: bool) -> T:
        now = time.perf_counter()
        with self._wake:
            if self._closing:
                raise RequestRejected(503, "the service is shutting down", retry_s=1.0, reason="draining")
            if (found := place(now, deadline, path, cheaper)) is not None:
                return found
            retry_s = self._queue.retry_s(now, path)
        left = 1000 * (deadline - now)
        message = f"the service is too busy to answer by path {path} within the remaining budget of {left:.1f} ms"
        raise RequestRejected(503, message, retry_s=retry_s, reason="busy")

    def submit(self, ticket: Ticket, image: np.ndarray) -> None:
        """Add the decoded image to ``ticket``. This method can be called from any thread."""
        with self._wake:
            ticket.image, ticket.decoded, ticket.away = image, time.perf_counter(), False
            self._wake.notify()

    def fail(self, ticket: Ticket, error: Exception) -> None:
        """Fail ``ticket``, since its image could not be decoded. This method can be called from any thread."""
        self._tell(_fail, ticket, error)

    def withdraw(self, ticket: Ticket) -> None:
        """Remove a ticket whose image could not be decoded, or whose client no longer waits."""
        with self._wake:
            self._queue.withdraw(ticket)
            self._wake.notify()

    def backlog(self) -> float:
        """Return the seconds until all accepted requests are answered."""
        with self._wake:
            return self._queue.backlog(time.perf_counter())

    def __len__(self) -> int:
        return len(self._queue.tickets)

    @property
    def healthy(self) -> bool:
        """Whether the thread is alive and its current batch does not hang."""
        started = self._started
        return self._thread.is_alive() and (started is None or time.perf_counter() - started < STUCK_S)

    async def close(self) -> None:
        """Admit no more requests, answer the admitted ones, and end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    # --- on the thread -----------------------------------------------------------------------------------

    def _work(self) -> None:
        while batch := self._next():
            path, started = batch[0].path, time.perf_counter()
            self._started = started
            result: np.ndarray | Exception
            try:
                result = self._run(path, np.stack([cast(np.ndarray, ticket.image) for ticket in batch]))
            except Exception as error:
                result = error
            finished = time.perf_counter()
            if not isinstance(result, Exception):
                self.times.observe(path, len(batch), finished - started, finished)
            self._started = None
            self._tell(self._deliver, batch, result, started, finished)

    def _next(self) -> list[Ticket]:
        """Wait for the next batch. It is empty when the scheduler closes."""
        with self._wake:
            self._queue.busy_until = 0.0
            while True:
                batch, late = self._queue.take(time.perf_counter())
                if late:
                    self._tell(self._refuse_late, late)
                if batch or (self._closing and not self._queue.tickets):
                    return batch
                self._wake.wait()

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # raised if the loop has closed; then no client waits for the answer
            self._loop.call_soon_threadsafe(function, *args)

    # --- back on the event loop --------------------------------------------------------------------------

    def _refuse_late(self, late: list[Ticket]) -> None:
        for ticket in late:
            self._watch("late", 1, ticket.path)
            if not ticket.future.done():
                message = "the machine was slower than expected; the deadline can no longer be met"
                with self._wake:
                    retry_s = self._queue.retry_s(time.perf_counter(), ticket.path)
                ticket.future.set_exception(RequestRejected(503, message, retry_s=retry_s, reason="late"))

    def _deliver(self, batch: list[Ticket], result: np.ndarray | Exception, started: float, finished: float) -> None:
        path, seconds = batch[0].path, finished - started
        self._watch("batch", len(batch), path)
        self._watch("seconds", seconds, path)
        for row, ticket in enumerate(batch):
            if ticket.future.done():
                continue
            if isinstance(result, Exception):
                ticket.future.set_exception(result)
            else:
                ticket.future.set_result(Done(result[row], path, len(batch), seconds, ticket.decoded, finished))


def _fail(ticket: Ticket, error: Exception) -> None:
    if not ticket.future.done():
        ticket.future.set_exception(error)
