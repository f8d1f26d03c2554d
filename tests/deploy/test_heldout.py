from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from polypath.analysis.temperature import calibration_error, fit_temperature
from polypath.deploy import heldout


def test_parts_are_disjoint_whole_and_drawn_by_the_seed():
    a, again, b = heldout.parts(1000, 0), heldout.parts(1000, 0), heldout.parts(1000, 1)
    assert sorted(torch.cat(list(a.values())).tolist()) == list(range(1000))
    assert {name: len(index) for name, index in a.items()} == {"choose": 400, "calibrate": 200, "stop": 400}
    assert all(torch.equal(a[name], again[name]) for name in a)
    assert not torch.equal(a["choose"], b["choose"])
    with pytest.raises(ValueError, match="at least 50"):
        heldout.parts(49, 0)


def test_only_pareto_optimal_paths_stay():
    errors, macs = {"a": 30.0, "b": 20.0, "c": 20.0, "d": 25.0, "e": 10.0}, {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    assert heldout.pareto(errors, macs) == ["a", "b", "e"]
    assert heldout.pareto(errors, macs, keep=["d"]) == ["a", "b", "d", "e"]


def probabilities(*rows: str) -> torch.Tensor:
    """A row of digits an image: its class, with probability 0.6."""
    return torch.stack([torch.nn.functional.one_hot(torch.tensor(int(r)), 3) * 0.4 + 0.2 for r in rows])


def test_the_ladder_rises_and_averages_where_that_helps():
    labels = torch.tensor([0, 1, 2, 0])
    bad, better, best = probabilities(*"0111"), probabilities(*"0102"), probabilities(*"0120")
    rungs = heldout.ladder({"bad": bad, "same": bad, "better": better, "best": best}, labels)
    assert [r.path for r in rungs] == ["bad", "best"]
    assert [r.error for r in rungs] == [50.0, 0.0]
    confident, unsure = probabilities(*"0122"), probabilities(*"0110")
    unsure[2] = torch.tensor([0.3, 0.4, 0.3])
    unsure[3] = torch.tensor([0.9, 0.05, 0.05])  # sure of what the other has wrong
    together = heldout.ladder({"a": confident, "b": unsure}, labels)
    assert together[1].combine == ("a", "b")
    assert together[1].error == heldout.error((confident + unsure) / 2, labels) == 0.0


def test_each_part_decides_only_its_own_question():
    """Labels that are wrong in one part only change what that part decides."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (500,), generator=g)
    logits = {
        name: torch.nn.functional.one_hot(labels, 4) * gain + torch.randn(500, 4, generator=g)
        for name, gain in (("small", 1.0), ("large", 3.0))
    }
    macs, cut = {"small": 1, "large": 2}, heldout.parts(500, 7)
    plain = heldout.decide(logits, labels, macs, seed=7)
    assert plain.names == ["small", "large"]
    assert plain.confidence.shape == plain.right.shape == (len(plain.rungs), 200)

    def spoilt(part):
        bad = labels.clone()
        bad[cut[part]] = (bad[cut[part]] + 1) % 4
        return heldout.decide(logits, bad, macs, seed=7)

    stop, calibrate = spoilt("stop"), spoilt("calibrate")
    assert (stop.errors, stop.temperatures, stop.rungs) == (plain.errors, plain.temperatures, plain.rungs)
    assert not torch.equal(stop.right, plain.right)
    assert calibrate.errors == plain.errors
    assert calibrate.temperatures != plain.temperatures


def test_temperatures_and_calibration_are_of_the_parts_that_they_say():
    g = torch.Generator().manual_seed(0)
    true = torch.randn(2000, 5, generator=g) * 2
    labels = torch.multinomial(true.softmax(1), 1, generator=g).squeeze(1)
    found = heldout.decide({"sharp": true * 3, "flat": true / 1000}, labels, {"sharp": 1, "flat": 1}, seed=0)
    cut = heldout.parts(2000, 0)
    calibrate, choose = cut["calibrate"], cut["choose"]
    assert found.temperatures["sharp"] == round(fit_temperature(true[calibrate] * 3, labels[calibrate]), 4)
    assert found.calibration["sharp"]["before"] == round(calibration_error(true[choose] * 3, labels[choose]), 3)
    assert found.calibration["sharp"]["after"] < 5.0 < found.calibration["sharp"]["before"]


def test_temperatures_stay_within_their_limits():
    labels = torch.arange(500) % 4
    right = torch.nn.functional.one_hot(labels, 4).float()
    macs = {"right": 1, "wrong": 2}
    found = heldout.decide({"right": right, "wrong": -right}, labels, macs, seed=0, keep=["right", "wrong"])
    assert found.temperatures == dict(zip(macs, heldout.TEMPERATURES, strict=True))


@pytest.mark.parametrize(("images", "kept", "fitted"), [(240, ["cheap", "most"], False), (500, ["cheap"], True)])
def test_few_images_leave_out_no_whole_network_and_fit_no_temperature(images: int, kept: list[str], fitted: bool):
    labels = torch.arange(images) % 4
    right = torch.nn.functional.one_hot(labels, 4).float()
    logits = {"cheap": right, "middle": right, "most": right}
    found = heldout.decide(logits, labels, {"cheap": 1, "middle": 2, "most": 3}, seed=0)
    assert found.names == kept
    assert (set(found.temperatures.values()) != {1.0}) == fitted
    assert [rung.path for rung in found.rungs] == ["cheap"]


def test_deciding_needs_no_pandas():
    code = "import sys, polypath.deploy.heldout; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
