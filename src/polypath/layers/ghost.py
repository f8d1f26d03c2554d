"""Two batch-norms for training: ghost (over parts of the batch) and synchronised (over the batches of all processes).

In papers that trained on several GPUs, each GPU's batch-norm used only the images on this GPU (32 in DFN, 16 in GUNN).
:class:`GhostBatchNorm2d` does the same on one device (Hoffer et al. 2017, Algorithm 1). :class:`SyncBatchNorm2d` does
the reverse: it uses the images of all processes. Both classes have the parameters, buffers and evaluation of
``nn.BatchNorm2d``, so the format of saved networks does not change.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.precision import at_least_float32

Norm = TypeVar("Norm", bound=nn.BatchNorm2d)


class GhostBatchNorm2d(nn.BatchNorm2d):
    """A batch-norm that normalises ``(N, C, H, W)`` over ghost batches of at most ``images`` images.

    The ghost batches have nearly equal sizes. The running statistics are updated once per batch, with the mean of the
    ghost batches' statistics.
    """

    images: int = 0

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or (parts := -(-len(input) // self.images)) <= 1:
            return super().forward(input)
        # torch's batch-norm needs statistics in the dtype of the weights, which differs from the input's under autocast
        like = self.weight if self.affine else at_least_float32(input)
        outs: list[Tensor] = []
        means: list[Tensor] = []
        variances: list[Tensor] = []
        for part in input.tensor_split(parts):
            mean, var = like.new_zeros(2, input.shape[1])
            outs.append(F.batch_norm(part, mean, var, self.weight, self.bias, True, 1.0, self.eps))
            means.append(mean)
            variances.append(var)
        move_running(self, torch.stack(means).mean(0), torch.stack(variances).mean(0))
        return torch.cat(outs)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """A batch-norm that normalises ``(N, C, H, W)`` over the images of all processes, which must call it together."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        over, wide = (0, 2, 3), at_least_float32(input)
        ones = wide.new_full((1,), float(input.numel() // input.shape[1]))
        summed = _AllReduce.apply(torch.cat([wide.sum(over), ones]))
        count = summed[-1].detach()
        centred = wide - (summed[:-1] / count)[:, None, None]
        var = _AllReduce.apply((centred * centred).sum(over)) / count
        out = centred * torch.rsqrt(var + self.eps)[:, None, None]
        if self.affine:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        move_running(self, (summed[:-1] / count).detach(), (var * count / (count - 1)).detach())
        return out.to(input.dtype)


class _AllReduce(torch.autograd.Function):
    """An autograd function that sums tensors over all processes, and their gradients in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad


@torch.no_grad()
def move_running(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> None:
    """Update a norm's running statistics with a batch's statistics ``(C,)``, as ``nn.BatchNorm2d`` does."""
    if (
        not norm.track_running_stats
        or norm.running_mean is None
        or norm.running_var is None
        or norm.num_batches_tracked is None
    ):
        return
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1.0 / norm.num_batches_tracked
    norm.running_mean.mul_(1.0 - share).add_(mean * share)
    norm.running_var.mul_(1.0 - share).add_(var * share)


def ghost_norms(net: nn.Module, images: int) -> None:
    """Make every plain ``nn.BatchNorm2d`` of ``net`` normalise over at most ``images`` images at a time."""
    for norm in _convert(net, GhostBatchNorm2d):
        norm.images = images


def sync_norms(net: nn.Module) -> None:
    """Make every plain ``nn.BatchNorm2d`` of ``net`` normalise over the images of all processes."""
    _convert(net, SyncBatchNorm2d)


def _convert(net: nn.Module, kind: type[Norm]) -> list[Norm]:
    """Replace the plain batch-norms of ``net`` by another kind with the same parameters and buffers.

    Raises:
        ValueError: ``net`` has no plain batch-norms.
    """
    made: list[Norm] = []
    for parent in list(net.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is nn.BatchNorm2d:
                new = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
                new.weight, new.bias = norm.weight, norm.bias
                new.running_mean, new.running_var = norm.running_mean, norm.running_var
                new.num_batches_tracked = norm.num_batches_tracked
                new.train(norm.training)
                parent.add_module(name, new)
                made.append(new)
    if not made:
        raise ValueError("parallel.batch_norm: this network has no batch-norm to replace")
    return made
