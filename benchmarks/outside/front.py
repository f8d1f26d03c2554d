"""The fronts of a result: the points of each method, and the share of a box of time and error that they dominate."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from polypath.analysis.deadline import Interval, hypervolume
from polypath.reproduce.bootstrap import Means, Sample, draw, interval

LEVEL = 0.95
WORST = 90.0  # error of guessing among ten classes, in percent


@dataclass(frozen=True, eq=False)
class Point:
    """A path as a point: its milliseconds, and which test images it classifies correctly, ``(seeds, images)``."""

    ms: float
    hits: np.ndarray


Front = Mapping[str, Point]
"""The points of a method by their names."""


def packed(hits: np.ndarray) -> list[str]:
    """Return the array ``(seeds, images)`` bool as texts for JSON: a text for each seed, with the bits in base64."""
    return [base64.b64encode(np.packbits(row).tobytes()).decode() for row in hits]


def unpacked(rows: list[str], images: int) -> np.ndarray:
    """Return the array ``(seeds, images)`` from the texts of :func:`packed`."""
    bits = [np.frombuffer(base64.b64decode(row), np.uint8) for row in rows]
    return np.stack([np.unpackbits(row, count=images) for row in bits]).astype(bool)


def fronts(result: Mapping[str, Any]) -> Mapping[str, Front]:
    """Return the timed points of each method of a result."""
    found: dict[str, dict[str, Point]] = {}
    for row in result["points"]:
        if row["p50_ms"] is not None:
            hits = unpacked(row["answers"], result["data"]["images"])
            found.setdefault(row["method"], {})[row["name"]] = Point(row["p50_ms"], hits)
    return found


def box_of(all_fronts: Mapping[str, Front]) -> tuple[float, float, float]:
    """Return the common box: from half of the fastest median time to twice the slowest, and up to an error of 90%."""
    ms = [point.ms for front in all_fronts.values() for point in front.values()]
    return min(ms) / 2, 2 * max(ms), WORST


class Hypervolumes:
    """The hypervolumes of fronts with intervals over seeds and images. For all fronts, the same seeds and images are
    resampled.

    Raises:
        ValueError: the fronts have different numbers of seeds or images.
    """

    def __init__(self, all_fronts: Mapping[str, Front]) -> None:
        self.fronts, self.box = all_fronts, box_of(all_fronts)
        hits = {self._key(m, name): p.hits for m, front in all_fronts.items() for name, p in front.items()}
        if len({array.shape for array in hits.values()}) > 1:
            raise ValueError("the fronts have different seeds or images: all must have the same")
        self.sample = Sample(hits, dict.fromkeys(hits, "test"))
        self.draws = draw(self.sample)
        self._known: dict[
            tuple[str, bool], np.ndarray
        ] = {}  # hypervolumes of the draws, by the method's name and whether images are resampled

    def of(self, method: str) -> Interval:
        return self._interval(lambda means: self._volumes(method, means))

    def gain(self, ours: str, theirs: str) -> Interval:
        """Return the hypervolume of ``ours`` minus that of ``theirs``, with its interval."""
        return self._interval(lambda means: self._volumes(ours, means) - self._volumes(theirs, means))

    def _interval(self, statistic: Any) -> Interval:
        low, high = interval(self.sample, self.draws, statistic, LEVEL)
        return Interval(float(statistic(self.sample.means())), low, high)

    def _volumes(self, method: str, means: Means) -> np.ndarray:
        if means is not self.draws.both and means is not self.draws.seeds_only:
            return self._computed(method, means)
        key = method, means is self.draws.both
        if key not in self._known:
            self._known[key] = self._computed(method, means)
        return self._known[key]

    def _computed(self, method: str, means: Means) -> np.ndarray:
        front = self.fronts[method]
        ms = np.array([point.ms for point in front.values()])
        errors = np.stack([np.atleast_1d(means[self._key(method, name)]) for name in front], 1)
        found = np.array([hypervolume(ms, row, self.box) for row in errors])
        return found.reshape(np.shape(means[self._key(method, next(iter(front)))]))

    @staticmethod
    def _key(method: str, name: str) -> str:
        return f"{method}: {name}"


def told(all_fronts: Mapping[str, Front]) -> dict[str, Any]:
    """Return the hypervolumes of all fronts and their pairwise differences, as JSON values."""
    volumes = Hypervolumes(all_fronts)
    names = list(all_fronts)
    gains = {a: {b: asdict(volumes.gain(a, b)) for b in names if b != a} for a in names}
    return {"box": list(volumes.box), "of": {name: asdict(volumes.of(name)) for name in names}, "gains": gains}
