"""Each objective's loss and gradients against a computation by hand, in float64."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import polypath.training.path_objectives as po
import polypath.training.sandwich  # noqa: F401 (its objectives survive JSON, too)
from polypath.core.paths import Paths
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.profiling.cost import macs_in_turn
from polypath.training import sampling
from polypath.training.objectives import OBJECTIVES, Objective, StepInfo, Whole

SEED = 5


def info(epoch: int = 0, seed: int = SEED) -> StepInfo:
    return StepInfo(epoch, 0, 10, 8, torch.Generator().manual_seed(seed))


def generator(seed: int = SEED) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def crescendo():
    return CrescendoNet(widths=(4, 6), hidden=(8,), num_classes=5).build(seed=0).double()


@pytest.fixture
def fractal():
    return FractalNet(filters=(4, 6), columns=3, num_classes=5).build(seed=0).double()


@pytest.fixture(scope="module")
def batch():
    g = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 16, 16, generator=g).double(), torch.randint(0, 5, (8,), generator=g)


def gradients(net) -> dict[str, torch.Tensor | None]:
    return {name: p.grad for name, p in net.named_parameters()}


def run(objective: Objective, net, batch, *, epoch: int = 0, each: bool = True, smoothing: float = 0.0):
    """The step's loss, gradients, and its results; by a backward a pass, or by one over their sum."""
    net = copy.deepcopy(net)
    bound = objective.bind(net, label_smoothing=smoothing)
    if each:
        results = []
        for part in bound.passes(*batch, info=info(epoch)):
            part.loss.backward()
            results.append(part)
        loss = sum(r.loss.detach() for r in results)
    else:
        results = [bound.step(*batch, info=info(epoch))]
        results[0].loss.backward()
        loss = results[0].loss.detach()
    return loss, gradients(net), results


def by_hand(net, loss_of):
    net = copy.deepcopy(net)
    loss = loss_of(net)
    loss.backward()
    return loss.detach(), gradients(net)


def assert_same(ours, hand, *, exact: bool = True):
    loss, grads, _ = ours
    expected, expected_grads = hand
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, expected, rtol=0 if exact else 1e-12, atol=0 if exact else 1e-12)
    assert any(g is not None for g in grads.values())
    for name, g in grads.items():
        want = expected_grads[name]
        assert (g is None) == (want is None), name
        if g is not None:
            torch.testing.assert_close(g, want, rtol=0 if exact else 1e-10, atol=0 if exact else 1e-12, msg=name)


def test_whole(crescendo, batch):
    x, y = batch
    ours = run(Whole(), crescendo, batch)
    assert_same(ours, by_hand(crescendo, lambda net: F.cross_entropy(net(x), y)))
    assert ours[2][0].paths == [Paths()]
    smooth = run(Whole(), crescendo, batch, smoothing=0.1)
    assert_same(smooth, by_hand(crescendo, lambda net: F.cross_entropy(net(x), y, label_smoothing=0.1)))
    assert smooth[0] != ours[0]


def test_whole_takes_shares_of_classes_as_mixup_gives_them(crescendo, batch):
    x, y = batch
    shares = 0.75 * F.one_hot(y, 5).float() + 0.25 * F.one_hot(y.flip(0), 5).float()
    ours = run(Whole(), crescendo, (x, shares))

    def loss(net):
        logits = net(x)
        return 0.75 * F.cross_entropy(logits, y) + 0.25 * F.cross_entropy(logits, y.flip(0))

    assert_same(ours, by_hand(crescendo, loss), exact=False)


@pytest.mark.parametrize(
    ("objective", "draw"),
    [
        (po.DropPath(rate=0.5), lambda net: sampling.local_drop_path(net.wiring, 0.5, generator())),
        (po.DropPath(mode="global"), lambda net: sampling.global_drop_path(net, generator())),
        (po.DropPath(mode="mixed", rate=0.5), lambda net: sampling.mixed_drop_path(net, 0.5, 0.5, generator())),
        (po.DropPath(mode="one-column-a-block"), lambda net: sampling.one_column_a_block(net, generator())),
        (po.DropPath(mode="mixed-a-block"), lambda net: sampling.mixed_column_a_block(net, 0.15, 0.5, generator())),
        (po.DropPath(mode="uniform"), lambda net: sampling.uniform_choice(net.wiring, generator())),
    ],
)
def test_drop_path_runs_what_its_function_draws(fractal, batch, objective, draw):
    x, y = batch
    paths = draw(fractal)
    ours = run(objective, fractal, batch)
    assert ours[2][0].paths == [paths]
    assert_same(ours, by_hand(fractal, lambda net: F.cross_entropy(net(x, paths=paths), y)))


