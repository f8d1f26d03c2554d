"""Exports trained networks, writes and reads bundles, and classifies images within a time budget.

    bundle = pp.Bundle.open()                              # the pretrained bundle; for another one, give its folder
    predictor = pp.AnytimePredictor(bundle)
    answer = predictor.predict(images, budget_ms=2.0)      # runs the most accurate path that finishes in time

Names are resolved on first use, so that torch, ONNX Runtime and OpenVINO are imported only when they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polypath.core.deprecation import warn_renamed
from polypath.core.lazy import looked_up

_PLACES = {
    "Answer": "answer",
    "AnytimePredictor": "predictor",
    "BudgetError": "budget",
    "Bundle": "bundle",
    "BundleNetwork": "candidates",
    "BundlePath": "manifest",
    "Confident": "answer",
    "ImageLimits": "images",
    "Timing": "latency",
    "write_answers": "answer_file",
    "export_path": "export",
    "Stepwise": "stepwise",
    "write_stepwise": "stepwise_write",
    "write_bundle": "write",
    "write_networks": "write",
}

if TYPE_CHECKING:
    from polypath.data.images import ImageLimits
    from polypath.deploy.answer import Answer, Confident
    from polypath.deploy.answer_file import write_answers
    from polypath.deploy.budget import BudgetError
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.candidates import BundleNetwork
    from polypath.deploy.export import export_path
    from polypath.deploy.latency import Timing
    from polypath.deploy.manifest import BundlePath
    from polypath.deploy.predictor import AnytimePredictor
    from polypath.deploy.stepwise import Stepwise
    from polypath.deploy.stepwise_write import write_stepwise
    from polypath.deploy.write import write_bundle, write_networks

__all__ = [
    "Answer",
    "AnytimePredictor",
    "BudgetError",
    "Bundle",
    "BundleNetwork",
    "BundlePath",
    "Confident",
    "ImageLimits",
    "Stepwise",
    "Timing",
    "export_path",
    "write_answers",
    "write_bundle",
    "write_networks",
    "write_stepwise",
]


if not TYPE_CHECKING:  # otherwise a type checker would accept every misspelt name

    def __getattr__(name: str) -> Any:
        if name == "Limits":
            warn_renamed("polypath.deploy.Limits", "ImageLimits", 1)
            name = "ImageLimits"
        return looked_up(__name__, _PLACES, name)
