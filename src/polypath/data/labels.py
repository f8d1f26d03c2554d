"""Encode raw labels (class numbers, other integers, text) as classes 0, 1, …, in the same way for all splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

LABEL_NAMES = ("label", "labels", "class", "class_label", "target", "category", "y")
"""Usual names of a label column."""


class Labelled(Protocol):
    """A split with raw labels, and with class names if the source has them."""

    @property
    def split(self) -> str: ...
    @property
    def labels(self) -> list[Any]: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...


def hidden(labels: Sequence[Any]) -> bool:
    """Return whether the labels of a split are not published. Then all labels are -1, as in ImageNet's test split."""
    return len(labels) > 0 and all(isinstance(label, int) and label < 0 for label in labels)


def encode_labels(
    train: Sequence[Labelled], others: Sequence[Labelled], where: str
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the class names, and the labels ``(N,)`` int64 of each split.

    If the source has class names, their order is kept. Otherwise the classes are the sorted labels of the training
    splits.

    Raises:
        ValueError: a split is empty, its labels are hidden or do not occur in training, splits have different class
            names, or there is a single class.
    """
    for table in [*train, *others]:
        if not table.labels:
            raise ValueError(f"split {table.split!r} of {where} is empty")
        if hidden(table.labels):
            raise ValueError(f"split {table.split!r} of {where} has no labels (all are -1); use another split")
        if table.classes != train[0].classes:
            raise ValueError(f"splits {table.split!r} and {train[0].split!r} of {where} have different class names")
    names = train[0].classes
    values = list(range(len(names))) if names is not None else _values(train, where)
    codes = {value: code for code, value in enumerate(values)}
    if len(codes) < 2:
        raise ValueError(f"{where} has a single class, {values[0]!r}, but training needs at least two")
    encoded = {}
    for table in [*train, *others]:
        unknown = sorted({repr(label) for label in table.labels if label not in codes})
        if unknown:
            raise ValueError(
                f"split {table.split!r} of {where} has labels that no training image has: {', '.join(unknown[:5])}"
            )
        encoded[table.split] = torch.tensor([codes[label] for label in table.labels])
    return names or tuple(map(str, values)), encoded


def _values(train: Sequence[Labelled], where: str) -> list[Any]:
    values = {label for table in train for label in table.labels}
    try:
        return sorted(values)
    except TypeError:
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise ValueError(f"the labels of {where} have several types ({kinds}), but must have the same type") from None