@pytest.mark.parametrize("settings", [po.DropPath(rates=(1.0, 0.0, 1.0)), po.TiedColumns(rates=(1.0, 0.0, 1.0))])
def test_a_rate_for_each_operand_of_a_join(fractal, batch, settings):
    """Column 2 alone survives wherever it ends, which is the last join of every block."""
    (first, *_) = settings.bind(fractal).passes(*batch, info())
    assert first.paths == [fractal.paths("column=2")]
    with pytest.raises(ValueError, match="rates"):
        replace(settings, rates=(0.1,)).bind(fractal)
    with pytest.raises(ValueError, match=r"objective.rates"):
        po.DropPath(mode="global", rates=(0.1, 0.1, 0.1))


def test_drop_path_leaves_weights_that_it_does_not_run_without_gradient(crescendo, batch):
    _, grads, results = run(po.DropPath(rate=1.0), crescendo, batch)
    dead = [name for name, g in grads.items() if g is None]
    assert dead
    assert not any(name.startswith("head.") for name in dead)
    assert len(results[0].paths[0]) == 2


def test_drop_path_in_groups(crescendo, batch):
    x, y = batch
    g = generator()
    drawn = [sampling.local_drop_path(crescendo.wiring, 0.5, g) for _ in range(2)]
    assert drawn[0] != drawn[1]
    ours = run(po.DropPath(rate=0.5, groups=2), crescendo, batch)

    def loss(net):
        first, second = (F.cross_entropy(net(x[s], paths=p), y[s]) for s, p in zip(halves, drawn, strict=True))
        return (first + second) / 2

    halves = (slice(0, 4), slice(4, 8))
    assert_same(ours, by_hand(crescendo, loss), exact=False)
    _, _, each = run(po.DropPath(rate=0.5, groups=0), crescendo, batch)
    assert len(each[0].paths) == 8


def test_stochastic_depth_is_refused_where_nothing_has_a_survival_rate(crescendo):
    with pytest.raises(ValueError, match="survival"):
        po.DropPath(mode="stochastic-depth").bind(crescendo)


def test_one_path(crescendo, batch):
    x, y = batch
    ours = run(po.OnePath(paths="branches=1,3"), crescendo, batch)
    assert_same(ours, by_hand(crescendo, lambda net: F.cross_entropy(net(x, paths="branches=1,3"), y)))
    with pytest.raises(ValueError, match="branch = '7'"):
        po.OnePath(paths="branches=7").bind(crescendo)


@pytest.mark.parametrize("own_norms", [False, True])
@pytest.mark.parametrize("each", [True, False])
def test_tied_columns_is_local_plus_the_mean_of_the_columns(batch, own_norms, each):
    """FractalNet's generator: 1 x local + 1/C x each column."""
    x, y = batch
    net = FractalNet(filters=(4, 6), columns=3, num_classes=5, own_norms=own_norms).build(seed=0).double()
    local = sampling.local_drop_path(net.wiring, 0.5, generator())

    def loss(net):
        total = F.cross_entropy(net(x, paths=local), y)
        for c in (1, 2, 3):
            total = total + F.cross_entropy(net(x, paths=f"column={c}"), y) / 3
        return total

    ours = run(po.TiedColumns(rate=0.5), net, batch, each=each)
    hand = by_hand(net, loss)
    assert_same(ours, hand, exact=False)
    twin = run(po.TiedColumns(rate=0.5, columns=0.5), net, batch, each=each)
    assert float(twin[0]) != pytest.approx(float(hand[0]))
    paths = [p for r in ours[2] for p in r.paths]
    assert paths[0] == local
    assert set(paths[1:]) == {net.paths(f"column={c}") for c in (1, 2, 3)}


def test_tied_columns_use_their_own_norms(batch):
    net = FractalNet(filters=(4, 6), columns=2, num_classes=5, own_norms=True).build(seed=0).double()
    before = {name: b.clone() for name, b in net.named_buffers()}
    bound = po.TiedColumns(rate=0.0).bind(net)
    list(bound.passes(*batch, info=info()))
    moved = {name for name, b in net.named_buffers() if not torch.equal(b, before[name])}
    assert (
        {name for name in moved if ".norm.column." in name}
        == {name for name in before if ".norm.column." in name}
        != set()
    )
    assert {name for name in moved if ".norm.local." in name} != set()


