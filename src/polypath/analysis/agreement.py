"""Measures of how much paths agree (Kuncheva & Whitaker 2003, "Measures of diversity in classifier ensembles").

N11, N10, N01 and N00 are the numbers of images that both paths, only the first path, only the second path, or neither
path classifies correctly.

Q = (N11·N00 − N01·N10) / (N11·N00 + N01·N10)      1: correct on the same images; 0: independent; negative: opposed
ρ = (N11·N00 − N01·N10) / √((N11+N10)(N01+N00)(N11+N01)(N10+N00))
"""

from __future__ import annotations

import itertools
import math

import pandas as pd
from torch import Tensor

from polypath.analysis.answers import Logits, error_of, right, stacked
from polypath.core.probabilities import average_probabilities


def pairwise_agreement(logits: Logits, labels: Tensor) -> pd.DataFrame:
    """Compare every pair of paths on the same images.

    Returns:
        A row for each pair, with the paths' names ``a`` and ``b``. In percent of the images: ``disagreement``
        (different predictions), ``one_right`` (only one is correct, Kuncheva's disagreement measure), ``double_fault``
        (both are wrong), ``same_fault`` (both make the same wrong prediction). ``q`` (Q) and ``correlation`` (ρ) are
        NaN if a path is correct on all images or wrong on all images.

    Raises:
        ValueError: there are fewer than two paths, or the logits or labels are illegal (see
            :func:`~polypath.analysis.answers.stacked`).
    """
    names, z = stacked(logits, labels)
    if len(names) < 2:
        raise ValueError(f"paths {', '.join(names)}: must be at least two, to form pairs")
    given, hits = z.argmax(2), right(logits, labels)[1]
    rows = []
    for i, j in itertools.combinations(range(len(names)), 2):
        a, b, same = hits[i], hits[j], given[i] == given[j]
        n11, n10, n01, n00 = (int(n.sum()) for n in (a & b, a & ~b, ~a & b, ~a & ~b))
        rows.append(
            {
                "a": names[i],
                "b": names[j],
                "disagreement": error_of(same),
                "one_right": 100.0 * (n10 + n01) / len(labels),
                "double_fault": 100.0 * n00 / len(labels),
                "same_fault": 100.0 * int((same & ~a).sum()) / len(labels),
                "q": _ratio(n11 * n00 - n01 * n10, n11 * n00 + n01 * n10),
                "correlation": _ratio(
                    n11 * n00 - n01 * n10, math.sqrt((n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00))
                ),
            }
        )
    return pd.DataFrame(rows)


def diversity(logits: Logits, labels: Tensor) -> pd.DataFrame:
    """Measure the diversity of a set of paths.

    Returns:
        One row: ``members`` (the number of paths), the paths' ``mean_error`` and ``best_error``, the error of their
        ``ensemble`` (mean of softmax), ``gain`` (``mean_error`` − ``ensemble``, points), ``oracle`` (% of images that
        no path classifies correctly), the columns of :func:`pairwise_agreement` averaged over all pairs, and
        ``entropy``. This is Kuncheva's E: 0 if, for each image, all paths are correct or all are wrong; 1 if half of
        the paths are correct on each image.

    Raises:
        ValueError: there are fewer than two paths, or the logits or labels are illegal (see
            :func:`~polypath.analysis.answers.stacked`).
    """
    names, z = stacked(logits, labels)
    pairs = pairwise_agreement(logits, labels)
    hits = right(logits, labels)[1]
    errors = [error_of(of) for of in hits]
    ensemble = error_of(average_probabilities(z).argmax(1) == labels.cpu())
    rights = hits.sum(0)
    half = len(names) - math.ceil(len(names) / 2)
    row = {
        "members": len(names),
        "mean_error": sum(errors) / len(errors),
        "best_error": min(errors),
        "ensemble": ensemble,
        "gain": sum(errors) / len(errors) - ensemble,
        "oracle": error_of(hits.any(0)),
        **{key: pairs[key].mean() for key in pairs.columns[2:]},
        "entropy": float((rights.minimum(len(names) - rights).double() / half).mean()),
    }
    return pd.DataFrame([row])


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.nan
