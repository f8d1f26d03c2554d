"""Checks that a GPU computes the same as the CPU: logits and gradients of every family, in float64, float32 and bf16.

In float64, only the order of sums differs, so a wrong kernel or layout is detected at once. The differences of float32
(without TF32) and bf16 from the CPU's float64 are also reported.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import polypath as pp
from benchmarks.gpu.plan import Plan
from benchmarks.harness import images, labels
from benchmarks.models import MODELS

BATCH = 4
WITHIN = 1e-8  # tolerance in float64, as a share of the largest value
KINDS = {"float64": torch.float64, "float32": torch.float32, "bf16": torch.float32}


def parts(plan: Plan) -> dict[str, Callable[[], dict[str, Any]]]:
    names = [name for name, model in MODELS.items() if model.whose != "peer"]
    return {name: partial(_compared, name, plan) for name in names}


def _compared(name: str, plan: Plan) -> dict[str, Any]:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net = plan.model(name).make()
    wanted = _results(copy.deepcopy(net).double(), "cpu", torch.float64)
    rows = []
    for kind, dtype in KINDS.items():
        for form in ("contiguous", "channels-last"):
            twin = copy.deepcopy(net).to("cuda", dtype)
            twin = twin.to(memory_format=torch.channels_last) if form == "channels-last" else twin
            found = _results(twin, "cuda", dtype, kind == "bf16")
            off = {what: _off(found[what], value) for what, value in wanted.items()}
            rows.append({"model": name, "precision": kind, "layout": form, "within": WITHIN, **off})
            if kind == "float64" and max(off.values()) > WITHIN:
                raise AssertionError(
                    f"{name}, {form}: in float64, the result differs from the CPU's by {off} times the largest value"
                )
    return {"rows": rows}


def _results(net: nn.Module, device: str, dtype: torch.dtype, autocast: bool = False) -> dict[str, Tensor]:
    """Return the logits in evaluation, and one vector of the logits in training and all gradients. Nothing is
    random."""
    gated = isinstance(net, pp.PathNet) and any(join.gates for join in net.wiring.joins.values())
    options: dict[str, Any] = {"paths": "loops=max"} if gated else {}
    x, y = images(BATCH).to(device, dtype), labels(BATCH).to(device)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=autocast):
        evaluated = net.eval()(x, **options)
    net.train()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        trained = net(x, **options)
        loss = F.cross_entropy(trained.to(dtype), y)
    loss.backward()
    gradients = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
    return {"evaluated": evaluated, "trained": trained.detach(), "gradients": torch.cat(gradients)}


def _off(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference between the results, as a share of the largest value."""
    return float((found.cpu().double() - wanted).abs().max() / wanted.abs().max())
