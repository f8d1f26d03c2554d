"""Loss curves are the recorded ones: to the bit on the processor that recorded them, closely for a while elsewhere."""

from __future__ import annotations

import json

import golden
import pytest

RECORD = json.loads(golden.FILE.read_text())


@pytest.mark.parametrize("name", golden.FAMILIES)
def test_golden_losses(name: str) -> None:
    expected, found = RECORD["losses"][name], golden.losses(name)
    assert len(found) == golden.STEPS
    if RECORD["processor"] == golden.processor():
        assert found == expected
    assert found[:5] == pytest.approx(expected[:5], rel=1e-3)  # rounding is told by few steps and amplified by many
    assert sum(found[-10:]) == pytest.approx(sum(expected[-10:]), rel=0.25)


def test_curves_fall_and_differ() -> None:
    for curve in RECORD["losses"].values():
        assert sum(curve[-10:]) < 0.97 * sum(curve[:10])
    assert len({curve[-1] for curve in RECORD["losses"].values()}) == len(golden.FAMILIES)
