"""Measures the effect of each technique of a recipe for small budgets, at equal training PFLOP.

    python -m benchmarks ablate fractalnet-cifar10-fast --data DIR --pflop 0.05 --seeds 3 [--plan]

The arm ``all`` is the recipe. The arm ``none`` is the recipe without any of the techniques of
:data:`polypath.training.recipes.fast.WITHOUT`. Other arms are the recipe without one technique, and with only one
technique. Each run trains for the number of whole epochs whose PFLOP are nearest to the requested PFLOP. ``--plan``
prints the cost on this machine, and trains nothing.

Errors are measured on held-out images. The test images are not used. Each run is an ordinary run folder in ``--out``:
the same command reads finished runs and resumes unfinished ones. The table is written to ``results/ablation.json``,
which keeps the tables of other recipes, and to ``docs/fast.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import show
from polypath.core.checks import check, number
from polypath.data.sources import ImageData, load_images
from polypath.storage.files import check_own, read_json, write_json
from polypath.storage.lock import FolderLock
from polypath.training.build import build_net, resolve_device, resolve_precision, train_batches
from polypath.training.distributed import World
from polypath.training.engine import Engine
from polypath.training.flop import PETA
from polypath.training.recipe import Recipe, recipe_to_json, replace
from polypath.training.recipes import get_recipe
from polypath.training.recipes.fast import WITHOUT
from polypath.training.result import RunResult
from polypath.training.run import environment
from polypath.training.sweep import Runner, Runs

FILE = Path(__file__).parent / "results" / "ablation.json"
ALL, NONE = "all", "none"
DRAWS = 32  # number of steps over which the cost of a step is averaged, since steps draw different paths
TIMED = 3


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks ablate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe", help="a recipe listed by `polypath recipes '*-fast'`")
    parser.add_argument("--data", required=True, help="folder of the images, or their name on the Hub")
    parser.add_argument("--pflop", type=float, required=True, help="training PFLOP of each run")
    parser.add_argument("--seeds", type=int, default=3, help="number N of seeds; they are 0 to N-1 (default 3)")
    parser.add_argument("--out", type=Path, help="folder of the runs (default runs/ablate/RECIPE)")
    parser.add_argument("--workers", type=int, default=1, help="number of runs at the same time (default 1)")
    parser.add_argument("--plan", action="store_true", help="print PFLOP and time without training")
    args = parser.parse_args(argv)
    try:
        recipe = replace(get_recipe(args.recipe), {"data.source": args.data})
        out = args.out or Path("runs/ablate") / recipe.name
        failed = ablate(recipe, args.pflop, args.seeds, out, workers=args.workers, plan_only=args.plan)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for name, why in failed.items():
        print(f"run {name} failed: {why}; run the same command to retry", file=sys.stderr)
    return 1 if failed else 0


def ablate(
    recipe: Recipe,
    pflop: float,
    seeds: int,
    out: Path,
    *,
    workers: int = 1,
    plan_only: bool = False,
    run: Runner | None = None,
    file: Path = FILE,
) -> Mapping[str, str]:
    """Plan the runs, train the missing ones into ``out``, and write the table into ``file``. Return failures by run.

    Raises:
        ValueError: the recipe has no technique or no held-out images, PFLOP or seeds are not above 0, or the folder has
            other contents.
    """
    check("pflop", pflop, number(above=0))
    if seeds < 1:
        raise ValueError(f"seeds = {seeds}: must be a whole number of at least 1")
    if not recipe.chooses:
        raise ValueError(f"{recipe.name}: this recipe has no held-out images (data.validation) for comparisons")
    arms = arms_of(recipe)
    claim = {"recipe": recipe_to_json(recipe), "pflop": pflop}
    _check_claim(out, claim)
    data = load_images(recipe.data)
    prices = Prices(data)
    planned = {name: at_budget(arm, prices, pflop) for name, arm in arms.items()}
    seconds = tell(planned, prices, seeds)
    if plan_only:
        return {}
    recipes = {
        run_name(name, seed): replace(arm, {"seed": seed}) for name, arm in planned.items() for seed in range(seeds)
    }
    out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out):
        write_json(out / "ablate.json", claim)
        results, failed = Runs(recipes, out, workers=workers, run=run).train()
    rows = rows_of(planned, results, range(seeds))
    known = read_json(file)["recipes"] if file.is_file() else {}
    device = resolve_device(recipe.device)
    written = {key: value for key, value in environment(device).items() if key != "command"}
    table = {"pflop": pflop, "seeds": seeds, "data": data.name, "planned_s": seconds, "rows": rows}
    table |= {"held_out": 0 if data.validation is None else len(data.validation), "environment": written}
    write_json(file, {"recipes": {**known, recipe.name: table}})
    columns = {"arm": "", "epochs": "", "pflop": ".4f", "val_error": ".2f", "change": "+.2f", "seconds": ".0f"}
    show(f"{recipe.name}: error on held-out images, %", rows, columns)
    return failed


# --- runs to train ---------------------------------------------------------------------------------------------


def techniques(recipe: Recipe) -> list[str]:
    """Return the techniques of the recipe that make a difference on this machine."""
    named = {"muon": recipe.optim.kind == "muon", "one-cycle": recipe.schedule.kind == "one-cycle"}
    named["large batches"] = recipe.batch_size > WITHOUT["large batches"]["batch_size"]
    if recipe.precision == "auto":  # if auto means fp32 here, the run without bf16 would be the same
        named["bf16"] = resolve_precision("auto", resolve_device(recipe.device)) == "bf16"
    return [name for name, fields in WITHOUT.items() if named.get(name, True) and replace(recipe, fields) != recipe]


def arms_of(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipes to compare, by name.

    Raises:
        ValueError: the recipe has none of the techniques.
    """
    found = techniques(recipe)
    if not found:
        raise ValueError(f"{recipe.name}: this recipe has none of the techniques {', '.join(WITHOUT)}")

    def without(names: Sequence[str]) -> Recipe:
        return replace(recipe, {field: value for name in names for field, value in WITHOUT[name].items()})

    arms = {ALL: recipe} | {f"without {name}": without([name]) for name in found} | {NONE: without(found)}
    return arms | {f"only {name}": without([other for other in found if other != name]) for name in found}


