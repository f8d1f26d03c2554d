"""Starting a run from a saved network, a timm model with its weights, or a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

import polypath as pp
from polypath.cli.train import customised
from polypath.data.facts import ImageFacts
from polypath.families.crescendonet import CrescendoNet
from polypath.families.timm_models import TimmModel
from polypath.training.build import build_net
from polypath.training.objectives import Whole
from polypath.training.path_objectives import DropPath
from polypath.training.recipe import Recipe
from polypath.training.recipes import get_recipe
from polypath.training.settle import settle
from polypath.training.start import SKIPPED, model_of

MY_IMAGES = get_recipe("my-images")
SHAPES = ImageFacts(dict.fromkeys(("circle", "square", "star", "triangle"), 150), 400)
NAME = "test_resnet"  # timm's smallest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("timm") / "weights.pth"
    torch.manual_seed(3)
    torch.save(timm.create_model(NAME, num_classes=7).state_dict(), file)
    return file


def started(model: TimmModel, init: str, seed: int = 0) -> dict[str, Tensor]:
    recipe = Recipe(name="mine", model=model, init=init, epochs=1, batch_size=2, seed=seed)
    return build_net(recipe).state_dict()


@pytest.mark.parametrize("skips", [True, False])
def test_a_checkpoints_weights_are_taken_and_a_classifier_drawn(checkpoint: Path, skips: bool) -> None:
    model = TimmModel(model=NAME, skips=skips, num_classes=3)
    found = started(model, f"timm:{NAME}:{checkpoint}")
    theirs = torch.load(checkpoint, weights_only=True)
    assert torch.equal(found["body.model.layer1.0.conv1.weight"], theirs["layer1.0.conv1.weight"])
    assert found["head.classifier.weight"].shape[0] == 3
    again, other = started(model, f"timm:{NAME}:{checkpoint}"), started(model, f"timm:{NAME}:{checkpoint}", seed=1)
    assert all(torch.equal(found[name], again[name]) for name in found)
    differ = [name for name in found if not torch.equal(found[name], other[name])]
    assert differ
    assert all(name.startswith("head.classifier.") for name in differ)
    alone = started(model, str(checkpoint))  # the recipe says of which model it is
    assert all(torch.equal(found[name], alone[name]) for name in found)


def test_the_model_and_its_options_are_timms() -> None:
    found = customised(MY_IMAGES, ["--init", f"timm:{NAME}"], "train")
    assert found.model == TimmModel(model=NAME, skips=True, model_arguments={"drop_path_rate": SKIPPED})
    done = settle(found, SHAPES)
    assert isinstance(done.model, TimmModel)
    assert (done.model.num_classes, done.model.skips, done.init) == (4, True, f"timm:{NAME}")
    assert done.objective == DropPath(mode="stochastic-depth")
    assert done.data.size == 128  # it was made for 160
    plain = settle(customised(MY_IMAGES, ["--init", f"timm:{NAME}", "--model.no-skips"], "train"), SHAPES)
    assert isinstance(plain.model, TimmModel)
    assert (plain.model.skips, plain.objective) == (False, Whole())


def test_any_recipe_may_start_from_timm() -> None:
    base = get_recipe("timm-cifar10-small")
    found = customised(base, ["--init", f"timm:{NAME}"], "train")
    assert isinstance(found.model, TimmModel)
    assert (found.model.model, found.model.num_classes, found.objective) == (NAME, 10, base.objective)


def test_models_without_blocks_to_skip_have_none() -> None:
    found = model_of("timm:test_vgg" if timm.is_model("test_vgg") else "timm:vgg11")
    assert isinstance(found, TimmModel)
    assert (found.skips, found.model_arguments) == (False, {})


def test_a_saved_network_sets_an_open_model(tmp_path: Path) -> None:
    pp.save(CrescendoNet(widths=(4, 4), num_classes=6).build(0), tmp_path / "saved")
    found = settle(customised(MY_IMAGES, ["--init", str(tmp_path / "saved")], "train"), SHAPES)
    assert found.model == CrescendoNet(widths=(4, 4), num_classes=4)
    assert (found.objective, found.data.channels) == (Whole(), 3)


def test_a_folder_that_timm_saved(tmp_path: Path) -> None:
    timm.models.save_for_hf(timm.create_model(NAME, num_classes=5), str(tmp_path), safe_serialization=True)
    found = model_of(f"timm:local-dir:{tmp_path}")
    assert isinstance(found, TimmModel)
    assert (found.model, found.num_classes, found.skips) == (NAME, 5, True)
    assert started(found, f"timm:local-dir:{tmp_path}")["head.classifier.weight"].shape[0] == 5


@pytest.mark.parametrize(
    ("model", "init", "message"),
    [
        (
            TimmModel(model="resnet18"),
            f"timm:{NAME}",
            f"model.model = 'resnet18': init = 'timm:{NAME}' needs the model '{NAME}'",
        ),
        (CrescendoNet(widths=(4, 4)), f"timm:{NAME}", "model is a crescendonet, but init = .* is a timm model"),
        (CrescendoNet(widths=(4, 4)), "FILE", r"a file of weights needs the name of its model; give timm:NAME:.*\.pth"),
        (TimmModel(model=NAME), f"timm:{NAME}:nowhere.pth", f"timm model '{NAME}'.*nowhere.pth"),
        (TimmModel(model=NAME), "timm:resnot", "'resnot' is not known"),
    ],
)
def test_what_does_not_fit_is_named(checkpoint: Path, model: Any, init: str, message: str) -> None:
    init = str(checkpoint) if init == "FILE" else init
    with pytest.raises(ValueError, match=message):
        build_net(Recipe(name="mine", model=model, init=init, epochs=1, batch_size=2))


def test_no_code_of_a_checkpoint_runs(tmp_path: Path) -> None:
    torch.save({"state_dict": Path("evil")}, tmp_path / "evil.pth")  # an object, whose making would be code
    with pytest.raises(ValueError, match="weights_only"):
        started(TimmModel(model=NAME), f"timm:{NAME}:{tmp_path / 'evil.pth'}")
