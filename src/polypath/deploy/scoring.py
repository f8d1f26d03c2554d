"""Scores a bundle's candidates on images that none of their networks was trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.extract import extract_estimated
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.deploy import heldout
from polypath.deploy.candidates import Batches, BundleNetwork, Candidate

Answerer = Callable[[Tensor], Tensor]
"""A function from images ``(N, C, H, W)`` to logits ``(N, classes)``."""
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """Answers to held-out images: logits ``(N, classes)`` by path, labels ``(N,)``, and the seed for splitting."""

    logits: Mapping[str, Tensor]
    labels: Tensor
    seed: int


def scored(
    net: PathNet, paths: Mapping[str, Paths], statistics: BatchNormStatistics | None, batches: Batches
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the logits ``(N, classes)`` of each path, with recalibrated norms. Return logits and labels ``(N,)``."""
    return answered({n: extract_estimated(net, p, statistics) for n, p in paths.items()}, batches)


@torch.inference_mode()
def answered(nets: Mapping[str, Answerer], batches: Batches) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the logits ``(N, classes)`` of each of ``nets``. Return logits by name, and labels ``(N,)``."""
    rows: dict[str, list[Tensor]] = {n: [] for n in nets}
    truth = []
    for images, labels in batches:
        for n, child in nets.items():
            rows[n].append(child(images).float())
        truth.append(labels)
    found = torch.cat(truth)
    LOG.info("scored %d paths on %s images", len(nets), f"{len(found):,}")
    return {n: torch.cat(parts) for n, parts in rows.items()}, found


def held_out_scores(networks: Mapping[str, BundleNetwork], chosen: Mapping[str, Candidate]) -> Scores | None:
    """Compute the candidates' answers to held-out images, by path name, or return None if there are no such images.

    Raises:
        ValueError: labels differ between networks.
    """
    held = next(iter(networks.values())).held_out
    if held is None:
        return None
    splits = {n: one.held_out.choose for n, one in networks.items() if one.held_out}
    return Scores(*_scored(networks, chosen, splits, {}), held.seed)


def verdict_on(
    scores: Scores, chosen: Mapping[str, Candidate], keep: Sequence[str], climb: Collection[str] | None = None
) -> heldout.Verdict:
    """Choose and calibrate candidates by their answers to held-out images.

    Args:
        keep, climb: as for :func:`polypath.deploy.heldout.decide`.

    Raises:
        ValueError: there are too few images.
    """
    macs = {n: candidate.cost.macs for n, candidate in chosen.items()}
    own = {n: candidate.network for n, candidate in chosen.items()}
    found = heldout.decide(scores.logits, scores.labels, macs, seed=scores.seed, keep=keep, networks=own, climb=climb)
    if left := [n for n in chosen if n not in found.names]:
        why = f"a cheaper path is as accurate on {found.images['choose']:,} held-out images"
        LOG.info("left out %s: %s (use --keep to keep all paths)", ", ".join(left), why)
    return found


def errors_on_test(
    networks: Mapping[str, BundleNetwork],
    kept: Mapping[str, Candidate],
    verdict: heldout.Verdict | None,
    graphs: Mapping[str, Answerer],
) -> dict[Any, float]:
    """Measure test errors of paths and of rungs. The keys are path names and, for rungs, the tuples of paths that they
    combine. The result is empty unless all networks have a test split.

    Args:
        graphs: functions that run the candidates in int8, which the network itself cannot run.

    Raises:
        ValueError: labels differ between networks.
    """
    splits = {n: one.held_out.test for n, one in networks.items() if one.held_out and one.held_out.test is not None}
    if verdict is None or len(splits) < len(networks):
        return {}
    logits, labels = _scored(networks, kept, splits, graphs)
    found: dict[Any, float] = {n: round(heldout.error(z, labels), 4) for n, z in logits.items()}
    scaled = {n: (z / verdict.temperatures[n]).softmax(1) for n, z in logits.items()}
    for rung in verdict.rungs:
        found[rung.combine] = round(heldout.error(heldout.combined(scaled, rung), labels), 4)
    return found


def _scored(
    networks: Mapping[str, BundleNetwork],
    chosen: Mapping[str, Candidate],
    splits: Mapping[str, Batches],
    graphs: Mapping[str, Answerer],
) -> tuple[dict[str, Tensor], Tensor]:
    answers: dict[str, Tensor] = {}
    truth: dict[str, Tensor] = {}
    for network, batches in splits.items():
        one = networks[network]
        paths = {n: candidate.paths for n, candidate in chosen.items() if candidate.network == network}
        if not paths:
            continue
        nets = {n: graphs.get(n) or extract_estimated(one.net, p, one.statistics) for n, p in paths.items()}
        logits, truth[network] = answered(nets, batches)
        answers |= logits
        if not torch.equal(truth[network], next(iter(truth.values()))):
            raise ValueError(f"network {network!r}: its images have other labels than those of {next(iter(truth))!r}")
    return {n: answers[n] for n in chosen}, next(iter(truth.values()))
