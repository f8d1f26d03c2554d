"""Polypath: train one network, run any of its paths."""

from polypath.cost import Cost, Latency, cost, count_paths, depth_distribution, latency
from polypath.ensemble import Ensemble
from polypath.fusion import fuse
from polypath.network import PathNet, Trace, extract
from polypath.paths import Paths
from polypath.registry import create_model, list_models
from polypath.saving import load, save
from polypath.wiring import Wiring, WiringBuilder

__all__ = [
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
    "depth_distribution",
    "extract",
    "fuse",
    "latency",
    "list_models",
    "load",
    "save",
]
