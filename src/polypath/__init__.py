"""Polypath: train one network, run any of its paths."""

import importlib
from typing import TYPE_CHECKING, Any

from polypath import _moved
from polypath.core.builder import NetBuilder
from polypath.core.execute import Trace
from polypath.core.extract import extract
from polypath.core.home import ensure_home
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.silence import silence
from polypath.core.wiring import Wiring
from polypath.ensemble import Ensemble
from polypath.families.base import Family
from polypath.families.registry import create_model, list_models
from polypath.fusion import fuse
from polypath.profiling.cost import Cost, cost, count_paths, depth_distribution
from polypath.profiling.latency import Latency, latency
from polypath.storage.hub import push_to_hub
from polypath.storage.loading import load
from polypath.storage.saving import save

if TYPE_CHECKING:
    from polypath import deploy, functional
    from polypath.analysis.recalibrate import recalibrate
    from polypath.data import DataConfig, evaluation_batches, load_images, training_batches
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.export import export_path
    from polypath.deploy.predictor import AnytimePredictor
    from polypath.deploy.write import write_bundle
    from polypath.training.loop import resume, train
    from polypath.training.recipe import Recipe
    from polypath.training.recipes import get_recipe

__all__ = [
    "AnytimePredictor",
    "Bundle",
    "Cost",
    "DataConfig",
    "Ensemble",
    "Family",
    "Latency",
    "NetBuilder",
    "PathNet",
    "Paths",
    "Recipe",
    "Trace",
    "Wiring",
    "cost",
    "count_paths",
    "create_model",
    "deploy",
    "depth_distribution",
    "evaluation_batches",
    "export_path",
    "extract",
    "functional",
    "fuse",
    "get_recipe",
    "latency",
    "list_models",
    "load",
    "load_images",
    "push_to_hub",
    "recalibrate",
    "resume",
    "save",
    "train",
    "training_batches",
    "write_bundle",
]

# imported when first used, since they bring data sets, trainers and runtimes with them
_LATER = {
    "AnytimePredictor": "polypath.deploy.predictor",
    "Bundle": "polypath.deploy.bundle",
    "DataConfig": "polypath.data",
    "Recipe": "polypath.training.recipe",
    "deploy": "polypath.deploy",
    "evaluation_batches": "polypath.data",
    "export_path": "polypath.deploy.export",
    "functional": "polypath.functional",
    "get_recipe": "polypath.training.recipes",
    "load_images": "polypath.data",
    "recalibrate": "polypath.analysis.recalibrate",
    "resume": "polypath.training.loop",
    "train": "polypath.training.loop",
    "training_batches": "polypath.data",
    "write_bundle": "polypath.deploy.write",
}


if not TYPE_CHECKING:  # or every misspelt name would have a type

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            return _moved.attribute(name)
        module = importlib.import_module(_LATER[name])
        return getattr(module, name, module)


def __dir__() -> list[str]:
    return __all__


_moved.install()
ensure_home()  # before the libraries that look into it are imported
silence()
