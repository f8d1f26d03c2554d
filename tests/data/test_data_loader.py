"""Batches are a function of seed, epoch and batch number; ranks share them; evaluation is left alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from polypath.data import (
    GUNN_RELEASED,
    IMAGENET_PHOTOMETRIC,
    PLUS,
    PLUS_PLUS,
    AugmentConfig,
    Batches,
    DataConfig,
    Split,
    average_views,
    evaluation_batches,
    load_images,
    training_batches,
)
from polypath.data.augment import Draws
from polypath.data.batches import Part
from polypath.data.loader import Order
from polypath.data.sources import ImageData

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
EVERYTHING = AugmentConfig(
    pad=2, mirror=True, roll=0.5, scale=(0.3, 1.0), photometric=True, policy="trivial", erase=0.5
)


@pytest.fixture
def split(rng: torch.Generator) -> Split:
    images = torch.randint(0, 256, (50, 3, 12, 12), generator=rng, dtype=torch.uint8)
    return Split(images, torch.arange(50) % 7)


def test_data_are_short_lines(split: Split):
    assert repr(split) == "Split(50 images, 3×12×12)"
    data = ImageData("noise", split, None, split, tuple(map(str, range(1000))), MEAN, STD)
    assert repr(data) == "ImageData('noise', 50 train, 50 test, 1000 classes, 12×12 pixels)"


def batches(split: Split, batch_size: int = 8, **options: Any) -> Batches:
    return Batches(split, batch_size, **{"mean": MEAN, "std": STD, **options})


def training(split: Split, augment: AugmentConfig = EVERYTHING, **options: Any) -> Batches:
    return batches(split, **{"augment": augment, "shuffle": True, "seed": 3, **options})


def run(loader: Any) -> list[tuple[Tensor, Tensor]]:
    return [(x.clone(), y.clone()) for x, y in loader]


def same(a: list[tuple[Tensor, Tensor]], b: list[tuple[Tensor, Tensor]]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(p, q) for u, v in zip(a, b, strict=True) for p, q in zip(u, v, strict=True)
    )


# --- what a batch holds -----------------------------------------------------------------------------------


def test_evaluation_is_every_image_once_in_order_and_normalised(split: Split) -> None:
    loader = batches(split)
    seen = run(loader)
    x, y = (torch.cat(parts) for parts in zip(*seen, strict=True))
    expected = (split.images.double() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert (len(loader), loader.num_images, loader.views) == (7, 50, 1)
    assert seen[-1][0].shape == (2, 3, 12, 12)
    assert torch.allclose(x.double(), expected, atol=1e-6)
    assert torch.equal(y, split.labels)
    assert x.dtype == torch.float32


def test_training_goes_through_every_image_once_in_another_order(split: Split) -> None:
    numbered = Split(split.images, torch.arange(50))
    order = torch.cat([y for _, y in run(training(numbered))])
    assert not torch.equal(order, torch.arange(50))
    assert torch.equal(order.sort().values, torch.arange(50))


def test_the_default_augmentation_changes_nothing(split: Split) -> None:
    assert same(run(batches(split, augment=AugmentConfig())), run(batches(split)))
    assert not same(run(batches(split, augment=PLUS)), run(batches(split)))


def test_zeros_are_padded_after_the_mean_is_subtracted(split: Split) -> None:
    bright = Split(torch.full_like(split.images, 255), split.labels)
    x = torch.cat([x for x, _ in batches(bright, augment=AugmentConfig(pad=4))])
    value = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    values = {round(v, 4) for v in x.unique().tolist()}
    assert values == {0.0, *(round(v, 4) for v in value.tolist())}
    x = torch.cat([x for x, _ in batches(bright, augment=PLUS_PLUS)])
    assert {round(v, 4) for v in x.unique().tolist()} == {round(v, 4) for v in value.tolist()}


@pytest.mark.parametrize("augment", [PLUS, PLUS_PLUS, GUNN_RELEASED, IMAGENET_PHOTOMETRIC, EVERYTHING])
def test_each_part_of_a_recipe_keeps_shape_and_changes_pixels(split: Split, augment: AugmentConfig) -> None:
    x, _ = next(iter(batches(split, augment=augment)))
    assert x.shape == (8, 3, 12, 12)
    assert x.isfinite().all()
    assert not torch.allclose(x, next(iter(batches(split)))[0])


def test_layout_and_type(split: Split) -> None:
    x, _ = next(iter(training(split, channels_last=True, dtype=torch.bfloat16)))
    plain, _ = next(iter(training(split)))
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert plain.is_contiguous()
    assert torch.equal(x, plain.to(torch.bfloat16))


# --- determinism ------------------------------------------------------------------------------------------


def test_the_same_seed_and_epoch_give_the_same_batches_and_others_others(split: Split) -> None:
    one = training(split)
    first = run(one)
    assert same(run(one), first)
    assert same(run(training(split)), first)
    one.set_epoch(1)
    assert not same(run(one), first)
    one.set_epoch(0)
    assert same(run(one), first)
    assert not same(run(training(split, seed=4)), first)


def test_an_image_changes_from_epoch_to_epoch(split: Split) -> None:
    still = batches(split, augment=PLUS)
    first = run(still)
    still.set_epoch(1)
    assert not same(run(still), first)


ALTERNATE = AugmentConfig(mirror=True, alternate=True)


def flips(loader: Batches, epoch: int, start: int = 0) -> dict[int, bool]:
    """Which images of a split labelled by their numbers came flipped in an epoch, from a batch on."""
    loader.set_epoch(epoch)
    loader.start(start)
    upright = loader.pipeline.__class__(mean=MEAN, std=STD)(loader.split.images, Draws())
    return {
        int(number): not torch.equal(image, upright[number])
        for x, y in loader
        for image, number in zip(x, y, strict=True)
    }


def test_each_image_is_flipped_in_every_second_epoch(split: Split) -> None:
    loader = training(Split(split.images, torch.arange(50)), ALTERNATE)
    first, second, third, fourth = (flips(loader, epoch) for epoch in range(4))
    assert first == third
    assert second == fourth == {number: not flipped for number, flipped in first.items()}
    assert 15 < sum(first.values()) < 35  # the start of each is drawn
    other = training(Split(split.images, torch.arange(50)), ALTERNATE, seed=4)
    assert flips(other, 0) != first
    assert flips(other, 1) == {number: not flipped for number, flipped in flips(other, 0).items()}


def test_alternating_flips_are_resumed_and_shared_by_ranks(split: Split) -> None:
    numbered = Split(split.images, torch.arange(50))
    whole = flips(training(numbered, ALTERNATE), 3)
    rest = flips(training(numbered, ALTERNATE), 3, start=4)
    assert len(rest) == 50 - 4 * 8
    assert rest == {number: whole[number] for number in rest}
    ranks = [flips(training(numbered, ALTERNATE, rank=rank, world_size=2), 3) for rank in range(2)]
    assert ranks[0] | ranks[1] == whole


def test_alternating_flips_leave_other_draws_as_they_are(split: Split) -> None:
    changes = AugmentConfig(pad=2, roll=0.5, mirror=True)
    plain = training(split, changes)
    other = training(split, dataclasses.replace(changes, alternate=True))
    for batch in range(len(plain)):
        indices = plain.order.indices(1, batch)
        a, b = plain.draws(1, batch, indices), other.draws(1, batch, indices)
        assert torch.equal(a.crop, b.crop)  # pyright: ignore[reportArgumentType]
        assert torch.equal(a.roll, b.roll)  # pyright: ignore[reportArgumentType]


def test_resuming_in_the_middle_continues_to_the_bit(split: Split) -> None:
    whole = []
    loader = training(split)
    for epoch in range(3):
        loader.set_epoch(epoch)
        whole += run(loader)
    for epoch, batch in ((0, 0), (1, 3), (2, 7)):
        fresh, rest = training(split), []
        for e in range(epoch, 3):
            fresh.set_epoch(e)
            fresh.start(batch if e == epoch else 0)
            rest += run(fresh)
        assert same(rest, whole[epoch * 7 + batch :])
    loader.set_epoch(0)
    loader.start(2)
    assert len(run(loader)) == 5
    assert len(run(loader)) == 7  # a start holds for one iteration


def test_nothing_is_drawn_from_the_global_generator(split: Split) -> None:
    before = torch.random.get_rng_state()
    run(training(split))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_feature_less_leaves_the_order(split: Split) -> None:
    numbered = Split(split.images, torch.arange(50))
    one, other = (torch.cat([y for _, y in training(numbered, a)]) for a in (EVERYTHING, AugmentConfig()))
    assert torch.equal(one, other)


def uneven() -> Split:
    """40 images of class 0, seven of class 1, three of class 2, numbered by their pixels."""
    images = torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(50, 3, 12, 12)
    return Split(images.contiguous(), torch.tensor([0] * 40 + [1] * 7 + [2] * 3))


def drawn(loader: Batches, epoch: int = 0) -> list[int]:
    """Which images an epoch goes through, in its order."""
    return [int(i) for batch in range(len(loader)) for i in loader.order.indices(epoch, batch)]


def test_balanced_epochs_have_each_class_equally_often_and_its_images_too() -> None:
    loader = training(uneven(), AugmentConfig(), balanced=True)
    seen = drawn(loader)
    counts = torch.bincount(torch.tensor(seen), minlength=50)
    assert [int(counts[part].sum()) for part in (slice(0, 40), slice(40, 47), slice(47, 50))] == [17, 17, 16]
    for part in (slice(0, 40), slice(40, 47), slice(47, 50)):
        assert int(counts[part].max() - counts[part].min()) <= 1
    assert [y for _, labels in run(loader) for y in labels.tolist()] == uneven().labels[seen].tolist()
    assert sorted(drawn(loader, 1)) != sorted(seen)  # others of the large class
    assert len({*seen, *drawn(loader, 1)}) > 27


def test_balanced_epochs_are_resumed_and_shared_by_ranks() -> None:
    whole = run(training(uneven(), balanced=True))
    loader = training(uneven(), balanced=True)
    loader.start(3)
    assert same(run(loader), whole[3:])
    parts = [run(training(uneven(), balanced=True, rank=rank, world_size=2)) for rank in range(2)]
    for (x, y), (a, b), (c, d) in zip(whole, *parts, strict=True):
        assert torch.equal(y, torch.cat([b, d]))
        torch.testing.assert_close(x, torch.cat([a, c]))


# --- ranks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("make", [training, batches])
def test_ranks_share_each_batch(split: Split, world: int, make: Any) -> None:
    whole = run(make(split))
    parts = (
        [run(make(split, rank=rank, world_size=world)) for rank in range(world)]
        if make is batches
        else [run(make(split, rank=rank, world_size=world, drop_last=True)) for rank in range(world)]
    )
    assert len({len(p) for p in parts}) == 1
    for number, shares in enumerate(zip(*parts, strict=True)):
        x, y = (torch.cat(own) for own in zip(*shares, strict=True))
        assert torch.equal(x, whole[number][0])
        assert torch.equal(y, whole[number][1])
    assert not torch.equal(parts[0][0][0], parts[1][0][0])


def test_parts_differ_by_at_most_one_image() -> None:
    options: dict[str, Any] = {"shuffle": False, "seed": 0, "drop_last": False, "world_size": 4}
    for n in range(13):
        parts = [Order(13, 4, rank=rank, **options).part(n) for rank in range(4)]
        sizes = [p.stop - p.start for p in parts]
        assert sum(sizes) == n
        assert max(sizes) - min(sizes) <= 1
        assert [i for p in parts for i in range(p.start, p.stop)] == list(range(n))


# --- crops ------------------------------------------------------------------------------------------------


def test_stored_margins_are_cropped_at_random_in_training_and_centred_in_evaluation(split: Split) -> None:
    x = torch.cat([x for x, _ in batches(split, size=8)])
    whole = torch.cat([x for x, _ in batches(split)])
    assert torch.equal(x, whole[..., 2:10, 2:10])
    random = torch.cat([x for x, _ in batches(split, size=8, augment=AugmentConfig())])
    assert random.shape == x.shape
    assert not torch.equal(random, x)
    windows = whole.unfold(2, 8, 1).unfold(3, 8, 1)
    for i in range(5):
        assert any(torch.equal(random[i], windows[i, :, y, z]) for y in range(5) for z in range(5))


def test_ten_crops_come_together(split: Split) -> None:
    loader = batches(split, size=8, crops=10)
    x, y = next(iter(loader))
    assert (x.shape, y.shape, loader.views) == ((80, 3, 8, 8), (8,), 10)
    centre, _ = next(iter(batches(split, size=8)))
    assert torch.equal(x[4::10], centre)
    logits = x.mean((2, 3))
    assert average_views(logits, loader.views).shape == (8, 3)


# --- from a configuration ---------------------------------------------------------------------------------


def test_batches_from_a_configuration() -> None:
    config = DataConfig(size=8, resize_to=10, eval_crops=10, augment=PLUS, validation=100)
    data = load_images(config)
    train = training_batches(data, config, 32, seed=1, drop_last=True)
    assert (len(train), train.num_images) == (41, 1312)
    x, y = next(iter(train))
    assert (x.shape, y.shape) == ((32, 1, 8, 8), (32,))
    counts: dict[Part, int] = {"validation": 100, "test": 360, "train": 1337}
    for part, n in counts.items():
        loader = evaluation_batches(data, config, 50, part)
        seen = run(loader)
        assert sum(len(y) for _, y in seen) == n
        assert seen[0][0].shape == (500, 1, 8, 8)
    plain = dataclasses.replace(config, validation=0)
    with pytest.raises(
        ValueError, match="part = 'validation': must be one of the parts of digits, which are train, test"
    ):
        evaluation_batches(load_images(plain), plain, 50, "validation")
    with pytest.raises(
        ValueError, match="part = 'name': must be one of the parts of digits, which are train, validation, test"
    ):
        evaluation_batches(data, config, 50, "name")  # pyright: ignore[reportArgumentType] (wrong on purpose)


def test_shuffled_training_images_without_changes_for_statistics() -> None:
    config = DataConfig(augment=PLUS)
    data = load_images(config)
    loader = evaluation_batches(data, config, 100, "train", shuffle=True, seed=5)
    _, y = next(iter(loader))
    assert len(set(y.tolist())) == 10
    assert same(run(loader), run(evaluation_batches(data, config, 100, "train", shuffle=True, seed=5)))


# --- refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0: must be a whole number of at least 1"),
        ({"batch_size": 64, "drop_last": True}, "batch_size = 64: must be at most 50, the number of images"),
        ({"rank": 2, "world_size": 2}, r"rank = 2: must be a whole number from 0 to 1"),
        ({"batch_size": 9, "rank": 0, "world_size": 2}, "batch_size = 9: must be a multiple of world_size 2"),
        (
            {"batch_size": 8, "world_size": 4, "shuffle": True},
            "last batch of the 50 images has only 2, fewer than the 4",
        ),
        ({"mean": (0.5,)}, "one value for each of 3 channels"),
        ({"std": (1.0, 0.0, 1.0)}, "must have a positive number"),
        ({"crops": 5}, "crops = 5: must be one of 1, 10"),
        ({"crops": 10}, "crops = 10: requires augment = None"),
        ({"crops": 10, "size": 8, "augment": PLUS}, "crops = 10: requires augment = None"),
        ({"size": 16}, "12x12 pixels are too small for crops of 16x16"),
        ({"augment": AugmentConfig(pad=12, pad_mode="reflect")}, "pad = 12: is too large to reflect images of side 12"),
    ],
)
def test_bad_batches_are_refused_at_once(split: Split, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches(split, **options)


def test_bad_epochs_and_starts_are_refused(split: Split) -> None:
    loader = batches(split)
    with pytest.raises(ValueError, match="epoch = -1"):
        loader.set_epoch(-1)
    with pytest.raises(ValueError, match="batch = 8: must be between 0 and 7"):
        loader.start(8)


def test_scale_crops_of_oblong_images_need_a_size(rng: torch.Generator) -> None:
    oblong = Split(torch.zeros(4, 3, 8, 12, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"DataConfig\.size = None: must be set .* 8x12 pixels"):
        batches(oblong, augment=IMAGENET_PHOTOMETRIC)
    x, _ = next(iter(batches(oblong, augment=IMAGENET_PHOTOMETRIC, size=8)))
    assert x.shape == (4, 3, 8, 8)


def test_splits_are_checked() -> None:
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\) uint8"):
        Split(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"must be \(N,\) int64"):
        Split(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
