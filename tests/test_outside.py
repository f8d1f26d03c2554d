"""The alternatives to paths: the networks, airbench's recipe, equal PFLOP, the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.__main__ import with_options
from benchmarks.outside import airbench, plan
from benchmarks.outside.airbench import AirRecipe, AirTraining, rate, train_air
from benchmarks.outside.airnet import MIRROR, PLAIN, AirNet, whiten
from benchmarks.outside.command import measure
from benchmarks.outside.front import Hypervolumes, Point, fronts, packed, unpacked
from benchmarks.outside.methods import Method, recipe
from benchmarks.outside.msdnet import MSDNet
from benchmarks.outside.networks import ByAirbench, ByRecipe, Network
from benchmarks.outside.scoring import blind
from benchmarks.outside.switchable import Resize, SlimUnit, SwitchableResNet
from torch import nn
from torch.nn import functional as F

import polypath as pp
from conftest import assert_close, part, randomise_norms
from polypath.data.config import DataConfig
from polypath.data.loader import flipped_by_turns
from polypath.data.sources import ImageData, load_images
from polypath.data.split import Split
from polypath.families.resnet import ResNet
from polypath.training.checkpoint import Checkpoints, same_tensors
from polypath.training.objectives import StepInfo
from polypath.training.path_objectives import Exits
from polypath.training.signals import Interrupted, StopRequest

DATA = DataConfig(source="digits", size=32, validation=40, train_images=48, test_images=50, cache=False)
SLIM = SwitchableResNet(blocks=(1, 1), width=4, shares=(0.5, 1.0), in_chans=1)
AIR = AirRecipe(model=AirNet(widths=(4, 6, 6), in_chans=1), steps=7, batch_size=16, device="cpu", checkpoint_steps=2)
VIEWS = (PLAIN, MIRROR, "whole")


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_images(DATA)


def images(net: pp.PathNet, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, net.in_chans, size, size, generator=torch.Generator().manual_seed(seed))


def step(net: pp.PathNet, paths: tuple[str, ...]) -> None:
    """Gradients of the sum of these paths' losses."""
    info = StepInfo(0, 0, 1, 1, torch.Generator().manual_seed(0))
    Exits(paths=paths).bind(net.train()).step(images(net), torch.tensor([1, 2]), info).loss.backward()


# --- MSDNet --------------------------------------------------------------------------------------------------


def test_msdnet_is_dense_over_scales_and_reduced_block_by_block():
    family = MSDNet(layers=4, after=(2,), scales=2, first=4, growth=4, hidden=6)
    net = family.build(0)
    assert [family.block(layer) for layer in (1, 2, 3, 4)] == [0, 0, 1, 1]
    ins = {
        name: part(net, f"{name}.conv").in_channels for name in net.wiring.modules if hasattr(part(net, name), "conv")
    }
    assert ins["layer1.scale2"] == 4  # strided, of the finest scale
    assert [ins[f"layer2.scale{s}.same.unit1"] for s in (1, 2)] == [4, 8]
    assert ins["head.layer2.unit1"] == 8 + 8  # all maps of the coarsest scale
    assert ins["transition1.scale2"] == 16
    assert ins["layer3.scale2.down.unit1"] == 4 + 4  # the first layer of a block still reads the scale that ends
    assert ins["layer3.scale2.same.unit1"] == 16 // 2
    assert ins["layer4.scale2.same.unit1"] == 8 + 8
    assert ins["head.end.unit1"] == 8 + 8 + 8
    assert not any(name.startswith(("layer3.scale1", "layer4.scale1", "layer4.scale2.down")) for name in ins)
    down, same = (part(net, f"layer2.scale2.{way}.unit2").conv for way in ("down", "same"))
    assert (down.out_channels, same.out_channels) == (4, 4)  # half of 8 each
    assert (down.in_channels, same.in_channels) == (4, 8)  # 1 and 2 times that, the bottlenecks of their scales
    assert (down.stride, same.stride) == ((2, 2), (1, 1))


def test_msdnet_exits_run_what_they_need_and_all_learn():
    net = MSDNet(in_chans=1).build(0)
    exits = net.path_sets["exits"]
    assert len(exits) == 4
    costs = [pp.cost(net, text).macs for text in exits]
    assert costs == sorted(costs)
    for text in exits:
        assert net.eval()(images(net), text).shape == (2, 10)
    alive = {node.name for node in net.wiring.alive(net.paths("exits=layer4"))}
    assert "layer4.scale3.join" in alive
    assert not any(name.startswith(("layer5", "head.layer2", "layer4.scale1", "layer4.scale2")) for name in alive)
    step(net, ("exits=layer2",))
    assert part(net, "head.layer4.unit1").conv.weight.grad is None
    net.zero_grad()
    step(net, exits)
    gradless = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not gradless
    with pytest.raises(ValueError, match="after = "):
        MSDNet(layers=4, after=(4,))


