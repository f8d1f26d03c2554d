"""The result of :func:`polypath.fuse`: a PathNet with one path, for inference only."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from polypath.core.network import PathNet
from polypath.core.paths import Paths


class FusedNet(PathNet):
    """A rewritten network; see :func:`polypath.fuse`. Convs and images are channels-last while it runs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.config["fused"] = True
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode.

        Raises:
            ValueError: training mode is requested.
        """
        if mode:
            raise ValueError(
                "a fused network cannot be trained, because its norms are folded; train the original network"
            )
        return super().train(False)

    def forward(self, x: Tensor, paths: Paths | str | None = None, **options: Any) -> Tensor:
        """Compute the logits ``(N, num_classes)`` of images ``(N, C, H, W)``.

        Raises:
            ValueError: images that are not a 4-D batch or are too small, a choice other than the whole network.
        """
        return super().forward(x.contiguous(memory_format=torch.channels_last), paths, **options)

    def plan(self, paths: Paths | str | None, ends: tuple[str, ...] = ()) -> Any:
        if paths is not None and str(paths) != "whole":
            raise ValueError(
                f"path {str(paths)!r}: a fused network has only one path; fuse the original network with this path"
            )
        return super().plan(None, ends)
