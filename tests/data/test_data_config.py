"""Configurations are JSON, and say what is wrong with a value."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from polypath.data import IMAGENET, PLUS_PLUS, SVHN_HELD_OUT, AugmentConfig, DataConfig
from polypath.data.batches import evaluation_batches
from polypath.data.sources import load_images
from polypath.data.split import Split


@pytest.mark.parametrize(
    "config",
    [DataConfig(), DataConfig(size=224, resize_to=256, augment=IMAGENET, eval_crops=10), DataConfig(augment=PLUS_PLUS)],
)
def test_a_config_survives_json(config: DataConfig) -> None:
    again = DataConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config
    assert again != dataclasses.replace(config, split_seed=1)


def test_svhn_of_dfn_holds_out_two_parts() -> None:
    config = DataConfig(source="svhn", extra_split="extra", **SVHN_HELD_OUT)
    assert (config.validation, config.validation_extra, config.hold_out) == (4000, 2000, "equal")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pad": -1}, r"AugmentConfig.pad = -1: must be a whole number of at least 0"),
        ({"pad": 1.5}, "AugmentConfig.pad = 1.5"),
        ({"shorter_side": (480, 256)}, r"shorter_side = \(480, 256\): the second number must not be below the first"),
        ({"shorter_side": (256, 480), "scale": (0.08, 1)}, "shorter_side .*: cannot be combined with scale"),
        ({"shorter_side": (256.5, 480)}, "each entry is a whole number"),
        ({"jitter": 1.5}, r"AugmentConfig.jitter = 1.5: must be a number in \[0, 1\]"),
        (
            {"photometric": True, "jitter": 0.4},
            "photometric = True: is the same as jitter 0.5 and lighting 0.1; give either",
        ),
        ({"pad_mode": "edge"}, "pad_mode = 'edge': must be one of zero, reflect"),
        ({"mirror": 1}, "mirror = 1: must be true or false"),
        ({"roll": 1.1}, "roll = 1.1"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"scale": (0.5,)}, "scale"),
        ({"scale": 0.5}, "scale"),
        ({"aspect": (2.0, 1.0)}, "aspect"),
    ],
)
def test_bad_augmentation_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": " "}, "DataConfig.source = ' '"),
        ({"source": 3}, "DataConfig.source = 3"),
        ({"validation": -1}, "validation = -1"),
        ({"train_images": 0}, "train_images = 0: must be a whole number of at least 1"),
        ({"train_images": True}, "train_images = True"),
        ({"size": 0}, "size = 0"),
        ({"resize": "stretch"}, "resize = 'stretch': must be one of crop, squash, pad"),
        ({"normalise": "std"}, "normalise = 'std': must be one of channel, mean, none"),
        ({"broken": "ignore"}, "broken = 'ignore': must be one of refuse, skip"),
        ({"hold_out": "half"}, "hold_out = 'half'"),
        ({"channels": 4}, "channels = 4: must be one of 1, 3, None"),
        ({"eval_crops": 5}, "eval_crops = 5: must be one of 1, 10"),
        ({"eval_crops": 10, "size": 32}, "eval_crops = 10: requires a resize_to that is larger than size"),
        (
            {"eval_crops": 10, "size": 32, "resize_to": 32},
            "eval_crops = 10: requires a resize_to that is larger than size",
        ),
        ({"resize_to": 256}, "resize_to = 256: requires a size"),
        ({"size": 224, "resize_to": 200}, "resize_to = 200: requires a size that is not larger"),
        ({"streaming": True}, "size = None: must be a number of pixels if streaming"),
        ({"validation_extra": 5}, "validation_extra = 5: requires an extra_split"),
        ({"validation_split": "val", "validation": 5}, "give either a split or numbers"),
        ({"test_split": "train"}, "test_split = 'train': must not be a training split"),
        ({"extra_split": "train"}, "extra_split = 'train': must differ from train_split"),
        ({"test_fraction": 1.0}, "test_fraction = 1.0"),
        ({"mean": (0.5,)}, r"std = None: must have as many numbers as mean \(\(0.5,\)\)"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, "std = .*: must have as many numbers as mean"),
        ({"mean": (0.5,), "std": (0.0,)}, r"std = \(0.0,\)"),
        (
            {"mean": (0.5,), "std": (0.5,), "normalise": "mean"},
            "normalise = 'mean': give either normalise or mean and std",
        ),
        ({"mean": (0.5,), "std": (0.5,), "channels": 3}, r"mean = \(0.5,\): must have 3 numbers, one per channel"),
    ],
)
def test_bad_data_config_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**fields)


def test_given_means_are_subtracted_and_deviations_divide() -> None:
    given = load_images(DataConfig(cache=False, mean=(0.25,), std=(0.5,)))
    assert (given.mean, given.std) == ((0.25,), (0.5,))
    read = next(iter(evaluation_batches(given, DataConfig(), 8)))[0]
    assert isinstance(given.test, Split)
    pixels = given.test.images[:8].float() / 255
    assert torch.allclose(read, (pixels - 0.25) / 0.5, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"data\.mean = \(0.1, 0.2, 0.3\): must have 1 numbers, one per channel of the images"
    ):
        load_images(DataConfig(cache=False, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)))
