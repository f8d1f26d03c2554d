"""Analyses of ensembles of component networks: leaving one out, and shared compared with separate weights (DFN §4)."""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from polypath.analysis.answers import Logits, error_of, right, stacked
from polypath.core.probabilities import average_probabilities

ALL = "none"


def leave_one_out(logits: Logits, labels: Tensor) -> pd.DataFrame:
    """Measure the error of the ensemble (mean of softmax) of all components, and of each ensemble without one of them.

    Returns:
        First a row ``none`` for the ensemble of all components, then a row for each component that is left out:
        ``left_out``, ``members``, ``error`` (%), ``change`` (points; above 0 if the ensemble is worse without the
        component), ``own_error`` (%, of the component alone).

    Raises:
        ValueError: there are fewer than two components, or the logits or labels are illegal (see
            :func:`~polypath.analysis.answers.stacked`).
    """
    names, z = stacked(logits, labels)
    if len(names) < 2:
        raise ValueError(f"components {', '.join(names)}: must be at least two, so that one can be left out")
    labels, (_, hits) = labels.cpu(), right(logits, labels)
    whole = error_of(average_probabilities(z).argmax(1) == labels)
    rows = [{"left_out": ALL, "members": len(names), "error": whole, "change": 0.0, "own_error": None}]
    for i, name in enumerate(names):
        rest = z[[k for k in range(len(names)) if k != i]]
        error = error_of(average_probabilities(rest).argmax(1) == labels)
        rows.append(
            {
                "left_out": name,
                "members": len(rest),
                "error": error,
                "change": error - whole,
                "own_error": error_of(hits[i]),
            }
        )
    return pd.DataFrame(rows)


def shared_and_separate(shared: Logits, separate: Logits, labels: Tensor) -> pd.DataFrame:
    """Compare components that share one set of weights with the same components trained separately.

    Returns:
        A row for each component, then ``mean`` (of the components' errors) and ``ensemble`` (mean of softmax):
        ``component``, ``shared`` and ``separate`` (error, %), ``difference`` (shared − separate, points).

    Raises:
        ValueError: ``shared`` and ``separate`` have different components, or logits or labels are illegal (see
            :func:`~polypath.analysis.answers.stacked`).
    """
    if set(shared) != set(separate):
        other = sorted(set(shared) ^ set(separate))
        raise ValueError(f"component {other[0]!r} is only in shared or only in separate: must be in both")
    columns = {"shared": shared, "separate": {name: separate[name] for name in shared}}
    found: dict[str, list[float]] = {}
    for column, logits in columns.items():
        _, z = stacked(logits, labels)
        errors = [error_of(hits) for hits in right(logits, labels)[1]]
        ensemble = error_of(average_probabilities(z).argmax(1) == labels.cpu())
        found[column] = [*errors, sum(errors) / len(errors), ensemble]
    frame = pd.DataFrame({"component": [*shared, "mean", "ensemble"], **found})
    frame["difference"] = frame["shared"] - frame["separate"]
    return frame
