"""Two processes train, one accumulates, and this compares: ``ranks.py FOLDER [CASE …]``, for test_distributed.

Each case takes six steps with :class:`Engine` on batches of random images; what each of the two ranks has then is
written down, and compared with what one process has that accumulates over the same half-batches.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny import NET, equal, tiny
from torch import Tensor

from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.resnet import ResNet
from polypath.training.distributed import World, join_world
from polypath.training.engine import Engine
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import DropPath, PathWise, TiedColumns
from polypath.training.recipe import ParallelConfig, Recipe
from polypath.training.sandwich import Sandwich

STEPS, BATCH, EPOCH = 6, 12, 3
SGD: dict[str, Any] = {"batch_size": BATCH, "optim__lr": 0.02, "optim__weight_decay": 0.01}
FRACTAL = FractalNet(columns=3, filters=(4, 8), in_chans=1)
SHALLOW = ResNet(blocks=(1, 1), width=4, survival=0.5, in_chans=1)
PLAIN = CrescendoNet(widths=(4, 4), scale=4, hidden=(8,), in_chans=1)

MUON = OptimConfig(kind="muon", lr=0.1, rest_lr=0.02, nesterov=True, weight_decay=0.01)
CASES: dict[str, Recipe] = {
    "whole": tiny(**SGD, objective=DropPath(rate=0.0)),
    "local": tiny(**SGD, objective=DropPath(rate=0.5)),
    "local-adam": tiny(**SGD, objective=DropPath(rate=0.5), optim__kind="adam"),
    "unused": tiny(**SGD, objective=DropPath(rate=1.0), model=PLAIN),
    "uniform": tiny(**SGD, objective=DropPath(mode="uniform"), clip_norm=0.5),
    "global": tiny(**SGD, objective=DropPath(mode="global"), model=FRACTAL),
    "mixed": tiny(**SGD, objective=DropPath(mode="mixed"), model=FRACTAL),
    "tied": tiny(**SGD, objective=TiedColumns(), model=FRACTAL),
    "sandwich": tiny(**SGD, objective=Sandwich(labels=0.5, images=0.5, draw="uniform"), model=FRACTAL),
    "pathwise": tiny(**SGD, objective=PathWise(rate=0.3)),
    "truncated": tiny(**SGD, objective=PathWise(backward="truncated")),
    "depth": tiny(**SGD, objective=DropPath(mode="stochastic-depth"), model=SHALLOW),
    "rank": tiny(**SGD, objective=DropPath(rate=0.7), parallel=ParallelConfig(paths="rank")),
    "fsdp": tiny(**SGD, objective=DropPath(rate=0.5), parallel=ParallelConfig(strategy="fsdp")),
    "fsdp-channels-last": tiny(  # without dropout, whose draws follow the layout of the maps
        **SGD,
        model=changed(NET, dropout=0.0),
        objective=DropPath(rate=0.5),
        channels_last=True,
        parallel=ParallelConfig(strategy="fsdp"),
    ),
    "fsdp-pathwise": tiny(**SGD, objective=PathWise(), parallel=ParallelConfig(strategy="fsdp")),
    "muon": tiny(
        batch_size=BATCH, optim=MUON, objective=DropPath(rate=0.5), model=changed(PLAIN, whitening=5, start="identity")
    ),
    "sync": tiny(
        **SGD, model=changed(NET, dropout=0.0), objective=DropPath(), parallel=ParallelConfig(batch_norm="sync")
    ),
}


def images(step: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, 1, 8, 8, generator=g, dtype=torch.float64), torch.randint(0, 10, (BATCH,), generator=g)


def steps(recipe: Recipe, world: World, parts: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Everything that six steps have changed; ``parts`` is how many of a batch this process takes."""
    engine = Engine(recipe, recipe.model.build(0).double(), torch.device("cpu"), world, EPOCH)
    in_all = world.size * parts
    for step in range(STEPS):
        x, y = images(step)
        own = list(enumerate(zip(x.chunk(in_all), y.chunk(in_all), strict=True)))[world.rank * parts :][:parts]
        engine.start_epoch(step // EPOCH)
        engine.step([(i, *pair) for i, pair in own], BATCH, step // EPOCH, step)
    engine.meter.flush()
    held = engine.tensors()
    engine.share_statistics()
    return held | {f"shared/{k}": t.clone() for k, t in engine.net.named_buffers()}, engine.meter.means()


def in_two(folder: Path, cases: Mapping[str, Recipe]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(2):
        if pid := os.fork():
            pids.append(pid)
            continue
        status = 1
        try:
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}
            os.environ.update({name: str(value) for name, value in where.items()})
            world = join_world(timeout_s=60)
            for name, recipe in cases.items():
                tensors, means = steps(recipe, world, 1)
                save_file({k: t.contiguous() for k, t in tensors.items()}, folder / f"{name}-{rank}.safetensors")
                (folder / f"{name}-{rank}.json").write_text(json.dumps(means))
            world.close()
            status = 0
        finally:
            os._exit(status)
    for pid in pids:
        if status := os.waitpid(pid, 0)[1]:
            raise SystemExit(f"a rank ended with status {status}")


def main(folder: Path, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    for module in ("torch._dynamo", "torch.distributed.fsdp"):  # imported late; once here, not in each process
        importlib.import_module(module)

    cases = {name: CASES[name] for name in names or CASES}
    in_two(folder, cases)
    for name, recipe in cases.items():
        ranks = [load_file(folder / f"{name}-{rank}.safetensors") for rank in range(2)]
        told = [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(2)]
        row: dict[str, Any] = {"same": equal(*map(weights, ranks)), "told": told[0] == told[1]}
        row["statistics"] = equal(*map(running, ranks))
        row["shared"] = all(equal(shared(rank), running(ranks[0])) for rank in ranks)
        if name != "rank":
            parts = 1 if name == "sync" else 2
            alone, means = steps(changed(recipe, parallel=ParallelConfig()), World(), parts)
            row["off"] = max(float((a - ranks[0][k]).abs().max()) for k, a in weights(alone).items())
            row["moved"] = max(float((a - images_at_start(recipe)[k]).abs().max()) for k, a in weights(alone).items())
            row["off_loss"] = abs(means["loss"] - told[0]["loss"])
            row["keys"] = alone.keys() == ranks[0].keys()
        print(json.dumps({"case": name, **row}))


def weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: t for k, t in tensors.items() if k.startswith(("model/", "optim/")) and not _running(k)}


def running(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.partition("/")[2]: t for k, t in tensors.items() if k.startswith("model/") and _running(k)}


def shared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.partition("/")[2]: t for k, t in tensors.items() if k.startswith("shared/")}


def _running(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def images_at_start(recipe: Recipe) -> dict[str, Tensor]:
    """Weights before training, and zeros for the optimiser's state."""
    start = {f"model/{k}": t for k, t in recipe.model.build(0).double().state_dict().items()}

    class Zeros(dict):
        def __missing__(self, key: str) -> Tensor:
            return torch.zeros(())

    return Zeros(start)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
