"""Ensembles of component networks: members run separately, softmax averaged, weights shared or separate."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

import polypath as pp
from conftest import part, randomise_norms
from polypath.core.batchnorm import BatchNormStatistics, buffers, norms
from polypath.core.builder import WiringBuilder
from polypath.ensemble import Ensemble
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fusenet import FusedNet, MergeAndRun

ROUTES = ("LLL", "RLL", "LRL", "LLR", "RRL", "RLR", "LRR", "RRR")
NAMES = [f"route={route}" for route in ROUTES]
X = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(6) % 10


def fused(seed: int = 0) -> pp.PathNet:
    net = FusedNet(depth=8, width=4).build(seed=seed).double()
    randomise_norms(net, seed)
    return net.eval()


def train(ensemble: Ensemble, steps: int = 3) -> list[float]:
    ensemble.train()
    optimizer = torch.optim.SGD(ensemble.parameters(), 0.05)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ensemble.loss(X, Y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    ensemble.eval()
    return losses


@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_an_ensemble_of_one_path_is_that_path(weights):
    net = fused()
    one = Ensemble(net, ["route=RLL"], weights)
    with torch.inference_mode():
        assert torch.equal(one(X), net(X, paths="route=RLL").log_softmax(1))
        assert torch.equal(one.logits("RLL", X), net(X, paths="route=RLL"))
        assert not torch.allclose(one(X), net(X, paths="route=LRL").log_softmax(1), rtol=1e-3)
        assert not torch.allclose(one(X), net(X).log_softmax(1), rtol=1e-3)


@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_it_averages_probabilities(weights):
    net = fused()
    with torch.inference_mode():
        each = torch.stack([net(X, paths=name).softmax(1) for name in NAMES])
        out = Ensemble(net, NAMES, weights)(X)
    torch.testing.assert_close(out.exp(), each.mean(0))
    torch.testing.assert_close(nn.functional.cross_entropy(out, Y), nn.functional.nll_loss(each.mean(0).log(), Y))
    assert not torch.allclose(out.exp(), each.log().mean(0).softmax(1), rtol=1e-3)  # not the mean of logits


@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_ensemble_7_is_ensemble_8_without_one_member(weights):
    eight = Ensemble(fused(), NAMES, weights)
    with torch.inference_mode():
        for gone in ROUTES:
            seven = Ensemble(fused(), [name for name in NAMES if name != f"route={gone}"], weights)
            assert torch.equal(eight(X, without=gone), seven(X))
        assert torch.equal(eight(X, without="route=RRR"), eight(X, without=["RRR"]))
        assert not torch.allclose(eight(X, without="RRR"), eight(X), rtol=1e-4)
        assert torch.equal(eight(X, without=ROUTES[1:]), eight.logits("LLL", X).log_softmax(1))


def test_shared_members_have_their_own_statistics_with_the_same_weights():
    net = fused()
    before = {key: value.clone() for key, value in net.named_buffers()}
    ensemble = Ensemble(net, NAMES)
    losses = train(ensemble)
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[key]) for key, value in net.named_buffers())  # the parent's own stay
    banks = {name: dict(ensemble.get_submodule(f"members.{name}").named_buffers()) for name in ensemble.names}
    for key in ("fusion3.R.unit1.norm.running_mean", "fusion3.L.unit1.norm.running_var"):
        own = [bank[key] for bank in banks.values() if key in bank]
        assert len(own) == 4  # half of the routes use this unit, each after different units
        assert all(not torch.equal(a, b) for i, a in enumerate(own) for b in own[:i])
    assert banks["RLL"]["fusion1.R.unit1.norm.num_batches_tracked"] == 3
    assert not any("fusion1.R" in key for key in banks["LLL"])
    assert {id(p) for p in ensemble.parameters()} == {id(p) for p in net.parameters()}


def test_training_is_the_sum_of_the_members_losses_each_by_its_own_forward():
    net, twin = fused(), fused()
    ensemble = Ensemble(net, NAMES).train()
    loss = ensemble.loss(X, Y)
    loss.backward()
    twin.train()
    total = torch.stack([nn.functional.cross_entropy(twin(X, paths=name), Y) for name in NAMES]).sum()
    total.backward()
    torch.testing.assert_close(loss, total)
    for (key, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=key)
    # by hand: one batch moves a norm's mean by a tenth of the way, from the parent's value
    name, member = "fusion1.L.unit1.norm", ensemble.get_submodule("members.LRL")
    alone = pp.extract(fused(), "route=LRL").train()
    alone(X)
    for (key, value), (_, expected) in zip(
        member.get_submodule(name).named_buffers(), alone.get_submodule(name).named_buffers(), strict=True
    ):
        assert torch.equal(value, expected), key


def test_separate_members_train_apart():
    net = fused()
    ensemble = Ensemble(net, NAMES, "separate")
    state = copy.deepcopy(net.state_dict())
    train(ensemble)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    stems = [part(ensemble, f"members.{r}.stem.unit").conv.weight for r in ROUTES]
    assert all(not torch.equal(a, b) for i, a in enumerate(stems) for b in stems[:i])
    assert sum(p.numel() for p in ensemble.parameters()) > 4 * sum(p.numel() for p in net.parameters())


def test_separate_members_may_draw_their_own_weights():
    same = Ensemble(fused(), NAMES[:2], "separate")
    drawn = Ensemble(fused(), NAMES[:2], "separate", seed=7)
    again = Ensemble(fused(), NAMES[:2], "separate", seed=7)
    key = "stem.unit.conv.weight"
    assert torch.equal(same.state_dict()[f"members.LLL.{key}"], same.state_dict()[f"members.RLL.{key}"])
    assert not torch.equal(drawn.state_dict()[f"members.LLL.{key}"], drawn.state_dict()[f"members.RLL.{key}"])
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in drawn.state_dict().items())
    several = Ensemble(fused(), {"a": "whole", "b": "whole"}, "separate", seed=1)  # an ensemble of whole networks
    assert several.names == ("a", "b")
    assert not torch.allclose(several.logits("a", X), several.logits("b", X))


@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_the_state_dict_holds_every_tensor_once(weights):
    ensemble = Ensemble(fused(), NAMES, weights)
    state = ensemble.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    if weights == "shared":
        assert {key.split(".")[0] for key in state} == {"net", "members"}
        assert all(
            key.endswith(("running_mean", "running_var", "num_batches_tracked")) for key in state if "members." in key
        )
        assert "members.RLL.fusion1.R.unit1.norm.running_mean" in state
    other = Ensemble(fused(seed=5), NAMES, weights)
    with torch.inference_mode():
        assert not torch.allclose(other(X), ensemble(X))
        other.load_state_dict(state)
        assert torch.equal(other(X), ensemble(X))


@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_it_saves_and_loads(weights, tmp_path):
    ensemble = Ensemble(fused(), [*NAMES, "fusion1.join=R"], weights)
    train(ensemble)
    ensemble.save(tmp_path / "e.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["e.safetensors"]
    loaded = Ensemble.load(tmp_path / "e.safetensors")
    assert not loaded.training
    assert loaded.names == ensemble.names
    with torch.inference_mode():
        assert torch.equal(loaded(X), ensemble(X))
        assert torch.equal(loaded(X, without="RRR"), ensemble(X, without="RRR"))


def test_numbers_of_numpy_and_torch_in_a_config_are_saved(tmp_path):
    net = fused()
    given = {"mean": np.full(3, 0.5, np.float32), "std": [torch.tensor(0.25)] * 3}
    config: Any = net.config
    config |= {"normalisation": given, "statistics": {"images": np.int64(7), "seed": None}}
    Ensemble(net, NAMES[:2]).save(tmp_path / "e")
    loaded = Ensemble.load(tmp_path / "e").config
    assert loaded.get("normalisation") == {"mean": [0.5] * 3, "std": [0.25] * 3}
    assert loaded.get("statistics") == {"images": 7, "seed": None}
    config["statistics"] = {"images": object()}
    with pytest.raises(ValueError, match="this ensemble's config: give JSON values"):
        Ensemble(net, NAMES[:2]).save(tmp_path / "f")
    assert [file.name for file in tmp_path.iterdir()] == ["e"]


def test_damaged_and_foreign_files_are_refused(tmp_path):
    Ensemble(fused(), NAMES[:2]).save(tmp_path / "good")
    whole = (tmp_path / "good").read_bytes()
    renamed = whole.replace(b"fusenet", b"fusenot", 1)
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], whole[::-1], renamed, save({"a": torch.zeros(1)})):
        (tmp_path / "bad").write_bytes(damaged)
        with pytest.raises(ValueError, match="bad is not a saved ensemble"):
            Ensemble.load(tmp_path / "bad")
    assert Ensemble.load(tmp_path / "good").names == ("LLL", "RLL")


def test_members_come_out_as_networks():
    for weights in ("shared", "separate"):
        ensemble = Ensemble(fused(), NAMES, weights)
        train(ensemble)
        for route in ("LLL", "RRL"):
            alone = ensemble.member(route).eval()
            assert alone.wiring.count_paths() == 1
            with torch.inference_mode():
                assert torch.equal(alone(X), ensemble.logits(route, X))
                assert not torch.allclose(alone(X), ensemble.logits("RRR", X))


def test_members_may_start_from_recalibrated_statistics():
    net = fused()
    paths = net.paths("route=RLR")
    known = {name: buffers(norm) for name, norm in norms(pp.extract(net, paths)).items()}
    bank = {name: (mean + 1.0, var + 1.0) for name, (mean, var) in known.items()}
    stats = BatchNormStatistics({paths: bank}, images=100)
    for weights in ("shared", "separate"):
        ensemble = Ensemble(net, ["route=RLR"], weights, stats=stats)
        with torch.inference_mode():
            assert torch.equal(ensemble.logits("RLR", X), pp.extract(net, paths, stats=stats)(X))
            assert not torch.allclose(ensemble.logits("RLR", X), net(X, paths=paths))


def test_any_familys_paths_make_an_ensemble():
    net = CrescendoNet(widths=(4, 4), hidden=(8,)).build(seed=0).double().eval()
    ensemble = Ensemble(net, ["branches=1,3", net.paths("branches=2"), "block1.join=1"])
    assert ensemble.names == ("branches_1_3", "branches_2", "block1_join_1")
    assert ensemble(X, without="branches=2").shape == (6, 10)
    net = MergeAndRun(depth=8, width=4).build(seed=0).double().eval()
    ensemble = Ensemble(net, ["stream=1", "stream=2", "route=R1L1R2"])
    assert ensemble.names == ("stream_1", "stream_2", "R1L1R2")
    torch.testing.assert_close(ensemble(X).exp().sum(1), torch.ones(6, dtype=X.dtype))


@pytest.mark.slow
def test_it_compiles():
    ensemble = Ensemble(fused(), NAMES[:2])
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(ensemble, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(X), ensemble(X))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"paths": []}, "at least one path"),
        ({"paths": ["route=RLL", "route=RLL"]}, "appears twice"),
        ({"paths": {"a": "route=RLL", "b": "route=RLL"}}, "count twice"),
        ({"paths": ["route=RL"]}, "route 'RL' has 2 letters: must have 3, one for each of the 3 fusions"),
        ({"paths": "route=RLL"}, "must be a list"),
        ({"paths": {"a.b": "route=RLL"}}, "letters, digits"),
        ({"paths": {"train": "route=RLL"}}, "no attribute of nn.Module"),
        ({"weights": "tied"}, "shared, separate"),
        ({"seed": 1}, "must be omitted with shared weights"),
    ],
)
def test_illegal_arguments(arguments, told):
    with pytest.raises(ValueError, match=told):
        Ensemble(fused(), **({"paths": NAMES} | arguments))


def test_illegal_members():
    ensemble = Ensemble(fused(), NAMES[:2])
    for call in (lambda: ensemble(X, without="RRR"), lambda: ensemble.logits("RRR", X)):
        with pytest.raises(ValueError, match="must be one of the members LLL, RLL"):
            call()
    with pytest.raises(ValueError, match="no member is left"):
        ensemble(X, without=["LLL", "RLL"])


def test_a_network_of_no_family_is_not_saved(tmp_path):
    wiring = WiringBuilder()
    wiring.join("z", {"a": wiring.unit("a", "input", depth=1), "b": wiring.unit("b", "input", depth=1)})
    net = pp.PathNet(wiring.wiring("z"), {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(3, 4, 1)})
    with pytest.raises(ValueError, match="network's config contains no family"):
        Ensemble(net, ["z=a", "z=b"]).save(tmp_path / "e")
    assert not list(tmp_path.iterdir())
    assert json.dumps(net.config) == "{}"
