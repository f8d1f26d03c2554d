"""Learning from a trained teacher network: the loss by hand, the run's copy of its teacher, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import equal, images, left, tiny
from torch.nn import functional

import polypath as pp
from polypath.data.seeds import generator
from polypath.training.build import train_batches
from polypath.training.distributed import World
from polypath.training.loop import resume, train
from polypath.training.objectives import StepInfo, Whole
from polypath.training.path_objectives import Taught

SMALL = {"epochs": 2, "data__train_images": 64, "model__scale": 2}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(tiny(**SMALL, objective=Whole()), folder, quiet=True)
    return folder


def test_the_loss_by_hand(teacher: Path) -> None:
    recipe = tiny(**SMALL, model__dropout=0.0, seed=1)
    net, known = recipe.model.build(1).train(), pp.load(teacher / "model")
    objective = Taught(teacher=str(teacher), temperature=2.0, weight=0.75, labels=0.5)
    bound = objective.bind(net)
    x, y = next(iter(train_batches(images(), recipe, torch.device("cpu"), World())))
    draws = generator(0, "paths", 0)
    (result,) = bound.passes(x, y, StepInfo(0, 0, 1, 1, draws, draws))
    with torch.no_grad():
        answers = known(x)
    apart = (answers / 2).softmax(1) * ((answers / 2).log_softmax(1) - (result.logits / 2).log_softmax(1))
    by_hand = 0.5 * functional.cross_entropy(result.logits, y) + 0.75 * 4 * apart.sum(1).mean()
    assert result.loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    result.loss.backward()
    assert all(p.grad is None for p in bound.teachers[0].parameters())
    assert not bound.teachers[0].training
    assert not any("teacher" in name for name, _ in net.named_parameters())


def test_a_run_resumes_without_its_teachers_folder_and_counts_the_passes(teacher: Path, tmp_path: Path) -> None:
    known = Path(pp.save(pp.load(teacher / "model"), tmp_path / "known"))
    recipe = tiny(**SMALL, path="branches=1", objective=Taught(teacher=str(known)))
    calm = train(recipe, tmp_path / "calm", quiet=True)
    train(tiny(**{**SMALL, "epochs": 1}, path="branches=1", objective=recipe.objective), tmp_path / "run", quiet=True)
    known.rename(tmp_path / "gone")
    again = resume(tmp_path / "run", epochs=2, quiet=True)
    assert equal(left(tmp_path / "calm")[0].tensors, left(tmp_path / "run")[0].tensors)
    parent = recipe.model.build(0)
    taught, whole = pp.cost(parent, "branches=1", size=8).macs, pp.cost(parent, size=8).macs
    assert calm.pflop == again.pflop == pytest.approx(2 * 64 * 2 * (3 * taught + whole) / 1e15, rel=1e-12)


def test_refusals(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"objective\.teacher is empty"):
        Taught()
    with pytest.raises(ValueError, match="temperature"):
        Taught(teacher=str(teacher), temperature=0.0)
    other = tiny(**SMALL, model__num_classes=12, objective=Taught(teacher=str(teacher)))
    with pytest.raises(ValueError, match="the teacher has 10 classes, but this network has 12"):
        train(other, tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="nowhere"):
        train(tiny(**SMALL, objective=Taught(teacher=str(tmp_path / "nowhere"))), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
