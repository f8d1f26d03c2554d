"""Predictions of ensembles of component networks and of their members (DFN §3 and §4, GUNN Table 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from polypath.core.network import PathNet
from polypath.core.probabilities import average_probabilities
from polypath.ensemble import Ensemble
from polypath.reproduce.trained import Trained
from polypath.training.build import build_net
from polypath.training.engine import load_weights
from polypath.training.finish import ENSEMBLE, SNAPSHOTS

Members = Mapping[str, Tensor]
"""Logits ``(images, classes)`` on the test images, in the order of the images, by the member's name."""


def shared_members(run: Trained) -> dict[str, Tensor]:
    """Compute the logits of each member of an ensemble with shared weights. If the run failed, all logits are 0.

    Raises:
        ValueError: the run trained no ensemble.
    """
    ensemble = _ensemble(run)
    if run.failed:
        classes = ensemble.net.num_classes
        return dict.fromkeys(ensemble.names, torch.zeros(len(run.labels), classes))
    ensemble.to(run.device)
    rows: dict[str, list[Tensor]] = {name: [] for name in ensemble.names}
    with torch.inference_mode():
        for x, _ in run.test_batches():
            for name in ensemble.names:
                rows[name].append(ensemble.logits(name, x).cpu())
    return {name: torch.cat(parts) for name, parts in rows.items()}


def separate_members(runs: Mapping[str, Trained]) -> dict[str, Tensor]:
    """Compute the logits of members that were trained as separate arms. Each arm trained only one path (objective
    ``path``)."""
    found = {}
    for name, run in runs.items():
        path = run.net.paths(getattr(run.recipe.objective, "paths", "whole"))
        found[name] = run.logits({name: path})[name]
    return found


def snapshot_members(run: Trained) -> dict[str, Tensor]:
    """Compute the logits of the snapshots of one run, by number; ``1`` is the first.

    Raises:
        ValueError: the run has no snapshots.
    """
    found = {number: run.logits(["whole"], net=net)["whole"] for number, net in _snapshots(run)}
    if not found:
        raise ValueError(
            f"{run.folder}: the run has no snapshots; train with schedule.kind = 'cyclic-cosine' and several cycles"
        )
    return found


def average(members: Members, names: Iterable[str] | None = None) -> Tensor:
    """Return the predictions of an ensemble of some members (default: all), which are the mean probabilities."""
    return average_probabilities(members[name] for name in (members if names is None else names))


def without(members: Members, gone: str) -> Tensor:
    """Return the predictions of the ensemble without one of its members (DFN Table 3)."""
    return average(members, [name for name in members if name != gone])


def _ensemble(run: Trained) -> Ensemble:
    file = run.folder / ENSEMBLE
    if file.is_file():
        return Ensemble.load(file)
    ensemble = None
    if run.failed:
        ensemble = getattr(run.recipe.objective.bind(build_net(run.recipe, run.folder)), "ensemble", None)
    if not isinstance(ensemble, Ensemble):
        raise ValueError(
            f"{run.folder}: has no ensemble; the run's objective must be 'ensemble', not {run.recipe.objective.kind!r}"
        )
    return ensemble.eval()


def _snapshots(run: Trained) -> Iterator[tuple[str, PathNet]]:
    from safetensors.torch import load_file

    for file in sorted((run.folder / SNAPSHOTS).glob("*.safetensors"), key=lambda file: int(file.stem)):
        net = build_net(run.recipe, run.folder)
        load_weights(net, load_file(file))
        yield file.stem, run.placed(net.eval())
