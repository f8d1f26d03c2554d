"""The network of cifar10-airbench94 (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds"), with its test-time augmentation.

The network has a frozen 2×2 whitening conv, GELU, and three groups of two 3×3 convs with a max-pool after the first.
Batch-norms learn only a bias. The linear layer has no bias, and its logits are divided by 9. The convs are initialised
as identities on the input channels (Dirac), and by torch's default for further output channels.

Test-time views are paths. ``plain`` uses the image, ``mirror`` the mean of the image and its mirror image. The whole
network uses three such pairs: of the image, of the image shifted by one pixel up and left, and of the image shifted by
one pixel down and right. Their weights are 1/2, 1/4 and 1/4. The linear layer has no bias, so the mean of the features
gives the mean of the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.builder import NetBuilder
from polypath.core.checks import check_fields, each, whole
from polypath.core.network import PathNet
from polypath.core.paths import Selectors
from polypath.core.wiring import Wiring
from polypath.families.base import Family

KERNEL = 2
PLAIN, MIRROR, VIEWS = "views=plain", "views=mirror", "whole"
MOVES = {"centre": None, "upleft": 0, "downright": 2}
"""The offset of each shift in an image that is padded by one reflected pixel."""


class Mirror(nn.Module):
    """A module that flips images ``(N, C, H, W)`` left to right."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)


class Move(nn.Module):
    """A module that pads images by one reflected pixel, then crops them to their size at offset ``start``."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        rows, columns = (slice(self.start, self.start + side) for side in (height, width))
        return F.pad(x, (1, 1, 1, 1), mode="reflect")[..., rows, columns]


class ScaledLinear(nn.Linear):
    """A linear layer without bias whose output is multiplied by ``scale``."""

    def __init__(self, ins: int, outs: int, scale: float) -> None:
        super().__init__(ins, outs, bias=False)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.scale


class Group(nn.Module):
    """A group of conv, max-pool, norm, GELU, conv, norm, GELU."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(ins, outs), _norm(outs)
        self.conv2, self.norm2 = _conv(outs, outs), _norm(outs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


@dataclass(frozen=True, kw_only=True)
class AirNet(Family, name="bench-airnet"):
    """The network of cifar10-airbench94; see the module's docstring.

    Args:
        widths: number of channels of each group.
        init: ``own``, the initialisation that the module's docstring describes.
    """

    widths: tuple[int, ...] = (64, 256, 256)
    init: str = "own"

    paper = "94% on CIFAR-10 in 3.29 seconds, 2024"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, widths=each(whole(1)))
        if len(self.widths) != 3:
            raise ValueError(f"widths = {self.widths}: must be three numbers")

    @property
    def min_size(self) -> int:
        return 25  # 24 after the whitening conv, then 12, 6, 3, and a pool of 3

    def selectors(self) -> Selectors:
        return {"views": _views}

    def path_names(self) -> list[str]:
        return [PLAIN, MIRROR]

    def initialise(self, net: PathNet) -> None:
        """Do nothing, since the modules have initialised their weights themselves."""

    def build_graph(self, b: NetBuilder) -> str:
        pairs = {}
        for name, start in MOVES.items():
            z = b.input if start is None else b.add(f"{name}.move", b.input, Move(start))
            mirrored = b.add(f"{name}.mirror", z, Mirror(), at="mirror")
            both = {"plain": self._body(b, f"{name}.plain", z), "mirror": self._body(b, f"{name}.mirror", mirrored)}
            pairs[name] = b.join(f"{name}.pair", both)
        moved = b.join("moved", {name: pairs[name] for name in ("upleft", "downright")})
        z = b.join("all", {"centre": pairs["centre"], "moved": moved})
        return b.add("head.classifier", z, ScaledLinear(self.widths[-1], self.num_classes, 1 / 9), depth=1)

    def _body(self, b: NetBuilder, view: str, z: str) -> str:
        """Add the nodes of one view. They run modules that all views share. Return the node of the features
        ``(N, widths[-1])``."""
        white = 2 * self.in_chans * KERNEL**2
        z = _shared(b, view, "whiten", z, lambda: _whitening(self.in_chans, white))
        z = _shared(b, view, "act", z, nn.GELU)
        for i, (ins, outs) in enumerate(zip((white, *self.widths), self.widths, strict=False), 1):
            z = _shared(b, view, f"group{i}", z, lambda ins=ins, outs=outs: Group(ins, outs))
        z = _shared(b, view, "pool", z, lambda: nn.MaxPool2d(3))
        return _shared(b, view, "flatten", z, nn.Flatten)


def _shared(b: NetBuilder, view: str, path: str, z: str, make: Callable[[], nn.Module]) -> str:
    known = b.modules.get(path)
    return b.add(f"{view}.{path}", z, known if known is not None else make(), at=path)


def _views(wiring: Wiring, value: str) -> dict[str, list[str]]:
    choices = {"plain": {"all": ["centre"], "centre.pair": ["plain"]}, "mirror": {"all": ["centre"]}}
    if value not in choices:
        raise ValueError(f"views = {value!r}: must be plain or mirror; for all views, use the whole network")
    return choices[value]


def _conv(ins: int, outs: int) -> nn.Conv2d:
    conv = nn.Conv2d(ins, outs, 3, padding=1, bias=False)
    if not conv.weight.is_meta:
        nn.init.dirac_(conv.weight.data[:ins])
    return conv


def _norm(chans: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(chans, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


def _whitening(ins: int, outs: int) -> nn.Conv2d:
    conv = nn.Conv2d(ins, outs, KERNEL)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    conv.weight.requires_grad_(False)
    return conv


@torch.no_grad()
def whiten(conv: nn.Conv2d, images: Tensor, eps: float = 5e-4) -> None:
    """Set a conv's filters to filters that whiten patches of normalised ``images`` ``(N, C, H, W)``, and to their
    negatives. These filters are eigenvectors of the patches' second moments. Each is divided by
    √(its eigenvalue + ``eps``)."""
    size = conv.kernel_size[0]
    patches = F.unfold(images.float(), size).transpose(1, 2).flatten(0, 1)  # (patches, C · size²)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / torch.sqrt(values + eps)).T.flip(0).reshape(-1, *conv.weight.shape[1:])
    conv.weight.copy_(torch.cat([filters, -filters]))
