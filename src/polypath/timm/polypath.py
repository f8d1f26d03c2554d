"""The functions that timm calls to build Polypath's models by name. timm groups models by the last part of their
module's name, so ``timm.list_models(module="polypath")`` lists the models of this module."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from timm.layers.config import is_scriptable
from timm.models import PretrainedCfg, is_model, load_pretrained, register_model
from timm.models._features import FeatureGetterNet  # timm has no public name for it
from torch import nn

from polypath.core.network import PathNet
from polypath.families.base import Preset
from polypath.families.registry import PRESETS, build_preset
from polypath.families.registry import create_model as create_network
from polypath.timm.configs import OF_HEADS, entry, shipped, skip_entry
from polypath.timm.drawn import DrawnFeatures, draw_in_training

default_cfgs: dict[str, Any] = {}
"""timm's entries for these models; ``first_conv`` and ``pool_size`` are known only once a model is built."""

SKIPS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "wide_resnet50_2", "regnetx_002", "regnety_002", "regnety_008", "regnety_032",
    "convnext_atto", "convnext_nano", "convnext_tiny", "convnext_small",
    "mobilenetv2_050", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100",
    "efficientnet_b0", "efficientnet_b1", "tf_efficientnet_lite0", "tf_efficientnet_lite1",
    "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224",
    "deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224",
)  # fmt: skip
"""The timm models that are registered with skips on import; :func:`register_skips` adds others."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "drop_rate": (0.0,),
    "drop_path_rate": (0.0,),
    "drop_block_rate": (0.0,),
    "global_pool": ("avg",),
    "scriptable": (False,),
    "exportable": (False,),
}
"""Arguments that timm's scripts pass to every model, each with the values that have no effect."""


def register() -> list[str]:
    """Register every network of :mod:`polypath.families.registry` that is not in timm yet; return the new names.

    Raises:
        ValueError: a model of timm already has this name.
    """
    new = [name for name in PRESETS if name not in default_cfgs]
    for name in new:
        _register(name, entry(name, PRESETS[name]), _OwnNet(name, PRESETS[name]))
    return new


def register_skips(models: Iterable[str] = SKIPS) -> list[str]:
    """Register residual networks of timm with skips (``resnet50`` as ``skip_resnet50``). Return the new names.

    ``timm.create_model("skip_resnet50.a1_in1k", pretrained=True)`` has timm's weights.

    Raises:
        ValueError: timm does not know a name.
    """
    new: list[str] = []
    for model in models:
        name = f"skip_{model}"
        if not is_model(model):
            raise ValueError(f"timm has no model {model!r}; timm.list_models() lists its models")
        if name not in default_cfgs:
            _register(name, skip_entry(model, name), _SkipNet(model))
            new.append(name)
    return new


def register_shipped() -> list[str]:
    """Register the network that Polypath ships, with its weights. Return a list with its name, empty if not new."""
    name, preset, config = shipped()
    if name in default_cfgs:
        return []
    _register(name, config, _OwnNet(name, preset))
    return [name]


