"""Climbing a ladder: answers equal those of the separate paths, and shared nodes run once."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import polypath as pp
from conftest import randomise_norms
from deploy.test_bundle import rewrite
from polypath.core.extras import installed
from polypath.deploy import AnytimePredictor, Bundle
from polypath.deploy.climb import steps_of
from polypath.deploy.climber import Climb
from polypath.deploy.graph_check import GraphRefused
from polypath.deploy.manifest import Step
from polypath.deploy.stopping import Stopping
from polypath.families.resnet import ResNet

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
TEXTS = ["exit=1", "whole"]
RUNTIMES = [name for name in ("onnxruntime", "openvino", "torch") if installed(name)]


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """A bundle of an exit and the whole network, their norms recalibrated, each path by itself."""
    net = ResNet(depth=8, width=8, exits=(1,), num_classes=3).build(seed=0)
    randomise_norms(net)
    net.config |= {"normalisation": {"mean": [0.5] * 3, "std": [0.2] * 3}, "image": {"size": [16, 16]}}
    batch = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    stats = pp.recalibrate(net.eval(), TEXTS, [(batch,)])
    return pp.write_bundle(net, tmp_path_factory.mktemp("climb") / "bundle", TEXTS, statistics=stats)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_step_answers_as_its_path_alone_and_runs_the_rest_only(nested, images, runtime):
    predictor = AnytimePredictor(nested, runtime, threads=1, profile=0.01)
    ran = []
    prepare = predictor.runtime.prepare
    predictor.runtime.prepare = lambda path, batch: ran.append(path) or prepare(path, batch)
    list(predictor.predict_until(images, time.monotonic() + 1e3))
    ran.clear()
    answers = list(predictor.predict_until(images, time.monotonic() + 1e3))
    assert not ran  # each is a separate step: no complete path runs
    assert [answer.path for answer in answers] == TEXTS
    for answer in answers:
        alone = predictor.predict(images, path=answer.path)
        np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-5)
    assert len({answer.probabilities.tobytes() for answer in answers}) == 2


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_images_that_continue_keep_their_held_values(nested, images, runtime, monkeypatch):
    predictor = AnytimePredictor(nested, runtime, threads=1, profile=0.01)
    alone = [predictor.predict(images, path=text) for text in TEXTS]
    threshold = float(np.median(alone[0].confidence))
    stopping = Stopping(0.2, 0.95, (threshold, 2.0), (), (), 0)
    monkeypatch.setattr(predictor, "stopping", lambda risk, trust: stopping)
    answer = predictor.predict_confident(images, risk=0.2, budget_ms=1e6)
    early = alone[0].confidence >= threshold
    assert 0 < early.sum() < 6
    wanted = np.where(early[:, None], alone[0].probabilities, alone[1].probabilities)
    np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)


def test_steps_cost_what_they_run(nested):
    steps, macs = [rung.step for rung in nested.ladder], [path.macs for path in nested.paths]
    assert steps[0].reads == ("input",)
    assert steps[1].reads == steps[0].leaves
    assert steps[0].macs == macs[0]
    assert steps[1].macs < macs[1] < sum(step.macs for step in steps) <= 1.15 * macs[1]


def test_what_shares_too_little_runs_whole(bundle):
    paths = [bundle.net.paths(text) for text in ("column=1", "column=2")]
    assert steps_of(bundle.net, paths, bundle.statistics, bundle.size) == [None] * 2


def test_a_part_of_the_ladder_runs_whole(nested):
    assert all(rung.step is None for rung in nested.with_paths(["whole"]).ladder)
    assert all(rung.step is not None for rung in nested.with_paths(TEXTS).ladder)


def test_a_step_that_reads_what_is_not_there_is_refused(nested, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(nested.folder, folder)
    first = nested.ladder[0].step
    rewrite(folder, lambda v: v["ladder"][1]["step"].update(reads=["elsewhere@1"]))
    with pytest.raises(ValueError, match="'whole' reads 'elsewhere@1', which no earlier step leaves"):
        Bundle.open(folder)
    rewrite(folder, lambda v: v["ladder"][1]["step"].update(reads=["input"], leaves=list(first.leaves)))
    with pytest.raises(ValueError, match=r"'whole' leaves '.*@1', which already exists"):
        Bundle.open(folder)
    rewrite(folder, lambda v: [rung.update(step=None) for rung in v["ladder"][1:]])
    rewrite(folder, lambda v: v["ladder"][0]["step"].update(files={"onnx": "exit=1.onnx"}))
    opened = Bundle.open(folder)  # as it says; graphs are checked when they are read
    step = opened.ladder[0].step
    assert step is not None
    with pytest.raises(GraphRefused, match="the graph has 1 outputs: must have 2"):
        opened.graphs.step(step)


def test_what_no_later_step_reads_is_forgotten():
    x = np.zeros((2, 3, 4, 4), np.float32)
    first = Step(reads=("input",), leaves=("a@1",))
    climb = Climb([first, replace(first, reads=("a@1",), leaves=())], x)
    climb.leave(0, [x + 1])
    assert set(climb.held) == {"input", "a@1"}
    climb.keep(np.array([True, False]))
    assert [value.shape for value in climb.held.values()] == [(1, 3, 4, 4)] * 2
    climb.leave(1, [])
    assert set(climb.held) == {"input"}
