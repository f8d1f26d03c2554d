"""Every registered network as a timm model: ``import polypath.timm``, then ``timm.create_model("fractalnet20")``.

They take ``num_classes`` (0: no classifier), ``in_chans`` and every argument of their family, and images of any size
from ``min_size`` on. With ``features_only=True`` they give the maps of their stages (``out_indices``: some of them).
There are no pretrained weights under these names: saved networks are loaded by :func:`polypath.load`. timm's own names
are never taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.models import PretrainedCfg, is_model, register_model
from timm.models._features import FeatureGetterNet  # timm has no public name for it

from polypath.core.network import PathNet
from polypath.families.base import CIFAR_MEAN, CIFAR_STD, Preset
from polypath.families.registry import PRESETS
from polypath.families.registry import create_model as create_network

default_cfgs: dict[str, dict[str, Any]] = {}
"""Each model's default config; ``first_conv`` is known to built models only."""

_OF_HEADS = ("num_classes", "classifier", "global_pool")  # what timm leaves out of backbones' configs
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "drop_rate": (0.0,),
    "drop_path_rate": (0.0,),
    "drop_block_rate": (0.0,),
    "global_pool": ("", "avg"),
    "scriptable": (False,),
    "exportable": (False,),
}
"""Arguments that timm's scripts pass to every model, with the values that ask for nothing."""


def register() -> list[str]:
    """Register every network of :mod:`polypath.families.registry` that timm does not have yet; return the new names.

    Raises:
        ValueError: a name that is timm's own.
    """
    new = []
    for name, preset in PRESETS.items():
        if name in default_cfgs:
            continue
        if is_model(name):
            raise ValueError(f"model {name!r} is timm's own: it must have another name here")
        default_cfgs[name] = default_cfg(preset)
        entrypoint = _entrypoint(name)
        globals()[name] = register_model(entrypoint)
        new.append(name)
    return new


def default_cfg(preset: Preset) -> dict[str, Any]:
    """timm's description of a network: input, normalisation, classifier, paper."""
    spec = preset.spec
    return {
        **preset.pretrained_cfg(),
        "min_input_size": (spec.in_chans, spec.min_size, spec.min_size),
        "num_classes": spec.num_classes,
        "classifier": "head.classifier",
        "paper_name": spec.paper,
        "description": preset.table or None,
        "license": "apache-2.0",
    }


def _entrypoint(name: str) -> Callable[..., PathNet | FeatureGetterNet]:
    def build(
        pretrained: bool = False,
        pretrained_cfg: str | Mapping[str, Any] | PretrainedCfg | None = None,
        pretrained_cfg_overlay: Mapping[str, Any] | None = None,
        cache_dir: Any = None,
        features_only: bool = False,
        out_indices: int | Sequence[int] | None = None,
        feature_cls: str | type[FeatureGetterNet] = "getter",
        device: Any = None,
        dtype: torch.dtype | None = None,
        **arguments: Any,
    ) -> PathNet | FeatureGetterNet:
        if pretrained:
            raise ValueError(f"pretrained=True: there are no weights for {name!r}; polypath.load reads saved networks")
        if isinstance(pretrained_cfg, str):
            raise ValueError(f"{name}.{pretrained_cfg}: there are no weights for {name!r}, so no tags of them")
        net = create_network(name, **_own(name, arguments))
        net.config["pretrained_cfg"] = _described(net, name, pretrained_cfg, pretrained_cfg_overlay)
        net.to(device=device, dtype=dtype)
        return _features(net, out_indices, feature_cls) if features_only else net

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{PRESETS[name].spec.paper}; see ``polypath.create_model({name!r})``."
    return build


def _features(net: PathNet, indices: Any, feature_cls: Any) -> FeatureGetterNet:
    """timm's module that gives a list of stages' maps; what these do not need is pruned."""
    if feature_cls not in ("getter", FeatureGetterNet):
        raise ValueError(
            f"feature_cls={feature_cls!r}: must be 'getter'; a stage may be a join, which has no module to hook or keep"
        )
    described = {key: value for key, value in net.pretrained_cfg.items() if key not in _OF_HEADS}
    every = tuple(range(len(net.feature_info)))
    found: Any = FeatureGetterNet(net, out_indices=every if indices is None else indices)
    found.in_chans = net.in_chans
    found.pretrained_cfg = found.default_cfg = described
    return found


def _own(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without timm's general ones, where these ask for nothing that the network's family does not have."""
    kept = {}
    for key, value in arguments.items():
        if key not in _NEUTRAL:
            kept[key] = value
        elif value not in _NEUTRAL[key]:
            raise ValueError(f"{key}={value!r}: {name!r} does not have it; give its family's own arguments")
    return kept


def _described(net: PathNet, name: str, given: Any, overlay: Mapping[str, Any] | None) -> dict[str, Any]:
    config = PretrainedCfg(architecture=name, **default_cfgs[name]).to_dict() | net.config.get("pretrained_cfg", {})
    if isinstance(given, PretrainedCfg):
        given = given.to_dict()
    if isinstance(given, Mapping):
        config |= {key: value for key, value in given.items() if value is not None}
    return {**config, **(overlay or {})}


registered = register()
__all__ = ["CIFAR_MEAN", "CIFAR_STD", "default_cfg", "register", "registered", *registered]  # pyright: ignore[reportUnsupportedDunderAll] (known at run time)
