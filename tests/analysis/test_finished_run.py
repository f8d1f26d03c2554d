"""A finished run: its network and its images in the run's layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from polypath.analysis.finished_run import FinishedRun
from polypath.data.batches import Part
from polypath.data.config import DataConfig
from polypath.data.sources import ImageData
from polypath.families.crescendonet import CrescendoNet
from polypath.training.loop import train
from polypath.training.recipe import Recipe
from polypath.training.result import count_test_evaluations

RECIPE = Recipe(
    name="tiny",
    model=CrescendoNet(widths=(4, 4), scale=2, hidden=(8,), in_chans=1),
    data=DataConfig(source="digits", validation=60, train_images=160, test_images=130, cache=False),
    epochs=1,
    batch_size=40,
    seed=3,
    channels_last=True,
    device="cpu",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    train(RECIPE, folder, quiet=True)
    return FinishedRun(folder)


def test_it_has_the_reported_network_in_the_runs_layout(run: FinishedRun):
    assert run.name == "mine"
    assert run.image_size == (8, 8)
    assert not run.net.training
    convs = [p for p in run.net.parameters() if p.ndim == 4 and p.shape[2] > 1]
    assert convs
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convs)


def test_batches_hold_a_part_whole_and_in_order(run: FinishedRun):
    counts: dict[Part, int] = {"test": 130, "validation": 60}
    for part, count in counts.items():
        batches = list(run.batches(part))
        assert [len(y) for _, y in batches] == ([100, 30] if count == 130 else [60])
        assert torch.equal(torch.cat([y for _, y in batches]), getattr(run.data, part).labels)
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x, _ in batches)


def test_each_pass_through_the_test_images_is_counted_by_who_looks(run: FinishedRun):
    assert count_test_evaluations(run.run)["train"] == 1
    before, other = run.test_evaluations, FinishedRun(run.folder, data=run.data, by="somebody")
    batches = other.batches("test", looks=4)
    list(other.batches("validation"))
    assert run.test_evaluations == before  # no image of it has been read
    for _ in batches:
        break
    list(batches)
    other.add_looks(2)
    assert count_test_evaluations(run.run)["somebody"] == 10
    assert run.test_evaluations == before + 10
    list(run.batches())
    assert count_test_evaluations(run.run)["python"] >= 1  # one look by default


def test_statistics_come_from_training_images_drawn_by_the_runs_seed(run: FinishedRun):
    (x, y), *more = run.statistics_batches()
    assert not more
    assert len(y) == 160
    assert not torch.equal(y, run.data.train.labels)
    assert torch.equal(y.sort().values, run.data.train.labels.sort().values)
    (again, _), *_ = run.statistics_batches()
    assert torch.equal(x, again)
    stats = run.recalibrated([run.net.paths("whole")], 50)
    assert stats is not None
    assert (stats.images, stats.seed) == (50, 3)


def test_images_that_are_loaded_already_are_not_loaded_again(run: FinishedRun, monkeypatch):
    monkeypatch.setattr("polypath.training.run_data.load_images", None)
    given: ImageData = run.data
    assert FinishedRun(run.folder, data=given).data is given


def test_what_is_no_finished_run_is_refused(run: FinishedRun, tmp_path: Path):
    with pytest.raises(ValueError, match="no such run folder"):
        FinishedRun(tmp_path / "none")
    (tmp_path / "recipe.json").write_bytes((run.folder / "recipe.json").read_bytes())
    with pytest.raises(ValueError, match="is not finished; continue it with `polypath resume"):
        _ = FinishedRun(tmp_path).net
