"""Gates corrected to their target: rates computed in another way, other networks, and saving."""

from __future__ import annotations

import math

import pytest
import torch

import polypath as pp
from polypath.analysis.gate_rates import correct_gates, rates_of_blocks
from polypath.analysis.loops import loops_taken
from polypath.core.network import PathNet
from polypath.families.recursive import RecursiveResNet
from polypath.layers.gates import GateUnit
from polypath.storage.config import read_config

Images = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def net() -> PathNet:
    """Gates whose decision depends on the image, and that pass most images."""
    built = RecursiveResNet(blocks=(1, 2, 3), loops=(1, 2, 3), width=4, in_chans=1).build(seed=0)
    draw = torch.Generator().manual_seed(1)
    for module in built.modules():
        if isinstance(module, GateUnit):
            torch.nn.init.normal_(module.last.weight, std=1.0, generator=draw)
            module.last.bias.data = torch.tensor([0.0, 1.0])
    return built.eval()


@pytest.fixture
def images() -> Images:
    draw = torch.Generator().manual_seed(0)
    return [(torch.randn(n, 1, 8, 8, generator=draw), torch.zeros(n).long()) for n in (300, 200)]


@pytest.mark.parametrize(("target", "over"), [(0.7, "reaching"), (0.3, "reaching"), (0.5, "all")])
def test_every_block_passes_the_target_share(net, images, target, over):
    kept = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    corrected, correction = correct_gates(net, images, target, over=over)
    rows = loops_taken(corrected, images).gates
    for block, rate in correction.after.items():
        of = rows[rows["switch"] == block]
        total = sum(of["reached"].tolist()) if over == "reaching" else 500 * len(of)
        assert rate == pytest.approx(sum(of["passed"].tolist()) / total)
        assert rate == pytest.approx(target, abs=0.01)
    assert correction.before == rates_of_blocks(net, images, over)[0]
    assert max(abs(rate - target) for rate in correction.before.values()) > 0.05
    assert (correction.images, correction.unmet) == (500, {})
    assert all(torch.equal(tensor, kept[name]) for name, tensor in net.state_dict().items())
    changed = {name for name, tensor in corrected.state_dict().items() if not torch.equal(tensor, kept[name])}
    assert changed == {f"{block.removesuffix('.loops')}.gate.last.bias" for block in correction.shifts}
    assert list(correction.shifts) == list(correction.before)  # in order of depth
    assert "gates" not in net.config


def test_a_corrected_network_is_another_artifact_and_says_so(net, images, tmp_path):
    corrected, correction = correct_gates(net, images, 0.7)
    pp.save(corrected, tmp_path / "corrected")
    pp.save(net, tmp_path / "trained")
    assert read_config(tmp_path / "corrected")["gates"] == correction.record
    assert "gates" not in read_config(tmp_path / "trained")
    card = (tmp_path / "corrected/README.md").read_text()
    assert "**gates**: not as trained: their biases were shifted so that they open for 0.7" in card
    assert "on 500 held-out images" in card
    again = pp.load(tmp_path / "corrected")
    assert again.config.get("gates") == correction.record
    x = images[0][0]
    assert torch.equal(again(x), corrected(x))
    assert not torch.equal(again(x), net(x))
    assert "gates" not in pp.extract(again, "loops=1").config  # which has no gates
    assert "gates" in pp.extract(again, "loops=dynamic/1").config


def test_a_gate_that_answers_all_alike_is_named(net, images):
    dead = net.get_submodule("group3.block2.gate")
    assert isinstance(dead, GateUnit)
    torch.nn.init.zeros_(dead.last.weight)
    _, correction = correct_gates(net, images, 0.7)
    assert list(correction.unmet) == ["group3.block2.loops"]
    assert correction.unmet["group3.block2.loops"] in (0.0, 1.0)


def test_a_block_that_no_image_reaches_and_illegal_values(net, images):
    with pytest.raises(ValueError, match=r"target = 1\.5"):
        correct_gates(net, images, 1.5)
    with pytest.raises(ValueError, match="reaching, all"):
        correct_gates(net, images, 0.5, over="some")  # pyright: ignore[reportArgumentType] (wrong on purpose)
    with pytest.raises(ValueError, match="no images"):
        correct_gates(net, [], 0.5)
    plain = RecursiveResNet(blocks=(1, 2), loops=(1, 2), width=4, in_chans=1, gates="none").build(0)
    with pytest.raises(ValueError, match="no gates"):
        correct_gates(plain, images, 0.5)
    rates, count = rates_of_blocks(net, images)
    assert count == 500
    assert not any(map(math.isnan, rates.values()))
