"""Calibration errors and temperatures, by hand and with known truth."""

from __future__ import annotations

import math

import pytest
import torch

from polypath.analysis.temperature import calibration_error, fit_temperature


def sure(*probabilities: float) -> torch.Tensor:
    """Logits of two classes that give the first these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], 1)


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels drawn from their softmax."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(5000, 5, generator=g) * 2
    return logits, torch.multinomial(logits.softmax(1), 1, generator=g).squeeze(1)


def test_calibration_error_by_hand():
    # two bins of (0.5, 1]: 0.6, 0.6 (one right) and 0.9, 0.9 (both right), in ten bins
    z, labels = sure(0.6, 0.6, 0.9, 0.9), torch.tensor([0, 1, 0, 0])
    expected = 100 * (0.5 * abs(0.5 - 0.6) + 0.5 * abs(1.0 - 0.9))
    assert calibration_error(z, labels, bins=8) == pytest.approx(expected, abs=1e-4)
    assert calibration_error(z, torch.tensor([1, 1, 1, 1]), bins=8) == pytest.approx(75.0, abs=1e-4)


def test_the_fitted_temperature_is_the_one_that_the_frequencies_ask_for():
    # one answer for all, right 3 times of 4: the best temperature gives it 3/4, z/T = ln 3
    z = torch.tensor([[2.0, 0.0]]).expand(4, 2)
    labels = torch.tensor([0, 0, 0, 1])
    assert fit_temperature(z, labels) == pytest.approx(2.0 / math.log(3), rel=1e-6)
    assert fit_temperature(z * 5, labels) == pytest.approx(10.0 / math.log(3), rel=1e-6)
    assert fit_temperature(z, torch.zeros(4, dtype=torch.long)) == 0.01  # always right: as sharp as may be
    assert fit_temperature(z, torch.ones(4, dtype=torch.long)) == 100.0


@pytest.mark.parametrize(
    ("gain", "expected"), [(1.0, 0.9895), (3.0, 2.9685), (0.5, 0.4948), (100.0, 20.0), (0.001, 0.05)]
)
def test_the_fitted_temperature_is_what_the_logits_were_multiplied_by(drawn, gain, expected):
    """Equals the golden-section minimum of the cross-entropy to four digits (used to calibrate bundles up to 0.1)."""
    logits, labels = drawn
    assert round(fit_temperature(logits * gain, labels, 0.05, 20.0), 4) == expected
    assert 0.05 <= expected <= 20.0


def test_dividing_by_the_temperature_calibrates(drawn):
    logits, labels = drawn
    assert calibration_error(logits * 3 / 2.9685, labels) < 3.0 < 10.0 < calibration_error(logits * 3, labels)


def test_no_bins_are_refused(drawn):
    with pytest.raises(ValueError, match="bins = 0: must be a whole number of at least 1"):
        calibration_error(*drawn, bins=0)
