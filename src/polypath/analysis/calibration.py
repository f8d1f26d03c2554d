"""Tables of the calibration of paths: calibration error, one temperature per path, reliability.

Temperatures are fitted on images that are not used to train or to score the path. The functions that compute the
measures are in :mod:`polypath.analysis.temperature`.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from polypath.analysis.answers import Logits, error_of, right, stacked
from polypath.analysis.temperature import BINS, calibration_error, fit_temperature
from polypath.core.checks import check, number, whole


def calibration_table(
    logits: Logits,
    labels: Tensor,
    held_out: Logits | None = None,
    held_out_labels: Tensor | None = None,
    *,
    bins: int = BINS,
) -> pd.DataFrame:
    """Measure each path's calibration. If ``held_out`` is given, also measure it with a temperature fitted on
    ``held_out``.

    Returns:
        A row for each path: ``path``, ``error`` (%), ``confidence`` (mean top probability, %), ``ece`` (%), ``nll``
        (cross-entropy, nats), ``temperature``, ``ece_fitted``, ``nll_fitted``. Without ``held_out``, the last three
        are None.

    Raises:
        ValueError: only one of ``held_out`` and ``held_out_labels`` is given, ``held_out`` lacks a path, ``bins`` is
            below 1, or logits or labels are illegal (see :func:`~polypath.analysis.answers.stacked`).
    """
    names, z = stacked(logits, labels)
    if (held_out is None) != (held_out_labels is None):
        raise ValueError("held_out and held_out_labels: give both arguments or neither")
    fitting: Tensor | None = None
    if held_out is not None and held_out_labels is not None:
        if missing := [name for name in names if name not in held_out]:
            raise ValueError(f"held_out: the logits of path {missing[0]!r} are missing")
        _, fitting = stacked({name: held_out[name] for name in names}, held_out_labels)
    labels, rows, hits = labels.cpu(), [], right(logits, labels)[1]
    for i, name in enumerate(names):
        row = {
            "path": name,
            "error": error_of(hits[i]),
            "confidence": 100.0 * float(z[i].softmax(1).amax(1).mean()),
            "ece": calibration_error(z[i], labels, bins),
            "nll": float(F.cross_entropy(z[i], labels)),
            "temperature": None,
            "ece_fitted": None,
            "nll_fitted": None,
        }
        if fitting is not None and held_out_labels is not None:
            temperature = fit_temperature(fitting[i], held_out_labels)
            row["temperature"] = temperature
            row["ece_fitted"] = calibration_error(z[i] / temperature, labels, bins)
            row["nll_fitted"] = float(F.cross_entropy(z[i] / temperature, labels))
        rows.append(row)
    return pd.DataFrame(rows)


def reliability(logits: Logits, labels: Tensor, *, bins: int = BINS, temperature: float = 1.0) -> pd.DataFrame:
    """Compute the data of each path's reliability diagram.

    Returns:
        A row for each path and bin of top probability (low, high]: ``path``, ``low``, ``high``, ``images``,
        ``confidence`` and ``accuracy`` (means in the bin, 0 to 1; NaN in empty bins).

    Raises:
        ValueError: ``bins`` is below 1, ``temperature`` is not above 0, or logits or labels are illegal (see
            :func:`~polypath.analysis.answers.stacked`).
    """
    check("bins", bins, whole(1))
    check("temperature", temperature, number(above=0))
    names, z = stacked(logits, labels)
    confidence = (z / temperature).softmax(2).amax(2)
    hits, edges, rows = right(logits, labels)[1], torch.linspace(0.0, 1.0, bins + 1, dtype=torch.float64), []
    for i, name in enumerate(names):
        at = torch.bucketize(confidence[i], edges[1:-1])  # each bin includes its upper end
        for b in range(bins):
            inside = at == b
            rows.append(
                {
                    "path": name,
                    "low": float(edges[b]),
                    "high": float(edges[b + 1]),
                    "images": int(inside.sum()),
                    "confidence": float(confidence[i][inside].mean()),
                    "accuracy": float(hits[i][inside].double().mean()),
                }
            )
    return pd.DataFrame(rows)
