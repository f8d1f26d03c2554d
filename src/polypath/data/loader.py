"""Batches of images that are ready for a network. They depend only on seed, epoch and batch number.

No state is kept between batches. The order of an epoch depends on (seed, epoch), and the random changes of a batch on
(seed, epoch, batch). So ``set_epoch(e)`` and ``start(b)`` resume a run exactly. Processes that share a batch draw
random numbers for the complete batch and prepare the rows of their part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from polypath.core.checks import check, whole
from polypath.data.augment import Draws, draw_mirror
from polypath.data.config import AugmentConfig
from polypath.data.pipeline import Pipeline
from polypath.data.seeds import generator
from polypath.data.split import Split, StreamedSplit

RESIDENT_SHARE = 0.5  # images may take this share of an accelerator's free memory


def flipped_by_turns(images: int, seed: int, epoch: int) -> Tensor:
    """Return the mask ``(images,)`` of the images to flip in an epoch. All even epochs have the same random mask, and
    odd epochs have its inverse."""
    return draw_mirror(images, generator(seed, "mirror")) ^ bool(epoch % 2)


def balanced_order(labels: Tensor, draw: torch.Generator) -> Tensor:
    """Draw N shuffled indices for labels ``(N,)``, with equally many images of each class. Within a class, each image
    is drawn n or n + 1 times, for some n."""
    classes, order = labels.unique(), []
    quota, more = divmod(len(labels), len(classes))
    for i, label in enumerate(classes):
        members, wanted = (labels == label).nonzero().squeeze(1), quota + (i < more)
        rounds = [members[torch.randperm(len(members), generator=draw)] for _ in range(-(-wanted // len(members)))]
        order.append(torch.cat([*rounds, members[:0]])[:wanted])
    together = torch.cat(order)
    return together[torch.randperm(len(together), generator=draw)]


class Order:
    """The order of the images: which images are in each batch, and which part of a batch this process has.

    Args:
        images: number of images.
        batch_size: images per batch over all ``world_size`` processes.
        shuffle: draw a new order in each epoch; otherwise keep the stored order.
        seed: seed of the order and of the random changes.
        drop_last: leave out the last batch if it is smaller.
        rank, world_size: the index of this process, and the number of processes. Each process has a contiguous part of
            each batch.
        labels: labels of the images ``(images,)``. They are used to draw equally many images of each class. With None,
            each image is drawn once.

    Raises:
        ValueError: a value is out of range, or the processes cannot share the batch size equally.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        rank: int,
        world_size: int,
        labels: Tensor | None = None,
    ) -> None:
        batch_size = check("batch_size", batch_size, whole(1))
        check("world_size", world_size, whole(1))
        check("rank", rank, whole(0, world_size - 1))
        if batch_size % world_size:
            raise ValueError(f"batch_size = {batch_size}: must be a multiple of world_size {world_size}")
        if drop_last and batch_size > images:
            raise ValueError(
                f"batch_size = {batch_size}: must be at most {images}, the number of images, if drop_last = True"
            )
        last = images % batch_size
        if shuffle and not drop_last and 0 < last < world_size:
            raise ValueError(
                f"batch_size = {batch_size}: the last batch of the {images} images has only {last}, "
                f"fewer than the {world_size} processes; set drop_last or another batch size"
            )
        self.images, self.batch_size, self.shuffle, self.seed = images, batch_size, shuffle, seed
        self.drop_last, self.rank, self.world_size = drop_last, rank, world_size
        self.labels = labels
        self._epoch, self._order = -1, torch.empty(0)
        self._flips = -1, torch.empty(0)

    def __len__(self) -> int:
        return self.images // self.batch_size if self.drop_last else -(-self.images // self.batch_size)

    def indices(self, epoch: int, batch: int) -> Tensor:
        """Return the indices of the complete batch, over all processes."""
        start = batch * self.batch_size
        end = min(start + self.batch_size, self.images)
        if not self.shuffle:
            return torch.arange(start, end)
        if epoch != self._epoch:
            draw = generator(self.seed, "order", epoch)
            if self.labels is None:
                self._order = torch.randperm(self.images, generator=draw)
            else:
                self._order = balanced_order(self.labels, draw)
            self._epoch = epoch
        return self._order[start:end]

    def flipped(self, epoch: int, indices: Tensor) -> Tensor:
        """Return a mask of the images to flip in ``epoch``. Each image is flipped in every second epoch."""
        if epoch != self._flips[0]:
            self._flips = epoch, flipped_by_turns(self.images, self.seed, epoch)
        return self._flips[1][indices]

    def part(self, n: int) -> slice:
        """Return the part of this process in a batch of ``n`` images, as a slice. The sizes of the parts differ by at
        most one image."""
        each, rest = divmod(n, self.world_size)
        start = self.rank * each + min(self.rank, rest)
        return slice(start, start + each + (self.rank < rest))

    def generator(self, epoch: int, batch: int) -> torch.Generator:
        """Return the generator for the random changes of a batch."""
        return generator(self.seed, "batch", epoch, batch)


