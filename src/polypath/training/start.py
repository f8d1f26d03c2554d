"""Weights that a run may start from: the network that comes with the package, a saved network, or a timm model.

pretrained              the network that comes with the package
FOLDER                  a saved network, or a finished run
timm:NAME               a timm model with its pretrained weights; NAME may be hf-hub:OWNER/NAME or local-dir:FOLDER
timm:NAME:FILE          a timm model with the weights of a checkpoint file
FILE                    the same, if the recipe's model is a timm model
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from polypath.core.network import PathNet
from polypath.families.base import Family, seeded
from polypath.families.registry import get_family, get_preset
from polypath.families.timm_models import TimmModel, load_timm_weights
from polypath.storage.config import read_config
from polypath.storage.decode import decode
from polypath.storage.loading import reported_folder

TIMM = "timm:"
SKIPPED = 0.2  # probability that training skips the last block; lower for earlier blocks, by timm's linear rule
_SAVED = ("local-dir:", "hf-hub:")


class TimmStart(NamedTuple):
    """A timm model to start from. ``source`` is the model's name in timm. ``checkpoint`` is a file of weights, or None
    for the pretrained weights of timm."""

    source: str
    checkpoint: str | None


def timm_start(init: str, model: Family | None = None) -> TimmStart | None:
    """Return the timm model that ``init`` refers to, or None if ``init`` is a saved network of Polypath.

    Raises:
        ValueError: ``init`` is a file of weights, but ``model`` is not a timm model.
    """
    if init.startswith(TIMM):
        source = init.removeprefix(TIMM)
        if source.startswith(_SAVED):
            return TimmStart(source, None)
        name, _, file = source.partition(":")
        return TimmStart(name, file or None)
    if Path(init).is_file():
        if not isinstance(model, TimmModel):
            raise ValueError(f"init = {init!r}: a file of weights needs the name of its model; give timm:NAME:{init}")
        return TimmStart(model.model, init)
    return None


def model_of(init: str) -> Family:
    """Return the settings of the network that ``init`` refers to, with the network's number of classes. A timm model
    gets skippable blocks if possible.

    Raises:
        ValueError: there is no such network, folder or file.
    """
    timm = timm_start(init)
    if timm is None:
        config = read_config(reported_folder(init))
        return decode(config["arguments"], get_family(config["family"]), "arguments")
    return _with_skips(_spec_of(timm.source))


def _spec_of(source: str) -> TimmModel:
    spec = get_preset(TIMM + source).spec
    assert isinstance(spec, TimmModel)
    return spec


def _with_skips(spec: TimmModel) -> TimmModel:
    """Return the model with skippable blocks, if possible with a drop-path rate. Return a model without such blocks
    unchanged."""
    drawn = {**spec.model_arguments, "drop_path_rate": SKIPPED}
    for arguments in (drawn, spec.model_arguments):
        skipping = dataclasses.replace(spec, skips=True, model_arguments=arguments)
        try:
            skipping.stages()
        except ValueError:
            continue
        return skipping
    return spec


def fits(model: Family, init: str) -> bool:
    """Return whether a network of ``model`` can start from the weights of ``init``. The classes may differ."""
    other = model_of(init)
    if type(model) is not type(other):
        return False
    return dataclasses.replace(model, num_classes=1, init="he") == dataclasses.replace(other, num_classes=1, init="he")


def made_for(model: Family, init: str | None) -> tuple[int, bool] | None:
    """Return the side in pixels of the images that a timm model was made for, and whether this size is fixed. Return
    None for other models."""
    if not isinstance(model, TimmModel):
        return None
    start = timm_start(init, model) if init else None
    return _sizes_of(start.source if start else model.model)


def prepared_for(model: Family, init: str | None) -> Mapping[str, Any]:
    """Return the preprocessing that the pretrained timm model ``init`` expects, with timm's keys (``mean``, ``std``,
    ``interpolation``, …). The mapping is empty if ``init`` is not a timm model, or if timm does not define the model's
    preprocessing."""
    start = timm_start(init, model) if init else None
    return {} if start is None else get_preset(TIMM + start.source).prepared


def _sizes_of(source: str) -> tuple[int, bool]:
    from timm import get_pretrained_cfg

    preset = get_preset(TIMM + source)
    assert isinstance(preset.spec, TimmModel)
    known = get_pretrained_cfg(preset.spec.model)
    return preset.size, bool(known and known.fixed_input_size)


def timm_net(model: Family, start: TimmStart, init: str, seed: int) -> PathNet:
    """Build the network of ``model`` with weights loaded by timm. The classifier is re-initialised if the weights have
    another number of classes, or if they come from a checkpoint file.

    Raises:
        ValueError: ``init`` refers to another model, or the weights cannot be found, read or loaded.
    """
    if not isinstance(model, TimmModel):
        raise ValueError(f"model is a {model.family}, but init = {init!r} is a timm model: use a recipe of that family")
    spec = _spec_of(start.source)
    if model.model != spec.model:
        raise ValueError(f"model.model = {model.model!r}: init = {init!r} needs the model {spec.model!r}")
    weights: dict[str, Any] = {"pretrained": True}
    if start.checkpoint is not None:
        weights["pretrained_cfg_overlay"] = {"file": start.checkpoint, "custom_load": False}
    net = model.build(seed)
    with seeded(seed):  # timm draws a new classifier if the classes differ
        load_timm_weights(net, model, start.source, weights)
    return net
