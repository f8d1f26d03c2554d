"""The sandwich rule and self-distillation: against loops written by hand, in float64; statistics, draws, counting."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny import tiny
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.builder import NetBuilder
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.families.base import Family
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.recursive import RecursiveResNet
from polypath.families.resnet import ResNet
from polypath.layers.ghost import ghost_norms
from polypath.training import sampling
from polypath.training.distributed import World
from polypath.training.engine import Engine
from polypath.training.objectives import Objective, StepInfo
from polypath.training.sandwich import Curriculum, Sandwich, SelfDistilled

CRESCENDO = CrescendoNet(widths=(4, 6), hidden=(8,), num_classes=5)
FRACTAL = FractalNet(filters=(4, 6), columns=3, num_classes=5)
OWN = FractalNet(filters=(4, 6), columns=2, num_classes=5, own_norms=True)
DEEP = ResNet(blocks=(3, 2), width=4, num_classes=5)
GATED = RecursiveResNet(blocks=(1, 2), loops=(1, 3), width=4, num_classes=5)
EXITS = CrescendoNet(widths=(4, 6), hidden=(8,), num_classes=5, exits=(1,))

Batch = tuple[Tensor, Tensor]
Step = tuple[float, dict[str, Tensor | None], dict[str, Tensor]]


def info(epoch: int = 0, seed: int = 5, epochs: int = 8) -> StepInfo:
    draws = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
    return StepInfo(epoch, 0, 10, epochs, *draws)


@pytest.fixture(scope="module")
def batch() -> Batch:
    g = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 16, 16, generator=g).double(), torch.randint(0, 5, (8,), generator=g)


def stepped(objective: Objective, net: PathNet, batch: Batch, each: bool = True, smoothing: float = 0.0) -> Step:
    """Loss, gradients and buffers of a step, by one backward a pass or by one over the sum."""
    net = copy.deepcopy(net)
    bound = objective.bind(net, label_smoothing=smoothing)
    if each:
        loss = 0.0
        for part in bound.passes(*batch, info()):
            part.loss.backward()
            loss += float(part.loss.detach())
    else:
        total = bound.step(*batch, info()).loss
        total.backward()
        loss = float(total.detach())
    return loss, {name: p.grad for name, p in net.named_parameters()}, dict(net.named_buffers())


def same(ours: Step, hand: Step) -> None:
    assert ours[0] == pytest.approx(hand[0], rel=1e-12)
    assert any(g is not None and g.abs().max() > 0 for g in ours[1].values())
    for name, gradient in ours[1].items():
        assert (gradient is None) == (hand[1][name] is None), name
        if gradient is not None:
            torch.testing.assert_close(gradient, hand[1][name], rtol=1e-10, atol=1e-12, msg=name)


def kl(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    """T² · cross-entropy with soft labels, less the labels' entropy."""
    p = torch.softmax(teacher.detach() / t, 1)
    return t * t * (p * (p.log() - torch.log_softmax(student / t, 1))).sum(1).mean()


def by_hand(
    net: PathNet, batch: Batch, paths: Sequence[Paths], weights: Sequence[float], labels: float, t: float, smooth: float
) -> Step:
    """The reference: a plain loop over the passes, a backward each."""
    net, (x, y) = copy.deepcopy(net), batch
    whole = net(x)
    loss = weights[0] * F.cross_entropy(whole, y, label_smoothing=smooth)
    loss.backward()
    total = float(loss.detach())
    for path, weight in zip(paths, weights[1:], strict=True):
        out = net(x, paths=path)
        loss = weight * (labels * F.cross_entropy(out, y, label_smoothing=smooth) + (1 - labels) * kl(out, whole, t))
        loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad for name, p in net.named_parameters()}, {}


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("labels", [0.0, 0.4, 1.0])
def test_a_step_is_the_hand_written_loop(batch: Batch, each: bool, labels: float) -> None:
    net = FRACTAL.build(seed=0).double()
    settings: dict[str, Any] = {"draws": 2, "labels": labels, "temperature": 2.0, "weights": (1.0, 0.25, 0.5, 2.0)}
    ours = stepped(Sandwich(paths=("column=2", "column=1", "column=3"), **settings), net, batch, each, 0.1)
    drawn = sampling.sandwich([net.paths(f"column={c}") for c in (1, 2, 3)], 2, info().generator)
    weight = {net.paths("column=2"): 0.25, net.paths("column=1"): 0.5, net.paths("column=3"): 2.0}
    hand = by_hand(net, batch, drawn, [1.0, *(weight[path] for path in drawn)], labels, 2.0, 0.1)
    same(ours, hand)
    assert by_hand(net, batch, drawn, [1.0] * 4, labels, 2.0, 0.1)[0] != pytest.approx(hand[0])


