"""What held-out images decide about a bundle: which paths it has, their temperatures, the ladder, the thresholds.

A seed splits the images into three parts, each with its own purpose:

choose      errors; which paths to keep; the ladder, and which paths its rungs average
calibrate   a temperature for each path
stop        answers that are stored in the bundle, for early stopping with a bounded risk
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
FEWEST = 50  # images in all
FEW = {"choose": 200, "calibrate": 50}  # images in a part: fewer leave out no whole network, or fit no temperature
Key = TypeVar("Key", bound=Hashable)
TEMPERATURES = 0.05, 20.0  # least and most


def parts(n: int, seed: int) -> dict[str, Tensor]:
    """Indices of each part of ``n`` held-out images.

    Raises:
        ValueError: fewer than :data:`FEWEST` images.
    """
    if n < FEWEST:
        raise ValueError(f"{n} held-out images: a bundle needs at least {FEWEST} to choose and to calibrate")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    ends = np.cumsum([round(share * n) for share in PARTS.values()]).tolist()
    ends[-1] = n
    return {name: order[a:b].sort().values for name, a, b in zip(PARTS, [0, *ends], ends, strict=False)}


def error(probabilities: Tensor, labels: Tensor) -> float:
    """Percent of ``(N, classes)`` whose largest entry is not the label's."""
    return 100.0 * float((probabilities.argmax(1) != labels).double().mean())


def pareto(errors: Mapping[Key, float], costs: Mapping[Key, float], keep: Collection[Key] = ()) -> list[Key]:
    """The Pareto-optimal keys, cheapest first: more accurate than all that cost no more; and those in ``keep``."""
    kept: list[Key] = []
    best = float("inf")
    for name in sorted(errors, key=lambda n: (costs[n], errors[n])):
        if errors[name] < best or name in keep:
            kept.append(name)
        best = min(best, errors[name])
    return kept


def ladder(probabilities: Mapping[str, Tensor], labels: Tensor) -> list[Rung]:
    """Rungs from paths, given cheapest first with probabilities ``(N, classes)``; each rung has a lower error.

    A rung answers with its path alone, or with the mean over it and all earlier paths, whichever has the lower error.
    A path that does not lower the error either way is left out.
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
    """The probabilities that a rung answers with."""
    return torch.stack([probabilities[name] for name in rung.combine]).mean(0)


@dataclass(frozen=True)
class Verdict:
    """What the held-out images decided.

    Attributes:
        names: the paths to keep, cheapest first.
        errors, temperatures, calibration: of these paths, by name.
        rungs: the ladder.
        confidence, right: ``(rungs, n)`` on the part for stopping.
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
    """Decide by the logits ``(N, classes)`` of every candidate path on the held-out images.

    Args:
        macs: of each candidate.
        seed: of the split into parts.
        keep: names of paths that stay, whatever their error. If fewer than ``FEW["choose"]`` images choose, each
            network's path of the most MACs stays as well: on so few, a cheaper path is often as good by chance.
        networks: each candidate's network, if there are several. Paths are compared only within a network, since equal
            MACs take different times in different networks.
        climb: names that may be steps of the ladder; None allows all.

    Raises:
        ValueError: too few images.
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
            "fitted_on": len(calibrate),
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
