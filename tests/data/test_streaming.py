"""Streamed batches equal those in memory for any number of workers, and broken images are named."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polypath.data import (
    PLUS,
    AugmentConfig,
    DataConfig,
    StreamedSplit,
    StreamingBatches,
    evaluation_batches,
    load_images,
    training_batches,
)

Write = Callable[..., Path]


@pytest.fixture
def root(image_folder: Write) -> str:
    return str(image_folder(n=10, sizes=((20, 16), (16, 24), (18, 18))))


def config_of(root: str, **fields: Any) -> DataConfig:
    return DataConfig(**{"source": root, "size": 12, "streaming": True, "workers": 0, "channels": 3, **fields})


def run(loader: Any, epochs: int = 1) -> list[tuple[Tensor, Tensor]]:
    out = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        out += [(x.clone(), y.clone()) for x, y in loader]
    return out


def same(a: list[tuple[Tensor, Tensor]], b: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = [pair for u, v in zip(a, b, strict=True) for pair in zip(u, v, strict=True)]
    return all(torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("fields", [{"augment": PLUS}, {"resize_to": 16, "validation": 4}, {"resize": "pad"}])
def test_streamed_batches_are_those_in_memory(root: str, fields: dict[str, Any]) -> None:
    streamed, memory = config_of(root, **fields), config_of(root, streaming=False, **fields)
    one, other = load_images(streamed), load_images(memory)
    assert isinstance(one.train, StreamedSplit)
    assert (one.mean, one.std, one.classes) == (other.mean, other.std, other.classes)
    train = [run(training_batches(d, c, 6, seed=2), 2) for d, c in ((one, streamed), (other, memory))]
    assert same(*train)
    for part in ("validation", "test") if "validation" in fields else ("test",):
        assert same(*(run(evaluation_batches(d, c, 6, part)) for d, c in ((one, streamed), (other, memory))))
    assert not same(train[0], run(training_batches(one, streamed, 6, seed=3), 2))


def test_scale_crops_are_taken_from_the_original_image(root: str) -> None:
    config = config_of(root, resize_to=16, augment=AugmentConfig(scale=(0.2, 1.0), mirror=True, photometric=True))
    data = load_images(config)
    first = run(training_batches(data, config, 6, seed=2), 2)
    assert first[0][0].shape == (6, 3, 12, 12)
    assert same(first, run(training_batches(data, config, 6, seed=2), 2))
    assert not same(first[:4], first[4:])


def test_the_largest_scale_crop_is_the_whole_image(root: str) -> None:
    whole = config_of(root, augment=AugmentConfig(scale=(1.0, 1.0), aspect=(1e-3, 1e3)))
    squash = config_of(root, resize="squash", normalise="mean")
    data = load_images(squash)  # one normalisation for both
    crops = torch.cat([x for x, _ in run(training_batches(data, whole, 6, seed=2))])
    images = torch.cat([x for x, _ in run(evaluation_batches(data, squash, 6, "train"))])
    assert torch.equal(crops.flatten(1).sort(0).values, images.flatten(1).sort(0).values)


@pytest.mark.parametrize("crops", [{"scale": (0.2, 1.0)}, {"shorter_side": (16, 40), "jitter": 0.4, "lighting": 0.1}])
def test_resized_crops_agree_with_those_in_memory(crops: dict[str, Any], image_folder: Write) -> None:
    root = str(image_folder(n=10, sizes=((16, 16),)))
    augment = AugmentConfig(**crops, mirror=True)
    fields: dict[str, Any] = {"size": 16, "augment": augment, "normalise": "none"}
    streamed, memory = config_of(root, **fields), config_of(root, streaming=False, **fields)
    pairs = zip(
        run(training_batches(load_images(streamed), streamed, 6, seed=2)),
        run(training_batches(load_images(memory), memory, 6, seed=2)),
        strict=True,
    )
    for (x, y), (x_memory, y_memory) in pairs:
        assert torch.allclose(x, x_memory, atol=3 / 255)  # two resamplers round differently, jitter may double it
        assert torch.equal(y, y_memory)


def test_a_shorter_side_below_the_crop_is_refused_before_the_first_batch(root: str) -> None:
    config = config_of(root, augment=AugmentConfig(shorter_side=(11, 20)))
    with pytest.raises(ValueError, match=r"shorter_side = \(11, 20\): must be at least the crops' side, 12 pixels"):
        training_batches(load_images(config), config, 6, seed=0)


def test_workers_and_ranks_change_nothing(root: str) -> None:
    config = config_of(root, augment=PLUS)
    data = load_images(config)
    expected = run(training_batches(data, config, 4, seed=2), 2)
    options: dict[str, Any] = {"mean": data.mean, "std": data.std, "augment": PLUS, "shuffle": True, "seed": 2}
    assert isinstance(data.train, StreamedSplit)
    loader = StreamingBatches(data.train, 4, workers=2, **options)
    assert same(run(loader, 2), expected)
    halves = [run(StreamingBatches(data.train, 4, workers=0, rank=r, world_size=2, **options)) for r in range(2)]
    together = [(torch.cat([x, u]), torch.cat([y, v])) for (x, y), (u, v) in zip(*halves, strict=True)]
    assert same(together, expected[:5])

    loader.set_epoch(1)  # leave in the middle, then resume there
    iterator = iter(loader)
    next(iterator)
    del iterator
    loader.start(2)
    assert same([(x.clone(), y.clone()) for x, y in loader], expected[7:])

    loader.close()
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()
    with pytest.raises(ValueError, match="closed"):
        next(iter(loader))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_or_left_out(root: str, workers: int) -> None:
    broken = Path(root) / "train/dog/3.png"
    broken.write_bytes(broken.read_bytes()[:100])
    config = config_of(root, workers=workers, normalise="none")
    loader = training_batches(load_images(config), config, 20, seed=0)
    with pytest.raises(ValueError, match=r"^1 of 20 images of split 'train' cannot be read: train/dog/3\.png \("):
        next(iter(loader))
    loader.close()
    config = config_of(root, workers=workers, broken="skip", augment=PLUS)
    data = load_images(config)
    loader = training_batches(data, config, 20, seed=0)
    with pytest.warns(UserWarning, match=r"1 images were left out: train/dog/3\.png"):
        x, y = next(iter(loader))
    assert isinstance(loader, StreamingBatches)
    assert (len(x), y.bincount().tolist()) == (19, [10, 9])
    assert len(loader.skipped) == 1
    loader.close()


def test_parquet_is_streamed_too(parquet_folder: Write) -> None:
    root = str(parquet_folder(size=(12, 12)))
    streamed, memory = config_of(root), config_of(root, streaming=False)
    one, other = load_images(streamed), load_images(memory)
    assert same(run(evaluation_batches(one, streamed, 5)), run(evaluation_batches(other, memory, 5)))
    assert isinstance(one.train, StreamedSplit)
    loader = StreamingBatches(one.train, 5, mean=one.mean, std=one.std, workers=1)
    assert same(run(loader), run(evaluation_batches(other, memory, 5, "train")))
    loader.close()


def test_an_extra_split_is_streamed_with_the_others(image_folder: Write) -> None:
    root = str(image_folder(("train", "extra", "test")))
    fields: dict[str, Any] = {"extra_split": "extra", "validation": 2, "validation_extra": 4, "hold_out": "equal"}
    streamed, memory = config_of(root, **fields), config_of(root, streaming=False, **fields)
    one, other = load_images(streamed), load_images(memory)
    assert one.validation is not None
    assert (len(one.train), len(one.validation)) == (18, 6)
    for part in ("train", "validation", "test"):
        assert same(*(run(evaluation_batches(d, c, 6, part)) for d, c in ((one, streamed), (other, memory))))


def test_different_streamed_data_have_different_fingerprints(root: str) -> None:
    one = load_images(config_of(root, validation=4))
    assert one.fingerprint == load_images(config_of(root, validation=4)).fingerprint
    assert one.fingerprint != load_images(config_of(root, validation=4, split_seed=1)).fingerprint


def test_bad_streams_are_refused(root: str) -> None:
    data = load_images(config_of(root))
    assert isinstance(data.train, StreamedSplit)
    with pytest.raises(ValueError, match="workers = -1"):
        StreamingBatches(data.train, 4, mean=data.mean, std=data.std, workers=-1)
    with pytest.raises(ValueError, match="12x12 pixels are too small for crops of 16x16"):
        StreamingBatches(data.train, 4, mean=data.mean, std=data.std, size=16)
