"""A network's entry in timm's registry: image preparation, first and last layers, paper, and place of the weights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import timm
from timm.models import PretrainedCfg, generate_default_cfgs, get_pretrained_cfg

from polypath.families.base import Preset
from polypath.families.registry import get_family
from polypath.families.skips import BODY
from polypath.storage.shipped import SHIPPED

CLASSIFIER = "head.classifier"
SHIPPED_TAG = "cifar10"
OF_HEADS = ("num_classes", "classifier", "global_pool")  # keys that timm omits from backbones' configs


def default_cfg(preset: Preset) -> dict[str, Any]:
    """Return the description of a network in timm's format: input, normalisation, classifier, paper."""
    spec = preset.spec
    return {
        **preset.pretrained_cfg(),
        "min_input_size": (spec.in_chans, spec.min_size, spec.min_size),
        "num_classes": spec.num_classes,
        "classifier": CLASSIFIER,
        "paper_name": spec.paper,
        "description": preset.table or None,
        "license": "apache-2.0",
    }


def entry(name: str, preset: Preset) -> Any:
    """Make the entry in timm's registry for a network without weights."""
    return generate_default_cfgs({name: default_cfg(preset)})[name]


def shipped() -> tuple[str, Preset, Any]:
    """Return the network that Polypath ships: its name, its preset, and its registry entry with weights for one tag."""
    config: dict[str, Any] = json.loads((SHIPPED / "config.json").read_bytes())
    name = f"shipped_{config['family']}"
    image, norm = config["image"], config["normalisation"]
    spec = get_family(config["family"])(**config["arguments"])
    prepared = {"mean": tuple(norm["mean"]), "std": tuple(norm["std"])}
    preset = Preset(spec, "the network that Polypath ships", size=image["size"][0], prepared=prepared)
    weights = {"file": str(SHIPPED / "model.safetensors"), "label_names": tuple(config["classes"])}
    return name, preset, generate_default_cfgs({f"{name}.{SHIPPED_TAG}": default_cfg(preset) | weights})[name]


def skip_entry(model: str, name: str) -> Any:
    """Make the registry entry of a timm network with skips. It has timm's tags, the default tag first, and Polypath's
    module names."""
    known = get_pretrained_cfg(model)
    default = f"{model}.{known.tag}" if known and known.tag else model
    tagged = dict.fromkeys([default, *timm.list_models(model, include_tags=True)])
    found: dict[str, Any] = {name + tag.removeprefix(model): _renamed(tag) for tag in tagged}
    return generate_default_cfgs(found)[name]


def _renamed(tag: str) -> PretrainedCfg:
    config = get_pretrained_cfg(tag) or PretrainedCfg()
    convs: Any = config.first_conv
    at = BODY + convs if isinstance(convs, str) else tuple(BODY + conv for conv in convs or ())
    return replace(config, first_conv=at, classifier=CLASSIFIER)