@pytest.mark.parametrize("backward", ["exact", "truncated"])
def test_path_wise_trains_the_phases_branch(crescendo, batch, backward):
    bound: Any = po.PathWise(phase_epochs=2, backward=backward).bind(crescendo)
    assert [bound.active(e) for e in range(9)] == list("112233441")
    for epoch in (0, 4):
        loss, grads, _ = run(po.PathWise(phase_epochs=2, backward=backward), crescendo, batch, epoch=epoch)
        assert {name for name, g in grads.items() if g is not None} == bound.trainable(epoch)
        torch.testing.assert_close(loss, F.cross_entropy(copy.deepcopy(crescendo)(batch[0]), batch[1]))
    assert bound.trainable(0) != bound.trainable(4)


def test_path_wise_keeps_the_active_branch_under_drop_path(crescendo, batch):
    bound = po.PathWise(rate=0.9).bind(crescendo)
    seen = set()
    for seed in range(10):
        (part,) = bound.passes(*batch, info=info(epoch=1, seed=seed))
        for join in crescendo.wiring.joins.values():
            kept = part.paths[0].get(join.name, join.labels)
            assert "2" in kept
            seen.add(kept)
    assert ("2",) in seen


@pytest.mark.parametrize("each", [True, False])
def test_a_shared_ensembles_loss_is_the_sum_over_its_routes(crescendo, batch, each):
    x, y = batch
    routes = ("branches=1", "branches=2", "branches=3,4")

    def loss(net):
        return sum(F.cross_entropy(net(x, paths=route), y) for route in routes)

    ours = run(po.SharedEnsemble(routes=routes), crescendo, batch, each=each)
    assert_same(ours, by_hand(crescendo, loss), exact=False)
    assert [p for r in ours[2] for p in r.paths] == [crescendo.paths(route) for route in routes]


def test_a_shared_ensembles_running_statistics_are_each_routes_own(crescendo, batch):
    """Branch 2 runs in two routes; each route's statistics are what a network of its own would have."""
    x, y = batch
    routes = ("branches=2", "branches=2,3")
    bound = po.SharedEnsemble(routes=routes).bind(crescendo)
    before = {name: b.clone() for name, b in crescendo.named_buffers()}
    for _ in range(3):
        list(bound.passes(x, y, info()))
    assert all(torch.equal(b, before[name]) for name, b in crescendo.named_buffers())
    state, outs = bound.state_dict(), []
    for member, route in zip(("branches_2", "branches_2_3"), routes, strict=True):
        alone = copy.deepcopy(crescendo)
        for _ in range(3):
            alone(x, paths=route)
        outs.append(alone.eval()(x, paths=route).softmax(1))
        for name, buffer in alone.named_buffers():
            if f"{member}.{name}" in state:
                torch.testing.assert_close(state[f"{member}.{name}"], buffer)
    crescendo.eval()
    torch.testing.assert_close(bound.predict(x).exp(), (outs[0] + outs[1]) / 2)
    name = "block2.branch2.unit1.norm.running_mean"  # behind a join, so that the routes differ
    assert not torch.equal(state[f"branches_2.{name}"], state[f"branches_2_3.{name}"])


def test_a_shared_ensembles_state_comes_back(crescendo, batch):
    objective = po.SharedEnsemble(routes=("branches=1", "branches=2"))
    bound = objective.bind(crescendo)
    list(bound.passes(*batch, info=info()))
    state = {name: t.clone() for name, t in bound.state_dict().items()}
    fresh = objective.bind(crescendo)
    assert any(not torch.equal(t, fresh.state_dict()[k]) for k, t in state.items())
    fresh.load_state_dict(state)
    assert all(torch.equal(t, fresh.state_dict()[k]) for k, t in state.items())
    other = po.SharedEnsemble(routes=("branches=1", "branches=3")).bind(crescendo)
    with pytest.raises(ValueError, match="other routes"):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match="has no state"):
        Whole().bind(crescendo).load_state_dict(state)


def test_distillation_is_hintons_loss(crescendo, batch):
    x, y = batch
    objective = po.Distil(paths=("branches=1",), temperature=2.0, weight=0.7, labels=0.3)

    def loss(net):
        teacher = net(x)
        student = net(x, paths="branches=1")
        p = torch.softmax(teacher.detach() / 2.0, 1)
        kl = (p * (p.log() - torch.log_softmax(student / 2.0, 1))).sum(1).mean() * 4.0
        return F.cross_entropy(teacher, y) + 0.3 * F.cross_entropy(student, y) + 0.7 * kl

    hand = by_hand(crescendo, loss)
    for each in (True, False):
        ours = run(objective, crescendo, batch, each=each)
        assert_same(ours, hand, exact=False)
    assert [p for r in ours[2] for p in r.paths] == [Paths(), crescendo.paths("branches=1")]


