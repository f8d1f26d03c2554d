"""Polypath: train one network, run any of its paths."""

from typing import TYPE_CHECKING, Any

from polypath import _moved
from polypath.core.home import ensure_home
from polypath.core.lazy import looked_up
from polypath.core.silence import silence

if TYPE_CHECKING:
    from polypath import deploy, functional
    from polypath.core.builder import NetBuilder
    from polypath.core.execute import Trace
    from polypath.core.extract import extract
    from polypath.core.network import PathNet
    from polypath.core.paths import Paths
    from polypath.core.recalibrate import recalibrate
    from polypath.core.wiring import Wiring
    from polypath.data import DataConfig, evaluation_batches, load_images, training_batches
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.export import export_path
    from polypath.deploy.predictor import AnytimePredictor
    from polypath.deploy.write import write_bundle
    from polypath.ensemble import Ensemble
    from polypath.families.base import Family
    from polypath.families.registry import create_model, list_models
    from polypath.fusion import fuse
    from polypath.profiling.cost import Cost, cost, count_paths, depth_distribution
    from polypath.profiling.latency import Latency, latency
    from polypath.storage.hub import push_to_hub
    from polypath.storage.loading import load
    from polypath.storage.saving import save
    from polypath.training.loop import resume, train
    from polypath.training.recipe import Recipe
    from polypath.training.recipes import get_recipe

    __version__: str

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

# The module that contains each name. It is imported on first use, so `polypath --help` and bundles do not need torch.
_PLACES = {
    "AnytimePredictor": "deploy.predictor",
    "Bundle": "deploy.bundle",
    "Cost": "profiling.cost",
    "DataConfig": "data",
    "Ensemble": "ensemble",
    "Family": "families.base",
    "Latency": "profiling.latency",
    "NetBuilder": "core.builder",
    "PathNet": "core.network",
    "Paths": "core.paths",
    "Recipe": "training.recipe",
    "Trace": "core.execute",
    "Wiring": "core.wiring",
    "cost": "profiling.cost",
    "count_paths": "profiling.cost",
    "create_model": "families.registry",
    "deploy": "deploy",
    "depth_distribution": "profiling.cost",
    "evaluation_batches": "data",
    "export_path": "deploy.export",
    "extract": "core.extract",
    "functional": "functional",
    "fuse": "fusion",
    "get_recipe": "training.recipes",
    "latency": "profiling.latency",
    "list_models": "families.registry",
    "load": "storage.loading",
    "load_images": "data",
    "push_to_hub": "storage.hub",
    "recalibrate": "core.recalibrate",
    "resume": "training.loop",
    "save": "storage.saving",
    "train": "training.loop",
    "training_batches": "data",
    "write_bundle": "deploy.write",
}


if not TYPE_CHECKING:  # if a type checker saw this function, it would accept every misspelt name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("polypath")
        return looked_up(__name__, _PLACES, name) if name in _PLACES else _moved.attribute(name)


def __dir__() -> list[str]:
    return __all__


_moved.install()
ensure_home()  # must run before libraries that use the home folder are imported
silence()
