"""A search of a tiny run: results, resuming, refusals."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from polypath.analysis.finished_run import SCORING_BATCH, FinishedRun
from polypath.analysis.scoring import score
from polypath.core.choices import ChoiceSpace
from polypath.core.recalibrate import recalibrate, shared_statistics
from polypath.data.config import AugmentConfig, DataConfig
from polypath.families.crescendonet import CrescendoNet
from polypath.profiling.cost import costs
from polypath.search import search as searching
from polypath.search.many import ManyPaths
from polypath.search.parts import FOLDER
from polypath.search.result import NAME, SearchResult, found_paths, load_search
from polypath.search.search import halves, search
from polypath.training.loop import train
from polypath.training.recipe import Recipe

RECIPE = Recipe(
    name="tiny",
    model=CrescendoNet(widths=(4, 4), scale=3, hidden=(8,), in_chans=1),
    data=DataConfig(validation=60, train_images=96, test_images=80, augment=AugmentConfig(pad=1), cache=False),
    epochs=2,
    batch_size=32,
    device="cpu",
)


OPTIONS: dict[str, Any] = {"num_images": 64, "runtime": None, "keep": 5}
CHUNKED = 10  # images of a chunk


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run; tests that write work on a copy."""
    folder = tmp_path_factory.mktemp("search") / "tiny"
    train(RECIPE, folder, quiet=True)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> FinishedRun:
    return FinishedRun(shutil.copytree(trained, tmp_path / "tiny"))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORING_BATCH, "cpu", CHUNKED)


def same(a: SearchResult, b: SearchResult) -> bool:
    """Equal except for place and time."""
    skipped = ("run", "environment", "revision", "latency")
    mine, other = a.to_json(), b.to_json()
    return all(mine[key] == other[key] for key in mine if key not in skipped)


def test_halves_are_disjoint_and_by_the_seed() -> None:
    cut = halves(61, 3)
    assert torch.cat([cut["search"], cut["confirm"]]).sort().values.tolist() == list(range(61))
    assert (len(cut["search"]), len(cut["confirm"])) == (30, 31)
    assert torch.equal(cut["search"], halves(61, 3)["search"])
    assert not torch.equal(cut["search"], halves(61, 4)["search"])


def test_all_choices_are_looked_at_and_told_before(run: FinishedRun, caplog: pytest.LogCaptureFixture) -> None:
    looked = run.test_evaluations
    with caplog.at_level("INFO", "polypath"):
        result = search(run, test=True, **OPTIONS)
    assert run.test_evaluations == looked + result.test_evaluations
    assert caplog.messages[0] == result.told
    assert result.told.startswith("49 choices: exhaustive, ")
    assert (result.method, result.choices, result.evaluated, result.drawn) == ("exhaustive", "49", 49, ())
    assert result.images == {"search": 30, "confirm": 30, "test": 80}
    assert result.statistics == {"search": 64, "confirm": 64}
    space = ChoiceSpace(run.net.wiring)
    validation = run.data.validation
    assert validation is not None
    cut = halves(60, 0)
    choices = {str(p): p for p in space}
    stats = recalibrate(run.net, choices.values(), run.statistics_batches(), 64)
    macs = {text: of.macs for text, of in costs(run.net, choices, run.image_size).items()}
    off: dict[str, dict[str, float]] = {}
    ((x, y),) = [(torch.cat(a), torch.cat(b)) for a, b in [tuple(zip(*run.batches("validation"), strict=True))]]
    for part, which in cut.items():
        scored = score(run.net, choices, [(x[which], y[which])], stats=stats)
        off[part] = {text: of.error for text, of in scored.items()}
    off["test"] = {text: of.error for text, of in score(run.net, choices, run.batches("test"), stats=stats).items()}
    for row in (*result.found, *result.named):
        assert row.macs == macs[row.paths]
        errors = (row.search_error, row.confirm_error, row.test_error)
        assert errors == pytest.approx([off[part][row.paths] for part in ("search", "confirm", "test")], abs=1e-3)
    assert len(result.found) <= 5
    assert min(row.search_error for row in result.found) == pytest.approx(min(off["search"].values()), abs=1e-3)
    ordered = [(row.macs, -row.search_error) for row in result.found]
    assert ordered == sorted(ordered)
    assert {row.paths for row in result.named} == {str(p) for p in run.net.named_paths().values()}
    assert result.test_evaluations == len({row.paths for row in (*result.found, *result.named)})
    assert [gain.images for gain in result.gains["named"]] == ["confirm", "test"]
    for gain in result.gains["named"]:
        assert gain.difference == pytest.approx(gain.found - gain.other, abs=1e-5)
        assert gain.low <= gain.difference <= gain.high
    assert load_search(run.folder) == result
    assert found_paths(run.folder) == [row.paths for row in result.found]
    assert not (run.folder / FOLDER).exists()
    head, rows = result.table()
    assert {len(head)} == {len(row) for row in rows}
    assert any("hypervolume on test images" in line for line in result.facts())


