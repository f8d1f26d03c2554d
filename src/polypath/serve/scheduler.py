"""Admission, the queue, batches, and the one thread that runs the network.

A request is admitted if, by a rehearsal of everything accepted so far, it and all others are answered in time; if not
it is refused at once, or given a cheaper path where its client allows that. The thread then does what was rehearsed:
it takes the request with the earliest deadline and the largest batch of its path that still keeps that deadline.
Nothing waits for a batch to fill: under load batches fill by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polypath.serve.errors import Refusal
from polypath.serve.times import Times

Run = Callable[[str, np.ndarray], np.ndarray]
"""``run(path, images (N, …))`` gives probabilities (N, classes)."""
STUCK_S = 30.0  # a batch that takes longer means that the thread hangs


@dataclass(frozen=True)
class Done:
    """What became of a request."""

    probabilities: np.ndarray
    path: str
    batch: int
    waited_s: float
    inference_s: float
    finished: float
    """``time.perf_counter()`` at the batch's end."""


@dataclass(eq=False)
class Ticket:
    """An accepted request: from admission, before its image is decoded, to its answer."""

    deadline: float
    """By ``time.perf_counter()``."""
    path: str
    cheaper: bool
    future: asyncio.Future[Done]
    admitted: float
    image: np.ndarray | None = None
    order: int = field(default_factory=itertools.count().__next__)


