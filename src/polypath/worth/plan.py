"""Plans the runs that a ladder needs: the network, and each of its paths as a plain network, its *twin*.

The twin of a path is ``extract(build(seed), path)``, trained as a whole by the same recipe with cross-entropy. It has
no drop-path, and none of the scales of stochastic depth, which only compensate for drop-path. There are three kinds:

epochs  trained for as many epochs as the network (A)
pflop   trained for fewer epochs, so that all twins together cost as much PFLOP as the network (B)
taught  trained for as many epochs as the network, by distillation from the whole's twin of kind A (C). For the whole,
        this kind is its twin of kind A
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from polypath.core.paths import WHOLE_TEXT
from polypath.training.objectives import Whole
from polypath.training.path_objectives import Taught
from polypath.training.recipe import Recipe, replace

Kind = Literal["epochs", "pflop", "taught"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NET = "net"
MOST = 5  # the largest number of paths in a ladder


def run_name(kind: str, seed: int, path: str = "") -> str:
    """Return the name of a run's folder inside the ladder's folder."""
    word = "".join(c if c.isalnum() or c in "-+=." else "_" for c in path)
    return ",".join([kind, *([word] if word else []), f"seed={seed}"])


def twin(recipe: Recipe, path: str, seed: int, epochs: int | None = None, teacher: Path | None = None) -> Recipe:
    """Return the recipe of a path's twin, see the module."""
    changes = {"path": path, "seed": seed, "epochs": epochs or recipe.epochs}
    if "survival" in {field.name for field in fields(recipe.model)}:
        changes["model.survival"] = 1.0
    return replace(recipe, changes | {"objective": Whole() if teacher is None else Taught(teacher=str(teacher))})


def evenly(names: Iterable[str], macs: Mapping[str, int]) -> list[str]:
    """Return at most five of the names, cheapest first: the cheapest, the whole, and names evenly spaced between."""
    ordered = sorted({*names, WHOLE_TEXT}, key=lambda name: (macs[name], name))
    places = np.linspace(0, len(ordered) - 1, min(MOST, len(ordered))).round().astype(int)
    chosen = {ordered[place] for place in places.tolist()}
    if WHOLE_TEXT not in chosen:  # the last path costs as much as the whole
        chosen.remove(ordered[-1])
    return [name for name in ordered if name in {*chosen, WHOLE_TEXT}]


def epochs_for(target: float, per_epoch: Sequence[float]) -> list[int]:
    """Return the number of epochs of each twin. The numbers differ by at most one. The total cost of the twins is as
    close as possible to ``target``.

    Args:
        target: total cost in PFLOP.
        per_epoch: cost of an epoch of each twin, in PFLOP.
    """
    least = max(1, int(target / sum(per_epoch)))
    choices = itertools.product(*[(least, least + 1)] * len(per_epoch))
    return list(min(choices, key=lambda n: abs(sum(map(operator.mul, n, per_epoch)) - target)))
