"""Recipes: JSON round trip, options on a command line, refused values."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import tyro
from tiny import tiny
from torch import nn

from polypath.families.fractalnet import FractalNet
from polypath.families.resnet import ResNet
from polypath.training.optim import OptimConfig, build_optimizer, decayed_parameters, set_rate
from polypath.training.path_objectives import DropPath, SharedEnsemble, TargetRate
from polypath.training.recipe import ParallelConfig, Recipe, lookup, recipe_from_json, recipe_to_json, replace
from polypath.training.schedules import ScheduleConfig

RECIPES = [
    tiny(),
    tiny(model=FractalNet(filters=(4, 8), dropout=(0.0, 0.1)), objective=DropPath(mode="mixed"), assumed={"seed": "x"}),
    tiny(model=ResNet(depth=8, width=4), objective=SharedEnsemble(routes=("route=RR", "route=LL"))),
    tiny(schedule=ScheduleConfig(kind="step", at_epochs=(1, 2.5)), data__augment__scale=(0.1, 1.0), data__size=8),
    tiny(objective=TargetRate(), parallel=ParallelConfig(batch_norm="ghost", ghost_images=16), data__source="../mine"),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=range(len(RECIPES)))
def test_json_there_and_back(recipe: Recipe) -> None:
    text = json.dumps(recipe_to_json(recipe))
    assert recipe_from_json(json.loads(text)) == recipe
    assert recipe_from_json(json.loads(text)) != replace(recipe, {"optim.lr": 0.123})


def test_fields_are_options_of_the_recipes_own_kinds() -> None:
    options = "--model.widths 16 16 --objective.rate 0.3 --optim.lr 0.5 --seed 3"
    more = "--data.source cifar10 --data.augment.pad 4"
    changed = tyro.cli(Recipe, default=tiny(), args=[*options.split(), *more.split()])
    expected = {"model.widths": (16, 16), "objective.rate": 0.3, "optim.lr": 0.5, "seed": 3}
    assert changed == replace(tiny(), {**expected, "data.source": "cifar10", "data.augment.pad": 4})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "name = 'a/b'"),
        ({"epochs": 0}, "epochs = 0: must be a whole number of at least 1"),
        ({"epochs": 2.5}, "epochs = 2.5"),
        ({"batch_size": True}, "batch_size = True"),
        ({"accumulate": 33}, "accumulate = 33"),
        ({"seed": -1}, "seed = -1"),
        ({"label_smoothing": 1.0}, r"label_smoothing = 1.0: .*\[0, 1\)"),
        ({"ema": "x"}, "ema = 'x'"),
        ({"precision": "fp8"}, "precision = 'fp8': must be one of fp32, bf16, fp16, auto"),
        ({"tracker": "mlflow"}, "none, wandb, trackio"),
        ({"device": "tpu"}, "device = 'tpu'"),
        ({"mixup": 0.2, "batch_size": 33}, "must be even"),
        ({"compile": True, "parallel__batch_norm": "sync"}, "cannot be compiled"),
        ({"schedule": ScheduleConfig(kind="step", at_epochs=(9,))}, "9 is not within the run's 3 epochs"),
        ({"assumed": {"optim.rate": "x"}}, "no recipe field 'optim.rate': optim has kind, lr"),
        ({"optim__kind": "lion"}, "optim.kind = 'lion': must be one of sgd, adam, adamw"),
        ({"optim__lr": float("nan")}, "optim.lr = nan"),
        ({"optim__decay": "conv"}, "all, matrices, linear"),
        ({"optim__betas": (0.9, 1.0)}, "optim.betas"),
        ({"optim__kind": "adam", "optim__nesterov": True}, "optim.nesterov"),
    ],
)
def test_refused_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "family"), "vgg", "unknown family 'vgg'; the families are .*resnet"),
        (("model", "arguments", "depht"), 3, "model has no field 'depht'"),
        (("objective", "kind"), "magic", "objective.kind = 'magic'"),
        (("objective", "speed"), 3, "has no field 'speed'"),
        (("optim", "speed"), 3, "recipe.optim has no field 'speed'"),
        (("speed",), 3, "recipe has no field 'speed'"),
        (("epochs",), "many", "epochs = 'many'"),
        (("data",), 3, "recipe.data = 3: expected a table, got a whole number"),
        (("schedule", "at_epochs"), "soon", "schedule"),
        (("assumed",), 5, "assumed"),
        (("name",), None, "recipe.name = None: expected a text, got null"),
        (("optim", "kind"), "lion", "recipe.optim.kind = 'lion': must be one of sgd, adam, adamw"),
        (("data", "augment", "pad"), "4", r"recipe.data.augment.pad = '4': expected a whole number, got a text"),
        (("optim", "betas"), [0.9, "x"], r"recipe.optim.betas\[1\] = 'x': expected a number"),
        (("optim", "lr"), float("nan"), "recipe.optim.lr = nan: must be a finite number"),
        (("epochs",), 1e400, "recipe.epochs = inf"),
        (("epochs",), 10**400, r"recipe.epochs = 1000\S+: must be below 2\*\*63"),
        (("model", "arguments"), [], r"recipe.model.arguments = \[\]: expected a table"),
        (("model", "arguments", "widths"), [4, "x"], r"recipe.model.widths\[1\] = 'x'"),
    ],
)
def test_bad_json_is_refused(path: tuple[str, ...], value: Any, message: str) -> None:
    document = recipe_to_json(tiny())
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        recipe_from_json(document)


def test_lookup_and_replace() -> None:
    assert lookup(tiny(), "data.augment.pad") == 1
    step = {"epochs": 2, "schedule": ScheduleConfig(kind="step", at_epochs=(1,))}
    assert replace(replace(tiny(), {"epochs": 9}), step).epochs == 2
    changed = replace(tiny(), {"objective": DropPath(rate=0.9), "model.scale": 2})
    assert lookup(changed, "objective.rate") == 0.9
    with pytest.raises(ValueError, match=r"no recipe field 'model\.colour'"):
        replace(tiny(), {"model.colour": "red"})


# --- optimisers --------------------------------------------------------------------------------------------


def test_what_decays() -> None:
    net = tiny().model.build(0)
    linear, matrices, everything = (decayed_parameters(net, kind) for kind in ("linear", "matrices", "all"))
    assert linear < matrices < everything
    assert all("head" in name and name.endswith("weight") for name in linear)
    assert "block1.branch1.unit1.conv.weight" in matrices
    assert not any("norm" in name or name.endswith("bias") for name in matrices)
    groups = build_optimizer(net, OptimConfig(weight_decay=0.1, decay="linear")).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert len(groups[0]["params"]) == len(linear)
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_biases_have_a_rate_and_a_decay_of_their_own() -> None:
    """As Caffe's lr_mult and decay_mult; shifts of norms are no biases."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    optimizer = build_optimizer(net, OptimConfig(lr=0.1, momentum=0, weight_decay=0.5, bias_lr=2, bias_decay=0))
    set_rate(optimizer, 0.01)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for name, p in net.named_parameters():
        bias = name in ("0.bias", "3.bias")
        step = 0.02 if bias else 0.01 * (1 + 0.5 * start[name])
        assert torch.allclose(p.detach(), start[name] - step), name
    assert len(build_optimizer(net, OptimConfig(weight_decay=0.5)).param_groups) == 1


