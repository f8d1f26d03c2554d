"""``config.json`` of a saved network: read, checked, and the network built again from it.

config.json         how to build the network again, and how its images are prepared (see :func:`read_config`)
model.safetensors   its weights and buffers
README.md           the model card, with the table of its paths
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from polypath.core.extract import extract
from polypath.core.network import PathNet
from polypath.families.base import FAMILIES

CONFIG, WEIGHTS, CARD = FILES = ("config.json", "model.safetensors", "README.md")
FORMAT_VERSION = 1
MIN_TORCH = "2.11"
PACKAGES = {"timm": "timm", "pytorchcv": "pytorchcv"}  # families whose networks another package draws
ABOUT = ("classes", "normalisation", "image")  # kept in ``net.config`` from load to the next save

Folder = str | os.PathLike[str]


def read_config(source: Folder) -> dict[str, Any]:
    """What ``config.json`` of a saved network says: ``family``, ``arguments``, ``paths`` (of an extracted one),
    ``model``, ``num_classes``, ``min_size``, ``classes``, ``normalisation``, ``image``, ``path_table`` and versions.

    Raises:
        ValueError: a folder or file that is missing, damaged, something else or of a later version.
    """
    file = Path(source) / CONFIG
    if not file.is_file():
        raise ValueError(f"{source}: no saved network, {CONFIG} is missing")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: damaged, or no JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != "polypath":
        raise ValueError(f'{file}: not written by polypath (it has no "format": "polypath")')
    version = config.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(f"{file}: format_version {version!r}; this polypath reads 1 to {FORMAT_VERSION}")
    for key, kind in (("family", str), ("arguments", dict)):
        if not isinstance(config.get(key), kind):
            raise ValueError(f"{file}: {key} {config.get(key)!r} must be {'a name' if kind is str else 'a table'}")
    if not isinstance(config.get("paths", ""), str):
        raise ValueError(f"{file}: paths {config['paths']!r} must be a text")
    if not all(isinstance(config.get(key, kind()), kind) for key, kind in (("classes", list), ("model", str))):
        raise ValueError(f"{file}: classes must be a list and model a name")
    return config


def build_net(config: Mapping[str, Any], where: str, *, seed: int | None = None) -> PathNet:
    """The network that a config describes. Without a ``seed`` to draw its weights from, what a weights file holds is
    on the meta device.

    Raises:
        ValueError: an unknown family or argument, or one that the family refuses; the message starts with ``where``.
    """
    import polypath.families.registry  # noqa: F401 (its import makes the families known)

    family, arguments = config["family"], config["arguments"]
    if family not in FAMILIES:
        raise ValueError(f"{where}: unknown family {family!r}; there are {', '.join(FAMILIES)}")
    legal = [field.name for field in fields(FAMILIES[family])]
    if unknown := [key for key in arguments if key not in legal]:
        raise ValueError(f"{where}: family {family!r} has no argument {unknown[0]!r}; it has {', '.join(legal)}")
    try:
        spec = cast(Any, FAMILIES[family])(**{key: _tupled(value) for key, value in arguments.items()})
        net = _meta_built(spec) if seed is None else spec.build(seed)
        return extract(net, config["paths"]) if "paths" in config else net
    except ImportError:
        raise
    except Exception as error:  # whatever a family makes of values that somebody else wrote
        raise ValueError(f"{where}: {family!r} cannot be built from it ({error})") from error


def _meta_built(spec: Any) -> PathNet:
    try:
        with torch.device("meta"):
            net = spec.build(seed=0)
    except RuntimeError:  # a module of another package that computes while it is made
        return spec.build(seed=0)
    # what no state-dict has must be computed
    return spec.build(seed=0) if _unsaved(net) else net


def _unsaved(net: nn.Module) -> bool:
    saved = net.state_dict()
    attributes = (value for module in net.modules() for value in vars(module).values())
    return any(name not in saved for name, _ in net.named_buffers()) or any(isinstance(v, Tensor) for v in attributes)


def _tupled(value: Any) -> Any:
    """JSON's lists as tuples, as the families' arguments have them."""
    if isinstance(value, list):
        return tuple(_tupled(entry) for entry in value)
    return {key: _tupled(entry) for key, entry in value.items()} if isinstance(value, dict) else value
