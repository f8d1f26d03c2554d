"""The registry of networks: find and build them by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from polypath.core.arguments import takes
from polypath.core.checks import NAME, TEXT, WHOLE_NUMBER, check, did_you_mean, optional
from polypath.core.network import PathNet
from polypath.families import crescendonet, fractalnet, fusenet, gunn, inverted, onepath, recursive, resnet, timm_models
from polypath.families.base import FAMILIES, Family, Preset

PRESETS: dict[str, Preset] = {}
OTHERS = {"timm": timm_models.preset, "pytorchcv": onepath.preset}
"""For each other package, the function that makes a preset from the name after the colon."""


def register(presets: dict[str, Preset]) -> None:
    """Add presets to the registry.

    Raises:
        ValueError: a name is already taken.
    """
    for name, preset in presets.items():
        if name in PRESETS:
            raise ValueError(f"model {name!r} is already registered; choose another name")
        PRESETS[name] = preset


for _family in (fractalnet, crescendonet, gunn, resnet, fusenet, recursive, inverted):
    register(_family.PRESETS)


def get_family(name: str) -> type[Family]:
    """Return the family called ``name`` in saved networks and recipes.

    Raises:
        ValueError: there is no such family. The message lists all families.
    """
    if name not in FAMILIES:
        raise ValueError(f"unknown family {name!r}; the families are {', '.join(FAMILIES)}")
    return FAMILIES[name]


@takes(pattern=TEXT)
def list_models(pattern: str = "*") -> list[str]:
    """List the names of the registered networks that match a shell-style pattern."""
    return [name for name in PRESETS if fnmatch.fnmatch(name, pattern)]


def get_preset(name: str) -> Preset:
    """Return the registered preset called ``name``; ``timm:NAME`` and ``pytorchcv:NAME`` are other packages' models.

    Raises:
        ValueError: there is no such preset. The message lists similar names.
        ImportError: the package is not installed. The message says which extra to install.
    """
    check("model", name, NAME)
    package, _, model = name.partition(":")
    if package in OTHERS:
        return OTHERS[package](model)
    if name not in PRESETS:
        raise ValueError(f"unknown model {name!r}; {did_you_mean(name, PRESETS)} (`polypath models` lists all)")
    return PRESETS[name]


@takes(seed=optional(WHOLE_NUMBER))
def create_model(name: str, *, seed: int | None = None, **arguments: Any) -> PathNet:
    """Build a registered network; ``arguments`` replace fields of its family (``num_classes``, ``widths``, …).

    For a timm model, ``pretrained=True`` or ``checkpoint_path=FILE`` lets timm load the weights.

    Raises:
        ValueError: the name or an argument is unknown, the family rejects a value, or the weights cannot be loaded.
    """
    preset = get_preset(name)
    spec = preset.spec
    weights: dict[str, Any] = {}
    if isinstance(spec, timm_models.TimmModel):
        given = {key: arguments.pop(key) for key in timm_models.WEIGHTS if key in arguments}
        weights = {key: value for key, value in given.items() if value}
    if isinstance(spec, onepath.OnePath):
        arguments = spec.sorted_arguments(arguments)
    net = build_preset(name, preset, arguments, seed)
    if weights and isinstance(spec, timm_models.TimmModel):
        timm_models.load_timm_weights(net, replace(spec, **arguments), name.partition(":")[2], weights)
    return net


def build_preset(name: str, preset: Preset, arguments: Mapping[str, Any], seed: int | None = None) -> PathNet:
    """Build the network of a preset, and call it ``name``. ``arguments`` replace fields of the preset's family.

    Raises:
        ValueError: the family does not have an argument, or rejects a value.
    """
    legal = [f.name for f in fields(preset.spec)]
    if unknown := [key for key in arguments if key not in legal]:
        raise ValueError(f"model {name!r} has no argument {unknown[0]!r}; its arguments are {', '.join(legal)}")
    spec = replace(preset.spec, **arguments)
    preset = replace(preset, spec=spec, size=spec.made_for(preset.size))
    net = preset.spec.build(seed)
    net.config["model"], net.config["pretrained_cfg"] = name, preset.pretrained_cfg()
    return net
