"""Confusion of classes, by hand and beside scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score

from polypath.analysis.confusion import class_errors, confused_pairs, confusion, most_confused

G = torch.Generator().manual_seed(5)
LABELS = torch.randint(6, (300,), generator=G)
LABELS[LABELS == 4] = 3  # no image of class 4
LOGITS = {f"path {k}": torch.randn(300, 6, generator=G) + k * torch.eye(6)[LABELS] for k in (1, 2)}


def told(answers: list[int], classes: int = 4, sure: list[float] | None = None) -> torch.Tensor:
    """Logits of these answers."""
    z = torch.eye(classes)[answers]
    return z * torch.tensor(sure or [1.0] * len(answers))[:, None]


def test_counts_are_scikit_learns():
    found = confusion(LOGITS, LABELS)
    for name, z in LOGITS.items():
        expected = confusion_matrix(LABELS.numpy(), z.argmax(1).numpy(), labels=range(6))
        assert np.array_equal(found[name].numpy(), expected)


def test_errors_by_class_are_one_minus_recall():
    frame = class_errors(LOGITS, LABELS)
    assert frame["class"].tolist() == [0, 1, 2, 3, 5]
    assert frame["images"].tolist() == [int((c == LABELS).sum()) for c in frame["class"]]
    for name, z in LOGITS.items():
        per_class: Any = None
        recall = recall_score(LABELS.numpy(), z.argmax(1).numpy(), labels=[0, 1, 2, 3, 5], average=per_class)
        assert frame[name].to_numpy() == pytest.approx(100 * (1 - np.asarray(recall)))
    assert frame["path 1"].tolist() != frame["path 2"].tolist()


def test_pairs_by_hand():
    truth = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3])
    answers = [0, 1, 1, 0, 1, 2, 2, 2]
    sure = [1.0, 2.0, 3.0, 9.0, 1.0, 1.0, 1.0, 4.0]
    frame = confused_pairs(told(answers, sure=sure), truth, examples=2)
    first, second = frame.to_dict("records")
    assert (first["a"], first["b"], first["images"], first["a_as_b"], first["b_as_a"]) == (0, 1, 3, 2, 1)
    assert first["share"] == pytest.approx(100 * 3 / 5)
    assert first["examples"] == [3, 2]  # the surest
    assert (second["a"], second["b"], second["a_as_b"], second["b_as_a"]) == (3, 2, 2, 0)
    assert second["examples"] == [7, 6]
    assert len(confused_pairs(told(answers), truth, count=1)) == 1
    assert confused_pairs(told(truth.tolist()), truth).empty
    with pytest.raises(ValueError, match="count = 0"):
        confused_pairs(told(answers), truth, count=0)


def test_pairs_are_all_the_mistakes():
    z = LOGITS["path 1"]
    images = confused_pairs(z, LABELS, count=100)["images"].tolist()
    assert sum(images) == int((z.argmax(1) != LABELS).sum())
    assert images == sorted(images, reverse=True)


def test_of_many_classes_the_most_confused():
    counts = torch.tensor([[50, 0, 0, 1], [0, 9, 4, 0], [0, 0, 9, 0], [0, 0, 0, 9]])
    assert most_confused(counts, 2) == [1, 2]
    assert most_confused(counts, 9) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="most = 0"):
        most_confused(counts, 0)
