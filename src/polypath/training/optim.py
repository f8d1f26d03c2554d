"""Optimisers: their settings, the choice of parameters with weight decay, and the treatment of weights that no path
used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from polypath.core.checks import FLAG, check_fields, each, number, one_of, plain_fields, whole
from polypath.core.later import later
from polypath.core.network import PathNet
from polypath.core.wiring import INPUT, Unit
from polypath.training.muon import Muon, Together

Kind = Literal["sgd", "adam", "adamw", "muon"]
Decayed = Literal["all", "matrices", "linear"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Settings of the optimiser.

    Args:
        kind: ``sgd``, ``adam``, ``adamw`` or ``muon`` (:mod:`polypath.training.muon`). ``muon`` optimises the weights
            of all convs except those that read the image. The optimiser ``rest`` optimises all other parameters: the
            first convs, norms, biases and linear layers.
        lr: the base learning rate, which the schedule scales.
        momentum, nesterov, dampening: settings of ``sgd``; ``muon`` also uses the first two.
        betas, eps: settings of ``adam`` and ``adamw``.
        weight_decay: coefficient of weight decay, which is added to the gradient as an L2 penalty. For ``adamw`` and
            ``muon`` it is decoupled from the gradient.
        decay: parameters with weight decay: ``all``, ``matrices`` (weights of convs and linear layers, not norms and
            biases) or only the weights of ``linear`` layers (CrescendoNet).
        move_unused: let weight decay and momentum also move weights that no path used in a step.
        bias_lr, bias_decay: factors on the learning rate and the weight decay of the biases of convs and linear layers,
            like Caffe's ``lr_mult`` and ``decay_mult`` (2 and 0 in FractalNet's generator). The shifts of norms are not
            biases here.
        rest, rest_lr: with ``muon``, the optimiser of the other parameters (``sgd`` or ``adamw``) and its base learning
            rate.
        scaling: how to adapt ``lr`` and ``rest_lr`` if the batch size is k times ``per_images``: multiply them by k
            (``linear``) or √k (``sqrt``). ``none`` uses them unchanged.
        per_images: with ``scaling``, the batch size for which ``lr`` and ``rest_lr`` are given.
        first_lr: factor on the learning rate of the first layer. From there the factors of layers rise geometrically
            with depth, to 1 at the classifier (layer-wise rates, Howard and Ruder 2018).
        head_lr: factor on the learning rate of the classifier, for fine-tuning, where only the classifier is new.
    """

    kind: Kind = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    dampening: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay: Decayed = "all"
    move_unused: bool = False
    bias_lr: float = later(1.0)
    bias_decay: float = later(1.0)
    rest: Literal["sgd", "adamw"] = later("sgd")
    rest_lr: float = later(0.0)
    scaling: Literal["none", "linear", "sqrt"] = later("none")
    per_images: int = later(0)
    first_lr: float = later(1.0)
    head_lr: float = later(1.0)

    def __post_init__(self) -> None:
        plain_fields(self)
        check_fields(
            self,
            "optim",
            kind=one_of(*get_args(Kind)),
            decay=one_of(*get_args(Decayed)),
            lr=number(0),
            weight_decay=number(0),
            eps=number(0),
            dampening=number(0),
            momentum=number(0, below=1),
            nesterov=FLAG,
            betas=each(number(0, below=1), count=2),
            move_unused=FLAG,
            bias_lr=number(0),
            bias_decay=number(0),
            rest=one_of("sgd", "adamw"),
            rest_lr=number(0),
            scaling=one_of("none", "linear", "sqrt"),
            per_images=whole(0),
            first_lr=number(above=0, high=1),
            head_lr=number(above=0),
        )
        if self.nesterov and (self.kind not in ("sgd", "muon") or not self.momentum or self.dampening):
            raise ValueError("optim.nesterov = True: needs kind 'sgd' or 'muon' with momentum and without dampening")
        if self.kind == "muon":
            for name in ("lr", "rest_lr", "momentum"):
                if not getattr(self, name):
                    raise ValueError(f"optim.{name} = {getattr(self, name)}: kind 'muon' needs a value above 0")
            if self.dampening:
                raise ValueError(f"optim.dampening = {self.dampening}: kind 'muon' does not use it, so it must be 0")
        elif self.rest_lr or self.rest != "sgd":
            name = "rest_lr" if self.rest_lr else "rest"
            raise ValueError(f"optim.{name} = {getattr(self, name)!r}: only optim.kind 'muon' uses it")
        if (self.scaling != "none") != (self.per_images > 0):
            raise ValueError(
                f"optim.per_images = {self.per_images} with optim.scaling {self.scaling!r}: with scaling 'linear' or "
                "'sqrt', per_images must be the batch size that lr is for; with 'none', it must be 0"
            )

    def base_rate(self, batch_size: int) -> float:
        """Return the base learning rate for batches of ``batch_size`` images. The schedule scales this rate."""
        if self.scaling == "none":
            return self.lr
        times = batch_size / self.per_images
        return self.lr * (times if self.scaling == "linear" else math.sqrt(times))


