"""Analyses of networks: sub-networks, dropped operands, depths, loops, channels."""

from __future__ import annotations

import copy
import math

import pandas as pd
import pytest
import torch
from torch import nn

import polypath as pp
from conftest import randomise_norms
from polypath.analysis.answers import answers
from polypath.analysis.depths import depth_summary, depths
from polypath.analysis.galleries import easy_and_hard_by_loops
from polypath.analysis.importance import importance_table, without_each, without_label
from polypath.analysis.loops import loop_histogram, loops_taken
from polypath.analysis.scoring import score
from polypath.analysis.similarity import (
    Moments,
    channel_moments,
    channel_pairs,
    effective_dimension,
    pair_summary,
    segments_of,
    similarity_table,
    spectrum,
)
from polypath.analysis.subnetworks import paths_to, sampled_paths, subnetwork_table
from polypath.core.builder import NetBuilder

G = torch.Generator().manual_seed(3)
BATCHES = [(torch.randn(24, 3, 8, 8, generator=G), torch.randint(10, (24,), generator=G)) for _ in range(2)]


@pytest.fixture(scope="module")
def net() -> pp.PathNet:
    return randomise_norms(pp.create_model("crescendonet_32", seed=1, widths=(4, 4), hidden=(8,))).eval()


# --- sub-networks --------------------------------------------------------------------------------------------


def test_answers_are_the_networks_and_their_images_labels(net):
    found = answers(net, ["branches=1", "whole"], BATCHES)
    x, y = torch.cat([x for x, _ in BATCHES]), torch.cat([y for _, y in BATCHES])
    assert torch.equal(found.labels, y)
    with torch.no_grad():
        torch.testing.assert_close(found.logits["branches=1"], net(x, paths="branches=1"))
    assert not torch.equal(found.logits["branches=1"], found.logits["whole"])
    assert found.rows(torch.tensor([3])).labels.tolist() == [y[3]]


def test_a_sub_network_table_is_what_the_parts_measure(net):
    frame = subnetwork_table(net, None, BATCHES, train=BATCHES, num_images=48, size=8)
    assert list(frame["path"]) == list(net.named_paths())
    plain = score(net, net.named_paths(), BATCHES)
    for row in frame.to_dict("records"):
        assert row["error"] == plain[row["path"]].error
        assert row["macs"] == pp.cost(net, row["paths"], 8).macs
    assert any(frame["error"] != frame["error_recalibrated"])
    assert frame["change"].iloc[0] == 0.0
    assert frame["change"].iloc[2] == frame["error_recalibrated"].iloc[2] - frame["error_recalibrated"].iloc[0]
    assert all(subnetwork_table(net, ["branches=2"], BATCHES, size=8)["error_recalibrated"].isna())


def test_sampled_chains_are_uniform_over_the_paths():
    wiring = pp.create_model("fractalnet_ultra_20", filters=(4,)).wiring  # one block of five paths
    assert paths_to(wiring)[wiring.output] == 5
    everything = sampled_paths(wiring, 9, torch.Generator().manual_seed(0))
    assert len(everything) == 5
    drawn = [next(iter(sampled_paths(wiring, 1, G))) for _ in range(500)]
    assert set(drawn) == set(everything)
    counts = pd.Series(drawn).value_counts()
    assert counts.min() > 60  # expected 100, standard deviation 9
    assert counts.max() < 140


def test_chains_of_an_astronomical_number_are_drawn_once_each(net):
    deep = pp.create_model("resnet110_cifar")
    assert paths_to(deep.wiring)[deep.wiring.output] == 2**54
    found = sampled_paths(deep, 20, torch.Generator().manual_seed(0))
    assert len(found) == 20
    assert all(deep.wiring.count_paths(p) == 1 for p in found.values())
    layers = [deep.wiring.longest(p) for p in found.values()]
    assert 40 < sum(layers) / len(layers) < 70  # 2 + 108/2 on average
    with pytest.raises(ValueError, match="count = 0"):
        sampled_paths(net, 0, G)


# --- importance ----------------------------------------------------------------------------------------------


def test_what_may_be_dropped(net):
    parts = without_each(net.wiring)
    assert len(parts) == 2 * 4
    assert parts["block1.join:2"] == net.paths("block1.join=1,3,4")
    inside = without_each(net.wiring, net.paths("branches=1,3"))
    assert inside["block2.join:1"] == net.paths("block1.join=1,3;block2.join=3")
    assert without_label(net.wiring)["*:4"] == net.paths("branches=1,2,3")
    with pytest.raises(ValueError, match=r"join 'head'.*block1.join, block2.join"):
        without_each(net.wiring, joins=["head"])


