"""Which runs a ladder needs: the network, and each of its paths as a plain network, its *twin*.

The twin of a path is ``extract(build(seed), path)`` trained whole by the same recipe: cross-entropy of all of it, no
drop-path, and no scales of stochastic depth, which only drop-path makes up for. Three kinds of them:

epochs  by as many epochs as the network (A)
pflop   by so many that all twins cost together what the network did (B)
taught  by as many epochs, and by the answers of the whole's twin of the first kind, which is its own of this one (C)
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
MOST = 5  # paths of a network


def run_name(kind: str, seed: int, path: str = "") -> str:
    """The run's folder within the ladder's."""
    word = "".join(c if c.isalnum() or c in "-+=." else "_" for c in path)
    return ",".join([kind, *([word] if word else []), f"seed={seed}"])


def twin(recipe: Recipe, path: str, seed: int, epochs: int | None = None, teacher: Path | None = None) -> Recipe:
    """The recipe of a path's twin, see the module."""
    changes = {"path": path, "seed": seed, "epochs": epochs or recipe.epochs}
    if "survival" in {field.name for field in fields(recipe.model)}:
        changes["model.survival"] = 1.0
    return replace(recipe, changes | {"objective": Whole() if teacher is None else Taught(teacher=str(teacher))})


def evenly(names: Iterable[str], macs: Mapping[str, int]) -> list[str]:
    """At most five of the names and the whole among them, cheapest first: the ends, and what lies evenly between."""
    ordered = sorted({*names, WHOLE_TEXT}, key=lambda name: (macs[name], name))
    places = np.linspace(0, len(ordered) - 1, min(MOST, len(ordered))).round().astype(int)
    chosen = {ordered[place] for place in places.tolist()}
    if WHOLE_TEXT not in chosen:  # something costs as much
        chosen.remove(ordered[-1])
    return [name for name in ordered if name in {*chosen, WHOLE_TEXT}]


def epochs_for(target: float, per_epoch: Sequence[float]) -> list[int]:
    """Epochs of each twin, as alike as whole numbers allow, by which they cost together most nearly ``target``.

    Args:
        target: PFLOP.
        per_epoch: PFLOP of an epoch of each twin.
    """
    least = max(1, int(target / sum(per_epoch)))
    choices = itertools.product(*[(least, least + 1)] * len(per_epoch))
    return list(min(choices, key=lambda n: abs(sum(map(operator.mul, n, per_epoch)) - target)))