def build_optimizer(net: nn.Module, config: OptimConfig) -> Optimizer:
    """Build the optimiser for all parameters of ``net``. Parameters with the same weight decay and the same factor on
    the learning rate are one group."""
    if config.kind != "muon":
        return _build(config.kind, _groups(net, config, dict(net.named_parameters())), config)
    matrices = conv_matrices(net)
    if not matrices:
        raise ValueError("optim.kind = 'muon': this network has no convs except the first ones; use another kind")
    rest = {name: p for name, p in net.named_parameters() if name not in matrices}
    groups = _groups(net, config, matrices)
    muon = Muon(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
    return Together(muon, _build(config.rest, _groups(net, config, rest, config.rest_lr / config.lr), config))


def _groups(
    net: nn.Module, config: OptimConfig, parameters: Mapping[str, nn.Parameter], times: float = 1.0
) -> list[dict[str, Any]]:
    """Put ``parameters`` into groups, with a base learning rate of ``times`` · ``config.lr``."""
    decayed = decayed_parameters(net, config.decay) if config.weight_decay else set()
    biases = bias_parameters(net)
    head = set(net.get_classifier().parameters()) if config.head_lr != 1.0 and isinstance(net, PathNet) else set()
    places = places_of(net) if config.first_lr != 1.0 and isinstance(net, PathNet) else {}
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in parameters.items():
        lr, decay = (config.bias_lr, config.bias_decay) if p in biases else (1.0, 1.0)
        lr *= config.first_lr ** (1.0 - places.get(name, 1.0))
        lr *= config.head_lr if p in head else 1.0
        members.setdefault((config.weight_decay * decay if name in decayed else 0.0, lr * times), []).append(p)
    return [
        {"params": params, "weight_decay": decay, "lr": config.lr * times, "lr_times": times}
        for (decay, times), params in sorted(members.items(), key=lambda entry: entry[0], reverse=True)
    ]


def places_of(net: PathNet) -> dict[str, float]:
    """Map the name of each parameter to its relative depth, from 0 (first) to 1 (last). Depth is the number of units
    before the parameter's unit."""
    group = net.group_matcher()
    depths = {name: group(name) for name, _ in net.named_parameters()}
    first, last = min(depths.values()), max(depths.values())
    return {name: (depth - first) / max(1, last - first) for name, depth in depths.items()}


def _build(kind: str, groups: list[dict[str, Any]], config: OptimConfig) -> Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            dampening=config.dampening,
            foreach=True,
        )
    adam = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
    return adam(groups, lr=config.lr, betas=config.betas, eps=config.eps, foreach=True)


def conv_matrices(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that Muon optimises, by name. These are the weights of all convs without groups, except the
    first conv of each module that reads the image."""
    first: set[nn.Module] = set()
    if isinstance(net, PathNet):
        readers = [node.module for node in net.wiring.nodes if isinstance(node, Unit) and node.source == INPUT]
        convs = ([m for m in net.get_submodule(path).modules() if isinstance(m, nn.Conv2d)] for path in readers)
        first = {found[0] for found in convs if found}
    later_convs = {
        f"{name}.weight"
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module not in first
    }
    return {name: p for name, p in net.named_parameters() if name in later_convs}


def decayed_parameters(net: nn.Module, decay: Decayed) -> set[str]:
    """Return the names of the parameters that have weight decay."""
    if decay == "linear":
        return {f"{name}.weight" for name, module in net.named_modules() if isinstance(module, nn.Linear)}
    return {name for name, p in net.named_parameters() if decay == "all" or p.ndim > 1}


def bias_parameters(net: nn.Module) -> set[Tensor]:
    """Return the biases of convs and linear layers."""
    layers = (module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    return {layer.bias for layer in layers if layer.bias is not None}


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group to ``lr`` times the group's factor. The optimiser must be from
    :func:`build_optimizer`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_times"]


def fill_unused(parameters: Iterable[nn.Parameter]) -> None:
    """Set missing gradients to zero, so that weight decay and momentum also move parameters that no path used."""
    for p in parameters:
        if p.grad is None and p.requires_grad:
            p.grad = torch.zeros_like(p)
