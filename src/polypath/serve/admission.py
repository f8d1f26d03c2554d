"""Which requests are admitted, and which batch is next: the policy, without clock or thread.

A request is admitted if a rehearsal of everything accepted so far says that it and all others are answered in time. The
next batch is for the request with the earliest deadline: the largest batch of its path that meets that deadline.
Nothing waits for a batch to fill: under load batches fill by themselves.

Each request is admitted with room for a larger batch than the one that the rehearsal gives it. Otherwise a full queue
degrades to small batches: its first request has just the time that it needs alone, so no other can join it, and the
same holds for the next. At twice the capacity a simulation then used 43% of it, and over 95% with that room
(tests/serve).

Times are updated by admitted requests only. So a spell of contention could make them so long that nothing is admitted,
and they would never recover. Therefore an idle machine admits the next request if it would be in time by the profile,
whatever was observed lately.

Times are seconds of one clock, the caller's; ``now`` is always passed in.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polypath.serve.times import Times

HEADROOM = 0.5  # the largest share of a budget for the batch that a request has room for


@dataclass(eq=False)
class Ticket:
    """An accepted request: from admission, before its image is decoded, to its answer.

    ``batch_headroom`` is the batch size that its deadline leaves room for; ``away``: its large image is being decoded
    in another process.
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
    """Accepted requests that wait, by deadline.

    Args:
        order: names of the paths, the most accurate first.
        times: how long batches take; its sizes are the batch sizes used.
        limit: the most tickets at a time.

    Raises:
        ValueError: paths without times, or times of other paths.
    """

    def __init__(self, order: Sequence[str], times: Times, limit: int) -> None:
        if set(order) != set(times.paths):
            raise ValueError(f"order {list(order)}: expected the paths of the profile, {sorted(times.paths)}")
        self.order, self.times, self.limit = tuple(order), times, limit
        self.tickets: list[Ticket] = []
        self.busy_until = 0.0

    def admit(self, now: float, deadline: float, path: str, cheaper: bool = False) -> Ticket | None:
        """A ticket for a request that must be answered before ``deadline``, by ``path`` or, if ``cheaper``, by the most
        accurate of the later paths that is in time; None if it would be late or make another request late."""
        if (found := self.place(now, deadline, path, cheaper)) is None:
            return None
        candidate, batch_headroom = found
        ticket = Ticket(deadline, candidate, batch_headroom, cheaper, now)
        self.tickets.append(ticket)
        self.tickets.sort(key=lambda one: (one.deadline, one.order))
        return ticket

    def place(self, now: float, deadline: float, path: str, cheaper: bool = False) -> tuple[str, int] | None:
        """The path and the batch headroom of the ticket that :meth:`admit` would give; reserves nothing."""
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
        """Remove a ticket, if it is here."""
        if ticket in self.tickets:
            self.tickets.remove(ticket)

    def take(self, now: float) -> tuple[list[Ticket], list[Ticket]]:
        """(the next batch, tickets that can no longer be in time), both removed from the queue. Only tickets with an
        image count; the batch is empty if there are none."""
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
        """After how many seconds a refused request for ``path`` may be retried: always above 0."""
        return max(self.backlog(now), self.times.typical(path, 1, now))

    def backlog(self, now: float) -> float:
        """Seconds until everything accepted is answered."""
        most = self.times.sizes[-1]
        paths = [ticket.path for ticket in self.tickets]
        work = sum(-(-paths.count(path) // most) * self.times.typical(path, most, now) for path in set(paths))
        return max(now, self.busy_until) - now + work

    def _drop_late(self, now: float) -> list[Ticket]:
        """Remove tickets that can no longer be in time, since the machine was slower than expected."""
        late = []
        alone = sum(not ticket.away for ticket in self.tickets) == 1
        for ticket in self.tickets:
            if ticket.image is None or self._possible(ticket.path, ticket.deadline, now):
                continue
            if alone and now + self.times.idle(ticket.path, now) <= ticket.deadline:
                continue  # it takes no time from others, and its time will be measured
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
    """Times that are looked up once for each path and size: a rehearsal reads the same few over and over."""

    def __init__(self, times: Times) -> None:
        self.sizes, self._times = times.sizes, times
        self._high: dict[tuple[str, int], float] = {}

    def high(self, path: str, size: int, now: float) -> float:
        if (found := self._high.get((path, size))) is None:
            found = self._high[path, size] = self._times.high(path, size, now)
        return found


def largest(waiting: int, spare_s: float, path: str, times: Times | _Looked, now: float) -> int:
    """The largest batch size of at most ``waiting`` that takes at most ``spare_s``; the smallest if none does."""
    for size in reversed(times.sizes):
        if size <= waiting and times.high(path, size, now) <= spare_s:
            return size
    return times.sizes[0]


def is_feasible(waiting: Iterable[tuple[float, str, int]], start: float, times: Times, now: float) -> bool:
    """Whether all of ``waiting``, (deadline, path, batch headroom) by deadline, are answered in time, each with its
    headroom, if the thread is free at ``start`` and takes batches as :meth:`Queue.take` gives them."""
    looked, queues = _Looked(times), dict[str, list[tuple[float, int]]]()
    for deadline, path, batch_headroom in waiting:
        if path not in queues:
            queues[path] = []
        queues[path].append((deadline, batch_headroom))
    begins = dict.fromkeys(queues, 0)  # where the rest of each queue begins
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