# --- shares of the width, smaller images ---------------------------------------------------------------------


def test_slimmable_widths_are_parts_of_one_set_of_weights_with_norms_of_their_own():
    net = randomise_norms(SLIM.build(0)).eval()
    x = images(net)
    narrow, wide = net(x, "ways=w50"), net(x)
    child = pp.extract(net, "ways=w50")
    assert torch.equal(child(x), narrow)
    for name, p in child.named_parameters():
        whole = net.get_parameter(name)
        assert torch.equal(p, whole[tuple(slice(n) for n in p.shape)])
    assert child.get_parameter("group2.block1.unit2.conv.weight").shape == (4, 4, 3, 3)  # of (8, 8, 3, 3)
    plain = ResNet(blocks=SLIM.blocks, width=2, in_chans=1).build(0)
    assert pp.cost(net, "ways=w50").macs == pp.cost(plain).macs
    assert sum(p.numel() for p in child.parameters()) == sum(p.numel() for p in plain.parameters())
    with torch.no_grad():
        part(net, "group1.block1.unit1").norm["w100"].bias.add_(1.0)
        part(net, "group1.block1.unit1").conv.weight[2:].add_(1.0)  # the narrow way does not use these
    assert torch.equal(net(x, "ways=w50"), narrow)
    assert not torch.equal(net(x), wide)
    with torch.no_grad():
        part(net, "group1.block1.unit1").conv.weight[:1].add_(1.0)
    assert not torch.equal(net(x, "ways=w50"), narrow)


def test_all_widths_learn_at_each_step_as_their_losses_add_up():
    net = SLIM.build(0)
    weight = part(net, "group2.block1.unit2").conv.weight
    grads = []
    for paths in (("ways=w50",), ("whole",), ("ways=w50", "whole")):
        net.zero_grad()
        step(net, paths)
        grads.append(weight.grad.clone())
    assert not grads[0][4:].any()
    assert not grads[0][:, 4:].any()
    assert grads[0][:4, :4].abs().sum() > 0
    assert_close(grads[2], grads[0] + grads[1])
    network = ByRecipe("slim", recipe("slim", SLIM, DATA, Exits(paths=tuple(SLIM.way_texts()))))
    assert network.macs((32, 32)) == pp.cost(net).macs + pp.cost(net, "ways=w50").macs


def test_smaller_images_are_another_way_through_the_same_convs():
    family = SwitchableResNet(blocks=(1, 1), width=4, sizes=(16, 32), in_chans=1)
    net, plain = randomise_norms(family.build(0)).eval(), ResNet(blocks=(1, 1), width=4, in_chans=1).build(0)
    x = images(net)
    small = F.interpolate(x, size=16, mode="bilinear", antialias=True)
    assert_close(Resize(32, 16)(x), small)
    products = 16 * 32 * 32 + 16 * 16 * 32
    assert pp.cost(net, "ways=s16").macs == pp.cost(plain, size=16).macs + products
    assert pp.cost(net).macs == pp.cost(plain).macs
    child = pp.extract(net, "ways=s16")
    convs = {name for name, module in child.named_modules() if isinstance(module, SlimUnit)}
    assert convs == {name for name, module in net.named_modules() if isinstance(module, SlimUnit)}
    assert torch.equal(child(x), net(x, "ways=s16"))
    wrong: list[dict[str, Any]] = [{"shares": (1.0, 0.5)}, {"shares": (0.5,)}, {"sizes": ()}]
    for bad in wrong:
        with pytest.raises(ValueError, match=f"{next(iter(bad))} = "):
            SwitchableResNet(**bad)


# --- airbench ------------------------------------------------------------------------------------------------


def test_whitening_makes_patches_white():
    draw = torch.Generator().manual_seed(0)
    smooth = F.avg_pool2d(torch.randn(50, 3, 34, 34, generator=draw), 3, 1)
    conv = nn.Conv2d(3, 24, 2, bias=False)
    whiten(conv, smooth, eps=0.0)
    out = conv(smooth).transpose(0, 1).flatten(1)
    assert_close(out[:12] @ out[:12].T / out.shape[1], torch.eye(12), 1e-3)
    assert torch.equal(out[12:], -out[:12])
    variances = 1 / conv.weight[:12].flatten(1).square().sum(1)
    assert (variances.diff() <= 0).all()  # the largest first