class _OwnNet:
    """A function that builds a network of this library. timm loads the weights, if the config contains any."""

    def __init__(self, name: str, preset: Preset) -> None:
        self.name, self.preset = name, preset

    def __call__(self, config: Mapping[str, Any], given: Mapping[str, Any], *, pretrained: bool) -> PathNet:
        arguments = self._own(given)
        net = build_preset(self.name, self.preset, arguments)
        if pretrained:
            _load(net, self.name, config)
        return net

    def _own(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the family's arguments. timm's general arguments are renamed to those of the family."""
        own = {f.name: getattr(self.preset.spec, f.name) for f in fields(self.preset.spec)}
        kept: dict[str, Any] = {}
        for key, value in given.items():
            if key == "global_pool" and value == "":
                kept["pooled"] = False
            elif key not in _NEUTRAL:
                kept[key] = value
            elif value in _NEUTRAL[key]:
                continue
            elif key == "drop_rate" and "dropout" in own:
                kept["dropout"] = (value,) if isinstance(own["dropout"], tuple) else value
            elif key == "drop_path_rate" and "survival" in own:
                kept["survival"] = 1.0 - value
            else:
                raise ValueError(
                    f"{key}={value!r}: {self.name!r} has no such argument; use the arguments of its family"
                )
        return kept


class _SkipNet:
    """A function that builds a timm network with skips. It loads timm's weights, or weights saved by Polypath."""

    def __init__(self, model: str) -> None:
        self.model = model

    def __call__(self, config: Mapping[str, Any], given: Mapping[str, Any], *, pretrained: bool) -> PathNet:
        arguments = {key: value for key, value in given.items() if value not in _NEUTRAL.get(key, ())}
        if arguments.get("global_pool") == "":
            del arguments["global_pool"]
            arguments["pooled"] = False
        saved = config.get("source") in ("local-dir", "hf-hub") or config.get("state_dict")
        source = f"timm:{self.model}" + (f".{config['tag']}" if config.get("tag") else "")
        weights = {"pretrained": True} if pretrained and not saved else {}
        net = create_network(source, skips=True, **weights, **arguments)
        if pretrained and saved:
            _load(net, f"skip_{self.model}", config)
        return net


def _load(net: PathNet, name: str, config: Mapping[str, Any]) -> None:
    if not any(config.get(key) for key in ("file", "url", "hf_hub_id", "state_dict")):
        raise ValueError(f"pretrained=True: there are no weights for {name!r}; use polypath.load for saved networks")
    named = {"first_conv": net.pretrained_cfg["first_conv"]}  # timm adapts these weights to other numbers of channels
    load_pretrained(net, named | dict(config), net.num_classes, net.in_chans)


def _register(name: str, config: Any, make: _OwnNet | _SkipNet) -> None:
    """Make the function that timm calls by ``name``, and register it.

    Raises:
        ValueError: a model of timm already has this name.
    """
    if is_model(name):
        raise ValueError(f"model {name!r} already exists in timm; choose another name")

    def build(
        pretrained: bool = False,
        pretrained_cfg: str | Mapping[str, Any] | PretrainedCfg | None = None,
        pretrained_cfg_overlay: Mapping[str, Any] | None = None,
        cache_dir: Any = None,
        pretrained_model_args: Any = None,
        features_only: bool = False,
        out_indices: int | Sequence[int] | None = None,
        feature_cls: str | type[FeatureGetterNet] = "getter",
        device: Any = None,
        dtype: torch.dtype | None = None,
        **arguments: Any,
    ) -> nn.Module:
        known, changed = _entry(name, pretrained_cfg), _given(pretrained_cfg) | dict(pretrained_cfg_overlay or {})
        described = _kept(known | changed)
        if pretrained_cfg is not None and not isinstance(pretrained_cfg, str) and described.get("num_classes"):
            arguments.setdefault("num_classes", described["num_classes"])  # of the saved model
        net = make(described, arguments, pretrained=pretrained)
        described |= net.config.get("pretrained_cfg", {}) | changed  # the means depend on the number of channels
        if not described.get("pool_size") and (size := net.map_size(*described["input_size"][1:])):
            described["pool_size"] = size
        net.config["model"], net.config["pretrained_cfg"] = name, described
        vars(net)["_model_args"] = _json(arguments)  # for timm's save_for_hf
        net.to(device=device, dtype=dtype)
        draw_in_training(net)
        if features_only:
            return _features(net, out_indices, feature_cls)
        return _scriptable(net) if is_scriptable() else net

    build.__name__ = build.__qualname__ = name
    build.__module__ = __name__
    build.__doc__ = f"See ``polypath.create_model({name!r})``."
    default_cfgs[name] = config
    globals()[name] = register_model(build)


def _features(net: PathNet, indices: Any, feature_cls: Any) -> FeatureGetterNet:
    """Wrap the network in timm's module that returns the maps of stages. Remove modules that these maps do not need."""
    if feature_cls not in ("getter", FeatureGetterNet):
        raise ValueError(
            f"feature_cls={feature_cls!r}: must be 'getter'; the others need a module per stage, and a join has none"
        )
    described = {key: value for key, value in net.pretrained_cfg.items() if key not in OF_HEADS}
    every = tuple(range(len(net.feature_info)))
    found: Any = DrawnFeatures(net, out_indices=every if indices is None else indices)
    found.in_chans = net.in_chans
    found.pretrained_cfg = found.default_cfg = described
    return found


def _scriptable(net: PathNet) -> nn.Module:
    """Return the whole network as one flat forward, for TorchScript, with the attributes that timm's scripts read."""
    module: Any = net.__prepare_scriptable__()
    module.pretrained_cfg = module.default_cfg = net.pretrained_cfg
    module.num_classes, module.num_features, module.in_chans = net.num_classes, net.num_features, net.in_chans
    return module


def _entry(name: str, given: Any) -> dict[str, Any]:
    """Return a model's entry in the registry for the tag ``given``, or the default entry if ``given`` is not a tag.

    Raises:
        ValueError: the tag is unknown.
    """
    known = default_cfgs[name]
    tag = given if isinstance(given, str) else ""
    if tag and tag not in known.cfgs:
        legal = ", ".join(filter(None, known.cfgs)) or "none"
        raise ValueError(f"{name}.{tag}: there are no weights with this tag; the tags of {name!r} are: {legal}")
    own: PretrainedCfg = known.cfgs[tag] if tag else known.default
    return own.to_dict() | {"architecture": name, "tag": tag or (known.tags[0] if known.tags else "")}


def _given(config: Any) -> dict[str, Any]:
    """Return the entries of the config that the caller gave. If the caller gave a tag, return an empty dict."""
    if isinstance(config, PretrainedCfg):
        config = config.to_dict()
    return _kept(config) if isinstance(config, Mapping) else {}


def _kept(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if value is not None and value != ""}


def _json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(arguments, default=str))
