"""Models of timm with one path. If a model has residual blocks, it can also have paths that skip some of them.

Examples are ``create_model("timm:resnet18")`` and
``create_model("timm:resnet50.a1_in1k", skips=True, pretrained=True)``. Names may have tags;
``timm:local-dir:FOLDER`` and ``timm:hf-hub:OWNER/NAME`` are models that timm saved. timm loads the weights. If timm
uses ``torch.load`` for this, it sets ``weights_only``, so no code from a file runs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from polypath.core.builder import NetBuilder
from polypath.core.checks import FLAG, check_fields
from polypath.core.later import later
from polypath.core.network import PathNet, set_module
from polypath.families.base import Family, Preset
from polypath.families.onepath import Body, OnePath, as_linear
from polypath.families.skips import BODY, FixedSize, draw_skips, linear_rates, selectors_of, standard_depths

WEIGHTS = ("pretrained", "checkpoint_path", "pretrained_cfg_overlay")
"""Arguments of ``create_model`` that select the weights for timm to load; they do not belong to the architecture."""
ENDS = ("num_classes", "in_chans")  # arguments of timm's models that are fields of every family
PREPARED = ("mean", "std", "crop_pct", "crop_mode", "interpolation")


@dataclass(frozen=True, kw_only=True)
class TimmModel(OnePath, name="timm"):
    """A model of timm. Its ``forward_features`` and the pooling part of its head are two units that run one module.

    Args:
        skips: whether each residual block is a separate unit and may be skipped, see
            :mod:`polypath.families.skips`. If so, ``drop_path_rate`` is the rate at which the objective ``drop-path``
            skips the last block, in its mode ``stochastic-depth``. This mode draws once per mini-batch and does not
            scale outputs.
    """

    model: str = "resnet18"
    skips: bool = later(False)

    package = "timm"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, skips=FLAG)

    def path_draws(self) -> dict[str, Any]:
        return {"mode": "stochastic-depth"} if self.skips else {}

    def stages(self) -> dict[str, tuple[str, ...]]:
        return Family.stages(self) if self.skips else super().stages()

    def made_for(self, side: int) -> int:
        given = self.model_arguments.get("img_size", side)
        return given if isinstance(given, int) else max(given)

    def build(self, seed: int | None = None) -> PathNet:
        net = super().build(seed)
        if self.skips:
            net.selectors = selectors_of(net.wiring)
            depths = standard_depths(net.wiring)
            net.path_names, net.path_sets = tuple(depths), {"depths": tuple(depths)}
        return net

    def build_graph(self, b: NetBuilder) -> str:
        where = f"timm model {self.model!r}"
        model = self._model(**self.model_arguments) if not self.skips else self._model(**self._without_rate)
        name = model.default_cfg.get("classifier")
        if not isinstance(name, str):
            raise ValueError(f"{where} must have one classifier, but its classifier is {name}")
        linear = as_linear(model.get_submodule(name), f"{where}, {name}")
        set_module(model, name, nn.Identity())
        size, fixed = self._size(model)
        if self.skips:
            z = b.add("size", b.input, FixedSize(size)) if fixed else b.input
            z = draw_skips(b, z, model, (self.in_chans, *size), where, self._rates())
        else:
            body = Body(model, size, fixed=fixed)
            z = b.add("body", b.input, body, variant="features")
            z = b.add("head.pool", z, body, at="body", variant="pooled")
        return b.add("head.classifier", z, linear)

    def _model(self, **arguments: Any) -> Any:
        """Build timm's model.

        Raises:
            ValueError: timm does not know the name, the model is one of Polypath's, or timm rejects an argument.
        """
        import timm

        _check_timm(self.model)
        ends = {"num_classes": self.num_classes, "in_chans": self.in_chans}
        model = self._made(timm.create_model, self.model, **ends, **arguments)
        if isinstance(model, PathNet):
            raise ValueError(
                f"timm model {self.model!r} is a model of Polypath; use polypath.create_model({self.model!r})"
            )
        return model

    @property
    def _without_rate(self) -> dict[str, Any]:
        return {key: value for key, value in self.model_arguments.items() if key != "drop_path_rate"}

    def _rates(self) -> dict[str, float]:
        """Return the rate at which training skips each block; timm drops the block for a sample at the same rate."""
        if not self.model_arguments.get("drop_path_rate"):
            return {}
        with torch.device("meta"):
            return linear_rates(self._model(**self.model_arguments))

    def _size(self, model: Any) -> tuple[tuple[int, int], bool]:
        """Return height and width of the images that the model is made for, and whether it accepts only this size."""
        config, embed = model.default_cfg, getattr(model, "patch_embed", None)
        size = getattr(embed, "img_size", None) or self.model_arguments.get("img_size") or config["input_size"][1:]
        fixed = bool(config.get("fixed_input_size")) and bool(getattr(embed, "strict_img_size", True))
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1])), fixed


def load_timm_weights(net: PathNet, spec: TimmModel, source: str, weights: dict[str, Any]) -> None:
    """Let timm load weights into its model ``source`` with the arguments ``weights``, and copy them into ``net``.

    Raises:
        ValueError: the weights cannot be found or do not fit.
    """
    import timm

    arguments: dict[str, Any] = {**spec.model_arguments, **weights, "in_chans": spec.in_chans}
    if spec.num_classes:
        arguments["num_classes"] = spec.num_classes
    try:
        model = timm.create_model(source, **arguments)
    except Exception as error:  # files, networks and timm may raise anything
        what = ", ".join(f"{key}={value!r}" for key, value in weights.items())
        raise ValueError(f"timm model {source!r} cannot load {what}: {str(error) or type(error).__name__}") from error
    copy_timm_weights(net, model)


def copy_timm_weights(net: PathNet, model: nn.Module) -> None:
    """Copy the weights of a timm model (a pretrained one, say) into ``create_model("timm:…")`` of the same name.

    If the numbers of classes differ, the network keeps its own classifier.

    Raises:
        ValueError: the weights are those of another model.
    """
    name = str(getattr(model, "default_cfg", {}).get("classifier"))
    own: dict[str, Tensor] = net.state_dict()
    names = _own_names(net)
    taken: dict[str, Tensor] = {}
    for key, tensor in model.state_dict().items():
        last = key.startswith(f"{name}.")
        key = key.replace(name, "head.classifier", 1) if last else names.get(key, f"{BODY}{key}")
        fits = key in own and own[key].numel() == tensor.numel()
        if fits or not last:
            taken[key] = tensor.reshape(own[key].shape) if fits else tensor
    for key in own.keys() - taken.keys():
        if key.startswith("head.classifier."):
            taken[key] = own[key]
    try:
        net.load_state_dict(taken)
    except RuntimeError as error:
        raise ValueError(f"these are the weights of another model: {error}") from error


def _own_names(net: PathNet) -> dict[str, str]:
    """Map timm's names of tensors to Polypath's: ``body.model.layer1.0.…``, or ``body.model.step1.…`` for tensors that
    the model's own code uses."""
    names = {key: key.removeprefix(BODY) for key in net.state_dict() if key.startswith(BODY)}
    return {re.sub(r"^step\d+\.", "", name): key for key, name in names.items()}


