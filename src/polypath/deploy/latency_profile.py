"""Measures times of a bundle's paths on this machine in a short profile, and stores them in the cache folder.

Each bundle, runtime and machine has a file ``profiles/KEY.json`` in ``POLYPATH_CACHE`` (default ``~/.cache/polypath``).
The key depends on everything that the times depend on: processor, cores, versions, threads, precision. If a file is
damaged or cannot be written, the profile is measured again. A profile that a busy machine disturbed is also measured
again; if it is still disturbed, it is not stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from polypath.core.checks import check, whole
from polypath.core.home import cache_folder
from polypath.deploy.latency import Origin, disturbed, spread
from polypath.profiling.cores import cores, processor
from polypath.storage.decode import read
from polypath.storage.files import write_json

FORMAT = 3  # times of format 1 may come from a busy machine; those of format 2 were measured in a fixed order
WARMUP = 3
LEAST, MOST = 30, 1000  # the fewest and the most measurements of a path
SECONDS = 1.0  # measuring time of a path, unless LEAST measurements take longer
TRIES = 3  # maximum number of times that a profile is measured, if it is disturbed each time
Times = Annotated[list[Annotated[float, Meta(gt=0, le=sys.float_info.max)]], Meta(min_length=1)]


_BATCH = whole(1)


def bucket(batch: int) -> int:
    """Return the batch size whose times are used for ``batch``: the next power of two.

    Raises:
        ValueError: the batch size is below 1.
    """
    check("batch", batch, _BATCH)
    return 1 << (batch - 1).bit_length()


def measure(tasks: Mapping[str, Callable[[], Any]], seconds: float | None = None) -> dict[str, list[float]]:
    """Return the milliseconds of each task, measured for ``seconds`` each (default ``SECONDS``).

    Tasks alternate, so that drift affects all of them equally. The order is random: a small path takes half as long
    again if the largest one always runs before it and fills the processor's cache.
    """
    seconds = SECONDS if seconds is None else seconds
    for task in tasks.values():
        for _ in range(WARMUP):
            task()
    times: dict[str, list[float]] = {name: [] for name in tasks}
    spent, draw = dict.fromkeys(tasks, 0.0), random.Random(0)
    while todo := [n for n in tasks if len(times[n]) < LEAST or (spent[n] < seconds and len(times[n]) < MOST)]:
        draw.shuffle(todo)
        for name in todo:
            start = time.perf_counter()
            tasks[name]()
            took = time.perf_counter() - start
            times[name].append(1e3 * took)
            spent[name] += took
    return times


def quietest(tasks: Mapping[str, Callable[[], Any]], tries: int) -> tuple[dict[str, list[float]], Origin]:
    """Call :func:`measure` until its times are undisturbed, at most ``tries`` times. Return the least disturbed times,
    and ``busy`` if even these are disturbed, else ``measured``."""
    best: tuple[float, dict[str, list[float]]] | None = None
    for _ in range(tries):
        times = measure(tasks)
        if not any(map(disturbed, times.values())):
            return times, "measured"
        widest = max(map(spread, times.values()))
        if best is None or widest < best[0]:
            best = widest, times
    assert best is not None
    return best[1], "busy"


@dataclass(frozen=True)
class _Stored:
    facts: dict[str, Any]
    times: dict[int, dict[str, Times]]


class Store:
    """The cache file of one bundle in one runtime.

    Args:
        facts: facts on which the times depend, as JSON values.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = {"format": FORMAT, "machine": machine(), **facts}
        text = json.dumps(self.facts, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        cache = cache_folder()
        self.file = cache / "profiles" / f"{key}.json" if cache else None

    def load(self, names: list[str]) -> dict[int, dict[str, list[float]]]:
        """Return milliseconds by batch size and path, for batch sizes that have times for all of ``names``."""
        if self.file is None:
            return {}
        try:
            stored = read(self.file, _Stored, others=True, finite=False)
        except ValueError:
            return {}
        if stored.facts != self.facts:
            return {}
        return {batch: row for batch, row in stored.times.items() if row.keys() >= set(names)}

    def save(self, times: Mapping[int, Mapping[str, list[float]]]) -> None:
        """Write all times. Do nothing if the folder cannot be written."""
        if self.file is None:
            return
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.file, {"facts": self.facts, "times": {str(b): dict(row) for b, row in times.items()}})


def machine() -> dict[str, Any]:
    """Return the facts about this machine on which times depend."""
    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "usable": cores(),
    }
