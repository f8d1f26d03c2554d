"""From a trained network to answers in milliseconds: export, bundles, a predictor with a time budget.

    bundle = pp.deploy.Bundle.open()                       # the pretrained one; or the folder of another
    predictor = pp.AnytimePredictor(bundle)
    answer = predictor.predict(images, budget_ms=2.0)      # by the most accurate path that is done in time

Names are looked up when they are used, so that what they need (torch, ONNX Runtime, OpenVINO) is imported only then.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

_PLACES = {
    "Answer": "answer",
    "AnytimePredictor": "predictor",
    "BudgetError": "budget",
    "Bundle": "bundle",
    "BundlePath": "manifest",
    "Confident": "answer",
    "ImageLimits": "images",
    "Timing": "latency",
    "export_path": "export",
    "Stepwise": "stepwise",
    "write_stepwise": "stepwise_write",
    "write_bundle": "write",
}

if TYPE_CHECKING:
    from polypath.deploy.answer import Answer, Confident
    from polypath.deploy.budget import BudgetError
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.images import ImageLimits
    from polypath.deploy.latency import Timing
    from polypath.deploy.manifest import BundlePath
    from polypath.deploy.predictor import AnytimePredictor

__all__ = ["Answer", "AnytimePredictor", "BudgetError", "Bundle", "BundlePath", "Confident", "ImageLimits", "Timing"]


def __getattr__(name: str) -> Any:
    if name == "Limits":
        warnings.warn("polypath.deploy.Limits is now ImageLimits", DeprecationWarning, stacklevel=2)
        name = "ImageLimits"
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
