"""Loss curves of 50 steps in float64, one small recipe a family: ``python tests/training/golden.py`` records them.

They are the same on every processor to 1e-6 of their size: float64 leaves rounding no room to grow within 50 steps. A
change that is meant to leave results as they are leaves the record as it is; one that draws or sums otherwise records
it again in its own commit.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tiny import images, tiny

from polypath.families.base import Family
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.families.fusenet import MergeAndRun
from polypath.families.gunn import Gunn
from polypath.families.recursive import RecursiveResNet
from polypath.training.build import train_batches
from polypath.training.distributed import World
from polypath.training.engine import Engine
from polypath.training.objectives import Objective, Whole
from polypath.training.path_objectives import DropPath, TargetRate

FILE = Path(__file__).parent / "golden.json"
STEPS = 50
CPU = torch.device("cpu")

FAMILIES: dict[str, tuple[Family, Objective]] = {
    # its own initialisation, a truncated normal, is drawn differently from torch 2.11 to torch 2.15
    "crescendonet": (CrescendoNet(widths=(4, 6), scale=3, hidden=(8,), in_chans=1, init="he"), DropPath(rate=0.3)),
    "fractalnet": (FractalNet(filters=(4, 8), columns=3, in_chans=1), DropPath(mode="mixed")),
    "dfn_mr": (MergeAndRun(blocks=(1, 2), width=4, in_chans=1), Whole()),
    "gunn": (Gunn(channels=(8, 12), segments=(2, 3), stem_width=4, last_width=8, in_chans=1), Whole()),
    "dr_resnet": (RecursiveResNet(blocks=(1, 2), loops=(1, 2), width=4, in_chans=1), TargetRate()),
}


def losses(name: str) -> list[float]:
    """Training losses of the first 50 steps, in float64 from the first weight on, by one thread."""
    default, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    try:
        return _losses(name)
    finally:
        torch.set_default_dtype(default)
        torch.set_num_threads(threads)


def _losses(name: str) -> list[float]:
    model, objective = FAMILIES[name]
    recipe = tiny(model=model, objective=objective, optim__lr=0.05, epochs=10)
    batches = train_batches(images(), recipe, CPU, World())
    engine = Engine(recipe, model.build(recipe.seed), CPU, World(), len(batches))
    curve: list[float] = []
    for epoch in range(STEPS // len(batches)):
        engine.start_epoch(epoch)
        batches.set_epoch(epoch)
        for x, y in batches:
            engine.step([(0, x.double(), y)], len(y), epoch, len(curve))
            ((_, values),) = engine.meter.flush()
            curve.append(values["loss"])
    return curve


def main() -> None:
    made_with = {"torch": torch.__version__, "numpy": np.__version__}
    record = {"made with": made_with, "losses": {name: losses(name) for name in FAMILIES}}
    FILE.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
