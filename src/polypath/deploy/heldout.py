"""Uses held-out images to decide which paths a bundle has, their temperatures, and the ladder.

The images are split at random, with a seed, into three parts, each with its own purpose:

choose      measure errors, and choose the paths to keep, the ladder, and the paths that each rung averages
calibrate   fit a temperature for each path
stop        compute answers to store in the bundle, for early stopping with a bounded risk
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from polypath.analysis.temperature import calibration_error, fit_temperature
from polypath.deploy.manifest import Rung

PARTS = {"choose": 0.4, "calibrate": 0.2, "stop": 0.4}
FEWEST = 50  # minimum number of images in total
# with fewer images in these parts, the path with the most MACs is always kept, or no temperature is fitted
FEW = {"choose": 200, "calibrate": 50}
Key = TypeVar("Key", bound=Hashable)
TEMPERATURES = 0.05, 20.0  # lowest and highest allowed


def parts(n: int, seed: int) -> dict[str, Tensor]:
    """Return the indices of each part of ``n`` held-out images.

    Raises:
        ValueError: there are fewer than :data:`FEWEST` images.
    """
    if n < FEWEST:
        raise ValueError(f"{n} held-out images are too few: choosing and calibrating paths needs at least {FEWEST}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    ends = np.cumsum([round(share * n) for share in PARTS.values()]).tolist()
    ends[-1] = n
    return {name: order[a:b].sort().values for name, a, b in zip(PARTS, [0, *ends], ends, strict=False)}


def error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the error in percent: the share of rows of ``(N, classes)`` whose largest entry is not the label's."""
    return 100.0 * float((probabilities.argmax(1) != labels).double().mean())


def pareto(errors: Mapping[Key, float], costs: Mapping[Key, float], keep: Collection[Key] = ()) -> list[Key]:
    """Return the keys with a lower error than all keys that cost no more, and all keys in ``keep``, cheapest first."""
    kept: list[Key] = []
    best = float("inf")
    for name in sorted(errors, key=lambda n: (costs[n], errors[n])):
        if errors[name] < best or name in keep:
            kept.append(name)
        best = min(best, errors[name])
    return kept


def ladder(probabilities: Mapping[str, Tensor], labels: Tensor) -> list[Rung]:
    """Return rungs with falling errors. ``probabilities`` has ``(N, classes)`` by path, cheapest path first.

    A rung's answer is that of its path alone, or the mean over this path and those of all earlier rungs, whichever has
    the lower error. A path is left out if neither of these lowers the error.
    """
    rungs: list[Rung] = []
    ran: list[str] = []
    for name, p in probabilities.items():
        alone = error(p, labels)
        options: list[tuple[float, tuple[str, ...]]] = [(alone, (name,))]
        if ran:
            together = torch.stack([probabilities[n] for n in (*ran, name)]).mean(0)
            options.append((error(together, labels), (*ran, name)))
        off, combine = min(options, key=lambda option: option[0])
        if not rungs or off < (rungs[-1].error or 0.0):
            rungs.append(Rung(path=name, combine=combine, error=round(off, 4)))
            ran.append(name)
    return rungs


def combined(probabilities: Mapping[str, Tensor], rung: Rung) -> Tensor:
    """Return the mean probabilities of the paths that a rung combines."""
    return torch.stack([probabilities[name] for name in rung.combine]).mean(0)


@dataclass(frozen=True)
class Verdict:
    """The decisions made with held-out images.

    Attributes:
        names: the paths to keep, cheapest first.
        errors, temperatures, calibration: values for the paths in ``names``, by name.
        rungs: the ladder.
        confidence, right: for each rung and each image of the part ``stop``, the confidence of the answer, and whether
            the answer is correct, ``(rungs, n)``.
        images: number of images in each part.
    """

    names: list[str]
    errors: dict[str, float]
    temperatures: dict[str, float]
    calibration: dict[str, dict[str, float]]
    rungs: list[Rung]
    confidence: Tensor
    right: Tensor
    images: dict[str, int]


def decide(
    logits: Mapping[str, Tensor],
    labels: Tensor,
    macs: Mapping[str, int],
    *,
    seed: int,
    keep: Sequence[str] = (),
    networks: Mapping[str, str] | None = None,
    climb: Collection[str] | None = None,
) -> Verdict:
    """Choose and calibrate paths, given the logits ``(N, classes)`` of every candidate path on the held-out images.

    Args:
        macs: multiply-adds of each candidate.
        seed: random seed for splitting the images into parts.
        keep: names of paths that stay, whatever their error. If the part ``choose`` has fewer than ``FEW["choose"]``
            images, each network's path with the most MACs stays as well. On so few images, a cheaper path is often as
            accurate by chance.
        networks: the network of each candidate, if there are several. Paths are compared only within a network, since
            equal MACs take different times in different networks.
        climb: names of paths that may be steps of the ladder; None allows all.

    Raises:
        ValueError: there are too few images.
    """
    cut = parts(len(labels), seed)
    choose, calibrate, stop = (cut[name] for name in PARTS)
    errors = {name: error(z[choose], labels[choose]) for name, z in logits.items()}
    own = networks or {}
    groups = {own.get(name, ""): [other for other in errors if own.get(other) == own.get(name)] for name in errors}
    kept: list[str] = []
    for group in groups.values():
        most = [max(group, key=lambda name: macs[name])] if len(choose) < FEW["choose"] else []
        kept += pareto({name: errors[name] for name in group}, macs, [*keep, *most])
    names = sorted(kept, key=lambda name: macs[name])
    fits = len(calibrate) >= FEW["calibrate"]
    temperatures = {
        name: round(fit_temperature(logits[name][calibrate], labels[calibrate], *TEMPERATURES), 4) if fits else 1.0
        for name in names
    }
    scaled = {name: (logits[name] / temperatures[name]).softmax(1) for name in names}
    calibration = {
        name: {
            "before": round(calibration_error(logits[name][choose], labels[choose]), 3),
            "after": round(calibration_error(logits[name][choose] / temperatures[name], labels[choose]), 3),
            "fitted_on": len(calibrate) if fits else 0,
        }
        for name in names
    }
    steps = [name for name in names if climb is None or name in climb]
    rungs = ladder({name: scaled[name][choose] for name in steps}, labels[choose])
    answers = [combined({name: scaled[name][stop] for name in names}, rung) for rung in rungs]
    best = [p.max(1) for p in answers]
    return Verdict(
        names=names,
        errors={name: round(errors[name], 4) for name in names},
        temperatures=temperatures,
        calibration=calibration,
        rungs=rungs,
        confidence=torch.stack([found.values for found in best]).float(),
        right=torch.stack([found.indices == labels[stop] for found in best]),
        images={name: len(index) for name, index in cut.items()},
    )
