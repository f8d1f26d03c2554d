"""Scaled-down forms of every registered model: the same diagram kind, few channels, few blocks, few loops.

A family states here how its presets shrink. A registered model whose family has no entry fails the suite. Models that
differ in depth, width and loops alone shrink to one form: what is tested of the first one (``FORMS``) is tested of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from conftest import randomise_norms
from polypath.core.extract import extract
from polypath.core.network import PathNet
from polypath.families.registry import PRESETS, get_preset

SHRINK: dict[str, Callable[[Any], dict[str, Any]]] = {
    "fractalnet": lambda s: {
        "filters": (4, 8),
        "columns": min(s.columns, 4),
        "transitions": tuple(t for t in s.transitions if t <= 2),
        "num_classes": 5,
    },
    "crescendonet": lambda s: {"widths": (4, 6), "hidden": (12, 8), "num_classes": 5},
    "gunn": lambda s: {
        "channels": (8, 12, 8, 8)[: len(s.channels)],
        "segments": (2, 3, 1, 1)[: len(s.channels)],
        "stem_width": 4,
        "last_width": 8 if s.last_width else 0,
        "num_classes": 5,
    },
    "plain": lambda s: {"depth": 8, "width": 4, "num_classes": 5},
    "fusenet": lambda s: {"depth": 2 + 2 * s.fusions, "width": 4, "num_classes": 5},
    "resnet": lambda s: _few_blocks(s),
    "dfn_il": lambda s: _few_blocks(s),
    "dfn_mr": lambda s: _few_blocks(s),
    "dr_resnet": lambda s: _few_loops(s) | {"width": 4},
    "dr_mobilenetv2": lambda s: (
        (_few_loops(s, groups=4) | {"widths": (4, 4, 6, 8), "expansions": (1, 2, 2, 2), "strides": (1, 2, 1, 2)})
        | {"stem_width": 4, "last_width": 16}
    ),
}


def _few_blocks(spec) -> dict[str, Any]:
    return {"depth": 0, "blocks": (1, 2, 1, 1) if spec.blocks else (1, 2, 1), "width": 4, "num_classes": 5}


def _few_loops(spec, groups: int = 3) -> dict[str, Any]:
    """At most three loops; two blocks in a group that recurs or has gates (its first block does neither), else one."""
    blocks, loops = spec.blocks[:groups], tuple(min(most, 3) for most in spec.loops[:groups])
    blocks = tuple(min(n, 2 if most > 1 or spec.gates == "all" else 1) for n, most in zip(blocks, loops, strict=True))
    return {"blocks": blocks, "loops": loops, "num_classes": 5}


def small_spec(name: str):
    """The shrunken family spec of a registered model.

    Raises:
        KeyError: a family without an entry in ``SHRINK``.
    """
    spec = get_preset(name).spec
    return replace(spec, **SHRINK[spec.family](spec))


def models_by_form() -> dict[str, list[str]]:
    """The first model of each form, with all models that shrink to it."""
    found: dict[Any, list[str]] = {}
    for name in PRESETS:
        found.setdefault(small_spec(name), []).append(name)
    return {names[0]: names for names in found.values()}


FORMS = list(models_by_form())


def small_net(name: str, seed: int = 0) -> PathNet:
    net = small_spec(name).build(seed=seed)
    randomise_norms(net, seed)
    return net


def images(net: PathNet, n: int = 3) -> torch.Tensor:
    """``n`` images that the network can take, always the same."""
    side = max(net.min_size, 16)
    return torch.randn(n, net.in_chans, side, side, generator=torch.Generator().manual_seed(0))


def two_paths(net: PathNet) -> list[str]:
    """Up to two named choices that are not the whole: the first and the last of the family's list."""
    names = [name for name in net.named_paths() if name != "whole"]
    return names[:1] + names[-1:] if len(names) > 1 else names


def fixed_paths(net: PathNet) -> list[str]:
    """The whole and up to two paths, without those where gates choose at run time (exported loop by loop)."""
    found = ["whole", *two_paths(net)]
    return [text for text in found if not any(join.gates for join in extract(net, text).wiring.joins.values())]
