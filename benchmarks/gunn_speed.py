"""Compares the speed of GUNN with that of ResNeXt and DenseNet (§4.3: "between ResNeXt and DenseNet").

The networks are those of the paper's Table 3: GUNN-24, ResNeXt-29 (16×64d) and DenseNet-BC-190 (k = 40). The last two
are pytorchcv's. All run in float32 and channels-last. Seconds per image are measured in inference and in a training
step. MACs are counted, too, since they largely determine the speed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import polypath as pp
from benchmarks.harness import Step, by_turns, device, images, show

BATCH, STEP_BATCH, SECONDS = 8, 4, 60.0
OTHERS = {"ResNeXt-29 (16×64d)": "resnext29_16x64d_cifar10", "DenseNet-BC-190 (k = 40)": "densenet190_k40_bc_cifar10"}
OURS = "GUNN-24"


def networks() -> dict[str, Callable[[], nn.Module]]:
    """Return constructors of the networks, that of the paper's network first."""
    nets: dict[str, Callable[[], nn.Module]] = {OURS: partial(pp.create_model, "gunn24", seed=0)}
    return nets | {name: partial(_peer, of) for name, of in OTHERS.items()}


def run() -> dict[str, Any]:
    nets = {name: make().eval().to(device()).to(memory_format=torch.channels_last) for name, make in networks().items()}
    infer = by_turns({name: partial(_infer, net, images(BATCH)) for name, net in nets.items()}, SECONDS)
    steps = by_turns({name: Step(net, STEP_BATCH) for name, net in nets.items()}, SECONDS, 3)
    rows = [
        {
            "model": name,
            "inference_s": infer[name]["median_s"] / BATCH,
            "training_s": steps[name]["median_s"] / STEP_BATCH,
            "params": sum(p.numel() for p in net.parameters()),
        }
        for name, net in nets.items()
    ]
    show(
        f"seconds an image, batches of {BATCH} and {STEP_BATCH}",
        rows,
        {"model": "", "inference_s": ".4f", "training_s": ".4f", "params": ",d"},
    )
    return {"batch_size": BATCH, "step_batch_size": STEP_BATCH, "rows": rows, "inference": infer, "training": steps}


def _infer(net: nn.Module, x: torch.Tensor) -> None:
    with torch.inference_mode():
        net(x)


def _peer(name: str) -> nn.Module:
    from pytorchcv.model_provider import get_model

    return get_model(name)
