"""GUNN's layer (Qiao et al. 2018), which updates segments of channels one after the other, each from the newest values.

Eq. 3   U_c(x): the channels in c become F_c(x), all others are unchanged
Eq. 4   GUNN(x) = (U_{c_l} ∘ … ∘ U_{c_1})(x),      c_1 … c_l a partition of the channels
Eq. 5   F_c(x) = G_c(x) + x_c                      G_c is an update unit (§5.1, Figure 4)

SUNN, the network before conversion to GUNN, applies the same units at once: every unit reads the layer's input x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from polypath.core.checks import check, one_of, whole
from polypath.core.recording import recording, symbolic
from polypath.layers.conv import ConvUnit
from polypath.layers.gunn.in_place import algorithm1, in_place
from polypath.layers.gunn.steps import Reads, changed
from polypath.layers.pointwise import PLAIN_CONVS, layout

ORDERS = ("gradual", "simultaneous")
BACKWARDS = ("algorithm1", "reference")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")  # torch has no public names


class Bottleneck(nn.Module):
    """A bottleneck (§5.1) of three convs: 1×1 to K·n_out maps, 3×3, and 1×1 to n_out maps.

    A batch-norm follows each conv, and a ReLU follows the first two batch-norms.
    """

    def __init__(self, in_chans: int, out_chans: int, expansion: int) -> None:
        super().__init__()
        width = expansion * out_chans
        self.layer1 = ConvUnit(in_chans, width, 1)
        self.layer2 = ConvUnit(width, width, 3)
        self.layer3 = ConvUnit(width, out_chans, 1, order="conv-norm")

    if TYPE_CHECKING:  # torch types a module's call as Any

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        return self.layer3(self.layer2(self.layer1(x)))


class UpdateUnit(nn.Module):
    """A unit G_c of M stacked bottlenecks, from ``(N, in_chans, H, W)`` to ``(N, out_chans, H, W)``.

    Args:
        expansion: K, the bottleneck's inner maps per output map.
        stacked: M, the number of bottlenecks. The first one reads all channels; each of the others reads the output of
            the one before it.
        parallel: whether to add the output of a 1×1 conv with batch-norm that is applied to the unit's input. The paper
            does not mention this conv, but its parameter counts for the CIFAR models include it.
    """

    def __init__(
        self, in_chans: int, out_chans: int, expansion: int = 2, stacked: int = 1, *, parallel: bool = False
    ) -> None:
        super().__init__()
        self.stacked = stacked
        for m in range(1, stacked + 1):
            self.add_module(f"unit{m}", Bottleneck(in_chans if m == 1 else out_chans, out_chans, expansion))
        self.parallel = ConvUnit(in_chans, out_chans, 1, order="conv-norm") if parallel else None

    if TYPE_CHECKING:  # torch types a module's call as Any

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        z = x
        for m in range(1, self.stacked + 1):
            z = self.get_submodule(f"unit{m}")(z)
        return z if self.parallel is None else z + self.parallel(x)

    def reads(self) -> Reads | None:
        """Combine the convs that read the unit's input into one; return None if this would skip a module with hooks."""
        first = self.get_submodule("unit1")
        assert isinstance(first, Bottleneck)
        readers = [first.layer1] if self.parallel is None else [first.layer1, self.parallel]
        if not all(map(_mergeable, (self, first, *readers))):
            return None
        convs = [reader.conv for reader in readers]
        # a conv into which a batch-norm was folded has a bias
        bias = None if all(conv.bias is None for conv in convs) else torch.cat([_bias(conv) for conv in convs])
        return Reads(torch.cat([conv.weight for conv in convs]), bias, [conv.out_channels for conv in convs])

    def rest(self, z: Tensor, beside: Tensor | None = None) -> Tensor:
        """Compute the unit's output from the output ``z`` of the first conv and ``beside`` of the parallel conv."""
        first = self.get_submodule("unit1")
        assert isinstance(first, Bottleneck)
        z = first.layer3(first.layer2(_after_conv(first.layer1, z)))
        for m in range(2, self.stacked + 1):
            z = self.get_submodule(f"unit{m}")(z)
        return z if self.parallel is None or beside is None else z + _after_conv(self.parallel, beside)


