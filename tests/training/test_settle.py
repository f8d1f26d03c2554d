"""What the images settle: a table of cases without images, and one look at a folder."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_model as save_model_as_safetensors

from polypath.cli.train import customised
from polypath.data.config import AugmentConfig
from polypath.data.facts import ImageFacts
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.training import loop
from polypath.training.objectives import Whole
from polypath.training.recipe import Recipe, lookup, recipe_from_json, recipe_to_json, replace, still_open
from polypath.training.recipes import get_recipe
from polypath.training.sandwich import Sandwich
from polypath.training.settle import DECISIONS, settle, settled
from polypath.training.sweep import sweep

MY_IMAGES = get_recipe("my-images")


def facts(classes: int, images: int, side: int = 400, **more: Any) -> ImageFacts:
    """Images that each class has alike."""
    return ImageFacts({f"class {i}": images // classes for i in range(classes)}, side, **more)


SHAPES = facts(4, 600)
FEW = facts(10, 100, tested=True)
UNEVEN = ImageFacts({"many": 2857, "few": 143}, 400)
DIGITS = facts(10, 1400, 28, alike=True, grey=True)
PHOTOS = facts(5, 2000, 3000)
CIFAR = facts(10, 50_000, 32, alike=True, tested=True)
CASES = {"shapes": SHAPES, "few": FEW, "uneven": UNEVEN, "digits": DIGITS, "photos": PHOTOS, "cifar": CIFAR}
PRETRAINED = FractalNet(
    filters=(24, 96, 192, 224), columns=2, init="xavier", whitening=12, start="identity", num_classes=4
)
ROWS: list[tuple[str, str, Any]] = [
    ("shapes", "init", "pretrained"),
    ("shapes", "model", PRETRAINED),
    ("shapes", "data.size", 64),
    ("shapes", "data.channels", 3),
    ("shapes", "data.validation", 72),  # of 480, since 120 are scored
    ("shapes", "batch_size", 16),
    ("shapes", "epochs", 40),
    ("few", "model.num_classes", 10),
    ("few", "data.validation", 0),
    ("few", "batch_size", 16),
    ("few", "epochs", 240),  # 1,500 steps of 16 of 100 images
    ("few", "data.size", 48),
    ("few", "data.augment", AugmentConfig(scale=(0.5, 1.0), mirror=True, policy="trivial")),
    ("few", "objective", Sandwich(draws=0, labels=0.5)),
    ("few", "optim.lr", 0.0071),
    ("few", "patience", 0),
    ("shapes", "data.augment", AugmentConfig(scale=(0.5, 1.0), mirror=True)),
    ("uneven", "model.num_classes", 2),
    ("uneven", "data.validation", 360),
    ("uneven", "batch_size", 32),
    ("uneven", "epochs", 18),
    ("uneven", "data.balanced", True),
    ("uneven", "patience", 9),
    ("uneven", "validate_every", 1),
    ("shapes", "data.balanced", False),
    ("shapes", "patience", 20),
    ("shapes", "validate_every", 2),
    ("digits", "data.size", 28),
    ("digits", "data.channels", 3),  # as the weights have learned on
    ("digits", "data.augment.mirror", False),
    ("photos", "data.size", 48),  # 64 pixels would take longer than ten minutes on two old cores
    ("uneven", "data.size", 32),
    ("photos", "data.augment.mirror", True),
    ("photos", "data.augment.pad", 0),
    ("cifar", "data.size", 32),
    ("cifar", "data.augment", AugmentConfig(pad=4, mirror=True)),
    ("cifar", "data.validation", 2000),
    ("cifar", "batch_size", 64),
    ("cifar", "epochs", 8),
]


@pytest.mark.parametrize(("case", "field", "value"), ROWS)
def test_what_is_settled(case: str, field: str, value: Any) -> None:
    assert lookup(settle(MY_IMAGES, CASES[case]), field) == value


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_open_and_each_field_has_a_reason(case: str) -> None:
    found = settle(replace(MY_IMAGES, {"data.source": "somewhere"}), CASES[case])
    assert found.open_fields == ()
    assert found.chooses is (case != "few")
    assert {*DECISIONS} - {*found.assumed} == {"data.source"}
    assert all(len(reason) > 10 for reason in found.assumed.values())
    assert recipe_from_json(json.loads(json.dumps(recipe_to_json(found)))) == found
    assert settle(found, SHAPES if case != "shapes" else FEW) == found


@pytest.mark.parametrize(
    ("sides", "size"), [((20, True), 20), ((20, False), 32), ((12, True), 32), ((50, False), 48), ((64, True), 64)]
)
def test_sizes(sides: tuple[int, bool], size: int) -> None:
    assert settle(MY_IMAGES, facts(4, 600, sides[0], alike=sides[1])).data.size == size


@pytest.mark.parametrize(("name", "mirror"), [("arrow-left", False), ("Right turn", False), ("bright", True)])
def test_what_a_mirror_would_make_another_class_is_not_mirrored(name: str, mirror: bool) -> None:
    found = settle(MY_IMAGES, ImageFacts({name: 50, "other": 50}, 300))
    assert found.data.augment.mirror is mirror
    assert (name in found.assumed["data.augment"]) is not mirror


@pytest.mark.parametrize(
    ("error", "rate", "said"), [(60.0, 0.0566, "other images than"), (19.0, 0.0071, "images like")]
)
def test_few_images_unlike_those_of_the_weights_get_a_high_rate(error: float, rate: float, said: str) -> None:
    found = settle(MY_IMAGES, dataclasses.replace(FEW, feature_error=error))
    assert found.optim.lr == rate
    assert (
        f"{said} yours (a linear classifier on its features has an error of {error:.0f}%)" in found.assumed["optim.lr"]
    )


def test_a_split_for_choosing_is_taken() -> None:
    found = settle(MY_IMAGES, facts(4, 600, validation_split="validation", tested=True))
    assert (found.data.validation, found.data.validation_split, found.batch_size) == (0, "validation", 32)


@pytest.mark.parametrize(("images", "held"), [(100, 0), (149, 0), (150, 50), (333, 50), (400, 60)])
def test_from_150_images_on_an_export_finds_its_50(images: int, held: int) -> None:
    found = settle(MY_IMAGES, facts(2, images, tested=True))
    assert found.data.validation == held


def test_another_model_is_trained_from_scratch_by_its_own_objective() -> None:
    given = replace(MY_IMAGES, {"model": CrescendoNet(widths=(8, 8), num_classes=4)})
    found = settle(given, SHAPES)
    assert (found.init, found.objective, found.model) == (None, Whole(), given.model)
    assert found.optim.lr > settle(MY_IMAGES, SHAPES).optim.lr


def test_a_pretrained_model_of_timm_is_fine_tuned(tmp_path: Path) -> None:
    import timm
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    model = timm.create_model("test_efficientnet")
    save_model_as_safetensors(model, str(tmp_path / "weights.safetensors"))
    init = f"timm:test_efficientnet:{tmp_path / 'weights.safetensors'}"
    found = settle(customised(MY_IMAGES, ["--init", init], "train"), SHAPES)
    assert (found.data.mean, found.data.std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)  # as timm says
    assert (found.norms, found.fit_head) == ("frozen", 408)
    assert (found.optim.kind, found.optim.lr, found.optim.head_lr, found.optim.nesterov) == ("adamw", 3e-4, 3.0, False)
    own = settle(MY_IMAGES, SHAPES)
    assert (own.data.mean, own.norms, own.fit_head, own.optim.head_lr) == (None, "trained", 408, 1.0)
    given = settle(
        customised(MY_IMAGES, ["--init", init, "--optim.kind", "sgd", "--norms", "trained"], "train"), SHAPES
    )
    assert (given.optim.kind, given.optim.head_lr, given.norms) == ("sgd", 1.0, "trained")


# --- what is given stays ---------------------------------------------------------------------------------------


def test_fields_that_are_given_are_not_open() -> None:
    found = customised(MY_IMAGES, ["--epochs", "20", "--data.augment.no-mirror", "--data.size=32"], "train")
    assert set(MY_IMAGES.open_fields) - set(found.open_fields) == {"epochs", "data.augment", "data.size"}
    done = settle(found, SHAPES)
    assert (done.epochs, done.data.augment, done.data.size) == (20, AugmentConfig(), 32)  # 20 is the recipe's own, too
    assert "epochs" not in done.assumed


def test_fields_are_checked_against_what_is_settled() -> None:
    frozen = customised(MY_IMAGES, ["--frozen-epochs", "30"], "train")  # more than the recipe's own epochs
    assert settle(frozen, SHAPES).frozen_epochs == 30
    with pytest.raises(ValueError, match="frozen_epochs = 30: must be below epochs = 18"):
        settle(frozen, UNEVEN)
    unheld = settle(customised(MY_IMAGES, ["--data.validation", "0"], "train"), SHAPES)
    assert (unheld.chooses, unheld.patience) == (False, 0)


def test_fields_of_any_recipe_can_be_opened() -> None:
    options = ["--open-fields", "data.size", "epochs", "--data.source", "somewhere"]
    base = get_recipe("crescendonet-cifar10-small")
    found = customised(base, options, "train")
    assert found.open_fields == ("data.size", "epochs")
    done = settle(found, SHAPES)
    assert (done.data.size, done.batch_size, done.epochs) == (64, base.batch_size, 8)  # 10,000 images train


def test_from_scratch() -> None:
    found = settle(customised(MY_IMAGES, ["--init", "None"], "train"), SHAPES)
    assert (found.init, found.model) == (None, settle(MY_IMAGES, SHAPES).model)
    assert found.optim.lr > settle(MY_IMAGES, SHAPES).optim.lr


def test_a_part_or_a_whole_that_is_given_closes_a_field() -> None:
    assert "model" not in still_open(MY_IMAGES, ["model.columns"])
    assert "model.num_classes" in still_open(MY_IMAGES, ["model.columns"])
    assert not [name for name in still_open(MY_IMAGES, ["data"]) if name.startswith("data.")]
    assert "epochs" not in replace(MY_IMAGES, {"epochs": 3}).open_fields
    three = settle(customised(MY_IMAGES, ["--model.columns", "3"], "train"), SHAPES)
    assert isinstance(three.model, FractalNet)
    assert (three.model.columns, three.model.num_classes, three.init) == (3, 4, None)


def test_what_cannot_be_settled_is_named() -> None:
    with pytest.raises(ValueError, match=r"my-images: give the folder of your images with --data\.source DIR"):
        settled(MY_IMAGES)
    with pytest.raises(ValueError, match=r"open_fields = 'seed': must be one of data.source, init"):
        settle(Recipe(name="x", model=FractalNet(), epochs=1, batch_size=2, open_fields=("seed",)), SHAPES)
    with pytest.raises(ValueError, match="no recipe field 'speed'"):
        Recipe(name="x", model=FractalNet(), epochs=1, batch_size=2, open_fields=("speed",))


# --- a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, colour in (("red", "red"), ("blue", "blue")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (20 + i, 30), colour).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def test_a_run_looks_once_and_says_what_it_saw(pictures: Path, tmp_path: Path, caplog) -> None:
    recipe = replace(MY_IMAGES, {"data.source": str(pictures), "data.cache": False, "epochs": 1})
    with caplog.at_level(logging.INFO, "polypath"):
        result = loop.train(recipe, tmp_path / "run")
    assert "data.size = 32: the shorter side of an image is 26 pixels" in caplog.text
    assert "init = pretrained" in caplog.text
    assert "images like yours (a linear classifier on its features has an error of 0%)" in caplog.text
    assert caplog.text.count("2 classes, 24 images") == 1
    written = recipe_from_json(json.loads((tmp_path / "run" / "recipe.json").read_text()))
    assert (written.open_fields, written.data.size, written.model.num_classes) == ((), 32, 2)
    assert written.assumed["data.size"].startswith("the shorter side")
    assert result.reported == "last"
    Image.new("RGB", (200, 200), "red").save(pictures / "red" / "new.png")
    with pytest.raises(ValueError, match="are not those that the run started with"):
        loop.resume(tmp_path / "run", epochs=2)
    (pictures / "red" / "new.png").unlink()
    loop.resume(tmp_path / "run", epochs=2, quiet=True)
    now = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert now == {**recipe_to_json(written), "epochs": 2}


def test_the_features_are_measured_on_the_images(tmp_path: Path) -> None:
    """Noise with random labels, which no features fit."""
    draw = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.fromarray(draw.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    found = settled(replace(MY_IMAGES, {"data.source": str(tmp_path), "data.cache": False}), quiet=True)
    assert "other images than yours" in found.assumed["optim.lr"]
    given = settled(replace(MY_IMAGES, {"data.source": str(tmp_path), "init": None}), quiet=True)
    assert "drawn at random" in given.assumed["optim.lr"]


def test_a_sweep_settles_once_for_all_of_its_runs(pictures: Path, tmp_path: Path) -> None:
    begun: list[Recipe] = []

    def run(recipe: Recipe, path: Path, slot: int) -> None:
        begun.append(recipe)
        raise ValueError("enough")

    recipe = replace(MY_IMAGES, {"data.source": str(pictures)})
    result = sweep(recipe, [0, 1], {"data.size": [32, 48]}, tmp_path / "sweep", run=run, retries=0)
    assert len(result.failed) == 4
    assert all(one.open_fields == () and one.model.num_classes == 2 for one in begun)
    assert sorted((one.seed, one.data.size) for one in begun) == [(0, 32), (0, 48), (1, 32), (1, 48)]


def test_images_that_are_loaded_already_settle_nothing(tmp_path: Path) -> None:
    from tiny import images

    with pytest.raises(ValueError, match=r"my-images settles data.source, init.*data contains loaded images"):
        loop.train(MY_IMAGES, tmp_path / "run", data=images())
    assert not (tmp_path / "run").exists()