def test_distillation_can_leave_the_teacher_alone(crescendo, batch):
    objective = po.Distil(paths=("branches=1",), whole=False)
    _, grads, results = run(objective, crescendo, batch)
    assert len(results) == 1
    assert grads["block1.branch2.unit1.conv.weight"] is None
    assert grads["block1.branch1.unit1.conv.weight"] is not None


def test_exits_learn_together_and_share_one_forward(batch):
    net = CrescendoNet(widths=(4, 6), hidden=(8,), num_classes=5, exits=(1,)).build(seed=0).double()
    x, y = batch
    objective = po.Exits(weights=(0.3, 1.0))

    def loss(net):
        maps = net.forward_features(x)
        early = net.forward_intermediates(x, indices=[0], intermediates_only=True)[0]
        for layer in ("norm", "act", "pool", "flatten", "classifier"):
            early = net.get_submodule(f"head.exit1.{layer}")(early)
        return 0.3 * F.cross_entropy(early, y) + F.cross_entropy(net.forward_head(maps), y)

    hand = by_hand(net, loss)
    for each in (True, False):
        ours = run(objective, net, batch, each=each)
        assert_same(ours, hand, exact=False)
    (part,) = ours[2]
    assert part.paths == [net.paths("exit=1"), Paths()]
    assert set(part.parts) == {"loss/exit=1", "loss/whole"}
    assert part.macs == sum(macs_in_turn(net, ["exit=1", "whole"], 16))  # what they share once
    bound, again = objective.bind(copy.deepcopy(net)), copy.deepcopy(net)
    bound.step(x, y, info())
    again(x)  # one pass of the whole network moves its statistics as far
    state = bound.net.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in again.state_dict().items() if "exit1" not in k)


def test_paths_of_any_network_learn_together(fractal, batch):
    x, y = batch
    texts = ("column=1", "column=3", "whole")
    ours = run(po.Exits(paths=texts), fractal, batch)
    hand = by_hand(fractal, lambda net: torch.stack([F.cross_entropy(net(x, paths=t), y) for t in texts]).sum())
    assert_same(ours, hand, exact=False)


def test_steps_draw_from_their_own_generator_only(fractal, batch):
    bound = po.DropPath(mode="mixed", rate=0.5).bind(fractal)

    def drawn(seed):
        return [part.paths for part in bound.passes(*batch, info=info(seed=seed))]

    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = drawn(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    assert drawn(1) == first
    assert any(drawn(seed) != first for seed in range(2, 8))


@pytest.mark.parametrize("kind", sorted(OBJECTIVES))
def test_every_objective_survives_json(kind):
    cls = OBJECTIVES[kind]
    needed: dict[str, dict[str, Any]] = {"distil": {"paths": ("whole",)}, "taught": {"teacher": "runs/known"}}
    objective = cls(**needed.get(kind, {}))
    text = json.dumps(objective.to_json())
    assert Objective.from_json(json.loads(text)) == objective


def test_a_new_objective_is_loadable_by_its_kind():
    @dataclass(frozen=True, kw_only=True)
    class Mine(Objective, kind="mine-for-a-test"):
        weight: float = 1.0

    try:
        assert Objective.from_json({"kind": "mine-for-a-test", "weight": 2.0}) == Mine(weight=2.0)
    finally:
        del OBJECTIVES["mine-for-a-test"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Objective.from_json({"kind": "wholly"}), "drop-path"),
        (lambda: Objective.from_json({"kind": "drop-path", "speed": 1}), "rate, share"),
        (lambda: po.DropPath(rate=1.2), "objective.rate = 1.2"),
        (lambda: po.DropPath(mode="locally"), "mixed"),  # pyright: ignore[reportArgumentType] (wrong on purpose)
        (lambda: po.DropPath(mode="global", same=True), "only mode 'local'"),
        (lambda: po.PathWise(phase_epochs=0), "phase_epochs"),
        (lambda: po.PathWise(backward="none"), "truncated"),  # pyright: ignore[reportArgumentType] (wrong on purpose)
        (lambda: po.TargetRate(target=-0.1), "objective.target"),
        (lambda: po.Distil(), "give at least one path"),
    ],
)
def test_bad_settings_name_the_field(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value)


def test_objectives_refuse_networks_that_cannot_follow(crescendo):
    for objective, words in [
        (po.DropPath(mode="global"), "has none"),
        (po.TiedColumns(), "has none"),
        (po.SharedEnsemble(), "no named routes"),
        (po.TargetRate(), "no gates"),
        (po.Distil(paths=("branches=9",)), "branch = '9'"),
        (po.Exits(), r"objective 'exits': this network has no exits; set --model\.exits, or objective\.paths"),
        (po.Exits(paths=("whole",), weights=(1.0, 2.0)), r"objective\.weights = .*: must have length 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            objective.bind(crescendo)