def test_airbenchs_parts_are_as_published():
    first, second = flipped_by_turns(1000, 0, 0), flipped_by_turns(1000, 0, 1)
    assert (first ^ second).all()  # each image in every other epoch
    assert torch.equal(first, flipped_by_turns(1000, 0, 2))
    assert 400 < first.sum() < 600
    assert not torch.equal(first, flipped_by_turns(1000, 1, 0))
    assert [rate(at, 100) for at in (0, 23)] == pytest.approx([0.2, 1.0])
    assert rate(100, 100) == pytest.approx(0.07)
    net = AirNet().build(0)
    conv = part(net, "group1.conv1").weight
    assert torch.equal(conv[:24], nn.init.dirac_(torch.empty(24, 24, 3, 3)))
    assert conv[24:].abs().sum() > 0
    shifts, rest = airbench.optimizer(net, AirRecipe(model=AirNet(), steps=1)).param_groups
    assert len(shifts["params"]) == 6
    assert shifts["lr"] == pytest.approx(64 * rest["lr"])
    for group in (shifts, rest):
        assert group["lr"] * group["weight_decay"] == pytest.approx(0.0153 * 1024 / (1024 * (1 + 1 / 0.15)))
    learnt = {name for name, p in net.named_parameters() if p.requires_grad}
    assert "whiten.weight" not in learnt
    assert not any("norm" in name and name.endswith("weight") for name in learnt)


def test_views_are_weighted_as_published():
    net = randomise_norms(AirNet(widths=(4, 4, 4)).build(0)).eval()
    x = images(net)

    def both(images: torch.Tensor) -> torch.Tensor:
        return 0.5 * net(images, PLAIN) + 0.5 * net(images.flip(-1), PLAIN)

    assert_close(net(x, MIRROR), both(x))
    around = F.pad(x, (1, 1, 1, 1), mode="reflect")
    moved = 0.5 * (both(around[..., :32, :32]) + both(around[..., 2:, 2:]))
    assert_close(net(x), 0.5 * both(x) + 0.5 * moved)
    head = 4 * 10
    assert pp.cost(net).macs - head == 6 * (pp.cost(net, PLAIN).macs - head)


def test_the_published_network_costs_what_is_counted_by_hand(data):
    convs = [(31, 24, 64), (15, 64, 64), (15, 64, 256), (7, 256, 256), (7, 256, 256), (3, 256, 256)]
    macs = 31 * 31 * 24 * 12 + sum(side * side * ins * outs * 9 for side, ins, outs in convs) + 256 * 10
    network = ByAirbench("airbench94", AirRecipe(model=AirNet(), steps=1), VIEWS)
    assert network.macs((32, 32)) == macs
    pflop = 9.9 * 50000 * 6 * macs / 1e15
    assert pflop == pytest.approx(0.35, abs=0.01)  # printed with the recipe: 0.36


def test_airbench_resumes_bit_exactly_and_counts_its_passes(data, tmp_path, monkeypatch):
    whole = train_air(AIR, tmp_path / "whole", data)
    macs = pp.cost(AIR.model.build(0), PLAIN).macs
    assert whole["pflop"] == pytest.approx(7 * 16 * 6 * macs / 1e15)
    assert whole["epochs"] == pytest.approx(7 / 3)
    request = StopRequest()

    class Asked:
        def __enter__(self) -> StopRequest:
            return request

        def __exit__(self, *args: object) -> None: ...

    monkeypatch.setattr(airbench, "stop_requests", Asked)
    request.signal = 2  # Ctrl-C after the first step
    for _ in range(3):
        with pytest.raises(Interrupted, match="run the same command to resume"):
            train_air(AIR, tmp_path / "parts", data)
    request.signal = 0
    parts = train_air(AIR, tmp_path / "parts", data)
    assert parts["pflop"] == whole["pflop"]
    nets = [pp.load(tmp_path / name / "model").state_dict() for name in ("whole", "parts")]
    assert same_tensors(*nets)
    untrained = AirTraining(AIR, data, Checkpoints(tmp_path / "none", "")).net
    assert torch.equal(untrained.state_dict()["whiten.weight"], nets[0]["whiten.weight"])  # frozen
    assert not torch.equal(untrained.state_dict()["whiten.bias"], nets[0]["whiten.bias"])
    with pytest.raises(ValueError, match="a run of another recipe"):
        train_air(replace(AIR, lr=1.0), tmp_path / "parts", data)


