from __future__ import annotations

import json
from math import comb

import numpy as np
import pytest

from polypath.deploy.bundle import Bundle
from polypath.deploy.stopping import NEVER, fit, held_out, images_needed, upper_bound


def at_most(k: int, n: int, p: float) -> float:
    return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize(("wrong", "n", "doubt"), [(0, 20, 0.05), (3, 50, 0.05), (10, 100, 0.01), (49, 50, 0.1)])
def test_the_bound_is_where_so_few_wrong_ones_become_unlikely(wrong, n, doubt):
    """Clopper-Pearson by its definition: at the bound, ``wrong`` or fewer have probability ``doubt``."""
    assert at_most(wrong, n, upper_bound(wrong, n, doubt)) == pytest.approx(doubt, rel=1e-6)


def test_the_bound_at_its_ends():
    assert upper_bound(5, 5, 0.05) == 1.0
    assert upper_bound(0, 100, 0.05) > upper_bound(0, 1000, 0.05) > 0
    for wrong, n, doubt in ((3, 2, 0.05), (0, 0, 0.05), (1, 2, 0.0)):
        with pytest.raises(ValueError, match=r"wrong|doubt|n = 0"):
            upper_bound(wrong, n, doubt)


def test_the_number_needed_is_exact():
    n = images_needed(0.05, 0.05)
    assert n == 59
    assert upper_bound(0, n, 0.05) <= 0.05 < upper_bound(0, n - 1, 0.05)


def test_too_few_images_name_the_number():
    confidence, right = np.ones((2, 50), np.float32), np.ones((2, 50), bool)
    with pytest.raises(ValueError, match=r"at least 72 held-out answers for 2 steps, but there are 50"):
        fit(confidence, right, 0.05, 0.95)


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two steps whose confidences are true: an answer of confidence c is right with probability c."""
    rng = np.random.default_rng(seed)
    confidence = np.stack([rng.uniform(0.3, 1, n), rng.beta(5, 1, n)])
    return confidence.astype(np.float32), rng.uniform(size=(2, n)) < confidence


def test_thresholds_are_low_where_the_risk_allows_it():
    confidence, right = drawn(4000, 0)
    strict, lax = fit(confidence, right, 0.05, 0.95), fit(confidence, right, 0.2, 0.95)
    assert all(a > b for a, b in zip(strict.thresholds, lax.thresholds, strict=True))
    assert lax.stopped[0] > strict.stopped[0] > 0
    # the risk among c in [t, 1] is (1 - t) / 2: t = 0.9 is the lowest for 0.05, and some is lost to doubt
    assert 0.9 < strict.thresholds[0] < 0.95
    for s, risk in ((strict, 0.05), (lax, 0.2)):
        assert all(w <= risk * n for w, n in zip(s.wrong, s.stopped, strict=True))


def test_the_risk_is_kept_as_often_as_promised():
    """Over many draws, the true risk of images that stop at step 1 exceeds the given one in at most 1 - trust."""
    broken = 0
    for seed in range(100):
        threshold = fit(*drawn(500, seed), risk=0.1, trust=0.8).thresholds[0]
        broken += threshold < NEVER and (1 - threshold) / 2 > 0.1
    assert broken / 100 <= 0.1 + 3 * (0.1 * 0.9 / 100) ** 0.5  # a step's doubt is half of 0.2


def test_no_image_stops_if_confidence_means_nothing():
    rng = np.random.default_rng(0)
    confidence, right = rng.uniform(0.3, 1, (1, 1000)).astype(np.float32), rng.uniform(size=(1, 1000)) < 0.5
    assert fit(confidence, right, 0.1, 0.95).thresholds == (NEVER,)


def test_later_steps_are_fitted_on_the_remaining_images():
    """Easy images stop first; the second step's answers to them must not count for the others."""
    confidence = np.concatenate([np.full((2, 500), 0.99), np.full((2, 500), 0.6)], axis=1).astype(np.float32)
    confidence[1, 500:] = 0.99
    right = np.ones((2, 1000), bool)
    right[0, 500:] = False
    right[1, 500:750] = False
    found = fit(confidence, right, 0.3, 0.95)
    assert found.stopped[0] == 500
    assert found.thresholds[1] == NEVER  # half of those left are wrong; over all 1,000 it would be a quarter


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "F16"])
def test_answers_of_types_that_numpy_lacks_are_refused(copied, kind):
    bundle = Bundle.open(copied)
    steps = len(bundle.ladder)
    sizes, length = {"dtype": kind, "shape": [steps, 8]}, 8 * steps * (1 if kind.startswith("F8") else 2)
    places = {"confidence": [0, length], "right": [length, 2 * length]}
    header = json.dumps({name: {**sizes, "data_offsets": place} for name, place in places.items()}).encode()
    assert bundle.manifest.held_out is not None
    (copied / bundle.manifest.held_out).write_bytes(len(header).to_bytes(8, "little") + header + bytes(2 * length))
    if kind == "F16":
        assert held_out(bundle)[0].shape == (steps, 8)
    else:
        with pytest.raises(ValueError, match=r"held_out.safetensors(: confidences| is damaged)"):
            held_out(bundle)
