"""Confusion between classes: confusion matrices, errors by class, the most confused pairs."""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from polypath.analysis.answers import Logits, stacked
from polypath.core.checks import check, whole

_COUNT = whole(1)


def confusion(logits: Logits, labels: Tensor) -> dict[str, Tensor]:
    """Count the confusion matrix ``(classes, classes)``, int64, of each path. Rows are true classes, columns are
    predicted classes.

    Raises:
        ValueError: the logits or labels are illegal, see :func:`~polypath.analysis.answers.stacked`.
    """
    names, z = stacked(logits, labels)
    classes, truth = z.shape[2], labels.cpu().long()
    cells = truth * classes + z.argmax(2)
    return {
        name: of.bincount(minlength=classes * classes).view(classes, classes)
        for name, of in zip(names, cells, strict=True)
    }


def class_errors(logits: Logits, labels: Tensor) -> pd.DataFrame:
    """Compute the error of each path by class, in percent of the class's images.

    Returns:
        A row for each class that has images: ``class`` (its index), ``images``, and a column of errors for each path.

    Raises:
        ValueError: the logits or labels are illegal, see :func:`~polypath.analysis.answers.stacked`.
    """
    counts = confusion(logits, labels)
    images = next(iter(counts.values())).sum(1)
    some = images.nonzero().squeeze(1)
    columns = {name: (100 * (1 - of.diagonal() / images))[some].tolist() for name, of in counts.items()}
    return pd.DataFrame({"class": some.tolist(), "images": images[some].tolist(), **columns})


def confused_pairs(logits: Tensor, labels: Tensor, count: int = 10, examples: int = 3) -> pd.DataFrame:
    """Find the pairs of classes that a path confuses most often, in either direction.

    Args:
        logits: logits of the path, ``(images, classes)``.
        count: largest number of pairs.
        examples: largest number of example images of each pair. The mistakes with the highest confidence are taken.

    Returns:
        A row for each pair with a mistake, sorted by the number of mistakes, the largest first: classes ``a`` and
        ``b`` (``a`` is the true class of more mistakes), ``images`` (mistakes between ``a`` and ``b``), ``a_as_b`` and
        ``b_as_a`` (mistakes in each direction), ``share`` (mistakes in % of the images of both classes), ``examples``
        (indices of images).

    Raises:
        ValueError: ``count`` is below 1, ``examples`` is below 0, or the logits or labels are illegal (see
            :func:`~polypath.analysis.answers.stacked`).
    """
    check("count", count, _COUNT)
    check("examples", examples, whole(0))
    (of,) = confusion({"path": logits}, labels).values()
    both = (of + of.T).triu(1)
    a, b = both.nonzero(as_tuple=True)
    order = both[a, b].argsort(descending=True, stable=True)[:count]
    sure, answer = logits.detach().cpu().double().softmax(1).max(1)
    rows = []
    for i, j in zip(a[order].tolist(), b[order].tolist(), strict=True):
        i, j = (i, j) if of[i, j] >= of[j, i] else (j, i)
        mistakes = _either(labels.cpu(), answer, i, j)
        rows.append(
            {
                "a": i,
                "b": j,
                "images": int(both[min(i, j), max(i, j)]),
                "a_as_b": int(of[i, j]),
                "b_as_a": int(of[j, i]),
                "share": 100.0 * len(mistakes) / int(of[[i, j]].sum()),
                "examples": mistakes[sure[mistakes].argsort(descending=True, stable=True)][:examples].tolist(),
            }
        )
    return pd.DataFrame(rows, columns=["a", "b", "images", "a_as_b", "b_as_a", "share", "examples"])


def most_confused(counts: Tensor, most: int) -> list[int]:
    """Return the ``most`` classes that have the most mistakes in the confusion matrix ``counts``, in class order. The
    mistakes of a class are those in its row and in its column.

    Raises:
        ValueError: ``most`` is below 1.
    """
    check("most", most, _COUNT)
    wrong = counts - counts.diagonal().diag()
    order = (wrong.sum(0) + wrong.sum(1)).argsort(descending=True, stable=True)[:most]
    return sorted(order.tolist())


def _either(truth: Tensor, answer: Tensor, i: int, j: int) -> Tensor:
    return ((truth == i) & (answer == j) | (truth == j) & (answer == i)).nonzero().squeeze(1)
