"""Decides which requests are admitted, and which batch is next. This is only the policy, without clock or thread.

A request is admitted if a rehearsal (a simulation of the queue) predicts that this request and all accepted requests
are answered in time. The next batch always contains the request with the earliest deadline. It is the largest batch of
requests for the same path that meets this deadline. No request waits for a batch to fill: under load, batches fill by
themselves.

Each request is admitted with room for a larger batch than the rehearsal predicts. Otherwise a full queue degrades to
small batches. The first request would have just the time that it needs alone, so no other request could join its batch.
The same would happen to the next request. With requests at twice the capacity, a simulation used 43% of the capacity
without this room, and over 95% with this room (tests/serve).

Only admitted requests update the estimated times. So, after a busy period, the estimates could be so long that no
request is admitted, and they would never become shorter again. Therefore an idle machine admits the next request if the
profile predicts an answer in time, whatever times were observed lately.

Times are seconds, by a clock of the caller's choice. ``now`` is always an argument.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polypath.serve.times import Times

HEADROOM = 0.5  # a batch with headroom may take at most this share of a request's budget


@dataclass(eq=False)
class Ticket:
    """An accepted request. It exists from admission, when its image is not decoded yet, until its answer.

    ``batch_headroom`` is the batch size for which the deadline leaves room. If ``away`` is true, a large image is being
    decoded in another process.
    """

    deadline: float
    path: str
    batch_headroom: int
    cheaper: bool
    admitted: float
    image: np.ndarray | None = None
    decoded: float = 0.0
    future: Any = None
    away: bool = False
    order: int = field(default_factory=itertools.count().__next__)


class Queue:
    """A queue of accepted requests, ordered by deadline.

    Args:
        order: names of the paths, the most accurate first.
        times: how long batches take. Only batch sizes in ``times`` are used.
        limit: the largest number of tickets at a time.

    Raises:
        ValueError: ``order`` and ``times`` have different paths.
    """

    def __init__(self, order: Sequence[str], times: Times, limit: int) -> None:
        if set(order) != set(times.paths):
            raise ValueError(f"order = {list(order)}: must be an order of the profile's paths, {sorted(times.paths)}")
        self.order, self.times, self.limit = tuple(order), times, limit
        self.tickets: list[Ticket] = []
        self.busy_until = 0.0

    def admit(self, now: float, deadline: float, path: str, cheaper: bool = False) -> Ticket | None:
        """Admit a request that must be answered before ``deadline``, and return its ticket. Return None if the request
        would be late, or would make another request late.

        Args:
            path: the path that should answer.
            cheaper: if ``path`` is too slow, use the most accurate of the cheaper paths that are in time.
        """
        if (found := self.place(now, deadline, path, cheaper)) is None:
            return None
        candidate, batch_headroom = found
        ticket = Ticket(deadline, candidate, batch_headroom, cheaper, now)
        self.tickets.append(ticket)
        self.tickets.sort(key=lambda one: (one.deadline, one.order))
        return ticket

    def place(self, now: float, deadline: float, path: str, cheaper: bool = False) -> tuple[str, int] | None:
        """Return the path and the batch headroom with which :meth:`admit` would admit a request, or None. The request
        is not admitted."""
        if len(self.tickets) >= self.limit:
            return None
        idle = not self.busy_until and all(ticket.away for ticket in self.tickets)
        start = max(now, self.busy_until) + self.times.reply(now)
        waiting = [(ticket.deadline, ticket.path, ticket.batch_headroom) for ticket in self.tickets]
        for candidate in self.order[self.order.index(path) :] if cheaper else (path,):
            batch_headroom = largest(self.times.sizes[-1], HEADROOM * (deadline - now), candidate, self.times, now)
            joined = sorted([*waiting, (deadline, candidate, batch_headroom)])
            fits = idle and now + self.times.idle_reply(now) + self.times.idle(candidate, now) <= deadline
            if fits or is_feasible(joined, start, self.times, now):
                return candidate, batch_headroom
        return None

    def withdraw(self, ticket: Ticket) -> None:
        """Remove a ticket, if it is in the queue."""
        if ticket in self.tickets:
            self.tickets.remove(ticket)

    def take(self, now: float) -> tuple[list[Ticket], list[Ticket]]:
        """Remove and return the next batch, and the tickets that can no longer be in time. Tickets whose image is not
        decoded yet stay in the queue. If there are no others, the batch is empty."""
        late = self._drop_late(now)
        ready = [ticket for ticket in self.tickets if ticket.image is not None]
        if not ready:
            return [], late
        first = ready[0]
        same = [ticket for ticket in ready if ticket.path == first.path]
        size = largest(len(same), first.deadline - now - self.times.reply(now), first.path, self.times, now)
        batch = same[:size]
        self.tickets = [ticket for ticket in self.tickets if ticket not in batch]
        self.busy_until = now + self.times.high(first.path, len(batch), now)
        return batch, late

    def retry_s(self, now: float, path: str) -> float:
        """Return the seconds (above 0) after which a client may retry a refused request for ``path``."""
        return max(self.backlog(now), self.times.typical(path, 1, now))

    def backlog(self, now: float) -> float:
        """Return the seconds until all accepted requests are answered."""
        most = self.times.sizes[-1]
        paths = [ticket.path for ticket in self.tickets]
        work = sum(-(-paths.count(path) // most) * self.times.typical(path, most, now) for path in set(paths))
        return max(now, self.busy_until) - now + work

    def _drop_late(self, now: float) -> list[Ticket]:
        """Remove and return the tickets that can no longer be in time, because the machine was slower than expected."""
        late = []
        alone = sum(not ticket.away for ticket in self.tickets) == 1
        for ticket in self.tickets:
            if ticket.image is None or self._possible(ticket.path, ticket.deadline, now):
                continue
            if alone and now + self.times.idle(ticket.path, now) <= ticket.deadline:
                continue  # no other request waits for it, and its time will be measured
            later = self.order[self.order.index(ticket.path) + 1 :] if ticket.cheaper else ()
            faster = next((path for path in later if self._possible(path, ticket.deadline, now)), None)
            if faster is None:
                late.append(ticket)
            else:
                ticket.path = faster
        if late:
            self.tickets = [ticket for ticket in self.tickets if ticket not in late]
        return late

    def _possible(self, path: str, deadline: float, now: float) -> bool:
        return now + self.times.typical(path, 1, now) <= deadline


class _Looked:
    """A cache of times by path and batch size. A rehearsal needs a few of these times again and again."""

    def __init__(self, times: Times) -> None:
        self.sizes, self._times = times.sizes, times
        self._high: dict[tuple[str, int], float] = {}

    def high(self, path: str, size: int, now: float) -> float:
        if (found := self._high.get((path, size))) is None:
            found = self._high[path, size] = self._times.high(path, size, now)
        return found


def largest(waiting: int, spare_s: float, path: str, times: Times | _Looked, now: float) -> int:
    """Return the largest batch size up to ``waiting`` that takes at most ``spare_s`` seconds. If there is none, return
    the smallest batch size."""
    for size in reversed(times.sizes):
        if size <= waiting and times.high(path, size, now) <= spare_s:
            return size
    return times.sizes[0]


def is_feasible(waiting: Iterable[tuple[float, str, int]], start: float, times: Times, now: float) -> bool:
    """Rehearse the queue. Return whether all waiting requests are answered in time, each with its batch headroom.
    Batches are taken as by :meth:`Queue.take`.

    Args:
        waiting: (deadline, path, batch headroom) of each request, ordered by deadline.
        start: the time at which the inference thread is free.
    """
    looked, queues = _Looked(times), dict[str, list[tuple[float, int]]]()
    for deadline, path, batch_headroom in waiting:
        if path not in queues:
            queues[path] = []
        queues[path].append((deadline, batch_headroom))
    begins = dict.fromkeys(queues, 0)  # the index of the first remaining request of each queue
    while queues:
        path = min(queues, key=lambda name: queues[name][begins[name]])
        queue, begin = queues[path], begins[path]
        deadline, batch_headroom = queue[begin]
        size = largest(len(queue) - begin, deadline - start, path, looked, now)
        if start + looked.high(path, max(size, batch_headroom), now) > deadline:
            return False
        start += looked.high(path, size, now)
        begins[path] += size
        if begins[path] >= len(queue):
            del queues[path]
    return True
