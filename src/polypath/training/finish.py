"""Finish a run: save the reported network, and evaluate a snapshot ensemble."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from polypath.core.config import completed_classes
from polypath.core.precision import at_least_float32
from polypath.core.probabilities import average_probabilities
from polypath.data.augment import average_views
from polypath.data.loader import BatchesBase
from polypath.data.sources import ImageData
from polypath.ensemble import Ensemble
from polypath.storage.files import whole
from polypath.storage.saving import save
from polypath.training.build import MODEL, build_net
from polypath.training.distributed import World
from polypath.training.engine import Engine, load_weights
from polypath.training.recipe import Recipe

SNAPSHOTS = "snapshots"
ENSEMBLE = "ensemble.safetensors"


def save_snapshot(run_dir: Path, number: int, weights: Mapping[str, Tensor]) -> None:
    """Save the network at the end of a cycle to ``snapshots/NUMBER.safetensors``."""
    folder = run_dir / SNAPSHOTS
    folder.mkdir(exist_ok=True)
    with whole(folder / f"{number}.safetensors") as temporary:
        save_file({name: t.contiguous() for name, t in weights.items()}, temporary)


@torch.no_grad()
def score_snapshots(
    run_dir: Path,
    engine: Engine,
    batches: BatchesBase,
    world: World,
    autocast: contextlib.AbstractContextManager,
) -> dict[str, float]:
    """Evaluate the error in percent of each snapshot, and of the ``ensemble``, which averages the snapshots'
    probabilities (Huang et al. 2017, §3). Afterwards, the engine's network has the weights of the last snapshot.
    """
    files = sorted((run_dir / SNAPSHOTS).glob("*.safetensors"), key=lambda file: int(file.stem))
    net, members, labels = engine.scored.eval(), {}, torch.empty(0)
    for file in files:
        load_weights(net, load_file(file))
        rows, truth = [], []
        for x, y in batches:
            if len(y):
                with autocast:
                    logits = net(x)
                rows.append(average_views(at_least_float32(logits), batches.views).cpu())
                truth.append(y.cpu())
        members[file.stem], labels = torch.cat(rows), torch.cat(truth)
    errors = {name: _error(logits, labels, world) for name, logits in members.items()}
    if members:
        errors["ensemble"] = _error(average_probabilities(members.values()), labels, world)
    return errors


def _error(scores: Tensor, labels: Tensor, world: World) -> float:
    wrong = int((scores.argmax(1) != labels).sum())
    counts = world.gather((wrong, len(labels)))
    return 100.0 * sum(n for n, _ in counts) / sum(n for _, n in counts)


def save_model(
    recipe: Recipe,
    run_dir: Path,
    data: ImageData,
    weights: Mapping[str, Tensor],
    objective_state: Mapping[str, Tensor],
    notes: list[str],
) -> None:
    """Save the reported network to ``model/``. The network is built again from the recipe, so that it contains no
    training state.

    An ensemble with shared weights is also saved, to ``ensemble.safetensors``. ``objective_state`` contains the
    batch-norm statistics of the ensemble's members.
    """
    net = build_net(recipe, run_dir)
    load_weights(net, dict(weights))
    if objective_state:
        bound = recipe.objective.bind(net)
        bound.load_state_dict(dict(objective_state))
        ensemble = getattr(bound, "ensemble", None)
        if isinstance(ensemble, Ensemble):
            ensemble.save(run_dir / ENSEMBLE)
    save(
        net.eval(),
        run_dir / MODEL,
        overwrite=True,
        classes=completed_classes(data.classes, net.num_classes),
        mean=data.mean,
        std=data.std,
        image_size=recipe.data.size or data.size,
        resize=recipe.data.resize,
        resize_to=recipe.data.resize_to,
        dataset=data.name,
        notes=notes,
    )
