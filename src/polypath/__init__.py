"""Polypath: train one network, run any of its paths."""

import importlib
from typing import TYPE_CHECKING, Any

from polypath.cost import Cost, Latency, cost, count_paths, depth_distribution, latency
from polypath.ensemble import Ensemble
from polypath.fusion import fuse
from polypath.network import PathNet, Trace, extract
from polypath.paths import Paths
from polypath.registry import create_model, list_models
from polypath.saving import load, save
from polypath.wiring import Wiring, WiringBuilder

if TYPE_CHECKING:
    from polypath import deploy
    from polypath.deploy.predictor import AnytimePredictor

__all__ = [
    "AnytimePredictor",
    "Cost",
    "Ensemble",
    "Latency",
    "PathNet",
    "Paths",
    "Trace",
    "Wiring",
    "WiringBuilder",
    "cost",
    "count_paths",
    "create_model",
    "deploy",
    "depth_distribution",
    "extract",
    "fuse",
    "latency",
    "list_models",
    "load",
    "save",
]


def __getattr__(name: str) -> Any:
    if name == "deploy":
        return importlib.import_module("polypath.deploy")
    if name == "AnytimePredictor":
        return importlib.import_module("polypath.deploy").AnytimePredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