class GunnLayer(nn.Module):
    """A layer of N channels in P equal segments, which are updated in order. Its input and output are ``(B, N, H, W)``.

    Args:
        channels: N.
        segments: P; segment i has the channels (i−1)·N/P to i·N/P.
        expansion: K of the update units.
        stacked: M of the update units.
        parallel: whether units have the parallel 1×1 conv of the CIFAR models.
        residual: whether a unit's result is added to the segment's old value (Eq. 5) or replaces it (NoRes).
        order: ``gradual`` (GUNN, Eq. 4) or ``simultaneous`` (SUNN).
        backward: ``algorithm1`` updates one buffer in place and restores it in the backward pass (§3.4). ``reference``
            is a literal implementation of Eq. 4, which saves a copy of all channels for each segment. Both use the same
            weights, and ``backward`` may be set at any time. Compiled and exported networks always run the reference,
            and so do empty batches and ``torch.func``'s transforms (``vmap``, ``grad``, …).
        unit: a function that makes a custom update unit from the numbers of input and output channels. The unit must
            not write to its input. With ``algorithm1``, only its input and its own parameters may require a gradient.

    Raises:
        ValueError: P does not divide N (the message lists the nearest legal values); an unknown order or backward.
    """

    def __init__(
        self,
        channels: int,
        segments: int,
        expansion: int = 2,
        stacked: int = 1,
        *,
        parallel: bool = False,
        residual: bool = True,
        order: str = "gradual",
        backward: str = "algorithm1",
        unit: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        check_segments(channels, segments)
        check("order", order, one_of(*ORDERS))
        check("backward", backward, one_of(*BACKWARDS))
        self.channels, self.segments = channels, segments
        self.residual, self.order, self.backward = residual, order, backward
        size = channels // segments
        make = unit or partial(UpdateUnit, expansion=expansion, stacked=stacked, parallel=parallel)
        for i in range(1, segments + 1):
            self.add_module(f"segment{i}", make(channels, size))

    def extra_repr(self) -> str:
        return f"channels={self.channels}, segments={self.segments}, order={self.order}, backward={self.backward}"

    @property
    def units(self) -> list[nn.Module]:
        """The update units, in the order of the segments."""
        return [self.get_submodule(f"segment{i}") for i in range(1, self.segments + 1)]

    if TYPE_CHECKING:  # torch types a module's call as Any

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        units = self.units
        if symbolic(x):
            return self.reference(x, units)
        if x.shape[1] != self.channels:
            raise ValueError(f"the maps have {x.shape[1]} channels, but this layer updates {self.channels}")
        if self.backward == "reference" or recording() or _transformed() or not len(x):
            return self.reference(x, units)
        gradual = self.order == "gradual"
        learning = torch.is_grad_enabled()
        parameters = [[p for p in unit.parameters() if p.requires_grad] for unit in units] if learning else []
        if not learning or not (x.requires_grad or any(parameters)):
            return in_place(x, units, self.residual, gradual=gradual)
        if not gradual:
            return self.reference(x, [partial(changed, unit) for unit in units])
        if any(p._backward_hooks for own in parameters for p in own):
            return self.reference(x, units)  # such hooks would run twice: on the unit's gradient and on the layer's
        return algorithm1(x, units, parameters, self.residual)

    def reference(self, x: Tensor, units: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        """Run a literal implementation of Eq. 4 (for SUNN Eq. 2) with Eq. 5."""
        split = torch.split(x, self.channels // self.segments, dim=1)
        values = [split[i] for i in range(len(units))]
        for i, unit in enumerate(units):
            change = unit(torch.cat(values, dim=1) if self.order == "gradual" else x)
            values[i] = (values[i] + change if self.residual else change).to(x.dtype)
        return torch.cat(values, dim=1)


def check_segments(channels: int, segments: int, where: str = "") -> None:
    """Raise ``ValueError`` with the nearest legal values unless ``segments`` (P) divides ``channels`` (N)."""
    check(f"{where}channels N", channels, whole(1))
    if 1 <= segments <= channels and channels % segments == 0:
        return
    divisors = [p for p in range(1, min(channels, 100_000) + 1) if channels % p == 0]
    near = sorted(sorted(divisors, key=lambda p: abs(p - segments))[:2])
    legal = f"the nearest legal P {'is' if len(near) == 1 else 'are'} {' and '.join(map(str, near))}"
    if segments >= 1:
        below = channels // segments * segments
        legal += f"; with this P, N may be {' or '.join(str(n) for n in (below, below + segments) if n)}"
    raise ValueError(f"{where}segments P = {segments} do not divide N = {channels} channels: {legal}")


def _after_conv(unit: ConvUnit, x: Tensor) -> Tensor:
    # batch-norm is slow on strided slices
    x = x.contiguous(memory_format=layout(x))
    for part in unit.parts[1:]:
        x = getattr(unit, part)(x)
    return x


def _transformed() -> bool:
    """Return whether a ``torch.func`` transform is active, in which neither buffers nor inner graphs work."""
    return torch._C._are_functorch_transforms_active()  # pyright: ignore[reportPrivateUsage] (there is no public name)


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def _mergeable(module: nn.Module) -> bool:
    """Return whether the module and its conv have no hooks, and the conv (if there is a conv) is a plain conv."""
    conv = getattr(module, "conv", None)
    watched = [m for m in (module, conv) if m is not None]
    return (conv is None or type(conv) in PLAIN_CONVS) and not any(
        getattr(m, hooks) for m in watched for hooks in HOOKS
    )
