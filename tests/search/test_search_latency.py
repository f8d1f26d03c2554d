"""The model of times: fitted, and tested on held-back paths; times of a tiny network."""

from __future__ import annotations

import numpy as np
import pytest

from polypath.core.choices import ChoiceSpace
from polypath.core.paths import Paths
from polypath.families.crescendonet import CrescendoNet
from polypath.profiling.cost import PathMacs, cost
from polypath.search.latency import Work, fitted, timed

NET = CrescendoNet(widths=(4, 6), scale=2, hidden=(4,))


def test_the_work_of_a_path_is_what_runs() -> None:
    net = NET.build(0)
    work = Work(PathMacs(net), (8, 8))
    for p in ChoiceSpace(net.wiring):
        found = work(p)
        assert sum(n for name, n in found.items() if name.startswith("MACs")) == cost(net, p, size=8).macs
        assert found["paths"] == 1.0
    whole, one = work(Paths()), work(net.paths("branches=1"))
    assert (whole["layers at 8x8"], one["layers at 8x8"]) == (3, 1)
    assert (whole["layers at 4x4"], one["layers at 1x1"]) == (3, 2)
    assert whole["elements at 8x8"] - one.get("elements at 8x8", 0) == 2 * 4 * 64  # the join's two operands


def test_a_linear_time_is_found_and_negative_ones_are_not() -> None:
    draw = np.random.default_rng(0)
    rows = [{"paths": 1.0, "MACs": float(m), "layers": float(k)} for m, k in draw.integers(1, 9, (40, 2)) * [10**6, 1]]
    exact = fitted(rows, [0.1 + 2e-7 * row["MACs"] + 0.01 * row["layers"] for row in rows])
    assert (exact.fitted, exact.held_back) == (32, 8)
    assert exact.ms == pytest.approx({"paths": 0.1, "MACs": 2e-7, "layers": 0.01})
    assert exact.worst < 1e-3
    assert exact({"MACs": 5e6, "unheard": 7.0}) == pytest.approx(1.0)
    assert exact({"unheard": 7.0}) == exact.least > 0
    falling = fitted(rows, [1.0 - 1e-8 * row["MACs"] for row in rows])
    assert min(falling.ms.values()) == 0.0
    assert falling.worst >= falling.error > 0
    with pytest.raises(ValueError, match="number of timed paths = 1: must be at least two"):
        fitted(rows[:1], [1.0])


def test_paths_are_timed_by_torch() -> None:
    net = NET.build(0)
    net.config |= {"normalisation": {"mean": [0.5] * 3, "std": [0.25] * 3}, "image": {"size": [8, 8]}}
    choices = [Paths(), net.paths("branches=1"), Paths()]
    times = timed("torch", net, choices)
    assert times.ms.keys() == {"whole", str(choices[1])}
    assert min(times.ms.values()) > 0
    assert times.runtime["name"] == "torch"
    assert {"version", "threads", "machine", "busy"} <= times.runtime.keys()
