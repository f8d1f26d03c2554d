"""Tuning and training by the plan. The results of finished trainings are read, and unfinished trainings are resumed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from benchmarks.outside.networks import Trained
from benchmarks.outside.plan import FACTORS, Planned
from benchmarks.outside.scoring import blind, held_out_error
from polypath.data.config import DataConfig
from polypath.data.sources import ImageData
from polypath.storage.decode import read
from polypath.storage.files import write_json

LOG = logging.getLogger("polypath.outside")


class Tuned(TypedDict):
    """The result of tuning: the chosen learning rate, and the held-out error of each tried rate, by the rate's text."""

    lr: float
    tried: dict[str, float]
    pflop: float
    trial: int


def run_folder(folder: Path, planned: Planned, seed: int) -> Path:
    return folder / planned.key / f"seed={seed}"


def tuned(folder: Path, planned: Planned, data: ImageData, config: DataConfig, seed: int) -> Tuned:
    """Try each learning rate briefly. Choose the rate with the lowest held-out error, averaged over the paths."""
    file = folder / planned.key / "tuned.json"
    if file.is_file() and (known := read(file, Tuned))["trial"] == planned.trial:
        return known
    tried, pflop = {}, 0.0
    for factor in FACTORS:
        lr = planned.network.lr * factor
        run = folder / planned.key / f"trial,lr={lr:g}"
        LOG.info("%s: learning rate %g for %d %s", planned.key, lr, planned.trial, planned.network.unit)
        pflop += planned.network.train(run, blind(data), amount=planned.trial, lr=lr, seed=seed).pflop
        tried[f"{lr:g}"] = round(held_out_error(run, planned.network.paths, data, config), 4)
    best = Tuned(lr=float(min(tried, key=lambda text: tried[text])), tried=tried, pflop=pflop, trial=planned.trial)
    write_json(file, best)
    return best


def trained(folder: Path, planned: Planned, data: ImageData, lr: float, seeds: Sequence[int]) -> list[Trained]:
    """Train the planned network with each seed."""
    found = []
    for seed in seeds:
        LOG.info("%s: seed %d, %d %s", planned.key, seed, planned.amount, planned.network.unit)
        run = run_folder(folder, planned, seed)
        found.append(planned.network.train(run, blind(data), amount=planned.amount, lr=lr, seed=seed))
    return found
