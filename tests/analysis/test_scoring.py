"""Errors of paths, counted image by image."""

from __future__ import annotations

import copy

import pytest
import torch

import polypath as pp
from conftest import randomise_norms
from polypath.analysis.scoring import score
from polypath.core.paths import Paths
from polypath.core.recalibrate import recalibrate


@pytest.fixture(scope="module")
def net():
    return randomise_norms(pp.create_model("crescendonet_32", widths=(4, 6), hidden=(8,), seed=1)).eval()


@pytest.fixture(scope="module")
def batches():
    g = torch.Generator().manual_seed(3)
    return [(torch.randn(n, 3, 16, 16, generator=g) * 3, torch.randint(10, (n,), generator=g)) for n in (20, 20, 7)]


def test_error_counts_every_image_once(net, batches):
    scores = score(net, net.named_paths(), batches)
    assert list(scores) == list(net.named_paths())
    for name, p in net.named_paths().items():
        with torch.no_grad():
            wrong = sum(int((net(x, paths=p).argmax(1) != y).sum()) for x, y in batches)
        assert scores[name].error == pytest.approx(100 * wrong / 47, abs=1e-3)
        assert (scores[name].images, scores[name].logits) == (47, None)
    assert len({s.error for s in scores.values()}) > 1


def test_error_against_known_labels(net, batches):
    """0% on its own answers, 100% on any others."""
    with torch.no_grad():
        right = [(x, net(x).argmax(1)) for x, _ in batches]
    wrong = [(x, (y + 1) % 10) for x, y in right]
    assert score(net, {"whole": Paths()}, right)["whole"].error == 0.0
    assert score(net, {"whole": Paths()}, wrong)["whole"].error == 100.0


def test_with_statistics_it_scores_the_recalibrated_path(net, batches):
    paths = net.named_paths()
    stats = recalibrate(net, paths.values(), batches)
    with_stats = score(net, paths, batches, stats=stats, keep_logits=True)
    without = score(net, paths, batches, keep_logits=True)
    for name, p in paths.items():
        child = pp.extract(net, p, stats=stats)
        with torch.no_grad():
            expected = torch.cat([child(x) for x, _ in batches])
        found, plain = with_stats[name].logits, without[name].logits
        assert found is not None
        assert plain is not None
        assert torch.equal(found, expected)
        assert not torch.equal(plain, expected)


def test_network_stays_as_it_was(net, batches):
    twin = copy.deepcopy(net).train()
    before = copy.deepcopy(twin.state_dict())
    stats = recalibrate(twin, ["branches=2"], batches)
    score(twin, {"two": twin.paths("branches=2")}, batches, stats=stats)
    assert twin.training
    assert all(torch.equal(v, before[k]) for k, v in twin.state_dict().items())


def test_refusals(net, batches):
    with pytest.raises(ValueError, match="label 10: the network has 10 classes"):
        score(net, {"whole": Paths()}, [(batches[0][0], torch.full((20,), 10))])
    with pytest.raises(ValueError, match="no paths"):
        score(net, {}, batches)
    with pytest.raises(ValueError, match="empty"):
        score(net, {"whole": Paths()}, [])