def test_a_rate_of_biases_without_decay_leaves_one_group_each() -> None:
    net = nn.Linear(2, 2)
    groups = build_optimizer(net, OptimConfig(kind="adam", lr=0.1, bias_lr=3)).param_groups
    assert sorted(group["lr"] for group in groups) == pytest.approx([0.1, 0.3])


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_many_tensor_steps_are_those_of_single_tensors_to_the_bit(kind: Any, rng: torch.Generator) -> None:
    nets = [tiny().model.build(0) for _ in range(2)]
    config = OptimConfig(kind=kind, lr=0.1, weight_decay=0.01, nesterov=kind == "sgd")
    fast, slow = (build_optimizer(net, config) for net in nets)
    for group in slow.param_groups:
        group["foreach"] = False
    for _ in range(5):
        for p, q in zip(*(net.parameters() for net in nets), strict=True):
            p.grad = torch.randn(p.shape, generator=rng)
            q.grad = p.grad.clone()
        fast.step()
        slow.step()
    start = tiny().model.build(0)
    for p, q, o in zip(*(net.parameters() for net in [*nets, start]), strict=True):
        assert torch.equal(p, q)
        assert not torch.equal(p, o)


def test_decay_of_unknown_modules_is_by_name() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert decayed_parameters(net, "linear") == {"0.weight"}