def test_shares_of_classes_as_mixup_gives_them_are_labels_too(batch: Batch) -> None:
    net, (x, y) = CRESCENDO.build(seed=0).double(), batch
    shares = 0.75 * F.one_hot(y, 5).double() + 0.25 * F.one_hot(y.flip(0), 5).double()
    ours = stepped(Sandwich(paths=("branches=1",), labels=0.5), net, (x, shares))
    same(ours, by_hand(net, (x, shares), [net.paths("branches=1")], [1.0, 1.0], 0.5, 1.0, 0.0))


def test_the_others_learn_on_a_part_of_the_images(batch: Batch) -> None:
    net, (x, y) = CRESCENDO.build(seed=0).double(), batch
    ours = stepped(Sandwich(paths=("branches=1",), images=0.3, labels=0.5), net, batch)
    hand = copy.deepcopy(net)
    whole = hand(x)
    out = hand(x[:3], paths="branches=1")
    loss = F.cross_entropy(whole, y) + 0.5 * F.cross_entropy(out, y[:3]) + 0.5 * kl(out, whole[:3], 1.0)
    loss.backward()
    same(ours, (float(loss.detach()), {name: p.grad for name, p in hand.named_parameters()}, {}))
    sizes = [len(part.logits) for part in Sandwich(images=1e-9).bind(net).passes(*batch, info())]
    assert sizes == [8, 2, 2]  # of one image, a 1×1 map has no variance


def test_no_gradient_of_another_path_reaches_the_whole(batch: Batch) -> None:
    """What only the whole runs learns from the labels alone; with a teacher that is not detached it would not."""
    net, (x, y) = CRESCENDO.build(seed=0).double(), batch
    _, ours, _ = stepped(Sandwich(paths=("branches=1",)), net, batch)
    for detached in (True, False):
        hand = copy.deepcopy(net)
        whole, out = hand(x), hand(x, paths="branches=1")
        p = torch.softmax(whole.detach() if detached else whole, 1)
        (F.cross_entropy(whole, y) - (p * torch.log_softmax(out, 1)).sum(1).mean()).backward()
        name = "block2.branch4.unit3.conv.weight"
        gradient, found = hand.get_parameter(name).grad, ours[name]
        assert gradient is not None
        assert found is not None
        assert torch.allclose(gradient, found, rtol=1e-10, atol=1e-12) == detached


def test_self_distilled_is_the_whole_by_labels_and_its_base_by_the_whole(batch: Batch) -> None:
    net = DEEP.build(seed=0).double()
    ours = stepped(SelfDistilled(base="units=1", temperature=3.0, weight=0.3), net, batch, smoothing=0.1)
    same(ours, by_hand(net, batch, [net.paths("units=1")], [0.7, 0.3], 0.0, 3.0, 0.1))
    (_, base) = SelfDistilled().bind(net).passes(*batch, info())
    assert base.paths == [net.paths("route=LLLLL")]  # the cheapest that it names


def test_alpha_divergence_is_what_the_others_descend(batch: Batch) -> None:
    from polypath.training.distill import alpha_divergence_loss

    net, (x, y) = CRESCENDO.build(seed=0).double(), batch
    settings: dict[str, Any] = {"alphas": (-0.5, 0.5), "clip": 1.5, "temperature": 2.0}
    ours = stepped(Sandwich(paths=("branches=2",), distillation="alpha-divergence", **settings), net, batch)
    hand = copy.deepcopy(net)
    whole, out = hand(x), hand(x, paths="branches=2")
    loss = F.cross_entropy(whole, y) + alpha_divergence_loss(out, whole, 2.0, alphas=(-0.5, 0.5), clip=1.5)
    loss.backward()
    same(ours, (float(loss.detach()), {name: p.grad for name, p in hand.named_parameters()}, {}))


# --- running statistics --------------------------------------------------------------------------------------


def buffers_of_whole_passes(net: PathNet, batch: Batch, steps: int) -> dict[str, Tensor]:
    net = copy.deepcopy(net)
    for _ in range(steps):
        net(batch[0], generator=info().noise)
    return dict(net.named_buffers())


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("family", [CRESCENDO, FRACTAL, DEEP, GATED])
def test_running_statistics_are_those_of_passes_of_the_whole(family: Family, ghost: bool, batch: Batch) -> None:
    net = family.build(seed=0).double()
    if ghost and family is not GATED:
        ghost_norms(net, 4)
    expected = buffers_of_whole_passes(net, batch, 2)
    bound = Sandwich(draws=2).bind(net)
    for _ in range(2):
        list(bound.passes(*batch, info()))
    assert all(torch.equal(b, expected[name]) for name, b in net.named_buffers())  # the counters, too
    assert all(norm.track_running_stats for norm in net.modules() if isinstance(norm, nn.BatchNorm2d))
    list(bound.passes(*batch, info()))
    assert any(not torch.equal(b, expected[name]) for name, b in net.named_buffers())