def test_interrupted_it_goes_on_and_comes_to_the_same(
    run: FinishedRun, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, answered = ManyPaths.right, []

    def counted(many: ManyPaths, x: torch.Tensor, *rest: Any) -> Any:
        answered.append((len(many.choices), len(x)))
        if len(answered) == 2:
            raise KeyboardInterrupt
        return right(many, x, *rest)

    monkeypatch.setattr(ManyPaths, "right", counted)
    with pytest.raises(KeyboardInterrupt):
        search(run, **OPTIONS)
    assert not (run.folder / NAME).exists()
    calls = []

    def statistics(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return shared_statistics(*args, **options)

    monkeypatch.setattr(searching, "shared_statistics", statistics)
    again = search(run, **OPTIONS)
    assert [n for n, _ in answered].count(49) == 4  # three chunks, one of them begun twice
    assert len(calls) == 1  # of what confirms; those of the search were kept
    other = FinishedRun(shutil.copytree(trained, tmp_path / "other"))
    assert same(again, search(other, **OPTIONS))
    monkeypatch.setattr(ManyPaths, "right", None)
    assert search(run, **OPTIONS) == again  # it is there already


@pytest.mark.slow
def test_a_beam_beside_draws_and_its_regret(run: FinishedRun) -> None:
    options = {**OPTIONS, "method": "beam", "width": 2, "regret": True}
    result = search(run, size=49, **options)
    assert result.method == "beam"
    assert result.told.startswith("49 choices: beam of width 2, at most 49 evaluated, ")
    assert result.regret is not None
    assert result.regret.choices == 49
    assert result.regret.found >= 0
    assert result.evaluated <= 49
    assert 0 < len(result.drawn) <= 5
    assert list(result.gains) == ["named", "drawn"]
    (run.folder / NAME).unlink()
    assert same(result, search(run, size=49, **options))
    other = search(run, size=49, **{**options, "seed": 1})
    assert not same(result, other)


def test_a_large_space_is_searched_by_a_beam_and_by_the_networks_own_statistics(run: FinishedRun) -> None:
    result = search(run, size=20, statistics="own", **OPTIONS)
    assert result.told.startswith("49 choices: beam of width 8, at most 20 evaluated, ")
    assert result.statistics == {"search": None, "confirm": 64}
    assert result.evaluated == 20


@pytest.mark.slow
def test_times_choose_where_there_is_a_runtime(run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polypath.deploy.latency_profile.SECONDS", 0.0)  # the least number of runs of each
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    result = search(run, timed_paths=2, **{**OPTIONS, "keep": 1, "runtime": "torch"})
    assert result.latency is not None
    assert (result.latency["fitted"], result.latency["held_back"]) == (1, 1)
    assert result.latency["runtime"]["name"] == "torch"
    assert all(row.ms and row.predicted_ms for row in (*result.found, *result.named))
    times = [row.ms or 0.0 for row in result.named]
    assert times == sorted(times)


def test_a_search_of_another_checkpoint_is_refused_by_name(run: FinishedRun) -> None:
    with pytest.raises(ValueError, match="no paths have been found yet; `polypath search"):
        found_paths(run.folder)
    search(run, **OPTIONS)
    weights = run.folder / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match=r"search\.json: belongs to another checkpoint"):
        found_paths(run.folder)
    (run.folder / NAME).write_text('{"format": 9}')
    with pytest.raises(ValueError, match="not a result of a search in format 1"):
        found_paths(run.folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "annealing"}, "method = 'annealing': must be one of auto, exhaustive, beam"),
        ({"size": 0}, "size = 0: must be a whole number of at least 1"),
        ({"statistics": "none"}, "statistics = 'none'"),
        ({"runtime": "tpu"}, "runtime = 'tpu'"),
        ({"pflop": 0.0}, "pflop = 0.0"),
        ({"regret": True}, "choose method beam, not auto"),
        ({"method": "exhaustive", "size": 48}, "has 49 choices; at most 48 may be evaluated"),
        ({"method": "exhaustive", "pflop": 1e-9}, "at most 1e-09 PFLOP may be spent"),
        ({"pflop": 1e-12}, "one choice alone costs"),
    ],
)
def test_what_cannot_be_is_refused(trained: Path, options: dict[str, Any], message: str) -> None:
    before = sorted(trained.iterdir())
    with pytest.raises(ValueError, match=message):
        search(FinishedRun(trained), **{"runtime": None, **options})
    assert sorted(trained.iterdir()) == before


def test_a_run_that_held_nothing_out_is_refused(run: FinishedRun) -> None:
    run.data = dataclasses.replace(run.data, validation=None)
    with pytest.raises(ValueError, match=r"none of its images were held out \(data.validation\)"):
        search(run, runtime=None)