def test_the_weights_end_as_their_slow_average(data, tmp_path):
    recipe = replace(AIR, steps=5)
    training = AirTraining(recipe, data, Checkpoints(tmp_path, "x"))
    begun = {name: t.clone() for name, t in training.slow.items()}
    for _ in training.steps():
        pass
    ended = training.net.state_dict()
    assert all(torch.equal(ended[name], slow) for name, slow in training.slow.items())
    kept = airbench.slowness(5, 5)
    assert kept == pytest.approx(0.95**5)
    name = "head.classifier.weight"
    assert not torch.equal(begun[name], ended[name])


# --- equal PFLOP, the result ---------------------------------------------------------------------------------


def tiny_methods() -> dict[str, Method]:
    plain = [ByRecipe(f"r{n}", recipe(f"r{n}", ResNet(blocks=(1,), width=n, in_chans=1), DATA)) for n in (2, 4)]
    slim = ByRecipe("slim", recipe("slim", SLIM, DATA, Exits(paths=tuple(SLIM.way_texts()))))
    small: list[Network] = []
    for network in (*plain, slim):
        changes: dict[str, Any] = {"batch_size": 16, "device": "cpu"}
        small.append(ByRecipe(network.name, replace(network.recipe, **changes)))
    air = ByAirbench("air", AIR, VIEWS)
    return {
        "resnets": Method("plain", tuple(small[:2])),
        "slim": Method("widths", (small[2],)),
        "air": Method("views", (air,)),
    }


PFLOP = 48 * 2 * 6 * 1.3e6 / 1e15


def test_every_method_is_planned_for_the_same_and_told(data, monkeypatch):
    monkeypatch.setattr("benchmarks.outside.networks.SECONDS", 0.0)
    methods = tiny_methods()
    planned = plan.plan(methods, PFLOP, 0.1, data)
    assert [one.key for one in planned] == ["resnets-r2", "resnets-r4", "slim", "air"]
    for name in methods:
        rows = [one for one in planned if one.method == name]
        spent = sum(one.pflop for one in rows)
        assert abs(spent - PFLOP) <= max(one.unit_pflop for one in rows)
        assert all(one.trial == max(one.network.least, round(0.1 * one.amount)) for one in rows)
    text = "\n".join(plan.table(planned, PFLOP, 2, data))
    assert "resnets-r2" in text
    assert "2 seeds, 3 trials per network with the first seed" in text


def test_training_cannot_look_at_the_test_images(data):
    seen = blind(data)
    assert isinstance(data.validation, Split)
    assert isinstance(seen.test, Split)
    assert torch.equal(seen.test.images, data.validation.images)
    assert "the held-out images" in seen.note
    with pytest.raises(ValueError, match=r"data.validation = 0"):
        blind(replace(data, validation=None))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """The result of the slimmable network and of airbench's, without times."""
    folder = tmp_path_factory.mktemp("outside")
    methods = {name: method for name, method in tiny_methods().items() if name != "resnets"}
    return measure(methods, list(methods), DATA, folder, pflop=PFLOP / 4, seeds=[0], runtime=None), folder


@pytest.mark.slow
def test_the_result_is_complete_and_its_pflop_is_the_plans(made, data):
    result, folder = made
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(result))
    assert (folder / "figure.svg").is_file()
    planned = {one.key: one for one in plan.plan(tiny_methods(), PFLOP / 4, 0.1, data)}
    for row in result["networks"]:
        one = planned[row["network"]]
        assert row["pflop"] == pytest.approx([one.pflop])
        assert row["pflop_planned"] == one.pflop
        assert row["pflop_of_tuning"] == pytest.approx(one.tuning_pflop)
        assert row["lr"] == float(min(row["tried"], key=row["tried"].get))
        assert len(row["tried"]) == 3
    assert [row["name"] for row in result["points"]] == [
        "slim ways=w50", "slim", "air views=plain", "air views=mirror", "air",
    ]  # fmt: skip
    for row in result["points"]:
        hits = unpacked(row["answers"], result["data"]["images"])
        assert row["errors"] == pytest.approx([100 * (1 - hits.mean())], abs=1e-3)
        assert row["p50_ms"] is None
        assert row["macs"] > 0
    assert result["test_evaluations"] == 5  # each path of each seed once, and none by a training run
    assert (result["hypervolume"], result["runtime"]) == (None, None)
    assert {"name", "note", "images", "training_images"} == result["data"].keys()


