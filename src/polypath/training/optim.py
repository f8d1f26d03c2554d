"""Optimisers: which one, on which parameters weight decay acts, and gradients of weights that no path used."""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

Kind = Literal["sgd", "adam", "adamw"]
Decayed = Literal["all", "matrices", "linear"]
_hints = functools.cache(typing.get_type_hints)  # recipes are many, and each has its fields checked


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

    def __post_init__(self) -> None:
        one_of("optim", self, "kind", typing.get_args(Kind))
        one_of("optim", self, "decay", typing.get_args(Decayed))
        for name in ("lr", "weight_decay", "eps", "dampening"):
            in_range("optim", self, name, 0)
        in_range("optim", self, "momentum", 0, 1, below=True)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas = {self.betas!r}: must be two numbers in [0, 1)")
        if self.nesterov and (self.kind != "sgd" or not self.momentum or self.dampening):
            raise ValueError("optim.nesterov: needs kind 'sgd' with momentum and without dampening")


def build_optimizer(net: nn.Module, config: OptimConfig) -> Optimizer:
    """The optimiser on all parameters of ``net``; one group whose weights decay, one whose do not."""
    decayed = decayed_parameters(net, config.decay) if config.weight_decay else set()
    named = list(net.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in named if name in decayed], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
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


def set_rate(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def fill_unused(parameters: Iterable[nn.Parameter]) -> None:
    """Give zero gradients to parameters without one, so that weight decay and momentum move them too."""
    for p in parameters:
        if p.grad is None and p.requires_grad:
            p.grad = torch.zeros_like(p)


def in_range(
    prefix: str, config: Any, name: str, low: float, high: float | None = None, *, below: bool = False
) -> None:
    """Raise ``ValueError`` unless the field is a number from ``low`` to ``high`` (``below``: less than ``high``).

    Where the field's default is a whole number, it must be one.
    """
    value = getattr(config, name)
    whole = _hints(type(config)).get(name) is int
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and value >= low
    if fits and high is not None:
        fits = value < high if below else value <= high
    if not fits:
        legal = f"at least {low}" if high is None else f"at least {low} and {'below' if below else 'at most'} {high}"
        what = "a whole number, " if whole else "a number, "
        raise ValueError(f"{prefix + '.' if prefix else ''}{name} = {value!r}: must be {what}{legal}")


def one_of(prefix: str, config: Any, name: str, legal: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless the field is one of ``legal``."""
    if (value := getattr(config, name)) not in legal:
        raise ValueError(f"{prefix + '.' if prefix else ''}{name} = {value!r}: must be one of {', '.join(legal)}")