def preset(source: str) -> Preset:
    """Make the preset of ``timm:SOURCE``, with the model's own number of classes.

    Raises:
        ValueError: timm does not have this model, or the folder or Hub repository contains no model.
    """
    from timm import get_pretrained_cfg

    words: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    if source.startswith(("local-dir:", "hf-hub:")):
        try:
            words, model, arguments = _saved(source)
        except Exception as error:  # files, networks and timm may raise anything
            raise ValueError(f"timm:{source} cannot be read: {error}") from error
        _check_timm(model)
    else:
        _check_timm(source)
        model, known = source, get_pretrained_cfg(source)
        if known:
            words = cast(dict[str, Any], known.to_dict())
    size = words.get("input_size", (3, 224, 224))[-1]
    prepared = {word: words[word] for word in PREPARED if words.get(word) is not None}
    ends: dict[str, Any] = {"num_classes": words.get("num_classes") or 1000}
    ends |= {key: arguments.pop(key) for key in ENDS if key in arguments}
    spec = TimmModel(model=model, model_arguments=arguments, **ends)
    return Preset(spec, size=size, prepared=prepared)


def _saved(source: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Read the configuration, name and arguments of a model that timm saved."""
    from timm.models import load_model_config_from_hf

    kind, _, place = source.partition(":")
    if kind == "hf-hub":
        words, model, arguments = load_model_config_from_hf(place)
        return dict(words), model, dict(arguments or {})
    told = json.loads((Path(place) / "config.json").read_bytes())
    words = {**told, **told.get("pretrained_cfg", {})}
    if told.get("num_classes"):
        words["num_classes"] = told["num_classes"]
    return words, told["architecture"], dict(told.get("model_args") or {})


def _check_timm(model: str) -> None:
    import timm

    if ":" in model or "/" in model or not timm.is_model(model):
        near = ", ".join(timm.list_models(f"*{model}*")[:5])
        hint = f"similar names are {near}" if near else "timm.list_models() lists the known models"
        raise ValueError(f"timm model {model!r} is not known; {hint}")
