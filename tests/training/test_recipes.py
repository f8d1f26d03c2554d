"""Recipes against the papers' text: learning rates, table rows, assumptions; each can be built and saved as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import pytest
import torch

from polypath.families.crescendonet import CrescendoNet
from polypath.profiling.cost import cost
from polypath.training.path_objectives import DropPath, PathWise
from polypath.training.recipe import Recipe, lookup, recipe_from_json, recipe_to_json
from polypath.training.recipes import about, derive, get_recipe, list_recipes
from polypath.training.sandwich import Sandwich
from polypath.training.schedules import cycle_ends, lr_at

NAMES = list_recipes()
OURS = ("-small", "-mini", "-digits", "-modern", "-bundle", "-sandwich", "-fast", "my-")
PAPERS = [name for name in NAMES if not any(ours in name for ours in OURS)]


def is_crescendo(name: str) -> bool:
    return name.startswith("crescendonet")


def is_fractal(name: str) -> bool:
    return name.startswith("fractalnet")


def is_gunn(name: str) -> bool:
    return "gunn" in name or "sunn" in name


def is_drnn(name: str) -> bool:
    return name.startswith(("dr_", "r_", "aig", "mobile")) or name.endswith("-drnn")


def is_dfn(name: str) -> bool:
    return not (is_crescendo(name) or is_fractal(name) or is_gunn(name) or is_drnn(name))


# --- learning rates ------------------------------------------------------------------------------------------


def in_words(name: str) -> Callable[[int], float]:
    """The learning rate of an epoch (from 0) as the paper says it, written without the schedules under test."""
    imagenet, svhn = "imagenet" in name, "svhn" in name
    if is_crescendo(name):
        if "-adam" in name:  # "learning rate 0.001"
            return lambda e: 0.001
        if svhn:  # "from 0.05 to 0.005, then to 0.0005, after 42 epochs and 63 epochs"
            return lambda e: 0.05 if e < 42 else 0.005 if e < 63 else 0.0005
        return lambda e: 0.1 if e < 512 else 0.01  # "from 0.1 to 0.01 after 512 epochs"
    if is_fractal(name):
        if imagenet:  # quoted: 0.001, divided at 50 and 65
            return lambda e: 0.001 if e < 50 else 0.0001 if e < 65 else 0.00001
        # "drop whenever the number of remaining epochs halves": with 400, at 200, 300, 350 and 375
        total = 20 if svhn else 400
        return lambda e: 0.02 * 0.1 ** min(4, math.floor(math.log2(total / (total - e))))
    if is_gunn(name):
        if name.endswith("-snapshots"):  # six cosines of 50 epochs
            return lambda e: 0.05 * (1 + math.cos(math.pi * (e % 50) / 50))
        if imagenet:  # the released code
            return lambda e: 0.1 if e < 30 else 0.01 if e < 60 else 0.001 if e < 90 else 0.00001
        return lambda e: 0.1 if e < 150 else 0.01 if e < 225 else 0.001  # "divided by 10 at 150th and 225th"
    if is_drnn(name):
        if "mobile" in name:  # "0.01 and decay it by 0.1 at 200 and 300 epochs"
            return lambda e: 0.01 if e < 200 else 0.001 if e < 300 else 0.0001
        if name.endswith("-longer"):  # "divided by 10 after 100, 130 and 160 epochs"
            return lambda e: 0.01 * 0.1 ** sum(e >= at for at in (100, 130, 160))
        if name == "r_resnet53-imagenet":  # "a smaller learning rate of 0.01"
            return lambda e: 0.01 * 0.1 ** (e // 30)
        if imagenet:  # "0.1 and decaying by 0.1 every 30 epochs"
            return lambda e: 0.1 * 0.1 ** (e // 30)
        return lambda e: 0.1 if e < 150 else 0.01 if e < 250 else 0.001  # "after 150 and 250 epochs"
    if name in ("fusenet_resnet50-imagenet", "dfn1-imagenet", "dfn2-imagenet"):
        return lambda e: 0.1 * 0.5 ** (e // 10)  # "divide it by 2 every 10 epochs"
    if imagenet:
        return lambda e: 0.1 * 0.1 ** (e // 30)  # "divide it by 10 every 30 epochs"
    total = 40 if svhn else 400  # "at the 1/2, 3/4 and 7/8 fractions"
    return lambda e: 0.1 * 0.1 ** sum(8 * e >= eighths * total for eighths in (4, 6, 7))


def rate(recipe: Recipe, epoch: int, step: int = 0, steps: int = 10) -> float:
    return lr_at(
        recipe.schedule, epoch * steps + step, base_lr=recipe.optim.lr, steps_per_epoch=steps, epochs=recipe.epochs
    )


@pytest.mark.parametrize("name", PAPERS)
def test_learning_rates_are_the_papers(name):
    recipe, expected = get_recipe(name), in_words(name)
    got = [rate(recipe, epoch) for epoch in range(recipe.epochs)]
    assert got == pytest.approx([expected(epoch) for epoch in range(recipe.epochs)])
    if recipe.schedule.kind == "step":  # a drop is at an epoch's first step
        assert all(rate(recipe, e, step=9) == got[e] for e in range(recipe.epochs))
    if recipe.schedule.kind != "constant":
        assert len(set(got)) > 1


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PAPERS])
def test_our_own_rates_rise_first_and_come_down_to_nearly_nothing(name):
    recipe = get_recipe(name)
    got = [rate(recipe, e, s) for e in range(recipe.epochs) for s in range(10)]
    assert max(got) == pytest.approx(recipe.optim.lr, rel=0.05)
    assert got[-1] < 0.05 * recipe.optim.lr
    if recipe.schedule.kind != "cyclic-cosine":
        assert got[0] < 0.5 * recipe.optim.lr


# --- what the papers state -----------------------------------------------------------------------------------

STATED: list[tuple[str, dict[str, object]]] = [
    ("crescendonet_128-cifar10", {"optim.momentum": 0.9, "optim.nesterov": True, "epochs": 700, "batch_size": 128}),
    ("crescendonet_512w-cifar100+", {"model.growing": True, "optim.decay": "linear", "data.augment.pad": 4}),
    (
        "crescendonet_512-cifar10-adam",
        {"optim.kind": "adam", "optim.betas": (0.9, 0.999), "optim.eps": 1e-8, "model.init": "truncated_normal"},
    ),
    ("crescendonet_512-cifar100-adam-pathwise", {"epochs": 1400, "objective.kind": "path-wise"}),
    ("crescendonet_512-svhn-adam-pathwise", {"epochs": 100}),
    ("crescendonet_512-svhn", {"epochs": 70, "data.extra_split": "extra", "data.validation": 0}),
    ("crescendonet_512-cifar10-adam-figure3", {"epochs": 450, "trace_test": True}),
    ("fractalnet20-cifar100++", {"data.augment.pad_mode": "reflect", "data.normalise": "mean"}),
    ("fractalnet20-cifar100", {"model.init": "xavier_fan_in", "optim.bias_lr": 1.0}),
    ("fractalnet20-cifar10-tied", {"model.bias": True, "optim.bias_lr": 2.0, "optim.bias_decay": 0.0}),
    ("fractalnet20-cifar10+", {"data.augment.pad_mode": "zero", "data.augment.mirror": True, "epochs": 400}),
    ("fractalnet20-cifar10", {"data.augment.pad": 0, "model.dropout": (0.0, 0.1, 0.2, 0.3, 0.4)}),
    ("fractalnet20-svhn", {"epochs": 20, "data.extra_split": "extra"}),
    ("fractalnet_ultra_160-cifar100++", {"batch_size": 50, "model.filters": (16, 32, 64, 128, 128)}),
    ("fractalnet34-imagenet", {"epochs": 70, "batch_size": 32, "data.eval_crops": 10}),
    ("dfn_mr56-cifar10", {"batch_size": 64, "epochs": 400, "optim.nesterov": True, "optim.weight_decay": 1e-4}),
    ("resnet110-cifar100", {"optim.momentum": 0.9, "data.augment.pad": 4, "data.augment.mirror": True}),
    ("dfn_mr3-svhn", {"epochs": 40, "data.validation": 4000, "data.validation_extra": 2000, "data.hold_out": "equal"}),
    ("dfn_mr-imagenet", {"epochs": 100, "batch_size": 256, "data.resize_to": 256, "data.eval_crops": 1}),
    ("dfn_mr56-cifar100", {"model.init": "he_fan_in"}),
    ("resnet110-cifar10-drnn", {"model.init": "he"}),
    (
        "dfn_mr-imagenet",
        {"data.augment.shorter_side": (256, 480), "data.augment.lighting": 0.1, "data.augment.jitter": 0},
    ),
    ("gunn18-imagenet", {"data.augment.scale": (0.08, 1), "data.augment.jitter": 0.4, "data.augment.lighting": 0.1}),
    ("dfn1-imagenet", {"batch_size": 256, "optim.weight_decay": 1e-4}),
    ("fusenet_nf3_26-cifar10-ensemble7", {"objective.kind": "ensemble"}),
    ("gunn24-cifar100", {"batch_size": 64, "epochs": 300, "optim.weight_decay": 1e-4, "optim.dampening": 0.0}),
    ("gunn24-cifar10-snapshots", {"schedule.cycles": 6, "schedule.kind": "cyclic-cosine"}),
    ("wide_gunn18-imagenet", {"batch_size": 256, "optim.lr": 0.1}),
    ("dr_resnet74-cifar10", {"batch_size": 256, "epochs": 350, "optim.weight_decay": 5e-4, "objective.target": 0.7}),
    ("dr_resnet53-imagenet", {"data.resize": "squash", "data.augment.photometric": True, "epochs": 100}),
    ("dr_resnet53-imagenet-t65", {"objective.target": 0.65}),
    ("dr_resnet35-imagenet", {"objective.target": 0.8}),
    ("dr_mobilenetv2-imagenet", {"objective.target": 0.9, "epochs": 400, "model.gate_hidden": 0}),
    ("r_resnet53-imagenet", {"model.norm": "shared", "model.gates": "none", "objective.kind": "whole"}),
    ("r_resnet53_lvbn-imagenet-longer", {"epochs": 180, "optim.weight_decay": 5e-4, "optim.lr": 0.01}),
    ("aig_resnet101-imagenet", {"model.gates": "all", "model.loops": (1, 1, 1, 1)}),
]


@pytest.mark.parametrize(("name", "fields"), STATED)
def test_fields_are_the_papers(name, fields):
    recipe = get_recipe(name)
    for field, value in fields.items():
        found = recipe.objective.kind if field == "objective.kind" else lookup(recipe, field)
        assert found == value, field


NOT_STATED = {
    "crescendonet_128-cifar10": ("objective.rate", "optim.weight_decay", "model.dropout", "batch_size", "model.bias"),
    "crescendonet_512-svhn": ("optim.decay", "model.bias"),
    "crescendonet_512-cifar10-adam-pathwise": ("objective.phase_epochs", "objective.backward", "schedule"),
    "fractalnet20-cifar100+": ("optim.lr", "epochs", "batch_size", "objective.rate", "objective.share"),
    "fractalnet20-svhn": ("model.init", "model.bias", "model.affine", "optim.bias_lr"),
    "fractalnet_ultra_160-cifar100++": ("model.dropout", "model.init"),
    "fractalnet_plain_40-cifar100++": ("model.dropout", "model.init"),
    "dfn_mr56-svhn": ("data.augment", "data.normalise", "data.validation", "model.norm_eps", "model.norm_momentum"),
    "dfn2-imagenet": ("epochs",),
    "gunn15-cifar10": ("optim.nesterov", "data.augment"),
    "gunn18-imagenet": ("epochs", "schedule", "optim.weight_decay"),
    "dr_resnet53-imagenet": ("batch_size", "objective.weight", "objective.over"),
    "aig_resnet50-imagenet": ("objective.target",),
}


@pytest.mark.parametrize("name", NOT_STATED)
def test_fields_that_a_paper_does_not_state_are_marked(name):
    recipe = get_recipe(name)
    for field in NOT_STATED[name]:
        assert len(recipe.assumed[field]) > 10
    assert "optim.momentum" not in recipe.assumed or "fractalnet" in name or "imagenet" in name


def test_our_own_recipes_assume_nothing():
    assert not [name for name in NAMES if name not in PAPERS and get_recipe(name).assumed]


def test_published_recipes_train_on_all_images_and_the_others_hold_some_out():
    for name in NAMES:
        recipe = get_recipe(name)
        held_out_by_the_paper = is_dfn(name) and "svhn" in name
        assert recipe.chooses == (name not in PAPERS or held_out_by_the_paper), name


def test_only_a_papers_figure_looks_at_the_test_split_along_training():
    assert [name for name in NAMES if get_recipe(name).trace_test] == ["crescendonet_512-cifar10-adam-figure3"]


def test_every_row_of_the_papers_has_a_recipe():
    rows = [
        *(f"{m}-{d}" for m in ("crescendonet_128", "crescendonet_512") for d in ("cifar10", "cifar100", "svhn")),
        *(f"crescendonet_512-{d}-adam{s}" for d in ("cifar10", "cifar100", "svhn") for s in ("", "-pathwise")),
        *(f"dfn_mr56-{d}" for d in ("cifar10", "cifar100", "svhn")),
        *("fusenet_resnet101-imagenet", "dfn_mr-imagenet", "plain14-cifar10"),
        *("fusenet_resnet50-imagenet", "dfn1-imagenet", "dfn2-imagenet"),
        *("gunn15-cifar10", "gunn15-cifar100", "gunn18-imagenet"),
        *(f"fractalnet20-{d}" for d in ("cifar10", "cifar100", "svhn")),
        *("fractalnet34-imagenet", "dr_resnet74-cifar10", "dr_resnet65-imagenet"),
        *("dr_mobilenetv2-imagenet", "r_resnet53_lvbn-imagenet-longer"),
        *("gunn24-cifar10-snapshots", "fractalnet_ultra_160-cifar100++", "crescendonet_512-cifar10-adam-figure3"),
        *("r_resnet53-imagenet", "aig_resnet110-cifar10", "aig_resnet50-imagenet"),
        *("crescendonet-digits", "crescendonet-cifar10-small", "fractalnet-cifar10-small", "plain-cifar10-small"),
    ]
    assert set(rows) <= set(NAMES)


def test_snapshots_are_six_of_fifty_epochs():
    recipe = get_recipe("gunn24-cifar10-snapshots")
    assert cycle_ends(recipe.schedule, recipe.epochs) == (49, 99, 149, 199, 249, 299)


def test_cheap_runs_of_the_demo_are_as_documented():
    small = get_recipe("crescendonet-cifar10-small")
    assert isinstance(small.model, CrescendoNet)
    assert (small.data.train_images, small.epochs, small.model.widths) == (10_000, 12, (32, 32, 32))
    objective = get_recipe("fractalnet-cifar10-small").objective
    assert isinstance(objective, DropPath)
    assert objective.mode == "mixed"
    for name in list_recipes("*-cifar10-small*"):
        recipe = get_recipe(name)
        assert recipe.data == small.data
        assert recipe.epochs == (24 if "pathwise" in name else 12)


def test_path_wise_runs_have_twice_the_epochs_of_the_run_that_they_are_held_against():
    whole, *others = map(get_recipe, list_recipes("crescendonet-cifar10-mini*"))
    assert whole.objective.kind == "whole"
    objectives = [recipe.objective for recipe in others]
    assert sorted(o.backward for o in objectives if isinstance(o, PathWise)) == ["exact", "truncated"]
    for recipe in others:
        assert recipe.epochs == 2 * whole.epochs
        same = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
        same |= {"name": recipe.name, "epochs": recipe.epochs, "objective": recipe.objective}
        assert recipe == Recipe(**same)


@pytest.mark.parametrize("family", ["fractalnet", "crescendonet", "resnet"])
def test_a_sandwich_costs_at_most_three_quarters_of_its_paths_alone(family):
    """And is otherwise the recipe with drop-path: the same images, as many epochs."""
    recipe, fast = get_recipe(f"{family}-cifar10-sandwich"), get_recipe(f"{family}-cifar10-fast")
    objective = recipe.objective
    assert isinstance(objective, Sandwich)
    same = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    same |= {"name": fast.name, "objective": fast.objective}
    if family == "resnet":  # evaluation would scale what the sandwich never drops
        same["model"] = dataclasses.replace(recipe.model, survival=0.95)
    assert fast == Recipe(**same)
    net = recipe.model.build(0)
    macs = {path: cost(net, path).macs for path in ("whole", *objective.paths)}
    assert objective.draws >= len(objective.paths) - 1  # all of them, in every step
    images = math.ceil(objective.images * recipe.batch_size)
    step = recipe.batch_size * macs["whole"] + images * sum(macs[path] for path in objective.paths)
    assert 0.7 < step / (recipe.batch_size * sum(macs.values())) <= 0.75


# --- that they work ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_survives_json(name):
    recipe = get_recipe(name)
    values = json.loads(json.dumps(recipe_to_json(recipe)))
    assert recipe_from_json(values) == recipe
    assert about(name)
    values["epochs"] += 1
    assert recipe_from_json(values) != recipe


def build_and_bind(names: list[str]) -> int:
    """Build the networks on the meta device, each once, and bind the objectives; how many there were."""
    seen = set()
    for name in names:
        recipe = get_recipe(name)
        pair = dataclasses.replace(recipe.model, num_classes=10), recipe.objective
        if pair not in seen:
            with torch.device("meta"):
                net = pair[0].build()
            assert next(net.parameters()).is_meta
            recipe.objective.bind(net)
            seen.add(pair)
    return len(seen)


@pytest.mark.slow
def test_recipes_of_every_kind_build_their_network_and_bind_their_objective():
    kinds: dict[tuple, str] = {}
    for name in NAMES:
        recipe = get_recipe(name)
        kinds.setdefault((type(recipe.model), recipe.objective, recipe.data.source == "imagenet"), name)
    assert build_and_bind(list(kinds.values())) > 40


@pytest.mark.slow
def test_every_recipe_builds_its_network_and_binds_its_objective():
    assert build_and_bind(NAMES) > 150


def test_classes_fit_the_dataset():
    classes = {"cifar10": 10, "cifar100": 100, "svhn": 10, "imagenet": 1000, "digits": 10}
    for name in NAMES:
        recipe = get_recipe(name)
        assert recipe.model.num_classes == classes[recipe.data.source], name
        assert recipe.model.in_chans == (1 if recipe.data.source == "digits" else 3), name
        assert recipe.model.min_size <= (recipe.data.size or (8 if recipe.data.source == "digits" else 32)), name


# --- names ---------------------------------------------------------------------------------------------------


def test_names_are_found_by_pattern_and_with_either_dash():
    assert get_recipe("dfn-mr56-cifar10") is get_recipe("dfn_mr56-cifar10")
    assert list_recipes("gunn15-cifar*") == [
        "gunn15-cifar10", "gunn15-cifar100", "gunn15-cifar10-modern", "gunn15-cifar100-modern"
    ]  # fmt: skip
    assert list_recipes("nothing*") == []
    assert len(NAMES) == len(set(NAMES))


def test_unknown_names_tell_near_ones():
    with pytest.raises(ValueError) as caught:
        get_recipe("crescendonet-cifar10-smal")
    assert "unknown recipe 'crescendonet-cifar10-smal'" in str(caught.value)
    assert "crescendonet-cifar10-small" in str(caught.value)


def test_derived_recipes_keep_reasons_that_still_hold():
    base = get_recipe("crescendonet_128-cifar10")
    other = derive(base, "mine", {"optim.weight_decay": 0.1, "epochs": 800}, {"epochs": "because"})
    assert (other.name, other.optim.weight_decay, other.epochs) == ("mine", 0.1, 800)
    assert "optim.weight_decay" not in other.assumed
    assert other.assumed["epochs"] == "because"
    assert other.assumed["model.dropout"] == base.assumed["model.dropout"]
    assert "epochs" not in base.assumed
    with pytest.raises(ValueError, match="no recipe field"):
        derive(base, "mine", {"optim.rate": 1.0})
