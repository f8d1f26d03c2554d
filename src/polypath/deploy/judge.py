"""Uses held-out images to decide which paths a bundle has in float32 and in int8, and measures their errors on test
images."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from polypath.deploy import heldout
from polypath.deploy.candidates import BundleNetwork, Candidate
from polypath.deploy.int8 import INT8, Int8Path, Precisions, int8_paths
from polypath.deploy.scoring import Scores, errors_on_test, held_out_scores, verdict_on


@dataclass(frozen=True)
class Judged:
    """The paths of a bundle, as :func:`judge` chooses them.

    Attributes:
        kept: the paths by their names in the bundle, cheapest first.
        verdict: the decisions made with held-out images; None if there are no such images.
        tests: errors on the test split. Keys are path names and, for rungs, the tuples of paths that they combine.
        int8: the paths in ``kept`` that are in int8.
    """

    kept: dict[str, Candidate]
    verdict: heldout.Verdict | None
    tests: dict[Any, float]
    int8: dict[str, Int8Path] = field(default_factory=dict)


def judge(
    networks: Mapping[str, BundleNetwork],
    chosen: Mapping[str, Candidate],
    keep: Sequence[str],
    precisions: Precisions,
) -> Judged:
    """Choose the bundle's paths among the candidates, and measure their errors on test images.

    Args:
        keep: names of paths that stay, whatever their error.

    Raises:
        ValueError: there are too few held-out images, the labels differ between networks, or a graph cannot be
            quantised.
    """
    scores = held_out_scores(networks, chosen)
    verdict = verdict_on(scores, chosen, keep) if scores is not None else None
    names = verdict.names if verdict else sorted(chosen, key=lambda n: chosen[n].cost.macs)
    kept = {n: chosen[n] for n in names}
    if scores is None or precisions.kind == "float32":
        return Judged(kept, verdict, errors_on_test(networks, kept, verdict, {}))
    with tempfile.TemporaryDirectory(prefix="polypath-") as folder:
        found = int8_paths(networks, kept, scores, precisions, Path(folder))
        return _with_int8(networks, kept, scores, precisions, found)


def _with_int8(
    networks: Mapping[str, BundleNetwork],
    plain: Mapping[str, Candidate],
    scores: Scores,
    precisions: Precisions,
    found: Mapping[str, Int8Path],
) -> Judged:
    """Decide again with int8 paths, which replace float32 paths or, if mixed, are added to them. If int8 paths are
    added, the ladder has only float32 paths, whose answers are valid on every machine."""
    kept: dict[str, Candidate] = {}
    logits = {}
    for n, candidate in plain.items():
        if n in found:
            kept[n + INT8], logits[n + INT8] = found[n].candidate, found[n].logits
        if n not in found or precisions.kind == "mixed":
            kept[n], logits[n] = candidate, scores.logits[n]
    climb = list(plain) if precisions.kind == "mixed" else None
    verdict = verdict_on(replace(scores, logits=logits), kept, list(kept), climb)
    int8 = {n + INT8: path for n, path in found.items()}
    tests = errors_on_test(networks, kept, verdict, {n: path.answer for n, path in int8.items()})
    return Judged({n: kept[n] for n in verdict.names}, verdict, tests, int8)
