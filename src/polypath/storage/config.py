"""Read and check a saved network's ``config.json``, and rebuild the network from it.

A saved network is a folder with three files:

config.json         how to rebuild the network, and how its images are prepared (see :func:`read_config`)
model.safetensors   its weights and buffers
README.md           the model card, with the table of its paths
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from polypath.core.checks import Rule, check, each, number, one_of, optional, plain, whole
from polypath.core.config import ABOUT, ImageConfig, Normalisation, completed_classes
from polypath.core.extract import extract
from polypath.core.network import PathNet
from polypath.families.registry import get_family
from polypath.storage.bounded import Held
from polypath.storage.decode import decode
from polypath.storage.files import read_json
from polypath.storage.layout import CONFIG, Folder, in_run

FORMAT_VERSION = 1
MIN_TORCH = "2.11"
PACKAGES = {"timm": "timm", "pytorchcv": "pytorchcv"}  # families whose networks are built by another package
_SIDE = whole(1, 8192)  # pixels
_IMAGES: dict[str, dict[str, Rule]] = {
    "image": {"size": each(_SIDE, 2), "to": optional(_SIDE), "resize": optional(one_of("crop", "squash", "pad"))},
    "normalisation": {"mean": each(number()), "std": each(number(above=0))},
    "pretrained_cfg": {"input_size": each(_SIDE, 3)},
}
"""The rules for the fields of a config that describe how images are prepared."""


@dataclass
class _Config:
    """The fields of a config from which the network is built."""

    family: str
    arguments: dict[str, Any]
    paths: str = ""
    classes: list[str] = field(default_factory=list)
    model: str = ""
    pretrained_cfg: dict[str, Any] = field(default_factory=dict[str, Any])
    statistics: dict[str, int | None] | None = None
    normalisation: Normalisation | None = None
    image: ImageConfig | None = None
    path_table: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def read_config(source: Folder) -> dict[str, Any]:
    """Read and check a saved network's ``config.json``.

    Its entries are ``family``, ``arguments``, ``paths`` (of an extracted network), ``model``, ``num_classes``,
    ``min_size``, ``classes``, ``normalisation``, ``image``, ``path_table`` and versions.

    Raises:
        ValueError: the folder or file is missing, or the file is damaged, not such a config, or of a later version.
    """
    file = Path(source) / CONFIG
    if not file.is_file():
        raise ValueError(f"{source}: is not a saved network, since {CONFIG} is missing{in_run(source)}")
    config = read_json(file)
    if not isinstance(config, dict) or config.get("format") != "polypath":
        raise ValueError(f'{file}: was not written by Polypath, since it has no "format": "polypath"')
    version = config.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(f"{file}: format_version = {version!r}: this Polypath reads versions 1 to {FORMAT_VERSION}")
    try:
        decode(config, _Config, "config", others=True)
        _check_images(config)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return config


def _check_images(config: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if a config has impossible values for the preparation of images."""
    given = {"image": config.get("image") or {}, "normalisation": config.get("normalisation") or {}}
    given["pretrained_cfg"] = config.get("pretrained_cfg") or {}
    for part, rules in _IMAGES.items():
        for name, rule in rules.items():
            if name in given[part]:
                check(f"config.{part}.{name}", given[part][name], rule)
    mean, std = (given["normalisation"].get(name, ()) for name in ("mean", "std"))
    if len(mean) != len(std):
        raise ValueError(
            f"config.normalisation: has {len(mean)} means and {len(std)} deviations; must have one for each channel"
        )


def build_net(config: Mapping[str, Any], where: str, *, seed: int | None = None, held: Held | None = None) -> PathNet:
    """Build the network that a config describes.

    Args:
        seed: random seed for the weights. Without it, the tensors that a weights file contains are on the meta device.
        held: the size of the weights file, which limits the network of a config of unknown origin.

    Raises:
        ValueError: the family or an argument is unknown, the family rejects an argument, or the network is far larger
            than the weights file. The message starts with ``where``.
    """
    family = config["family"]
    try:
        spec = decode(config["arguments"], get_family(family), "arguments")
        with contextlib.nullcontext() if held is None else held.bounds():
            net = _meta_built(spec) if seed is None else spec.build(seed)
        return extract(net, config["paths"]) if "paths" in config else net
    except ImportError:
        raise
    except Exception as error:  # a family may raise anything for values of unknown origin
        raise ValueError(f"{where}: family {family!r} cannot be built from this config ({error})") from error


def restore(net: PathNet, config: Mapping[str, Any], where: str) -> None:
    """Copy into ``net.config`` the facts of a saved config that do not affect how the network is built.

    Raises:
        ValueError: there are more classes than the head has outputs. The message starts with ``where``.
    """
    for key in (*ABOUT, "model", "statistics", "gates"):
        if key in config:
            cast(Any, net.config)[key] = config[key]
    if "pretrained_cfg" in config:
        net.config["pretrained_cfg"] = plain(config["pretrained_cfg"])
    if names := config.get("classes"):
        if len(names) > net.num_classes:
            raise ValueError(f"{where}: there are {len(names)} classes, but the head has {net.num_classes} outputs")
        net.config["classes"] = completed_classes(names, net.num_classes)  # version 0.1 saved fewer names than outputs


def _meta_built(spec: Any) -> PathNet:
    try:
        with torch.device("meta"):
            net = spec.build(seed=0)
    except RuntimeError:  # another package's constructor needs real values
        return spec.build(seed=0)
    # tensors outside the state dict must be computed, since no file contains them
    return spec.build(seed=0) if _unsaved(net) else net


def _unsaved(net: nn.Module) -> bool:
    saved = net.state_dict()
    attributes = (value for module in net.modules() for value in vars(module).values())
    return any(name not in saved for name, _ in net.named_buffers()) or any(isinstance(v, Tensor) for v in attributes)