class BatchesBase:
    """Base class of batches from memory and of streamed batches: an iterable of ``(x, y)`` on the device.

    ``x`` is ``(n * views, C, H, W)`` with the views of an image adjacent (see
    :func:`~polypath.data.augment.average_views`), and ``y`` is ``(n,)`` int64. n is the number of images in this
    process's part of the batch.

    Args:
        split: the images.
        batch_size, shuffle, seed, drop_last, rank, world_size: see :class:`Order`.
        mean, std: see :class:`~polypath.data.sources.ImageData`.
        augment: random changes; None for evaluation.
        device: the device of the batches.
        size, crops, dtype, channels_last: see :class:`~polypath.data.pipeline.Pipeline`.
        balanced: draw equally many images of each class in an epoch, see :func:`balanced_order`.

    Attributes:
        on_begin: a function that is called at the beginning of each pass through the images.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        split: Split | StreamedSplit,
        batch_size: int,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augment: AugmentConfig | None = None,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        size: int | None = None,
        crops: int = 1,
        channels_last: bool = False,
        dtype: torch.dtype = torch.float32,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        balanced: bool = False,
    ) -> None:
        if len(mean) != split.channels:
            raise ValueError(f"mean = {mean}: must have one value for each of {split.channels} channels")
        self.order = Order(
            len(split),
            batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
            labels=split.labels.cpu() if balanced else None,
        )
        self.pipeline = Pipeline(
            mean=mean, std=std, augment=augment, size=size, crops=crops, dtype=dtype, channels_last=channels_last
        )
        self.pipeline.check(split.size)
        self.device = torch.device(device)
        self._epoch = self._start = 0
        self.on_begin: Callable[[], None] | None = None

    @property
    def views(self) -> int:
        """The number of rows of ``x`` per image."""
        return self.pipeline.crops

    @property
    def num_images(self) -> int:
        """The number of images per epoch, over all processes."""
        return min(self.order.images, len(self) * self.order.batch_size)

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return len(self.order)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch (0 is the first), on which the order and the random changes depend."""
        self._epoch = check("epoch", epoch, whole(0))

    def start(self, batch: int) -> None:
        """Let the next iteration begin at this batch (0 is the first). Later iterations begin at 0 again."""
        if not 0 <= batch <= len(self):
            raise ValueError(f"batch = {batch}: must be between 0 and {len(self)}, the number of batches in an epoch")
        self._start = batch

    def draws(self, epoch: int, batch: int, indices: Tensor) -> Draws:
        """Draw the random numbers for a batch of these images, over all processes."""
        draws, augment = self.pipeline.draw(len(indices), self.order.generator(epoch, batch)), self.pipeline.augment
        if augment is None or not augment.alternate:
            return draws
        return replace(draws, mirror=self.order.flipped(epoch, indices))

    def _begin(self) -> tuple[int, range]:
        """Return the epoch, and the numbers of its remaining batches."""
        if self.on_begin is not None:
            self.on_begin()
        first, self._start = self._start, 0
        return self._epoch, range(first, len(self))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        raise NotImplementedError

    def close(self) -> None:
        """Stop the worker processes, if there are any."""


class Batches(BatchesBase):
    """Batches of a split that is in memory. :class:`BatchesBase` describes the arguments.

    The images are stored on the device as uint8 and are prepared there batch by batch. If they need more than half of
    an accelerator's free memory, they stay on the host and each batch is copied to the device.
    """

    def __init__(self, split: Split, batch_size: int, **options: Any) -> None:
        super().__init__(split, batch_size, **options)
        self.split = split.to(self.device) if _fits(split, self.device) else split

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, todo = self._begin()
        for batch in todo:
            yield self.batch(epoch, batch)

    def batch(self, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Return the batch with number ``batch`` in ``epoch``."""
        indices = self.order.indices(epoch, batch)
        own = self.order.part(len(indices))
        draws = self.draws(epoch, batch, indices).rows(own)
        at = indices[own].to(self.split.images.device, non_blocking=True)
        images = self.split.images[at].to(self.device, non_blocking=True)
        labels = self.split.labels[at].to(self.device, non_blocking=True)
        return self.pipeline(images, draws), labels


def _fits(split: Split, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return split.images.numel() <= RESIDENT_SHARE * free
