"""Prepare the input of a network from stored uint8 images. In training, the steps are crop, policy, colour, normalise,
pad, mirror, roll and erase. In evaluation, images are normalised, and one or ten views are cropped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polypath.core.checks import check, one_of
from polypath.data import augment as A
from polypath.data.config import AugmentConfig


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A callable that prepares batches of stored images ``(N, C, H, W)`` uint8.

    Args:
        mean, std: values per channel, for pixels in 0 … 1.
        augment: random changes; None for evaluation.
        size: side of the square output; None keeps the stored size.
        crops: number of views of each image in evaluation: 1 (the centre) or 10.
        dtype, channels_last: dtype and memory layout of the output.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: AugmentConfig | None = None
    size: int | None = None
    crops: int = 1
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def __post_init__(self) -> None:
        check("crops", self.crops, one_of(1, 10))
        if self.crops == 10 and (self.augment is not None or self.size is None):
            raise ValueError(
                "crops = 10: requires augment = None (evaluation) and a size smaller than the stored images"
            )
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError(f"std = {self.std}: must have a positive number for each of {len(self.mean)} channels")

    def check(self, stored: tuple[int, int]) -> None:
        """Check that stored images of this (height, width) can be processed. Call it before the first batch.

        Raises:
            ValueError: the images are smaller than the crops, ``pad`` is too large to reflect, or a resized crop has an
                unknown size or is larger than the shorter side.
        """
        height, width = stored
        if self.size is not None and self.size > min(stored):
            raise ValueError(f"images of {height}x{width} pixels are too small for crops of {self.size}x{self.size}")
        if self.augment is None:
            return
        kind = "scale" if self.augment.scale else "shorter_side" if self.augment.shorter_side else ""
        if kind and self.size is None and height != width:
            raise ValueError(
                f"DataConfig.size = None: must be set if AugmentConfig.{kind} crops {height}x{width} pixels"
            )
        if (shorter := self.augment.shorter_side) and shorter[0] < (crop := self.size or height):
            raise ValueError(f"AugmentConfig.shorter_side = {shorter}: must be at least the crops' side, {crop} pixels")
        side = self.size if kind and self.size else min(stored)
        if self.augment.pad_mode == "reflect" and self.augment.pad >= side:
            raise ValueError(f"AugmentConfig.pad = {self.augment.pad}: is too large to reflect images of side {side}")

    def draw(self, n: int, generator: torch.Generator) -> A.Draws:
        """Draw the random numbers for a batch of ``n`` images."""
        if self.augment is None:
            return A.Draws()
        return A.draw(self.augment, n, generator)

    def __call__(self, images: Tensor, draws: A.Draws, *, cut: bool = False) -> Tensor:
        """Convert stored images to network input, on the device of the images. ``cut`` says that the images are already
        cropped to their boxes (``draws.box``)."""
        wide = torch.promote_types(self.dtype, torch.float32)
        if self.augment is None:
            return self._laid_out(self._views(self._normalised(images.to(wide) / 255)))
        height, width = images.shape[-2:]
        want = (self.size, self.size) if self.size else (height, width)
        x = images
        if draws.box is not None and not cut:
            heights, widths = torch.full((len(x),), height), torch.full((len(x),), width)
            x = A.crop_and_resize(x, A.places(self.augment, draws.box, heights, widths, want[0]), want[0])
        if draws.policy is not None:
            x = A.by_policy(x, draws.policy, self.augment.policy)
        x = x.to(wide) / 255
        if draws.light is not None:
            x = A.distort(x, draws.light)
        x = self._normalised(x)
        x = A.pad_images(x, self.augment.pad, self.augment.pad_mode)
        if draws.crop is not None:
            x = A.crop_at(x, A.offsets(draws.crop, x.shape[-2:], want), want)
        if draws.mirror is not None:
            x = A.mirror_where(x, draws.mirror)
        if draws.roll is not None:
            x = A.roll_by(x, A.shifts(draws.roll, self.augment.roll, want))
        if draws.erase is not None:
            x = A.erase(x, draws.erase, self.augment.erase)
        return self._laid_out(x)

    def _normalised(self, x: Tensor) -> Tensor:
        mean, std = (A.constant(v, x.device, x.dtype)[:, None, None] for v in (self.mean, self.std))
        return x.sub_(mean).div_(std)

    def _views(self, x: Tensor) -> Tensor:
        if self.size is None:
            return x
        return A.ten_crop(x, self.size) if self.crops == 10 else A.centre_crop(x, self.size)

    def _laid_out(self, x: Tensor) -> Tensor:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.to(self.dtype).contiguous(memory_format=layout)