def run_name(arm: str, seed: int) -> str:
    return f"{arm.replace(' ', '-')},seed={seed}"


# --- cost ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Price:
    """The cost of training: floating-point operations per image and per optimiser step, and seconds per operation on
    this machine."""

    image: float
    step: float
    seconds: float


class Prices:
    """The costs of training on some images. Each recipe is counted and timed once."""

    def __init__(self, data: ImageData) -> None:
        self.data, self._known = data, dict[str, Price]()

    def epoch(self, recipe: Recipe) -> tuple[float, float]:
        """Return the floating-point operations and the seconds of an epoch."""
        batches = train_batches(self.data, recipe, resolve_device(recipe.device), World())
        price = self.price(recipe)
        flop = price.image * batches.num_images + price.step * len(batches)
        batches.close()
        return flop, flop * price.seconds

    def price(self, recipe: Recipe) -> Price:
        plain = replace(recipe, {"model.start": "drawn", "name": "price", "epochs": 1000, "label_smoothing": 0.0})
        costs_alike = [plain.model, plain.objective, plain.optim.kind, plain.precision, plain.batch_size]
        key = repr(costs_alike)
        if key not in self._known:
            self._known[key] = _price(replace(plain, {"schedule": type(plain.schedule)()}), self.data)
        return self._known[key]


