"""Splits of images with their labels: decoded in memory, or streamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from polypath.data.cache import digest
from polypath.data.config import Resize
from polypath.data.decode import Encoded, broken_message
from polypath.data.fit import fit, pixels
from polypath.data.images import OWN, BrokenImage, open_image

Cut = Callable[[int, Image.Image], Image.Image]


@dataclass(frozen=True)
class Split:
    """A split in memory: decoded images ``(N, C, H, W)`` uint8 and their labels ``(N,)`` int64.

    Raises:
        ValueError: the tensors have wrong shapes or dtypes.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise ValueError(f"images {tuple(self.images.shape)} {self.images.dtype}: must be (N, C, H, W) uint8")
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels {tuple(self.labels.shape)} {self.labels.dtype}: must be (N,) int64, one per image"
            )

    def __repr__(self) -> str:
        return f"Split({len(self):,} images, {self.channels}×{self.size[0]}×{self.size[1]})"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    def subset(self, indices: Tensor) -> Split:
        """Return these images, in this order."""
        return Split(self.images[indices], self.labels[indices])

    def to(self, device: torch.device | str) -> Split:
        """Return the split on a device. Tensors that are already there are not copied."""
        return Split(self.images.to(device), self.labels.to(device))

    def fingerprint(self) -> str:
        return digest(self.images, self.labels)

    @staticmethod
    def joined(parts: Sequence[Split]) -> Split:
        """Concatenate splits. If one of them has three channels, grey splits are expanded to three channels."""
        if len(parts) == 1:
            return parts[0]
        wide = max(part.channels for part in parts)
        images = [p.images if p.channels == wide else p.images.expand(-1, wide, -1, -1) for p in parts]
        return Split(torch.cat(images), torch.cat([p.labels for p in parts]))


@dataclass(frozen=True)
class StreamedSplit:
    """A split of images that are decoded on demand.

    Args:
        tables: the encoded images.
        rows: ``(N, 2)``; for each image, the number of a table and the number of a row in that table.
        labels: labels ``(N,)`` int64.
        side, resize: side of the decoded images in pixels, and how to resize to it, see :func:`polypath.data.fit.fit`.
        channels: number of channels, 1 or 3.
        skip_broken: leave out images that cannot be read, instead of raising an error.
        source: a fingerprint of the tables.
    """

    tables: tuple[Encoded, ...]
    rows: Tensor
    labels: Tensor
    side: int
    resize: Resize
    channels: int
    skip_broken: bool
    source: str

    def __repr__(self) -> str:
        return f"StreamedSplit({len(self):,} images, {self.channels}×{self.side}×{self.side})"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.side, self.side

    def subset(self, indices: Tensor) -> StreamedSplit:
        """Return these images, in this order."""
        return replace(self, rows=self.rows[indices], labels=self.labels[indices])

    def decode(self, indices: Sequence[int], cut: Cut | None = None) -> tuple[Tensor, list[int], list[str]]:
        """Decode images. Return ``(n, C, H, W)`` uint8, the positions of the images in ``indices``, and the names of
        skipped images.

        If ``cut`` is given, ``cut(position, image)`` crops and resizes an image, and ``side`` and ``resize`` are not
        used.

        Raises:
            BrokenImage: an image cannot be read, unless ``skip_broken``.
        """
        images, good, broken = [], [], []
        for position, (table, row) in enumerate(self.rows[list(indices)].tolist()):
            encoded = self.tables[table]
            try:
                image = open_image(encoded.read([row])[0], OWN)
            except BrokenImage as error:
                broken.append(f"{encoded.name(row)} ({error})")
                if not self.skip_broken:
                    raise BrokenImage(broken_message(encoded.split, len(encoded), broken)) from None
                continue
            image = cut(position, image) if cut else fit(image, self.side, self.resize)
            images.append(torch.from_numpy(pixels(image, self.channels)))
            good.append(position)
        empty = torch.empty(0, self.channels, self.side, self.side, dtype=torch.uint8)
        return torch.stack(images) if images else empty, good, broken

    def fingerprint(self) -> str:
        return f"{self.source}/{digest(self.rows, self.labels)}"

    @staticmethod
    def joined(parts: Sequence[StreamedSplit]) -> StreamedSplit:
        """Concatenate splits."""
        if len(parts) == 1:
            return parts[0]
        rows, tables = [], []
        for part in parts:
            rows.append(part.rows + torch.tensor([len(tables), 0]))
            tables += part.tables
        return replace(
            parts[0],
            tables=tuple(tables),
            rows=torch.cat(rows),
            labels=torch.cat([part.labels for part in parts]),
            source="+".join(part.source for part in parts),
        )
