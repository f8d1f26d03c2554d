"""Path-wise training: which parameters learn when, both readings of the backward pass, memory for activations."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.training import pathwise
from polypath.training.sampling import local_drop_path


@pytest.fixture(scope="module")
def net():
    return CrescendoNet(widths=(4, 6, 8), hidden=(8,), num_classes=5).build(seed=0)


@pytest.fixture(scope="module")
def batch():
    g = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 16, 16, generator=g), torch.randint(0, 5, (6,), generator=g)


def test_branches_are_found_in_the_wiring(net):
    owned = pathwise.branches(net.wiring)
    assert list(owned) == ["1", "2", "3", "4"]
    for n, modules in owned.items():
        assert modules == {f"block{b}.branch{n}.unit{u}" for b in (1, 2, 3) for u in range(1, int(n) + 1)}


def test_columns_of_a_fractal_are_branches_too():
    net = FractalNet(filters=(4, 4), columns=3).build(seed=0)
    owned = pathwise.branches(net.wiring)
    assert {n: len(modules) for n, modules in owned.items()} == {"1": 4, "2": 6, "3": 10}  # with two pools each


def test_a_network_of_one_path_has_none():
    net = FractalNet(filters=(4,), columns=1).build(seed=0)
    with pytest.raises(ValueError, match="but this network has no such blocks"):
        pathwise.branches(net.wiring)


def test_branches_take_turns_from_the_shortest_to_the_longest(net):
    turns = [pathwise.active_branch(net.wiring, epoch, 2) for epoch in range(10)]
    assert turns == list("1122334411")
    with pytest.raises(ValueError, match="phase_epochs = 0"):
        pathwise.active_branch(net.wiring, 0, 0)


def test_every_parameter_learns_in_some_phase_and_the_linear_layers_in_all(net):
    learning = {n: pathwise.learning_parameters(net, n) for n in "1234"}
    names = {name for name, _ in net.named_parameters()}
    assert set().union(*learning.values()) == names
    always = set.intersection(*map(set, learning.values()))
    assert always == {name for name in names if name.startswith("head.")}


@pytest.mark.parametrize("rate", [0.0, 0.5])
@pytest.mark.parametrize("active", ["1", "3", "4"])
def test_exact_gradients_are_the_whole_networks_to_the_bit(net, batch, active, rate):
    x, y = batch
    paths = local_drop_path(net.wiring, rate, torch.Generator().manual_seed(2), keep=active)
    whole, part = copy.deepcopy(net), copy.deepcopy(net)
    F.cross_entropy(whole(x, paths=paths), y).backward()
    F.cross_entropy(pathwise.path_wise_forward(part, x, active, paths=paths), y).backward()
    learning = pathwise.learning_parameters(net, active)
    expected = dict(whole.named_parameters())
    for name, p in part.named_parameters():
        assert p.requires_grad
        if name in learning:
            assert torch.equal(p.grad, expected[name].grad), name
        else:
            assert p.grad is None, name


def test_truncated_gradients_are_those_of_a_network_whose_other_branches_are_constants(net, batch):
    x, y = batch
    active = "2"
    part, exact = copy.deepcopy(net), copy.deepcopy(net)
    F.cross_entropy(pathwise.path_wise_forward(part, x, active, backward="truncated"), y).backward()
    F.cross_entropy(pathwise.path_wise_forward(exact, x, active), y).backward()

    hand = copy.deepcopy(net)
    z = x
    for block in (1, 2, 3):
        outs = []
        for n in range(1, 5):
            out = z
            for u in range(1, n + 1):
                out = hand.get_submodule(f"block{block}.branch{n}.unit{u}")(out)
            outs.append(out if str(n) == active else out.detach())
        z = torch.stack(outs).mean(0)
        if block < 3:
            z = hand.get_submodule(f"block{block}.pool")(z)
    F.cross_entropy(hand.forward_head(z), y).backward()

    learning = pathwise.learning_parameters(net, active)
    by_hand, by_exact = dict(hand.named_parameters()), dict(exact.named_parameters())
    for name, p in part.named_parameters():
        if name in learning:
            torch.testing.assert_close(p.grad, by_hand[name].grad, rtol=1e-4, atol=1e-6)
        else:
            assert p.grad is None, name
    first = "block1.branch2.unit1.conv.weight"  # behind it stand frozen branches, which the exact reading passes
    assert not torch.allclose(dict(part.named_parameters())[first].grad, by_exact[first].grad, rtol=1e-3)
    last = "block3.branch2.unit2.conv.weight"
    assert torch.equal(dict(part.named_parameters())[last].grad, by_exact[last].grad)


@pytest.mark.parametrize("backward", ["exact", "truncated"])
def test_frozen_branches_run_with_batch_statistics_and_update_their_running_ones(net, batch, backward):
    x, _ = batch
    plain, part = copy.deepcopy(net), copy.deepcopy(net)
    before = {name: b.clone() for name, b in net.named_buffers()}
    out = pathwise.path_wise_forward(part, x, "1", backward=backward)
    assert torch.equal(out, plain(x))
    for name, buffer in part.named_buffers():
        assert torch.equal(buffer, dict(plain.named_buffers())[name])
        assert not torch.equal(buffer, before[name]), name


def held_bytes(net, forward) -> int:
    """Bytes of the branches' activations that are held for backward (not of the blocks' inputs and outputs)."""
    kept: dict[int, torch.Tensor] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t
        return t

    between = {}

    def keep(path):
        def hook(module, inputs, output):
            between.update({path: (inputs[0], output)})

        return net.get_submodule(path).register_forward_hook(hook)

    handles = [keep(path) for path in net.wiring.modules if path.endswith(".pool")]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = forward()
    for handle in handles:
        handle.remove()
    others = {t.untyped_storage().data_ptr() for pair in between.values() for t in pair}
    maps = [t for at, t in kept.items() if at not in others and t.shape[:2] == (8, 8) and t.is_floating_point()]
    del out
    return sum(t.untyped_storage().nbytes() for t in maps)


def test_the_truncated_reading_holds_no_activations_of_frozen_branches():
    net = CrescendoNet(widths=(8, 8, 8), hidden=(8,)).build(seed=0)
    x = torch.randn(8, 3, 32, 32)
    whole = held_bytes(net, lambda: net(x))
    ways: tuple[pathwise.Backward, ...] = ("exact", "truncated")
    held = {
        (n, b): held_bytes(net, partial(pathwise.path_wise_forward, net, x, n, backward=b))
        for n in "1234"
        for b in ways
    }
    assert held["4", "truncated"] <= 0.45 * whole
    assert sum(held[n, "truncated"] for n in "1234") / 4 <= 0.30 * whole
    assert held["4", "exact"] > held["4", "truncated"]


@pytest.mark.parametrize("backward", ["exact", "truncated"])
def test_gradients_and_momentum_of_the_branch_convs_stay_within_the_papers_shares(backward):
    """40% for the longest branch, a quarter on average over the phases (CrescendoNet §II-B)."""
    net = CrescendoNet(widths=(8, 8, 8), hidden=(8,), in_chans=8).build(seed=0)
    x, y = torch.randn(4, 8, 16, 16), torch.randint(0, 10, (4,))
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    convs = {id(p) for name, p in net.named_parameters() if "branch" in name and name.endswith("conv.weight")}
    total = sum(p.numel() for p in net.parameters() if id(p) in convs)

    shares = []
    for active in "1234":
        learning = pathwise.learning_parameters(net, active)
        pathwise.release(optimizer, [p for name, p in net.named_parameters() if name not in learning])
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(pathwise.path_wise_forward(net, x, active, backward=backward), y).backward()
            optimizer.step()
        gradients = sum(p.grad.numel() for p in net.parameters() if id(p) in convs and p.grad is not None)
        momentum = sum(s["momentum_buffer"].numel() for p, s in optimizer.state.items() if id(p) in convs)
        assert gradients == momentum > 0
        shares.append(gradients / total)
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_frozen_weights_do_not_move(net, batch):
    x, y = batch
    net = copy.deepcopy(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    F.cross_entropy(net(x), y).backward()
    optimizer.step()  # leaves momentum in every weight
    learning = pathwise.learning_parameters(net, "3")
    pathwise.release(optimizer, [p for name, p in net.named_parameters() if name not in learning])
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer.zero_grad()
    F.cross_entropy(pathwise.path_wise_forward(net, x, "3"), y).backward()
    optimizer.step()
    for name, p in net.named_parameters():
        assert torch.equal(p, before[name]) == (name not in learning), name


def test_unknown_branches_and_readings_are_refused(net, batch):
    with pytest.raises(ValueError, match="1, 2, 3, 4"):
        pathwise.path_wise_forward(net, batch[0], "5")
    with pytest.raises(ValueError, match="exact, truncated"):
        pathwise.path_wise_forward(net, batch[0], "1", backward="none")  # pyright: ignore[reportArgumentType] (wrong on purpose)
