"""The batch-norms of recursive blocks (DRNN §3), in three kinds.

naive     all loops have the same norm
LVBN      each loop has a separate norm after the shared conv, with statistics of all samples
I-LVBN    with gates: as LVBN, but with statistics of only the samples that pass the gate

In training every sample runs every loop, so that the gates get a gradient. The argument ``mask`` marks the samples that
pass. In evaluation the batch contains only samples that pass, so there is no mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.checks import check, one_of
from polypath.core.precision import at_least_float32
from polypath.layers.conv import ConvUnit

STATISTICS = ("passed", "updates", "all")
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6}
Norm = nn.BatchNorm1d | nn.BatchNorm2d


class LoopUnit(ConvUnit):
    """A :class:`ConvUnit` that accepts a mask of the passing samples: ``unit(x, variant="loop2", mask=mask)``.

    Args:
        statistics: which statistics the norm uses in training with a mask; see :func:`normalise`.
        act: ``relu`` or ``relu6`` (MobileNetV2).
        variants: names of the variants, each of which has a separate norm (LVBN); if empty, there is a single norm.
    """

    takes_mask = True

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        order: str = "conv-norm-act",
        groups: int = 1,
        act: str = "relu",
        statistics: str = "passed",
        variants: Sequence[str] = (),
    ) -> None:
        super().__init__(in_chans, out_chans, kernel_size, stride, order=order, groups=groups, variants=variants)
        check("statistics", statistics, one_of(*STATISTICS))
        check("act", act, one_of(*ACTIVATIONS))
        if "act" in self.parts:
            self.act = ACTIVATIONS[act](inplace=True)
        self.statistics = statistics

    if TYPE_CHECKING:  # torch types a module's call as Any

        def __call__(self, x: Tensor, variant: str | None = None, mask: Tensor | None = None) -> Tensor: ...

    def forward(self, x: Tensor, variant: str | None = None, mask: Tensor | None = None) -> Tensor:
        for part in self.parts:
            module = getattr(self, part)
            if part == "norm":
                norm = module if variant is None else module[variant]
                x = normalise(norm, x, mask, self.statistics, training=self.training)
            else:
                x = module(x)
        return x


def normalise(norm: Norm, x: Tensor, mask: Tensor | None, statistics: str, *, training: bool) -> Tensor:
    """Normalise maps ``(N, C, H, W)`` or vectors ``(N, C)``; ``mask`` ``(N,)`` marks the passing samples.

    In training with a mask, ``statistics`` sets which samples' mean and variance are used:

    * ``passed``: normalise by the passing samples, and update the running statistics with them (I-LVBN).
    * ``updates``: normalise by all samples, but update the running statistics with the passing samples.
    * ``all``: normalise by all samples, and update with them if any sample passes (LVBN).

    If no sample passes, the running statistics do not change. In this case, and if only one value per channel passes
    (which has no variance), ``passed`` normalises by the running statistics. ``training`` is the mode of the unit that
    contains the norm. It differs from the norm's mode during recalibration, when a single sample may remain.

    Raises:
        ValueError: a mask for another kind of norm than plain batch-norm.
    """
    if not norm.training:
        return norm(x)
    if mask is None:
        if training or x.numel() > x.shape[1]:
            return norm(x)
        mask, statistics = x.new_ones(len(x), dtype=torch.bool), "passed"
    if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d):
        raise ValueError(
            f"there is a {type(norm).__name__} after a gate, but only plain batch-norm supports statistics of the "
            "passing samples; build the network without gates, or keep plain batch-norm"
        )
    if statistics == "passed":
        return _by_passed(norm, x, mask)
    out = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    if statistics == "all":
        mask = mask.any().expand_as(mask)  # stays on the device: no synchronisation
    with torch.no_grad():
        values = at_least_float32(x)
        weight = mask.to(values.dtype)
        mean, count = _mean(values, weight)
        _move(norm, mean, _mean((values - _along(mean, x)).square(), weight)[0], count)
    return out


def _by_passed(norm: Norm, x: Tensor, mask: Tensor) -> Tensor:
    values = at_least_float32(x)
    weight = mask.to(values.dtype)
    mean, count = _mean(values, weight)
    some = count > 1
    if norm.running_mean is not None:
        mean = torch.where(some, mean, norm.running_mean)
    centred = values - _along(mean, x)
    var, _ = _mean(centred.square(), weight)
    with torch.no_grad():
        _move(norm, mean, var, count)
    if norm.running_var is not None:
        var = torch.where(some, var, norm.running_var)
    scale = (var + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight
    out = centred * _along(scale, x)
    return (out + _along(norm.bias, x) if norm.affine else out).to(x.dtype)


def _mean(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean ``(C,)`` over the samples of weight 1, and the number of their values per channel."""
    per_sample = values.unsqueeze(-1).flatten(2).sum(2)
    count = weight.sum() * math.prod(values.shape[2:])
    return (per_sample * weight[:, None]).sum(0) / count.clamp(min=1.0), count


def _move(norm: Norm, mean: Tensor, var: Tensor, count: Tensor) -> None:
    """Update the running statistics with a mean and a biased variance over ``count`` values, if ``count`` > 1."""
    if not norm.track_running_stats:
        return
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    some = (count > 1).to(count.dtype)
    norm.num_batches_tracked.data += some.long()
    rate = norm.momentum if norm.momentum is not None else 1.0 / norm.num_batches_tracked.clamp(min=1)
    unbiased = var * (count / (count - 1.0).clamp(min=1.0))
    # through .data, as in torch's own update, since another forward of this step may have saved the buffers
    for running, new in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        running.data.lerp_(new.to(running.dtype), (some * rate).to(running.dtype))


def _along(values: Tensor, x: Tensor) -> Tensor:
    """Reshape values of channels ``(C,)`` to broadcast over ``x`` ``(N, C, …)``."""
    return values.view(1, -1, *[1] * (x.ndim - 2))
