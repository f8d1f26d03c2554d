"""Which images train, choose and score: functions of the labels and a seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polypath.data.config import DataConfig, HoldOut
from polypath.data.seeds import generator

FIXED = 0  # the seed of what must not change with split_seed: the images that are only scored


def stratified(labels: Tensor, count: int, how: HoldOut, seed: torch.Generator, what: str) -> Tensor:
    """Mark ``count`` of these images, ``(N,)`` bool, drawn class by class.

    ``proportional`` gives each class its share (largest remainders first, then smaller class numbers), ``equal`` the
    same number.

    Raises:
        ValueError: more than there are; not the same number for each class. ``what`` names the field.
    """
    if count > len(labels):
        raise ValueError(f"{what} = {count}: only {len(labels)} images are there")
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
        raise ValueError(f"{what} = {count}: hold_out 'equal' needs a multiple of the {len(classes)} classes")
    if (sizes < each).any():
        short = int(sizes.argmin())
        raise ValueError(f"{what} = {count}: class {int(classes[short])} has {int(sizes[short])} images, not {each}")
    return torch.full_like(sizes, each)


def hold_out_test(labels: Tensor, config: DataConfig) -> Tensor:
    """Mark the images that are scored where a dataset has no split for it; independent of ``split_seed``."""
    count = max(1, round(len(labels) * config.test_fraction))
    return stratified(labels, count, "proportional", generator(FIXED, "test"), "DataConfig.test_fraction: images")


def training_parts(labels: Sequence[Tensor], config: DataConfig) -> tuple[list[Tensor], list[Tensor]]:
    """Indices that train and indices that choose, for each split that is trained on (``train``, then ``extra``).

    Held-out images are drawn first and do not depend on ``train_images``, which is taken from what remains.

    Raises:
        ValueError: more images held out or kept than there are.
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
            raise ValueError(f"DataConfig.train_images = {config.train_images}: {left} images are left for training")
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
    """Indices of the images that are scored, the same ones whatever ``split_seed``."""
    if config.test_images is None:
        return torch.arange(len(labels))
    seed = generator(FIXED, "test_images")
    chosen = stratified(labels, config.test_images, "proportional", seed, "DataConfig.test_images")
    return chosen.nonzero().squeeze(1)