@pytest.mark.slow
def test_the_same_call_trains_and_scores_nothing_again(made, monkeypatch):
    result, folder = made
    monkeypatch.setattr("polypath.training.engine.Engine.step", None)
    monkeypatch.setattr(airbench, "AirTraining", None)
    monkeypatch.setattr("benchmarks.outside.scoring.score", None)
    methods = {name: method for name, method in tiny_methods().items() if name != "resnets"}
    # only one method is named; the other is finished
    again = measure(methods, ["slim"], DATA, folder, pflop=PFLOP / 4, seeds=[0], runtime=None)
    assert again == result


@pytest.mark.slow
def test_another_budget_is_refused_in_the_same_folder(made):
    _, folder = made
    methods = {"slim": tiny_methods()["slim"]}
    with pytest.raises(ValueError, match="contains a run of another recipe: choose another --folder"):
        measure(methods, ["slim"], DATA, folder, pflop=3 * PFLOP, seeds=[0], trial=1e-3, runtime=None)


@pytest.mark.slow
def test_paths_are_timed_beside_each_other_and_beside_a_bundle(made, tmp_path):
    _, folder = made
    methods = {name: method for name, method in tiny_methods().items() if name != "resnets"}
    result = measure(methods, [], DATA, folder, pflop=PFLOP / 4, seeds=[0], runtime="onnxruntime")
    times = {row["name"]: row["p50_ms"] for row in result["points"]}
    assert 0 < times["air views=plain"] < times["air"]
    assert result["runtime"]["threads"] == 1
    volumes = result["hypervolume"]["of"]
    assert volumes.keys() == {"slim", "air"}
    assert all(of["low"] <= of["value"] <= of["high"] for of in volumes.values())
    gains = result["hypervolume"]["gains"]
    assert gains["air"]["slim"]["value"] == pytest.approx(-gains["slim"]["air"]["value"])
    assert gains["air"]["slim"]["value"] == pytest.approx(volumes["air"]["value"] - volumes["slim"]["value"])
    beside = {"mine": pp.Bundle.open(folder / "bundles" / "slim")}
    both = measure(methods, [], DATA, folder, pflop=PFLOP / 4, seeds=[0], runtime="onnxruntime", beside=beside)
    errors = {row["name"]: row["error"] for row in both["points"]}
    assert errors["mine ways=w50"] == pytest.approx(errors["slim ways=w50"], abs=2.1)  # one of 50 images may change
    assert both["test_evaluations"] == result["test_evaluations"] + 2


# --- fronts --------------------------------------------------------------------------------------------------


def test_a_better_front_gains_and_its_like_does_not():
    draw = np.random.default_rng(0)
    good, bad = (draw.random((3, 400)) < share for share in (0.9, 0.7))
    all_fronts = {
        "good": {"a": Point(1.0, good), "b": Point(2.0, good)},
        "same": {"a": Point(1.0, good)},
        "bad": {"a": Point(1.0, bad)},
        "slow": {"a": Point(3.0, good)},
    }
    volumes = Hypervolumes(all_fronts)
    same = volumes.gain("good", "same")
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)  # slower and no more accurate points add nothing
    assert volumes.gain("good", "bad").low > 0
    assert volumes.gain("slow", "good").high < 0
    assert volumes.of("good").low < volumes.of("good").value < volumes.of("good").high
    with pytest.raises(ValueError, match="the fronts have different seeds or images"):
        Hypervolumes(all_fronts | {"other": {"a": Point(1.0, good[:2])}})


def test_answers_survive_json():
    hits = np.random.default_rng(0).random((2, 13)) < 0.5
    rows = json.loads(json.dumps(packed(hits)))
    assert np.array_equal(unpacked(rows, 13), hits)
    row = {"method": "m", "name": "n", "p50_ms": 1.0, "answers": rows}
    untimed = {**row, "name": "o", "p50_ms": None}
    found = fronts({"data": {"images": 13}, "points": [row, untimed]})
    assert found.keys() == {"m"}
    assert found["m"].keys() == {"n"}
    assert np.array_equal(found["m"]["n"].hits, hits)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--only", "resnets,nothing"], "--only: 'nothing': must be one or more of resnets, exits"),
        (["--pflop", "0"], "--pflop"),
        (["--seeds", "0"], "--seeds"),
        (["--width", "2"], "--width"),
    ],
)
def test_options_that_cannot_be_are_told(options, told, capsys):
    assert with_options("outside", options) == 2
    assert told in capsys.readouterr().err
