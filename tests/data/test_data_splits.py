"""The choice of training, validation and test images."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from polypath.data import SVHN_HELD_OUT, DataConfig
from polypath.data.seeds import generator
from polypath.data.splits import hold_out_test, scored_part, stratified, training_parts

# Images of each digit in SVHN's train and extra splits.
SVHN_TRAIN = (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)
SVHN_EXTRA = (45550, 90560, 74740, 60765, 50633, 53490, 41582, 43997, 35358, 34456)


def labels_of(*sizes: int, seed: int = 0) -> Tensor:
    ordered = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return ordered[torch.randperm(len(ordered), generator=generator(seed, "test"))]


def test_shares_are_proportional_and_exact_in_sum() -> None:
    labels = labels_of(500, 300, 200, 7)
    chosen = stratified(labels, 101, "proportional", generator(0), "x")
    assert labels[chosen].bincount(minlength=4).tolist() == [50, 30, 20, 1]
    assert int(chosen.sum()) == 101
    again = stratified(labels, 101, "proportional", generator(0), "x")
    other = stratified(labels, 101, "proportional", generator(1), "x")
    assert torch.equal(chosen, again)
    assert not torch.equal(chosen, other)


def test_none_and_all_can_be_taken() -> None:
    labels = labels_of(5, 3)
    assert not stratified(labels, 0, "proportional", generator(0), "x").any()
    assert stratified(labels, 8, "proportional", generator(0), "x").all()


def test_impossible_shares_are_refused() -> None:
    labels = labels_of(5, 3)
    with pytest.raises(ValueError, match="validation = 9: there are only 8 images"):
        stratified(labels, 9, "proportional", generator(0), "validation")
    with pytest.raises(
        ValueError, match="validation = 3: must be a multiple of 2, the number of classes, with hold_out 'equal'"
    ):
        stratified(labels, 3, "equal", generator(0), "validation")
    with pytest.raises(ValueError, match="validation = 8: class 1 has 3 images, but needs 4"):
        stratified(labels, 8, "equal", generator(0), "validation")


def test_svhn_has_the_papers_splits() -> None:
    labels = [labels_of(*SVHN_TRAIN), labels_of(*SVHN_EXTRA)]
    assert [len(part) for part in labels] == [73257, 531131]
    crescendonet = DataConfig(source="svhn", extra_split="extra")
    kept, held = training_parts(labels, crescendonet)
    assert sum(map(len, kept)) == 604388
    assert sum(map(len, held)) == 0
    dfn = dataclasses.replace(crescendonet, **SVHN_HELD_OUT)
    kept, held = training_parts(labels, dfn)
    assert sum(map(len, kept)) == 598388
    assert labels[0][held[0]].bincount().tolist() == [400] * 10
    assert labels[1][held[1]].bincount().tolist() == [200] * 10


def test_parts_are_disjoint_and_complete() -> None:
    labels = [labels_of(60, 40), labels_of(30, 30)]
    config = DataConfig(extra_split="extra", validation=20, validation_extra=6)
    kept, held = training_parts(labels, config)
    for own, k, h in zip(labels, kept, held, strict=True):
        assert torch.equal(torch.cat([k, h]).sort().values, torch.arange(len(own)))
    assert [len(h) for h in held] == [20, 6]


def test_held_out_images_do_not_depend_on_how_many_train() -> None:
    labels = [labels_of(60, 40)]
    all_kept, held = training_parts(labels, DataConfig(validation=20))
    kept, held_too = training_parts(labels, DataConfig(validation=20, train_images=40))
    _, held_other = training_parts(labels, DataConfig(validation=20, split_seed=1))
    assert torch.equal(held[0], held_too[0])
    assert not torch.equal(held[0], held_other[0])
    assert len(kept[0]) == 40
    assert set(kept[0].tolist()) < set(all_kept[0].tolist())
    assert labels[0][kept[0]].bincount().tolist() == [24, 16]


def test_too_many_images_are_refused() -> None:
    labels = [labels_of(6, 4)]
    with pytest.raises(ValueError, match="train_images = 9: only 8 images are left for training"):
        training_parts(labels, DataConfig(validation=2, train_images=9))
    with pytest.raises(ValueError, match="validation = 10: no image is left for training"):
        training_parts(labels, DataConfig(validation=10))
    with pytest.raises(ValueError, match=r"DataConfig.validation = 11: there are only 10 images"):
        training_parts(labels, DataConfig(validation=11))
    with pytest.raises(ValueError, match=r"DataConfig.test_images = 11: there are only 10 images"):
        scored_part(labels[0], DataConfig(test_images=11))


def test_scored_images_do_not_depend_on_the_seed_of_splits() -> None:
    labels = labels_of(60, 40)
    for function in (
        lambda c: hold_out_test(labels, c),
        lambda c: scored_part(labels, dataclasses.replace(c, test_images=30)),
    ):
        assert torch.equal(function(DataConfig()), function(DataConfig(split_seed=5)))
    assert int(hold_out_test(labels, DataConfig(test_fraction=0.3)).sum()) == 30
    assert len(scored_part(labels, DataConfig())) == 100
