"""Deprecated modules, top-level names and methods of version 0.1. They work for one more release, with a warning."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from polypath.core.deprecation import add_old_method, warn_renamed

MODULES: dict[str, tuple[str, ...]] = {
    "polypath.analysis.draw": ("polypath.analysis.plots.frames",),
    "polypath.analysis.drawing": ("polypath.core.wiring_svg",),
    "polypath.analysis.figures": (
        "polypath.analysis.plots.paths",
        "polypath.analysis.plots.style",
        "polypath.analysis.plots.marks",
    ),
    "polypath.analysis.layout": ("polypath.core.wiring_layout",),
    "polypath.analysis.recalibrate": ("polypath.core.recalibrate",),
    "polypath.analysis.report.charts": ("polypath.analysis.plots.svg_chart", "polypath.analysis.plots.marks"),
    "polypath.cards": ("polypath.storage.cards",),
    "polypath.cost": ("polypath.profiling.cost", "polypath.profiling.latency"),
    "polypath.data.feed": ("polypath.data.batches",),
    "polypath.deploy.profile": ("polypath.deploy.latency_profile",),
    "polypath.deploy.timing": ("polypath.deploy.latency",),
    "polypath.dynamic": ("polypath.core.execute",),
    "polypath.expansion": ("polypath.core.expansion",),
    "polypath.expected": ("polypath.profiling.expected",),
    "polypath.files": ("polypath.storage.files",),
    "polypath.layers.gunn_blocks": ("polypath.layers.gunn.steps",),
    "polypath.layers.gunn_fast": ("polypath.layers.gunn.in_place",),
    "polypath.meta": ("polypath.core.meta", "polypath.core.inputs"),
    "polypath.network": (
        "polypath.core.network",
        "polypath.core.execute",
        "polypath.core.extract",
        "polypath.core.builder",
    ),
    "polypath.paths": ("polypath.core.paths",),
    "polypath.plan": ("polypath.core.plan",),
    "polypath.reproduce.results": (
        "polypath.reproduce.result",
        "polypath.reproduce.store",
        "polypath.reproduce.collect",
    ),
    "polypath.registry": ("polypath.families.registry",),
    "polypath.saving": (
        "polypath.storage.saving",
        "polypath.storage.loading",
        "polypath.storage.hub",
        "polypath.storage.config",
        "polypath.storage.layout",
        "polypath.storage.files",
    ),
    "polypath.serve.asks": ("polypath.serve.predict_request",),
    "polypath.serve.queue": ("polypath.serve.admission",),
    "polypath.statistics": ("polypath.core.batchnorm", "polypath.storage.batchnorm"),
    "polypath.training.files": ("polypath.storage.files", "polypath.storage.digests"),
    "polypath.wiring": ("polypath.core.wiring", "polypath.core.builder"),
}
"""For each old module: the modules that contain its names now, in the order in which they are searched."""

NAMES = {
    "Ask": "PredictRequest",
    "Chain": "Route",
    "Refusal": "RequestRejected",
    "Statistics": "BatchNormStatistics",
    "Words": "Selectors",
    "digest": "file_digest",
    "digest_of": "json_digest",
    "read_ask": "read_request",
    "rehearse": "is_feasible",
}
"""For each old name in any of these modules: the new name."""

TOP = {"WiringBuilder": "polypath.core.builder"}
"""For each old name in ``polypath`` itself: the module that contains the name now."""

METHODS: tuple[tuple[str, str, str, str], ...] = (
    ("polypath.core.network.PathNet", "save_pretrained", "polypath.storage.saving.save", "polypath.save(net, folder)"),
    (
        "polypath.core.network.PathNet",
        "push_to_hub",
        "polypath.storage.hub.push_to_hub",
        "polypath.push_to_hub(net, repo_id)",
    ),
    (
        "polypath.core.wiring.Wiring",
        "expand",
        "polypath.core.expansion.expand",
        "polypath.core.expansion.expand(wiring)",
    ),
    ("polypath.core.wiring.Wiring", "met", "polypath.core.wiring.Wiring.reachable", "wiring.reachable()"),
    ("polypath.core.wiring.Wiring", "chains", "polypath.core.wiring.Wiring.routes", "wiring.routes()"),
    ("polypath.families.base.Family", "draw", "polypath.families.base.Family.build_graph", "family.build_graph(b)"),
    ("polypath.families.base.Family", "words", "polypath.families.base.Family.selectors", "family.selectors()"),
    ("polypath.families.base.Family", "names", "polypath.families.base.Family.path_names", "family.path_names()"),
)
"""For each old method: the class, the method's name, the function or method that replaces it, and how to call that."""


class _Finder(MetaPathFinder, Loader):
    """A finder of the modules of 0.1 that were inside packages."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Moved(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing, because :class:`_Moved` looks names up on access."""


class _Moved(ModuleType):
    """A replacement for a module of 0.1. It looks each name up in the modules that contain the name now."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"Moved to {', '.join(MODULES[name])}.")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for place in MODULES[self.__name__]:
                module = importlib.import_module(place)
                for known in (name, NAMES.get(name)):
                    if known is not None and hasattr(module, known):
                        warn_renamed(f"{self.__name__}.{name}", f"{place}.{known}", 1)
                        return getattr(module, known)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def install() -> None:
    """Make the old modules importable and give classes their old methods. This imports nothing."""
    sys.meta_path.append(_Finder())
    for name in MODULES:
        if name.count(".") == 1:  # the import system would bind `polypath.cost` to the module, not the function
            sys.modules.setdefault(name, _Moved(name))
    for owner, old, new, call in METHODS:
        add_old_method(owner, old, _method(f"{owner.rpartition('.')[2]}.{old}", new, call))


def attribute(name: str) -> Any:
    """Return the object that was called ``polypath.NAME`` in version 0.1.

    Raises:
        AttributeError: version 0.1 had no such name.
    """
    if name in TOP:
        warn_renamed(f"polypath.{name}", f"{TOP[name]}.{name}", 2)
        return getattr(importlib.import_module(TOP[name]), name)
    if (module := f"polypath.{name}") in MODULES:
        return sys.modules[module]
    raise AttributeError(f"module 'polypath' has no attribute {name!r}")


def _method(old: str, new: str, call: str) -> Callable[..., Any]:
    old_name = old.rpartition(".")[2]
    owner, _, name = new.rpartition(".")

    def moved(self: Any, *args: Any, **options: Any) -> Any:
        warn_renamed(old, call, 1)
        if owner.rpartition(".")[2][0].islower():
            return getattr(importlib.import_module(owner), name)(self, *args, **options)
        # a subclass may override only the old name and call super(): find the first real method of the new name
        table = next(
            vars(c) for c in type(self).__mro__ if name in vars(c) and vars(c)[name] is not vars(c).get(old_name)
        )
        return table[name](self, *args, **options)

    moved.__name__ = old_name
    moved.__doc__ = f"Deprecated: use ``{call}``."
    return moved
