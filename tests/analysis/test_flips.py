from __future__ import annotations

import numpy as np
import pytest

from polypath.analysis.flips import Flips, flips


def test_both_ways_are_counted_step_by_step():
    right = [[1, 1, 0, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]
    assert flips(right) == [Flips(2, 1, 5), Flips(1, 1, 5)]
    assert flips(right[:1]) == []
    hits = np.asarray(right, bool)
    assert [f.to_right - f.to_wrong for f in flips(hits)] == np.diff(hits.sum(1)).tolist()


def test_one_row_is_no_steps():
    with pytest.raises(ValueError, match=r"right has shape \(3,\): must be \(steps, images\)"):
        flips([True, False, True])
