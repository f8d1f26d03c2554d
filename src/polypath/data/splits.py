"""Choose the training, validation and test images. The choice depends only on the labels and a seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polypath.data.config import DataConfig, HoldOut
from polypath.data.seeds import generator

FIXED = 0  # the seed of choices that must not depend on split_seed, such as the test images


def stratified(labels: Tensor, count: int, how: HoldOut, seed: torch.Generator, what: str) -> Tensor:
    """Draw ``count`` images class by class, and return a mask ``(N,)``.

    With ``equal``, the same number is drawn of each class. With ``proportional``, numbers are proportional to class
    sizes. They are rounded up for the classes with the largest remainders, and rounded down for the others. Among
    classes with equal remainders, those with lower class numbers are rounded up first.

    Raises:
        ValueError: there are fewer than ``count`` images, or ``how`` is ``equal`` and not every class can have an equal
            share of ``count``. The message begins with ``what``.
    """
    if count > len(labels):
        raise ValueError(f"{what} = {count}: there are only {len(labels)} images")
    if count == 0:
        return torch.zeros(len(labels), dtype=torch.bool)
    classes, sizes = labels.unique(return_counts=True)
    wanted = _shares(sizes, count) if how == "proportional" else _equal(classes, sizes, count, what)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, n in zip(classes.tolist(), wanted.tolist(), strict=True):
        members = (labels == label).nonzero().squeeze(1)
        chosen[members[torch.randperm(len(members), generator=seed)[:n]]] = True
    return chosen


def _shares(sizes: Tensor, count: int) -> Tensor:
    total = int(sizes.sum())
    wanted = sizes * count // total
    remainders = sizes * count % total
    largest = remainders.argsort(descending=True, stable=True)[: count - int(wanted.sum())]
    wanted[largest] += 1
    return wanted


def _equal(classes: Tensor, sizes: Tensor, count: int, what: str) -> Tensor:
    each, rest = divmod(count, len(classes))
    if rest:
        raise ValueError(
            f"{what} = {count}: must be a multiple of {len(classes)}, the number of classes, with hold_out 'equal'"
        )
    if (sizes < each).any():
        short = int(sizes.argmin())
        raise ValueError(
            f"{what} = {count}: class {int(classes[short])} has {int(sizes[short])} images, but needs {each}"
        )
    return torch.full_like(sizes, each)


def hold_out_test(labels: Tensor, config: DataConfig) -> Tensor:
    """Return a mask of the images to test on if a dataset has no test split. ``split_seed`` does not affect it."""
    count = max(1, round(len(labels) * config.test_fraction))
    return stratified(labels, count, "proportional", generator(FIXED, "test"), "DataConfig.test_fraction: images")


def training_parts(labels: Sequence[Tensor], config: DataConfig) -> tuple[list[Tensor], list[Tensor]]:
    """Return the indices of the training images and of the held-out images, for each training split (``train``, then
    ``extra``).

    Held-out images are drawn first, and ``train_images`` are drawn from the others. So the held-out images do not
    depend on ``train_images``.

    Raises:
        ValueError: there are not enough images to hold out or to keep.
    """
    held = []
    for name, wanted, own in zip(
        ("validation", "validation_extra"), (config.validation, config.validation_extra), labels, strict=False
    ):
        seed = generator(config.split_seed, name)
        held.append(stratified(own, wanted, config.hold_out, seed, f"DataConfig.{name}"))
    kept = [~mask for mask in held]
    left = sum(int(mask.sum()) for mask in kept)
    if config.train_images is not None:
        if config.train_images > left:
            raise ValueError(
                f"DataConfig.train_images = {config.train_images}: only {left} images are left for training"
            )
        together = torch.cat([own[mask] for own, mask in zip(labels, kept, strict=True)])
        seed = generator(config.split_seed, "train_images")
        chosen = stratified(together, config.train_images, "proportional", seed, "DataConfig.train_images")
        parts = chosen.split([int(mask.sum()) for mask in kept])
        for mask, part in zip(kept, parts, strict=True):
            mask[mask.clone()] = part
    elif left == 0:
        raise ValueError(f"DataConfig.validation = {config.validation}: no image is left for training")
    return [mask.nonzero().squeeze(1) for mask in kept], [mask.nonzero().squeeze(1) for mask in held]


def scored_part(labels: Tensor, config: DataConfig) -> Tensor:
    """Return the indices of the images to test on. ``split_seed`` does not affect them."""
    if config.test_images is None:
        return torch.arange(len(labels))
    seed = generator(FIXED, "test_images")
    chosen = stratified(labels, config.test_images, "proportional", seed, "DataConfig.test_images")
    return chosen.nonzero().squeeze(1)
