"""Decodes the service's images, except tiny ones. Small images are decoded one by one on a thread, and large images on
another thread with a worker process.

Each thread has a queue. The amount of work in a queue is roughly known in advance, so the queue can estimate when new
work will be done. For small images, admission uses this estimate. A large image that would be late is refused before
decoding. Small images never wait for large ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from polypath.deploy.latency import Recent

T = TypeVar("T")


class Lane:
    """Threads that do pieces of work in order.

    Args:
        name: name of the threads.
        threads: number of threads.
        unit_s: assumed seconds for a unit of work, before any is measured.
    """

    def __init__(self, name: str, threads: int, unit_s: float) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._threads, self._unit_s, self._seen = threads, unit_s, Recent()
        self._waiting, self._lock = 0.0, threading.Lock()
        self.pieces = 0

    def expected(self, units: float = 1.0) -> float:
        """Return the seconds until ``units`` of new work would be done. If there is other work, a unit is expected to
        take the median time of the last 20 s. Otherwise the fastest time of the last 20 s is expected, so that times
        from a busy period cause no refusals on an idle machine."""
        now = time.perf_counter()
        unit_s = self._seen.fastest(now)
        if self.pieces and (seen := self._seen.quantiles(now)) is not None:
            unit_s = seen[0]
        return (self._unit_s if unit_s is None else unit_s) * (self._waiting / self._threads + units)

    def start(self, function: Callable[..., T], *args: Any, units: float = 1.0) -> Future[T]:
        """Run ``function(*args)`` on a thread. The returned future can be cancelled until the function begins."""
        with self._lock:
            self._waiting += units
            self.pieces += 1
        future = self._pool.submit(self._timed, function, units, *args)
        future.add_done_callback(lambda _: self._done(units))
        return future

    def _timed(self, function: Callable[..., T], units: float, *args: Any) -> T:
        start = time.perf_counter()
        try:
            return function(*args)
        finally:
            end = time.perf_counter()
            self._seen.add((end - start) / units, end)

    def _done(self, units: float) -> None:
        with self._lock:
            self._waiting -= units
            self.pieces -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