def test_norms_that_the_whole_never_runs_are_moved_by_the_paths_that_do(batch: Batch) -> None:
    net = OWN.build(seed=0).double()
    expected, columns = buffers_of_whole_passes(net, batch, 1), copy.deepcopy(net)
    for column in ("column=1", "column=2"):
        columns(batch[0], paths=column)
    list(Sandwich(paths=("columns",)).bind(net).passes(*batch, info()))
    moved = dict(columns.named_buffers())
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, (moved if ".norm.column." in name else expected)[name]), name
    exits = EXITS.build(seed=0).double()
    list(Sandwich(paths=("exits",)).bind(exits).passes(*batch, info()))
    assert exits.get_buffer("head.exit1.norm.num_batches_tracked") == 1
    assert exits.get_buffer("block1.branch1.unit1.norm.num_batches_tracked") == 1


# --- what is drawn -------------------------------------------------------------------------------------------


def drawn(objective: Objective, net: PathNet, batch: Batch, at: StepInfo | None = None) -> list[Paths]:
    return [path for part in objective.bind(net).passes(*batch, at or info()) for path in part.paths]


def test_the_whole_the_cheapest_and_drawn_ones(batch: Batch) -> None:
    net = CRESCENDO.build(seed=0).double()
    seen = set()
    for seed in range(6):
        whole, cheapest, *others = drawn(Sandwich(draws=3), net, batch, info(seed=seed))
        assert (whole, cheapest) == (Paths(), net.paths("branches=1"))
        assert len({whole, cheapest, *others}) == 5
        assert set(others) < set(net.path_set("branches").values())
        seen.update(others)
    assert len(seen) > 6
    assert len(drawn(Sandwich(draws=99), net, batch)) == len(net.named_paths())
    assert drawn(Sandwich(paths=("branches=2",)), net, batch) == [Paths(), net.paths("branches=2")]


@pytest.mark.parametrize(("family", "set_name"), [(DEEP, "depths"), (GATED, "loops"), (FRACTAL, "columns")])
def test_families_say_what_may_be_drawn(family: Family, set_name: str, batch: Batch) -> None:
    net = family.build(seed=0).double()
    known = {path for path in net.path_set(set_name).values() if path}
    assert len(known) >= 1
    assert set(drawn(Sandwich(paths=(set_name,), draws=9), net, batch)) == known | {Paths()}


@pytest.mark.parametrize("draw", ["local", "uniform"])
def test_switches_are_drawn_too(draw: Any, batch: Batch) -> None:
    net = OWN.build(seed=0).double()
    seen = set()
    for seed in range(20):
        (*_, last) = drawn(Sandwich(draw=draw), net, batch, info(seed=seed))
        seen.add(last.get("tied", ("local",)))
        assert "tied" not in last or len(last) == 1  # joins that a switch has cut off are no part of it
    assert seen == {("local",), ("column1",), ("column2",)}
    untouched = {sampling.uniform_choice(net.wiring, torch.Generator().manual_seed(s)).get("tied") for s in range(9)}
    assert untouched == {None}