def _price(recipe: Recipe, data: ImageData) -> Price:
    device = resolve_device(recipe.device)
    recipe = replace(recipe, {"precision": resolve_precision(recipe.precision, device)})
    batches = train_batches(data, recipe, device, World())
    engine = Engine(recipe, build_net(recipe), device, World(), len(batches))
    x, y = next(iter(batches))
    few, more = (
        _counted(engine, x[:n], y[:n], range(DRAWS)) for n in (2, 4)
    )  # both run the same paths, so the optimiser's part is equal
    image = (more - few) / (2 * DRAWS)
    engine.start_epoch(0)
    _counted(engine, x, y, range(1))
    begun = time.perf_counter()
    flop = _counted(engine, x, y, range(1, 1 + TIMED))
    engine.meter.flush()  # flush waits until the device has finished
    seconds = time.perf_counter() - begun
    batches.close()
    return Price(image, few / DRAWS - 2 * image, seconds / flop)


def _counted(engine: Engine, x: torch.Tensor, y: torch.Tensor, steps: Sequence[int]) -> int:
    """Count the floating-point operations of ``steps``. All steps use the same images ``x`` and labels ``y``."""
    engine.start_epoch(0)
    engine.flop.take()
    for step in steps:
        engine.step([(0, x, y)], len(y), 0, step)
    return engine.flop.take()


def at_budget(recipe: Recipe, prices: Prices, pflop: float) -> Recipe:
    """Return the recipe with so many whole epochs (at least one) that its cost is nearest to ``pflop``."""
    flop, _ = prices.epoch(recipe)
    return replace(recipe, {"epochs": max(1, round(pflop * PETA / flop))})


def tell(planned: Mapping[str, Recipe], prices: Prices, seeds: int) -> float:
    """Print the cost of the runs. Return their total seconds."""
    rows, total, took = [], 0.0, 0.0
    for name, recipe in planned.items():
        flop, seconds = (recipe.epochs * cost for cost in prices.epoch(recipe))
        rows.append({"arm": name, "epochs": recipe.epochs, "pflop": flop / PETA, "minutes": seconds / 60})
        total, took = total + seeds * flop, took + seeds * seconds
    show("Each run", rows, {"arm": "", "epochs": "", "pflop": ".4f", "minutes": ".1f"})
    print(f"{len(rows)} arms, {seeds} seeds: {total / PETA:.3f} PFLOP, about {took / 3600:.1f} hours here")
    return round(took, 1)


# --- results ---------------------------------------------------------------------------------------------------


def rows_of(
    planned: Mapping[str, Recipe], results: Mapping[str, RunResult], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Return a row for each arm that has a run: errors on held-out images by seed, and the mean change from the arm's
    reference over the seeds that both have. The reference is ``none`` for arms with only one technique, and ``all`` for
    the other arms."""
    errors = {
        arm: {seed: found.val_error for seed in seeds if (found := results.get(run_name(arm, seed))) is not None}
        for arm in planned
    }
    rows = []
    for arm, recipe in planned.items():
        runs = [results[run_name(arm, seed)] for seed in errors[arm]]
        if not runs:
            continue
        beside = errors[NONE] if arm.startswith("only ") else errors[ALL]
        shared = [seed for seed in errors[arm] if seed in beside and arm != ALL]
        changes = [_known(errors[arm][seed]) - _known(beside[seed]) for seed in shared]
        mine = [_known(error) for error in errors[arm].values()]
        rows.append(
            {
                "arm": arm,
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "pflop": _mean([run.pflop for run in runs if run.pflop is not None]),
                "seconds": _mean([run.seconds for run in runs]),
                "val_errors": mine,
                "val_error": _mean(mine),
                "val_std": _spread(mine),
                "change": _mean(changes),
                "change_std": _spread(changes),
            }
        )
    return rows


def _known(error: float | None) -> float:
    assert error is not None, "a run with held-out images must have an error on them"
    return error


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 6) if values else None


def _spread(values: Sequence[float]) -> float | None:
    return round(statistics.stdev(values), 6) if len(values) > 1 else None


def _check_claim(out: Path, claim: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if the folder contains something other than this ablation."""
    check_own(out, "ablate.json", "ablation")
    file = out / "ablate.json"
    if file.is_file():
        before = read_json(file)
        for what in ("recipe", "pflop"):
            if before.get(what) != json.loads(json.dumps(claim[what])):
                raise ValueError(f"{out} contains an ablation with another {what}: choose another --out")
