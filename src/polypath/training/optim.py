"""Optimisers: which one, on which parameters weight decay acts, and gradients of weights that no path used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from polypath.core.checks import FLAG, check_fields, each, number, one_of, plain_fields
from polypath.core.later import later

Kind = Literal["sgd", "adam", "adamw"]
Decayed = Literal["all", "matrices", "linear"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser.

    Args:
        kind: ``sgd``, ``adam`` or ``adamw``.
        lr: the base learning rate, which the schedule scales.
        momentum, nesterov, dampening: of ``sgd``.
        betas, eps: of ``adam`` and ``adamw``.
        weight_decay: L2 coefficient, added to the gradient (``adamw``: decoupled from it).
        decay: it acts on ``all`` parameters, on ``matrices`` (weights of convs and linear layers, not on norms and
            biases) or on the weights of ``linear`` layers only (CrescendoNet).
        move_unused: let weight decay and momentum also move weights that no path used in a step.
        bias_lr, bias_decay: what the learning rate and the weight decay of biases of convs and linear layers are
            multiplied by, as Caffe's ``lr_mult`` and ``decay_mult`` (FractalNet's generator: 2 and 0). Shifts of norms
            are no such biases.
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
        )
        if self.nesterov and (self.kind != "sgd" or not self.momentum or self.dampening):
            raise ValueError("optim.nesterov: needs kind 'sgd' with momentum and without dampening")


def build_optimizer(net: nn.Module, config: OptimConfig) -> Optimizer:
    """The optimiser on all parameters of ``net``, in groups of one weight decay and one multiple of the rate."""
    decayed = decayed_parameters(net, config.decay) if config.weight_decay else set()
    biases = bias_parameters(net)
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in net.named_parameters():
        lr, decay = (config.bias_lr, config.bias_decay) if p in biases else (1.0, 1.0)
        members.setdefault((config.weight_decay * decay if name in decayed else 0.0, lr), []).append(p)
    groups: list[dict[str, Any]] = [
        {"params": params, "weight_decay": decay, "lr": config.lr * times, "lr_times": times}
        for (decay, times), params in sorted(members.items(), key=lambda entry: entry[0], reverse=True)
    ]
    if config.kind == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            dampening=config.dampening,
            foreach=True,
        )
    adam = torch.optim.Adam if config.kind == "adam" else torch.optim.AdamW
    return adam(groups, lr=config.lr, betas=config.betas, eps=config.eps, foreach=True)


def decayed_parameters(net: nn.Module, decay: Decayed) -> set[str]:
    """Names of the parameters that weight decay acts on."""
    if decay == "linear":
        return {f"{name}.weight" for name, module in net.named_modules() if isinstance(module, nn.Linear)}
    return {name for name, p in net.named_parameters() if decay == "all" or p.ndim > 1}


def bias_parameters(net: nn.Module) -> set[Tensor]:
    """The biases of convs and linear layers."""
    layers = (module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    return {layer.bias for layer in layers if layer.bias is not None}


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """The rate of every group of :func:`build_optimizer`: its multiple of ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_times"]


def fill_unused(parameters: Iterable[nn.Parameter]) -> None:
    """Give zero gradients to parameters without one, so that weight decay and momentum move them too."""
    for p in parameters:
        if p.grad is None and p.requires_grad:
            p.grad = torch.zeros_like(p)
