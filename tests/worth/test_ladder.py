"""A tiny ladder: its runs, its table, resuming, refusals."""

from __future__ import annotations

import csv
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polypath.analysis.finished_run import FinishedRun
from polypath.data.config import AugmentConfig, DataConfig
from polypath.families.crescendonet import CrescendoNet
from polypath.families.resnet import ResNet
from polypath.reproduce.trained import Trained
from polypath.training.objectives import Whole
from polypath.training.own_process import here
from polypath.training.path_objectives import DropPath, Taught
from polypath.training.recipe import Recipe, replace
from polypath.training.result import result_of
from polypath.training.run import RunFolder
from polypath.training.schedules import ScheduleConfig
from polypath.worth.ladder import ladder
from polypath.worth.plan import epochs_for, evenly, run_name, twin
from polypath.worth.result import LadderResult, load_ladder
from polypath.worth.tax import Taxes, errors

RECIPE = Recipe(
    name="tiny",
    model=CrescendoNet(widths=(4, 4), scale=2, hidden=(8,), in_chans=1),
    data=DataConfig(validation=60, train_images=96, augment=AugmentConfig(pad=1), cache=False),
    objective=DropPath(rate=0.4),
    epochs=2,
    batch_size=32,
    device="cpu",
)
PATHS = ["branches=1", "whole"]
OPTIONS: dict[str, Any] = {"num_images": 64, "runtime": None, "run": here}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[LadderResult, Path]:
    folder = tmp_path_factory.mktemp("ladder") / "tiny"
    return ladder(RECIPE, [0, 1], PATHS, out=folder, **OPTIONS), folder


def recipe_of(folder: Path, kind: str, seed: int, path: str) -> Recipe:
    return RunFolder.open(folder / run_name(kind, seed, path)).recipe


@pytest.mark.slow
def test_twins_are_the_paths_alone_by_the_same_recipe(made: tuple[LadderResult, Path]) -> None:
    result, folder = made
    for seed in (0, 1):
        for path in PATHS:
            alone = recipe_of(folder, "epochs", seed, path)
            assert alone == replace(RECIPE, {"seed": seed, "path": path, "objective": Whole()})
            equal = recipe_of(folder, "pflop", seed, path)
            assert equal == replace(alone, {"epochs": equal.epochs})
        taught = recipe_of(folder, "taught", seed, "branches=1")
        teacher = str(folder / run_name("epochs", seed, "whole"))
        assert taught.objective == Taught(teacher=teacher)
        assert replace(taught, {"objective": Whole()}) == recipe_of(folder, "epochs", seed, "branches=1")
    names = {path.name for path in folder.iterdir() if (path / "recipe.json").is_file()}
    assert len(names) == 2 * (1 + 2 + 2 + 1)
    assert run_name("taught", 0, "whole") not in names  # the whole has no taught twin
    net = FinishedRun(folder / run_name("epochs", 1, "branches=1")).net
    assert net.config.get("paths") == result.rows[0].paths


@pytest.mark.slow
def test_the_table_matches_the_runs(made: tuple[LadderResult, Path]) -> None:
    result, folder = made
    cheap, whole = result.rows
    assert (cheap.name, whole.name) == ("branches=1", "whole")
    assert cheap.macs < whole.macs
    assert cheap.bytes < whole.bytes == result.bytes["net"]
    assert result.bytes["twins"] == cheap.bytes + whole.bytes
    for row in result.rows:
        for kind in ("epochs", "pflop"):
            runs = [result_of(folder / run_name(kind, seed, row.name)) for seed in (0, 1)]
            assert row.alone[kind].errors == pytest.approx([run.test_error for run in runs], abs=1e-3)
            assert row.alone[kind].pflop == pytest.approx(statistics.fmean(run.pflop or 0 for run in runs))
        for of in row.alone.values():
            assert of.tax == pytest.approx(row.error - of.error, abs=1e-3)
            assert of.low <= of.tax <= of.high
            assert of.tax <= of.most <= of.high
    for kind, of in result.tax.items():
        assert of.tax == pytest.approx(statistics.fmean(row.alone[kind].tax for row in result.rows), abs=1e-3)
    assert whole.alone["taught"] == whole.alone["epochs"]
    own = [result_of(folder / run_name("net", seed)).test_error for seed in (0, 1)]
    assert whole.error_own == pytest.approx(statistics.fmean(own), abs=1e-3)
    assert whole.errors != pytest.approx(own, abs=1e-3)  # recalibrated