def test_importance_is_the_difference_of_two_scores(net):
    net = copy.deepcopy(net)
    with torch.no_grad():
        net.get_classifier().bias -= torch.cat([net(images) for images, _ in BATCHES]).mean(0)  # not one class for all
    batches = [(images, net(images).argmax(1)) for images, _ in BATCHES]  # most changes are mistakes then
    frame = importance_table(net, batches).set_index("dropped")
    choices = {"whole": net.paths("whole"), "less": net.paths("block2.join=1,2,4")}
    scores = score(net, choices, batches)
    assert frame.loc["block2.join:3", "increase"] == pytest.approx(scores["less"].error - scores["whole"].error)
    assert len(set(frame["increase"])) > 1
    with pytest.raises(ValueError, match="no join"):
        importance_table(pp.create_model("plain14_cifar"), BATCHES)


# --- depths --------------------------------------------------------------------------------------------------


def test_depths_are_exact_beyond_floats():
    nets = {"small": pp.create_model("resnet20_cifar"), "deep": pp.create_model("resnet110_cifar")}
    frame = depths(nets)
    small, deep = frame[frame["net"] == "small"], frame[frame["net"] == "deep"]
    assert list(small["depth"]) == list(range(2, 21, 2))
    assert list(small["paths"]) == [math.comb(9, k) for k in range(10)]
    assert sum(deep["paths"]) == 2**54
    assert list(deep["paths"])[27] == math.comb(54, 27)
    assert list(deep["cumulative"])[-1] == pytest.approx(1.0)
    table = depth_summary(frame).set_index("net")
    assert table.loc["deep", "paths"] == 2**54
    assert table.loc["deep", "mean"] == pytest.approx(2 + 54)
    assert table.loc["deep", "deviation"] == pytest.approx(2 * math.sqrt(54) / 2)
    assert (table.loc["small", "least"], table.loc["small", "most"]) == (2, 20)


# --- loops ---------------------------------------------------------------------------------------------------


def gated(bias: float) -> pp.PathNet:
    net = pp.create_model("dr_resnet_small", seed=1, blocks=(1, 2, 2), loops=(1, 2, 3), width=4)
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear) and ".gate" in name and module.out_features == 2:
            with torch.no_grad():
                module.weight.zero_()
                module.bias.copy_(torch.tensor([0.0, bias]))
    return net


def test_gates_that_are_always_open_or_shut():
    opened, shut = loops_taken(gated(1.0), BATCHES), loops_taken(gated(-1.0), BATCHES)
    assert len(opened.images) == 48
    assert all(opened.images["loops"] == opened.most)
    assert all(opened.gates["rate"] == 1.0)
    assert all(shut.images["loops"] == 0)
    first = shut.gates.groupby("switch").head(1)
    assert all(first["reached"] == 48)
    assert all(first["rate"] == 0.0)
    assert list(opened.images["label"]) == torch.cat([y for _, y in BATCHES]).tolist()
    with pytest.raises(ValueError, match="no gates"):
        loops_taken(pp.create_model("plain14_cifar"), BATCHES)


def test_a_histogram_by_hand():
    frame = loop_histogram([0, 2, 2, 3], 4, right=[True, True, False, True])
    assert list(frame["images"]) == [1, 0, 2, 1, 0]
    assert list(frame["share"]) == [0.25, 0.0, 0.5, 0.25, 0.0]
    assert list(frame["error"].fillna(-1)) == [0.0, -1, 50.0, 0.0, -1]
    with pytest.raises(ValueError, match="0 and most = 2"):
        loop_histogram([0, 3], 2)


def test_easy_and_hard_by_loops():
    images = pd.DataFrame({"image": range(5), "label": 0, "answer": [0, 0, 1, 0, 0], "loops": [3, 1, 0, 5, 1]})
    images["right"] = images["label"] == images["answer"]
    frame = easy_and_hard_by_loops(images, 2)
    assert list(frame.loc[frame["kind"] == "easy", "image"]) == [1, 4]  # image 2 takes fewer, and is wrong
    assert list(frame.loc[frame["kind"] == "hard", "value"]) == [5, 3]


# --- channels ------------------------------------------------------------------------------------------------


def by_pair(frame: pd.DataFrame) -> dict[tuple[int, int], float]:
    return {(row["i"], row["j"]): row["similarity"] for row in frame.to_dict("records")}