class Scheduler:
    """See the module. Methods are called on the event loop that was running when it was made; only the thread's
    own part runs elsewhere.

    Args:
        run: the network; called by one thread only.
        order: names of the paths, the most accurate first.
        times: how long batches take; its sizes are the batch sizes used.
        queue: most tickets at a time.
        watch: told ``(event, number, path)`` for the metrics: ``("batch", size, path)``, ``("seconds", s, path)``,
            ``("late", 1, path)``.
    """

    def __init__(
        self,
        run: Run,
        order: Sequence[str],
        times: Times,
        *,
        queue: int = 256,
        watch: Callable[[str, float, str], None] = lambda event, number, path: None,
    ) -> None:
        if set(order) != set(times.paths):
            raise ValueError(f"order {list(order)}: expected the paths of the profile, {sorted(times.paths)}")
        self._run, self.order, self.times, self._queue, self._watch = run, tuple(order), times, queue, watch
        self._loop = asyncio.get_running_loop()
        self._tickets: list[Ticket] = []  # by deadline
        self._wake = threading.Condition()
        self._busy_until = 0.0
        self._started: float | None = None  # of the batch that runs now
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    # --- on the event loop -----------------------------------------------------------------------------

    def admit(self, deadline: float, path: str, *, cheaper: bool = False) -> Ticket:
        """A place in the queue for a request that must be answered by ``deadline`` (``time.perf_counter()``).

        Raises:
            Refusal: 503, it would be late or make another one late.
        """
        now = time.perf_counter()
        candidates = self.order[self.order.index(path) :] if cheaper else (path,)
        with self._wake:
            if self._closing:
                raise Refusal(503, "the service is shutting down", retry_s=1.0, reason="draining")
            if len(self._tickets) < self._queue:
                start = max(now, self._busy_until)
                waiting = [(ticket.deadline, ticket.path) for ticket in self._tickets]
                reply = self.times.reply(now)
                for candidate in candidates:
                    joined = sorted([*waiting, (deadline, candidate)])
                    if rehearse(joined, start + reply, self.times, now):
                        ticket = Ticket(deadline, candidate, cheaper, self._loop.create_future(), now)
                        self._tickets.append(ticket)
                        self._tickets.sort(key=_by_deadline)
                        return ticket
        budget = 1000 * (deadline - now)
        message = f"{path} cannot be answered within the {budget:.1f} ms that are left of the budget: too busy"
        raise Refusal(503, message, retry_s=self.backlog(), reason="busy")

    def submit(self, ticket: Ticket, image: np.ndarray) -> None:
        """Here is the image that ``ticket`` was waiting for."""
        with self._wake:
            ticket.image = image
            self._wake.notify()

    def withdraw(self, ticket: Ticket) -> None:
        """The request has no image after all, or nobody waits for it any more."""
        with self._wake:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
            self._wake.notify()

    def backlog(self) -> float:
        """Seconds until everything accepted is answered."""
        now = time.perf_counter()
        with self._wake:
            waiting = [ticket.path for ticket in self._tickets]
            start = max(now, self._busy_until)
        most = self.times.sizes[-1]
        counts = {path: waiting.count(path) for path in set(waiting)}
        work = sum(-(-count // most) * self.times.typical(path, most, now) for path, count in counts.items())
        return start - now + work

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def healthy(self) -> bool:
        """Whether the thread lives and its batch does not hang."""
        started = self._started
        return self._thread.is_alive() and (started is None or time.perf_counter() - started < STUCK_S)

    async def close(self) -> None:
        """Admit nobody any more, answer everybody who was admitted, end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    # --- on the thread -----------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                while not (batch := self._next()):
                    if self._closing and not self._tickets:
                        return
                    self._wake.wait()
                path, started = batch[0].path, time.perf_counter()
                self._started = started
                self._busy_until = started + self.times.high(path, len(batch), started)
            result: np.ndarray | Exception
            try:
                result = self._run(path, np.stack([ticket.image for ticket in batch]))  # type: ignore[arg-type]
            except Exception as error:
                result = error
            finished = time.perf_counter()
            if not isinstance(result, Exception):
                self.times.observe(path, len(batch), finished - started, finished)
            self._busy_until, self._started = 0.0, None
            self._tell(self._deliver, batch, result, started, finished)

    def _next(self) -> list[Ticket]:
        """The next batch, taken off the queue; empty where nobody is ready. Called under the lock."""
        now = time.perf_counter()
        self._drop_late(now)
        ready = [ticket for ticket in self._tickets if ticket.image is not None]
        if not ready:
            return []
        same = [ticket for ticket in ready if ticket.path == ready[0].path]
        spare = ready[0].deadline - now - self.times.reply(now)
        size = largest(len(same), spare, ready[0].path, self.times, now)
        batch = same[:size]
        self._tickets = [ticket for ticket in self._tickets if ticket not in batch]
        return batch

    def _drop_late(self, now: float) -> None:
        """Whoever cannot be in time any more (the machine was slower than reckoned) takes no time from others."""
        for ticket in self._tickets[:]:
            if ticket.image is None or now + self.times.typical(ticket.path, 1, now) <= ticket.deadline:
                continue
            faster = (
                path
                for path in self.order[self.order.index(ticket.path) + 1 :]
                if ticket.cheaper and now + self.times.typical(path, 1, now) <= ticket.deadline
            )
            if (path := next(faster, None)) is not None:
                ticket.path = path
            else:
                self._tickets.remove(ticket)
                self._tell(self._refuse_late, ticket)

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits for the answer
            self._loop.call_soon_threadsafe(function, *args)

    # --- back on the event loop --------------------------------------------------------------------------

    def _refuse_late(self, ticket: Ticket) -> None:
        self._watch("late", 1, ticket.path)
        if not ticket.future.done():
            message = "the machine was slower than reckoned; the deadline cannot be met any more"
            ticket.future.set_exception(Refusal(503, message, retry_s=self.backlog(), reason="late"))

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
                waited = started - ticket.admitted
                ticket.future.set_result(Done(result[row], path, len(batch), waited, seconds, finished))


def _by_deadline(ticket: Ticket) -> tuple[float, int]:
    return ticket.deadline, ticket.order


def largest(waiting: int, spare_s: float, path: str, times: Times, now: float) -> int:
    """The largest batch size of at most ``waiting`` that takes at most ``spare_s``; the smallest if none does."""
    for size in reversed(times.sizes):
        if size <= waiting and times.high(path, size, now) <= spare_s:
            return size
    return times.sizes[0]


def rehearse(waiting: Iterable[tuple[float, str]], start: float, times: Times, now: float) -> bool:
    """Whether all of ``waiting``, (deadline, path) in the order of deadlines, are answered in time if the thread is
    free at ``start`` and works as :class:`Scheduler` does."""
    queues: dict[str, deque[float]] = {}
    for deadline, path in waiting:
        queues.setdefault(path, deque()).append(deadline)
    while queues:
        path = min(queues, key=lambda name: queues[name][0])
        queue = queues[path]
        size = largest(len(queue), queue[0] - start, path, times, now)
        start += times.high(path, size, now)
        if start > queue[0]:
            return False
        for _ in range(min(size, len(queue))):
            queue.popleft()
        if not queue:
            del queues[path]
    return True
