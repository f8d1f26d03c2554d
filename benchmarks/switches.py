"""Measures the effect of each rewrite of :func:`polypath.fuse`. Four forms of a network are measured alternately. Each
form has one more rewrite than the form before it.

folded      norms and means are folded; sibling convs are separate; weights are in torch's layout
packed      large weights are packed once, too
summed      sibling convs are merged, too, if their consumers are only summed (the default)
all         all sibling convs are merged; the branches read slices of the output
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import polypath as pp
from benchmarks.harness import by_turns, device, images, show
from polypath.fusion.units import FoldedConv

MODELS = ("crescendonet_128", "fractalnet20", "dfn_il56", "dfn_mr56", "resnet110_cifar")
BATCHES, SECONDS = (1, 16), 6.0


def run() -> dict:
    rows = []
    for name in MODELS:
        net = pp.create_model(name, seed=0).eval().to(device())
        last: Any = pp.create_model(name, seed=0).eval().to(device())
        forms: dict[str, nn.Module] = {
            "eager, channels-last": last.to(memory_format=torch.channels_last),
            "folded": _unpacked(pp.fuse(net, siblings="none")),
            "packed": pp.fuse(net, siblings="none"),
            "summed": pp.fuse(net),
            "all": pp.fuse(net, siblings="all"),
        }
        for batch in BATCHES:
            x = images(batch)
            times = by_turns({form: partial(_infer, own, x) for form, own in forms.items()}, SECONDS)
            base = times["eager, channels-last"]["median_s"]
            rows += [
                {"model": name, "batch": batch, "form": form, **time, "over_eager": base / time["median_s"]}
                for form, time in times.items()
            ]
            show(f"{name}, batch {batch}", rows[-len(times) :], {"form": "", "median_s": ".4f", "over_eager": ".2f"})
    return {"rows": rows}


def _infer(net: Callable[[torch.Tensor], object], x: torch.Tensor) -> None:
    with torch.inference_mode():
        net(x)


def _unpacked(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, FoldedConv):
            module.packs = False
    return net
