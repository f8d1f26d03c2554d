"""Polypath: train one network, run any of its paths."""

from polypath.ensemble import Ensemble
from polypath.network import PathNet, Trace, extract
from polypath.paths import Paths
from polypath.registry import create_model, list_models
from polypath.wiring import Wiring, WiringBuilder

__all__ = ["Ensemble", "PathNet", "Paths", "Trace", "Wiring", "WiringBuilder", "create_model", "extract", "list_models"]
