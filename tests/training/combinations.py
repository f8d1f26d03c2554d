"""A training step of every combination of settings, for test_combinations.

Two processes, forked once, go through the combinations; rank 0 prints a line of JSON for each: ``trained``, or what
refused it.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
import tempfile
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tiny import tiny
from torch import Tensor

import polypath as pp
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.recursive import RecursiveResNet
from polypath.training import engine as module
from polypath.training.distributed import World, join_world
from polypath.training.engine import Engine
from polypath.training.objectives import Whole
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import (
    Distil,
    DropPath,
    Exits,
    OnePath,
    PathWise,
    SharedEnsemble,
    TargetRate,
    Taught,
    TiedColumns,
)
from polypath.training.prepare import compile_units
from polypath.training.recipe import ParallelConfig, Recipe
from polypath.training.recipe import replace as changed
from polypath.training.sandwich import Sandwich, SelfDistilled

BATCH = 8
BRANCHES = CrescendoNet(widths=(4, 4), scale=2, hidden=(8,), in_chans=1)
COLUMNS = FractalNet(columns=2, filters=(4, 8), in_chans=1)
GATED = RecursiveResNet(blocks=(1, 2), loops=(1, 2), width=4, in_chans=1)
OBJECTIVES: dict[str, tuple[Any, Any]] = {
    "whole": (BRANCHES, Whole()),
    "path": (BRANCHES, OnePath(paths="branches=1")),
    "drop-path": (BRANCHES, DropPath(rate=0.5)),
    "drop-path in groups": (COLUMNS, DropPath(mode="mixed", groups=2)),
    "tied-columns": (COLUMNS, TiedColumns()),
    "path-wise": (BRANCHES, PathWise()),
    "path-wise truncated": (BRANCHES, PathWise(backward="truncated")),
    "ensemble": (BRANCHES, SharedEnsemble(routes=("branches=1", "branches=2"))),
    "target-rate": (GATED, TargetRate()),
    "exits": (replace(BRANCHES, exits=(1,)), Exits()),
    "distil": (BRANCHES, Distil(paths=("branches=1",))),
    "sandwich": (COLUMNS, Sandwich(images=0.5, labels=0.5, distillation="alpha-divergence")),
    "self-distilled": (BRANCHES, SelfDistilled(base="branches=1")),
}
TAUGHT = "taught"  # its teacher is saved when the combinations are run
SETTINGS: dict[str, tuple[Any, ...]] = {
    "objective": (*OBJECTIVES, TAUGHT),
    "together": ("one", "ddp", "ddp-rank", "fsdp"),
    "precision": ("fp32", "bf16", "fp16"),
    "channels_last": (False, True),
    "compile": (False, True),
    "batch_norm": ("rank", "sync", "ghost"),
    "optimiser": ("sgd", "adam", "muon"),
    "extra": ("none", "clip_norm", "ema", "swa", "mixup", "accumulate", "move_unused", "whitening"),
}
EXTRAS: dict[str, dict[str, Any]] = {
    "none": {},
    "clip_norm": {"clip_norm": 0.5},
    "ema": {"ema": 0.9},
    "swa": {"swa": 0.5, "recalibrate": 8},
    "mixup": {"mixup": 0.2},
    "accumulate": {"accumulate": 2},
    "move_unused": {"optim.move_unused": True},
    "whitening": {"model.whitening": 4},
}


OPTIMISERS = {
    "sgd": OptimConfig(lr=0.02, weight_decay=1e-3),
    "adam": OptimConfig(kind="adam", lr=0.02, weight_decay=1e-3),
    "muon": OptimConfig(kind="muon", lr=0.02, rest_lr=0.02, weight_decay=1e-3),
}


def recipe_of(case: dict[str, Any]) -> Recipe:
    model, objective = OBJECTIVES[case["objective"]]
    parallel = {"strategy": "fsdp" if case["together"] == "fsdp" else "ddp", "batch_norm": case["batch_norm"]}
    parallel |= {"paths": "rank" if case["together"] == "ddp-rank" else "same"}
    parallel |= {"ghost_images": 2 if case["batch_norm"] == "ghost" else 0}
    plain = {name: case[name] for name in ("precision", "channels_last", "compile")}
    recipe = tiny(
        model=model,
        objective=objective,
        batch_size=BATCH,
        parallel=ParallelConfig(**parallel),
        optim=OPTIMISERS[case["optimiser"]],
        **plain,
    )
    return changed(recipe, EXTRAS[case["extra"]])


def reason(case: dict[str, Any]) -> str | None:
    """The beginning of the expected error, in the order of the checks; None for combinations that train."""
    together, norm, objective = case["together"], case["batch_norm"], case["objective"]
    if norm == "sync" and together == "ddp-rank":
        return "parallel.batch_norm = 'sync': needs the same path on every rank"
    if norm == "sync" and case["compile"]:
        return "compile with parallel.batch_norm 'sync'"
    if case["optimiser"] == "muon" and together == "fsdp":
        return "optim.kind = 'muon' with parallel.strategy 'fsdp'"
    if objective == "target-rate" and (norm == "ghost" or (norm == "sync" and together != "one")):
        return f"parallel.batch_norm = '{norm}': behind this network's gates"
    if case["extra"] in ("ema", "swa") and together == "fsdp":
        return f"{case['extra']} with parallel.strategy 'fsdp'"
    if objective == "ensemble" and together == "fsdp":
        return "objective 'ensemble' with parallel.strategy 'fsdp'"
    if objective == "exits" and together == "fsdp":
        return "objective 'exits' with parallel.strategy 'fsdp'"
    return None


def every() -> list[dict[str, Any]]:
    """All of the first five settings; the others are drawn, always the same."""
    draw, names = random.Random(0), list(SETTINGS)
    return [
        dict(zip(names[:5], values, strict=True)) | {name: draw.choice(SETTINGS[name]) for name in names[5:]}
        for values in itertools.product(*(SETTINGS[name] for name in names[:5]))
    ]


def attempt(case: dict[str, Any], world: World) -> str:
    """Two steps, a prediction, and the restored state; returns ``trained``, or the error."""
    try:
        recipe = recipe_of(case)
        engine = Engine(recipe, recipe.model.build(0), torch.device("cpu"), world, 2)
    except ValueError as error:
        return f"refused: {error}"
    except Exception as error:
        return failed(error)
    try:
        for step in range(2):
            engine.start_epoch(step)
            engine.step(parts(recipe, world, step), BATCH, step, step)
        engine.meter.flush()
        if engine.average is not None:
            with engine.autocast():
                engine.average.recalibrate([(x, y) for _, x, y in parts(recipe, world, 0)], BATCH)
        engine.share_statistics()
        with torch.no_grad(), engine.autocast():
            engine.scored.eval()
            logits = engine.predict(parts(recipe, world, 0)[0][1])
        assert logits.isfinite().all()
        engine.load(engine.tensors(), engine.state())
    except Exception as error:
        return failed(error)
    return "trained"


def failed(error: Exception) -> str:
    traceback.print_exception(error)
    return f"failed: {type(error).__name__}: {error}"


def parts(recipe: Recipe, world: World, step: int) -> list[tuple[int, Tensor, Tensor]]:
    g = torch.Generator().manual_seed(step)
    x, y = torch.randn(BATCH, 1, 8, 8, generator=g), torch.randint(0, 10, (BATCH,), generator=g)
    if recipe.channels_last:
        x = x.to(memory_format=torch.channels_last)
    count = world.size * recipe.accumulate
    pairs = list(enumerate(zip(x.chunk(count), y.chunk(count), strict=True)))
    return [(i, *pair) for i, pair in pairs[world.rank * recipe.accumulate :][: recipe.accumulate]]


def main(cases: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    module.compile_units = partial(compile_units, backend="eager")  # what can be traced; no compiler is waited for
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    OBJECTIVES[TAUGHT] = BRANCHES, Taught(teacher=str(pp.save(BRANCHES.build(1), Path(tempfile.mkdtemp()) / "net")))
    other = os.fork()
    rank = 0 if other else 1
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in where.items()})
    world = join_world(timeout_s=600)  # the other one waits while one process trains alone
    for case in cases:
        alone = case["together"] == "one"
        said = attempt(case, World() if alone else world) if rank == 0 or not alone else ""
        if rank == 0:
            print(json.dumps({**case, "said": said}), flush=True)
    world.close()
    if rank:
        os._exit(0)
    os.waitpid(other, 0)


if __name__ == "__main__":
    main(every())
