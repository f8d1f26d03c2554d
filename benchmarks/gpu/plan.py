"""The amount of work in the steps of ``make gpu``, and a tiny amount for the rehearsal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.models import MODELS, Model
from polypath.families.registry import get_preset

TINY: dict[str, dict[str, Any]] = {
    "crescendonet_128": {"widths": (2, 2, 2), "hidden": (4,)},
    "fractalnet20": {"filters": (2, 4), "columns": 2},
    "dfn_mr56": {"depth": 8},
    "dfn_il56": {"depth": 8},
    "gunn15": {"channels": (4, 4, 4), "segments": (1, 1, 1), "stem_width": 4},
    "dr_resnet74_cifar": {"blocks": (1, 1, 2), "loops": (1, 1, 2), "width": 4},
    "resnet110_cifar": {"depth": 8},
}


@dataclass(frozen=True)
class Plan:
    """A plan of the amount of measurement.

    Attributes:
        seconds: measuring time of each comparison.
        batches: batch sizes in training and inference.
        images: the folder of CIFAR-10. If it is None, images of noise are used.
        cut: for each network, fields of its family that make it tiny.
    """

    seconds: float = 2.0
    batches: tuple[int, ...] = (64, 256)
    images: str | None = None
    epoch_seconds: float = 15.0
    noise: tuple[int, int] = (50_000, 10_000)
    batch_size: int | None = None  # batch size of recipes; None means the published one
    cut: Mapping[str, Mapping[str, Any]] | None = None

    def model(self, name: str) -> Model:
        """Return a network of the benchmarks, in tiny form if this plan has ``cut``."""
        model = MODELS[name]
        if self.cut is None or name not in self.cut:
            return model
        spec = replace(get_preset(name).spec, **self.cut[name])
        return replace(model, make=lambda: spec.build(0))


def plan(rehearse: bool, images: str | None) -> Plan:
    if not rehearse:
        return Plan(images=images)
    return Plan(0.01, (2, 3), images, 0.01, (16, 8), 4, TINY)
