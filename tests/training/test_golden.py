"""Loss curves are the recorded ones, on every processor."""

from __future__ import annotations

import json

import golden
import pytest

RECORD = json.loads(golden.FILE.read_text())


@pytest.mark.parametrize("name", golden.FAMILIES)
def test_golden_losses(name: str) -> None:
    assert golden.losses(name) == pytest.approx(RECORD["losses"][name], rel=1e-6)


def test_curves_fall_and_differ() -> None:
    for curve in RECORD["losses"].values():
        assert len(curve) == golden.STEPS
        assert sum(curve[-10:]) < 0.97 * sum(curve[:10])
    assert len({curve[-1] for curve in RECORD["losses"].values()}) == len(golden.FAMILIES)