def test_similarity_of_pairs_by_hand():
    x = torch.tensor([1.0, -1.0, 1.0, -1.0])
    y = torch.tensor([1.0, 1.0, -1.0, -1.0])
    maps = torch.stack([x, -2 * x, x + y, y + 5, torch.full((4,), 3.0)], 1)
    pairs = by_pair(channel_pairs(Moments.of(maps)))
    assert pairs[0, 1] == pytest.approx(1.0)  # up to scale and sign
    assert pairs[0, 2] == pytest.approx(1 / math.sqrt(2))
    assert pairs[0, 3] == pytest.approx(0.0, abs=1e-9)
    assert all(pairs[i, 4] == 0.0 for i in range(4))  # constant
    cosine = by_pair(channel_pairs(Moments.of(maps), measure="cosine"))
    assert cosine[3, 4] == pytest.approx(5 / math.sqrt(26))
    assert cosine[0, 3] == pytest.approx(0.0, abs=1e-9)


def test_within_and_across_segments():
    moments = Moments.of(torch.randn(50, 4, 2, 2, generator=G)[:, [0, 0, 1, 2]])  # the first two are one
    pairs = channel_pairs(moments, segments=2)
    assert list(pairs["within"]) == [True, False, False, False, False, True]
    table = pair_summary(pairs).set_index("pairs")
    assert list(table["count"]) == [2, 4]
    assert table.loc["within", "max"] == pytest.approx(1.0)
    assert table.loc["within", "alike"] == 50.0
    assert table.loc["across", "alike"] == 0.0
    with pytest.raises(ValueError, match="must divide 4, the number of channels"):
        channel_pairs(moments, segments=3)
    with pytest.raises(ValueError, match="'angle'"):
        channel_pairs(moments, measure="angle")  # pyright: ignore[reportArgumentType] (wrong on purpose)


def test_effective_dimension_by_hand():
    assert effective_dimension([2.0, 2.0, 2.0, 2.0]) == pytest.approx({"participation": 4.0, "entropy": 4.0})
    assert effective_dimension([7.0, 0.0]) == pytest.approx({"participation": 1.0, "entropy": 1.0})
    found = effective_dimension([3.0, 1.0])
    assert found["participation"] == pytest.approx(16 / 10)
    assert found["entropy"] == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    assert effective_dimension([0.0]) == {"participation": 0.0, "entropy": 0.0}
    with pytest.raises(ValueError, match="none below 0"):
        effective_dimension([1.0, -1.0])


def test_moments_add_and_their_spectrum_is_numpys():
    maps = torch.randn(30, 5, 3, 3, generator=G) @ torch.randn(3, 3, generator=G)
    whole, parts = Moments.of(maps), Moments.of(maps[:10]) + Moments.of(maps[10:])
    torch.testing.assert_close(whole.second, parts.second)
    frame = spectrum(whole)
    rows = maps.movedim(1, -1).reshape(-1, 5).double()
    expected = torch.linalg.eigvalsh(torch.cov(rows.T, correction=0)).flip(0)
    assert list(frame["eigenvalue"]) == pytest.approx(expected.tolist())
    assert frame["cumulative"].iloc[-1] == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        Moments.of(maps[0])


def test_gunn_layers_are_found_and_measured():
    net = pp.create_model("gunn_small", seed=0, num_classes=10)
    found = channel_moments(net, BATCHES)
    segments = segments_of(net)
    assert list(found) == list(segments)
    frame = similarity_table(found, segments).set_index("layer")
    for name, moments in found.items():
        assert moments.count % 48 == 0
        assert frame.loc[name, "channels"] == len(moments.first)
        assert 1 <= frame.loc[name, "participation"] <= frame.loc[name, "entropy"] <= len(moments.first)
    with pytest.raises(ValueError, match="node 'nowhere'"):
        channel_moments(net, BATCHES, ["nowhere"])


def test_collapsed_channels_leave_one_dimension():
    builder = NetBuilder()
    conv = nn.Conv2d(3, 6, 1)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight[1:] = conv.weight[:1]
        conv.bias[1:] = conv.bias[:1]
    net = builder.net(builder.add("conv", builder.input, conv))
    frame = similarity_table(channel_moments(net, BATCHES, ["conv"]))
    assert frame["participation"].item() == pytest.approx(1.0)
    assert frame["within"].item() == pytest.approx(1.0)
    assert frame["within_alike"].item() == 100.0
