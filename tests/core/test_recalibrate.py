"""BatchNormStatistics of paths: recalibrated on images, applied temporarily, baked in, saved."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import polypath as pp
from conftest import randomise_norms
from polypath.core.batchnorm import applied, bake, norms
from polypath.core.builder import NetBuilder
from polypath.core.paths import Paths
from polypath.core.recalibrate import recalibrate
from polypath.layers.conv import ConvUnit
from polypath.storage.batchnorm import load_statistics, save_statistics

NETS = {
    "crescendonet": ("crescendonet_32", {"widths": (4, 6), "hidden": (8,)}),
    "fractalnet": ("fractalnet16_small", {"filters": (4, 8), "dropout": (0.5,)}),
    "fractalnet, own norms": ("fractalnet16_small", {"filters": (4, 8), "own_norms": True}),
}


@pytest.fixture(params=NETS)
def net(request):
    name, arguments = NETS[request.param]
    return randomise_norms(pp.create_model(name, seed=1, **arguments)).eval()


@pytest.fixture
def batches(rng):
    return [(torch.randn(n, 3, 16, 16, generator=rng) * 2 + 1, None) for n in (12, 12, 6)]


def one_norm() -> pp.PathNet:
    b = NetBuilder()
    z = b.add("unit", b.input, ConvUnit(3, 4, order="norm-conv"))
    unit = b.modules["unit"]
    unit.norm = nn.BatchNorm2d(3)
    return b.net(z)


def test_estimate_is_the_image_weighted_mean_of_batch_statistics(batches):
    net = one_norm()
    stats = recalibrate(net, ["whole"], batches)
    mean, var = stats[Paths()]["unit.norm"]
    weights = torch.tensor([12, 12, 6]) / 30
    means = torch.stack([x.mean((0, 2, 3)) for x, _ in batches])
    variances = torch.stack([x.var((0, 2, 3)) for x, _ in batches])
    torch.testing.assert_close(mean, (weights[:, None] * means).sum(0))
    torch.testing.assert_close(var, (weights[:, None] * variances).sum(0))
    assert not torch.allclose(mean, means.mean(0), rtol=1e-6), "unequal batches must not weigh the same"
    assert stats.images == 30


def test_where_gates_decide_a_norm_counts_the_images_that_reach_it(rng):
    net = pp.create_model("dr_resnet_small", seed=0).eval()
    for name, module in net.named_modules():
        if "gate" in name and isinstance(module, nn.Linear):  # new gates decide alike for all images
            nn.init.normal_(module.weight, generator=rng)
            nn.init.zeros_(module.bias)
    batches = [(torch.randn(n, 3, 16, 16, generator=rng),) for n in (12, 20)]
    inputs: dict[str, list[torch.Tensor]] = {}
    for name, norm in norms(net).items():
        inputs[name] = []
        norm.register_forward_pre_hook(lambda *a, kept=inputs[name]: kept.append(a[1][0].clone()))
    bank = recalibrate(net, ["whole"], batches)[Paths()]
    some = [name for name in bank if len(inputs[name]) == 2 and sum(map(len, inputs[name])) < 32]
    assert some, "no gate held an image back"
    for name in some:
        counts = torch.tensor([len(x) for x in inputs[name]], dtype=torch.float64)
        means = torch.stack([x.double().flatten(2).transpose(0, 1).flatten(1).mean(1) for x in inputs[name]])
        expected = (counts[:, None] * means).sum(0) / counts.sum()
        torch.testing.assert_close(bank[name][0].double(), expected, rtol=1e-4, atol=1e-6)


def test_num_images_limits_what_is_used_and_a_lone_image_is_left_out(batches):
    net = one_norm()
    assert recalibrate(net, ["whole"], batches, 20).images == 20
    assert recalibrate(net, ["whole"], batches, 13).images == 12
    mean, _ = recalibrate(net, ["whole"], batches, 20)[Paths()]["unit.norm"]
    torch.testing.assert_close(mean, torch.cat([batches[0][0], batches[1][0][:8]]).mean((0, 2, 3)))


def test_a_batch_normalises_by_its_own_statistics(net, batches):
    """If it is recalibrated on a single batch, a path gives that batch the output of batch-norm in training mode."""
    images = batches[0][0]
    for p in net.named_paths().values():
        stats = recalibrate(net, [p], batches[:1])
        twin = copy.deepcopy(net)
        for norm in norms(twin).values():
            norm.train()
        with torch.no_grad():
            theirs, plain = twin(images, paths=p), net(images, paths=p)
            with applied(net, stats[p]):
                ours = net(images, paths=p)
        assert (ours - theirs).norm() < 0.05 * theirs.norm()  # n / (n - 1) of the unbiased variance
        assert (plain - theirs).norm() > 0.2 * theirs.norm()


def test_banks_hold_the_norms_of_their_path_alone(net, batches):
    paths = list(net.named_paths().values())
    stats = recalibrate(net, paths, batches)
    assert list(stats) == paths
    for p in paths:
        assert set(stats[p]) == set(norms(pp.extract(net, p)))
    if len(paths) > 2:
        assert set(stats[paths[-1]]) < set(norms(net))


def test_each_path_is_estimated_as_if_alone(net, batches):
    paths = list(net.named_paths().values())[:3]
    together = recalibrate(net, paths, batches)
    for p in paths:
        for name, pair in recalibrate(net, [p], batches)[p].items():
            assert all(torch.equal(a, b) for a, b in zip(pair, together[p][name], strict=True))


def test_network_stays_as_it_was(net, batches):
    net.train()
    next(iter(norms(net).values())).eval()  # a norm that its owner froze
    modes, before = [m.training for m in net.modules()], copy.deepcopy(net.state_dict())
    recalibrate(net, net.named_paths().values(), batches)
    with pytest.raises(RuntimeError):
        recalibrate(net, ["whole"], [(torch.zeros(4, 5, 16, 16),)])
    assert modes == [m.training for m in net.modules()]
    assert all(m.momentum == 0.1 for m in norms(net).values())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_applied_restores_also_after_an_error(net, batches):
    p = list(net.named_paths().values())[-1]
    stats, before = recalibrate(net, [p], batches), copy.deepcopy(net.state_dict())
    with applied(net, stats[p]):
        assert any(not torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with pytest.raises(ValueError, match="shape"), applied(net, stats[p]):
        net(torch.zeros(3, 16, 16))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_extract_bakes_them_in(net, batches):
    x = batches[0][0]
    for p in net.named_paths().values():
        stats = recalibrate(net, [p], batches)
        child, plain = pp.extract(net, p, stats=stats), pp.extract(net, p)
        with torch.no_grad(), applied(net, stats[p]):
            assert torch.equal(child(x), net(x, paths=p))
        with torch.no_grad():
            assert not torch.equal(child(x), plain(x))
        assert child.config.get("statistics") == {"images": 30, "seed": None}
        assert "statistics" not in plain.config


def test_saved_and_loaded(net, batches, tmp_path):
    stats = recalibrate(net, net.named_paths().values(), batches, seed=7)
    file = tmp_path / "statistics.safetensors"
    save_statistics(stats, file)
    again = load_statistics(file)
    assert (list(again), again.images, again.seed) == (list(stats), 30, 7)
    for p in stats:
        assert {k: [t.tolist() for t in v] for k, v in again[p].items()} == {
            k: [t.tolist() for t in v] for k, v in stats[p].items()
        }
    assert [f.name for f in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "empty"])
def test_damaged_files_are_refused(net, batches, tmp_path, damage):
    file = tmp_path / "statistics.safetensors"
    save_statistics(recalibrate(net, ["whole"], batches), file)
    data = bytearray(file.read_bytes())
    if damage == "cut":
        data = data[:-5]
    elif damage == "flipped":
        data[10] ^= 255
    elif damage == "other":
        import safetensors.torch

        data = safetensors.torch.save({"weight": torch.zeros(2)})
    file.write_bytes(b"" if damage == "empty" else bytes(data))
    with pytest.raises(ValueError, match="statistics file"):
        load_statistics(file)


def test_refusals(net, batches):
    with pytest.raises(ValueError, match="num_images = 1"):
        recalibrate(net, ["whole"], batches, 1)
    with pytest.raises(ValueError, match="at least two"):
        recalibrate(net, ["whole"], [(torch.zeros(1, 3, 16, 16),)])
    with pytest.raises(ValueError, match="unknown key"):
        recalibrate(net, ["colum=3"], batches)
    stats = recalibrate(net, ["whole"], batches)
    other = list(net.named_paths().values())[-1]
    with pytest.raises(ValueError, match=r"path .* has no recalibrated statistics"):
        pp.extract(net, other, stats=stats)
    with pytest.raises(ValueError, match="does not have"):
        bake(net, {"nowhere.norm": (torch.zeros(4), torch.ones(4))})
    name = next(iter(stats[Paths()]))
    with pytest.raises(ValueError, match="have shape"), applied(net, {name: (torch.zeros(99), torch.ones(99))}):
        pass