@pytest.mark.slow
def test_costs_and_looks_are_counted(made: tuple[LadderResult, Path]) -> None:
    result, _ = made
    cheap, whole = result.rows
    per_mac = 2 * 3 * 96 * 2 / 1e15  # operations, passes, images, epochs
    assert cheap.alone["epochs"].pflop == pytest.approx(per_mac * cheap.macs)
    assert cheap.alone["taught"].pflop == pytest.approx(per_mac * (cheap.macs + whole.macs / 3))  # the teacher's too
    for kind in ("epochs", "pflop", "taught"):
        assert result.pflop[kind] == pytest.approx(sum(row.alone[kind].pflop for row in result.rows))
    step = per_mac / 2 * cheap.macs  # an epoch of the cheapest, by which the sum can be trimmed
    assert abs(result.pflop["pflop"] - result.pflop["net"]) <= max(step, whole.macs * per_mac / 4)
    runs, scored = 6, 4 + 5  # each run's end; two paths twice, five twins
    assert result.test_evaluations == 2 * (runs + scored)
    assert result.environment["instructions"]
    assert {"revision", "torch", "device_name"} <= result.environment.keys()
    assert "command" not in result.environment


@pytest.mark.slow
def test_files_hold_the_same(made: tuple[LadderResult, Path]) -> None:
    result, folder = made
    assert load_ladder(folder) == result
    rows = list(csv.DictReader((folder / "result.csv").open()))
    assert [(row["name"], row["kind"]) for row in rows] == [
        (p, k) for p in PATHS for k in ("epochs", "pflop", "taught")
    ]
    assert float(rows[0]["tax"]) == result.rows[0].alone["epochs"].tax
    assert (folder / "figure.svg").read_text().count("branches=1") >= 1
    head, cells = result.table()
    assert {len(head)} == {len(row) for row in cells}
    (folder / "odd").mkdir()
    (folder / "odd" / "result.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match="not a result of a ladder"):
        load_ladder(folder / "odd")


@pytest.mark.slow
def test_called_again_it_trains_and_scores_nothing(
    made: tuple[LadderResult, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result, folder = made
    folder = Path(shutil.copytree(folder, tmp_path / "ladder"))  # it writes the result again; other tests read it

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(Trained, "correct", never)
    monkeypatch.chdir(folder.parent)  # from another place, too
    again = ladder(RECIPE, [0, 1], PATHS, out=folder.name, **{**OPTIONS, "run": never})
    assert again.rows == result.rows
    assert again.test_evaluations == result.test_evaluations


def test_it_goes_on_where_a_run_has_failed(tmp_path: Path) -> None:
    trained: list[str] = []

    def run(recipe: Recipe, path: Path, slot: int) -> None:
        trained.append(path.name)
        if path.name == run_name("epochs", 0, "branches=1") and trained.count(path.name) == 1:
            raise RuntimeError("once")
        here(recipe, path, slot)

    recipe = replace(RECIPE, {"epochs": 1})
    options: dict[str, Any] = {**OPTIONS, "run": run, "retries": 0, "kinds": ["epochs"], "out": tmp_path / "l"}
    with pytest.raises(ValueError, match=r"no seed of this ladder has all runs finished .*once"):
        ladder(recipe, [0], PATHS, **options)
    result = ladder(recipe, [0], PATHS, **options)
    assert trained == [run_name("net", 0), *(run_name("epochs", 0, path) for path in PATHS), trained[1]]
    tax = result.rows[0].alone["epochs"]
    assert tax.low < tax.tax < tax.high  # of one seed: over the images


@pytest.mark.slow
def test_paths_are_those_of_an_export_by_default(tmp_path: Path) -> None:
    recipe = replace(RECIPE, {"epochs": 1})
    result = ladder(recipe, [0], out=tmp_path / "l", **{**OPTIONS, "kinds": ["epochs"]})
    names = [row.name for row in result.rows]
    assert "whole" in names
    assert set(names) <= set(recipe.model.build(0).named_paths())
    again = ladder(recipe, [0], out=tmp_path / "l", **{**OPTIONS, "kinds": ["epochs"]})
    assert again.rows == result.rows


def test_refusals(tmp_path: Path) -> None:
    folder = tmp_path / "begun"

    def fails(*_: Any) -> None:
        raise RuntimeError("no")

    with pytest.raises(ValueError, match="no seed"):
        ladder(RECIPE, [0], PATHS, out=folder, **{**OPTIONS, "run": fails, "retries": 0})
    for recipe, paths, seeds, message in (
        (replace(RECIPE, {"epochs": 3}), PATHS, [0], "recipe in ladder.json is different"),
        (RECIPE, ["branches=2"], [0], "asked in ladder.json is different"),
        (RECIPE, ["branches=9"], [0], "branch = '9'"),
        (RECIPE, PATHS, [], "give at least one, and each only once"),
        (replace(RECIPE, {"path": "branches=1"}), PATHS, [0], "whole network"),
    ):
        with pytest.raises(ValueError, match=message):
            ladder(recipe, seeds, paths, out=folder, **OPTIONS)
    many = replace(RECIPE, {"model.scale": 4})
    with pytest.raises(ValueError, match="at most 5"):
        ladder(many, [0], [f"branches={n}" for n in (1, 2, 3, 4, "1,2")], out=tmp_path / "new", **OPTIONS)
    late = replace(RECIPE, {"schedule": ScheduleConfig(kind="step", at_epochs=(1,))})
    with pytest.raises(ValueError, match="fewer epochs, which does not fit this recipe"):
        ladder(late, [0], PATHS, out=tmp_path / "new", **OPTIONS)
    with pytest.raises(ValueError, match="runtime = 'tpu'"):
        ladder(RECIPE, [0], PATHS, out=tmp_path / "new", **{**OPTIONS, "runtime": "tpu"})
    with pytest.raises(ValueError, match="kinds = 'all'"):
        ladder(RECIPE, [0], PATHS, out=tmp_path / "new", **{**OPTIONS, "kinds": ["all"]})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(ValueError, match="is not a ladder"):
        ladder(RECIPE, [0], PATHS, out=tmp_path / "other", **OPTIONS)
    assert not (tmp_path / "new").exists()


def test_a_twin_has_no_scales_of_stochastic_depth() -> None:
    model = ResNet(blocks=(1, 1, 1), width=4, in_chans=1, survival=0.5)
    recipe = replace(RECIPE, {"model": model, "objective": DropPath(mode="stochastic-depth")})
    alone = twin(recipe, "whole", 3)
    assert alone.model == ResNet(blocks=(1, 1, 1), width=4, in_chans=1)
    assert (alone.seed, alone.objective) == (3, Whole())


def test_at_most_five_paths_evenly() -> None:
    macs = {"whole": 100, **{f"p{n}": n for n in range(10)}}
    assert evenly(macs, macs) == ["p0", "p2", "p5", "p8", "whole"]
    assert evenly(["p3"], macs) == ["p3", "whole"]
    assert evenly(["a", "z"], {"a": 1, "whole": 100, "z": 100}) == ["a", "whole", "z"]


def test_epochs_by_which_the_twins_cost_what_the_network_did() -> None:
    assert epochs_for(10.0, [1.0, 4.0]) == [2, 2]
    assert epochs_for(11.0, [1.0, 4.0]) == [3, 2]
    assert epochs_for(1.0, [3.0, 4.0]) == [1, 1]  # at least one


def test_taxes_by_hand() -> None:
    generator = np.random.default_rng(0)
    net, alone = generator.random((3, 400)) < 0.8, generator.random((3, 400)) < 0.9
    taxes = Taxes({"a": net, "b": alone}, {"epochs": {"a": alone, "b": alone}})
    a, b = taxes.of("epochs", ["a"]), taxes.of("epochs", ["b"])
    assert a.tax == pytest.approx(100 * (alone.mean() - net.mean()), abs=1e-3)
    assert (b.tax, b.low, b.high, b.most) == (0.0, 0.0, 0.0, 0.0)  # the same answers: paired
    both = taxes.of("epochs", ["a", "b"])
    assert both.tax == pytest.approx(a.tax / 2, abs=1e-3)
    assert (both.high - both.low) == pytest.approx((a.high - a.low) / 2, rel=0.1)
    assert a.low < a.tax < a.most < a.high
    assert errors(alone) == pytest.approx([100 * (1 - row.mean()) for row in alone], abs=1e-3)