def chain(*depths: int) -> PathNet:
    """A network without names: a switch between chains of so many units, then a sum that may leave its unit out."""
    b = NetBuilder()
    ends = {
        f"by{i}": b.chain(f"chain{i}", b.input, [nn.Conv2d(3, 3, 1) for _ in range(n)]) for i, n in enumerate(depths)
    }
    z = b.join("ways", ends, kind="switch")
    z = b.join("sum", {"L": z, "R": b.add("extra", z, nn.Conv2d(3, 3, 1), depth=1)}, kind="sum")
    z = b.add("head.pool", z, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    return b.net(b.add("head.classifier", z, nn.Linear(3, 5)))


def test_a_network_without_names_has_a_cheapest_path_and_draws(batch: Batch) -> None:
    net = chain(1, 3).double()
    assert net.wiring.longest(Paths()) == 4
    runs = [drawn(Sandwich(draw="uniform", draws=2), net, batch, info(seed=seed)) for seed in range(9)]
    assert all(run[:2] == [Paths(), net.paths("ways=by0;sum=L")] for run in runs)
    assert {path for run in runs for path in run[2:]} > {Paths(), net.paths("ways=by0")}


@pytest.mark.parametrize("family", [CRESCENDO, FRACTAL, DEEP, GATED, OWN])
def test_the_shallowest_choice_has_the_fewest_layers(family: Family) -> None:
    wiring = family.build(seed=0).wiring
    choice = sampling.shallowest(wiring)
    assert wiring.longest(choice) == wiring.shortest(choice) == wiring.shortest()
    assert wiring.count_paths(choice) == 1


@pytest.mark.parametrize(
    ("epoch", "first", "last"),
    [(0, "", ""), (1, "", ""), (2, "a", "c"), (3, "ab", "bc"), (4, "abc", "abc"), (7, "abc", "abc")],
)
def test_paths_join_one_after_the_other(epoch: int, first: str, last: str) -> None:
    ordered = [Paths(((name, ("1",)),)) for name in "abc"]
    for cheapest_first, names in ((True, first), (False, last)):
        found = sampling.joined(ordered, epoch, 8, cheapest_first=cheapest_first, until=0.625)
        assert [path.choices[0][0] for path in found] == list(names)
    assert sampling.joined(ordered, 0, 8, cheapest_first=True, until=0) == ordered


def test_a_curriculum_decides_what_is_drawn(batch: Batch) -> None:
    net = FRACTAL.build(seed=0).double()
    c1, c2, c3 = (net.paths(f"column={c}") for c in (1, 2, 3))
    orders: tuple[tuple[Curriculum, Paths], ...] = (("cheapest-first", c1), ("cheapest-last", c3))
    for curriculum, second in orders:
        objective = Sandwich(draws=9, curriculum=curriculum, until=0.5)
        runs = [set(drawn(objective, net, batch, info(epoch=epoch))) for epoch in range(8)]
        assert runs[0] == {Paths()}
        assert runs[1] == {Paths(), second}
        assert all(run == {Paths(), c1, c2, c3} for run in runs[4:])


# --- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sandwich(draws=-1), "objective.draws = -1"),
        (lambda: Sandwich(images=0.0), "objective.images = 0.0"),
        (lambda: Sandwich(distillation="js"), "kl, alpha-divergence"),  # pyright: ignore[reportArgumentType]
        (lambda: Sandwich(alphas=(1.0,)), "objective.alphas"),  # pyright: ignore[reportArgumentType]
        (lambda: Sandwich(weights=(1.0, -1.0)), "objective.weights"),
        (lambda: Sandwich(draw="uniform", curriculum="cheapest-last"), "objective.curriculum = 'cheapest-last'"),
        (lambda: SelfDistilled(weight=2.0), "objective.weight = 2.0"),
        (lambda: Sandwich(paths=("column=9",)).bind(FRACTAL.build(0)), "column = '9'"),
        (lambda: Sandwich(paths=("routes",)).bind(FRACTAL.build(0)), "routes"),
        (lambda: Sandwich(paths=("whole",)).bind(FRACTAL.build(0)), "objective.paths: contains only the whole network"),
        (lambda: Sandwich(weights=(1.0, 1.0)).bind(FRACTAL.build(0)), "must have length 4, one weight for each of "),
        (lambda: Sandwich().bind(ResNet(depth=8, survival=0.5).build(0)), "set --model.survival 1"),
        (lambda: SelfDistilled(base="branches=9").bind(CRESCENDO.build(0)), "branch = '9'"),
    ],
)
def test_bad_settings_are_refused_by_field(make: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value)


# --- counting ------------------------------------------------------------------------------------------------


def counted_by_hooks(net: nn.Module) -> list[int]:
    """MACs of each conv and linear layer that runs, by their shapes alone; a list that grows."""
    found: list[int] = []

    def count(layer: nn.Module, _: Any, out: Tensor) -> None:
        found.append(out.numel() * math.prod(layer.get_parameter("weight").shape[1:]))

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    return found


@pytest.mark.parametrize(
    "objective",
    [
        Sandwich(draws=1),
        Sandwich(draw="uniform", draws=2, images=0.4, labels=1.0),
        Sandwich(curriculum="cheapest-first", until=1.0),
        SelfDistilled(images=0.5),
    ],
)
def test_every_pass_of_every_step_is_counted(objective: Objective) -> None:
    recipe = tiny(objective=objective, model=FractalNet(filters=(4, 8), columns=3, in_chans=1), epochs=4)
    engine = Engine(recipe, recipe.model.build(0), torch.device("cpu"), World(), 2)
    by_hooks, sums = counted_by_hooks(engine.net), []
    for step in range(8):
        x, y = torch.randn(6, 1, 8, 8), torch.arange(6)
        engine.start_epoch(step // 2)
        engine.step([(0, x, y)], 6, step // 2, step)
        sums.append(engine.flop.take())
        assert sums[-1] == 3 * 2 * sum(by_hooks)
        by_hooks.clear()
    assert len(set(sums)) > 1 or isinstance(objective, SelfDistilled)
