"""A step on an accelerator asks the device for no value: nothing waits inside an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import NET, tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from polypath.families.fractalnet import FractalNet
from polypath.families.recursive import NORMS, RecursiveResNet
from polypath.training.distributed import World
from polypath.training.engine import Engine
from polypath.training.path_objectives import DropPath, PathWise, TargetRate
from polypath.training.recipe import Recipe
from polypath.training.sandwich import Sandwich

ASKING = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "unique", "masked_select")
GATED = RecursiveResNet(blocks=(1, 2), width=4, loops=(1, 2), in_chans=1, shortcut="pad")
CASES: dict[str, Recipe] = {
    "drop-path": tiny(objective=DropPath(rate=0.5), optim__kind="adam"),
    "columns": tiny(objective=DropPath(mode="mixed"), model=FractalNet(columns=3, filters=(4, 8), in_chans=1)),
    "path-wise": tiny(objective=PathWise(rate=0.3), clip_norm=1.0),
    **{f"gates, {norm}": tiny(objective=TargetRate(), model=replace(GATED, norm=norm)) for norm in NORMS},
    "sandwich": tiny(objective=Sandwich(draw="local", labels=0.5, distillation="alpha-divergence")),
    "moving average": tiny(model=NET, ema=0.9),
}


class Asked(TorchDispatchMode):
    """Records operations that copy results of tensors on the (pretended) device to the host.

    Paths are drawn, and Adam counts its steps, in tensors of the host, which may be looked at.
    """

    def __init__(self, on_device: Iterable[Tensor]) -> None:
        super().__init__()
        self.found: list[str] = []
        self.held = {t.untyped_storage().data_ptr(): t for t in on_device}  # held, so that no address is used again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(self._there(t) for t in tree_leaves((args, kwargs or {}))):
            name = func._overloadpacket.__name__
            if name in ASKING:
                self.found.append(name)
            self.held |= {t.untyped_storage().data_ptr(): t for t in tree_leaves(out) if isinstance(t, Tensor)}
        return out

    def _there(self, t: Any) -> bool:
        return isinstance(t, Tensor) and t.untyped_storage().data_ptr() in self.held


def asked(recipe: Recipe, device: str) -> list[str]:
    engine = Engine(recipe, recipe.model.build(0), torch.device("cpu"), World(), 5)
    engine.device = torch.device(device)  # what the engine asks for depends on it alone; the tensors stay here
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 1, 8, 8, generator=g), torch.randint(0, 10, (8,), generator=g)
    engine.start_epoch(0)
    with Asked([x, y, *engine.net.parameters(), *engine.net.buffers()]) as seen:
        for step in range(2):
            engine.step([(0, x[:4], y[:4]), (1, x[4:], y[4:])], 8, 0, step)
    return seen.found


@pytest.mark.parametrize("case", CASES)
def test_a_step_asks_an_accelerator_for_nothing(case: str) -> None:
    assert asked(CASES[case], "cuda") == []


def test_on_a_cpu_every_loss_is_looked_at() -> None:
    assert asked(CASES["drop-path"], "cpu") == ["_local_scalar_dense"] * 4
