"""Finds which images a network's paths classify correctly. Test images are used only once, and results are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.deadline import right_answers
from polypath.analysis.scoring import score
from polypath.core.network import PathNet
from polypath.data.batches import Part, evaluation_batches
from polypath.data.cache import digest
from polypath.data.config import DataConfig
from polypath.data.sources import ImageData
from polypath.data.split import Split
from polypath.deploy.bundle import Bundle
from polypath.deploy.predictor import AnytimePredictor
from polypath.reproduce.measured import Correct, Measured, load_measured, save_measured
from polypath.storage.loading import load
from polypath.training.build import MODEL, resolve_device

BATCH = 100
BLIND = "this run's test split is the held-out images: the real test images are used once, at the end"


def blind(data: ImageData) -> ImageData:
    """Return the images with the held-out images as the test split, so that training cannot use the real test images.

    Raises:
        ValueError: there are no held-out images.
    """
    if data.validation is None:
        raise ValueError("data.validation = 0: must be above 0, since learning rates are tuned on held-out images")
    return replace(data, test=data.validation, note="; ".join(filter(None, [data.note, BLIND])))


def correct(net: PathNet, paths: Sequence[str], data: ImageData, config: DataConfig, part: Part) -> dict[str, Correct]:
    """Return which images of a part each path classifies correctly, with the network's own batch-norm statistics."""
    device = resolve_device("auto")
    batches = evaluation_batches(data, config, BATCH, part, device=device)
    scores = score(net.to(device), {text: net.paths(text) for text in paths}, batches, keep_logits=True)
    labels = torch.cat([y.cpu() for _, y in batches])
    images = name_of(labels)
    return {
        text: Correct((one.logits.argmax(1).cpu() == labels).numpy(), images)
        for text, one in scores.items()
        if one.logits is not None
    }


def answers(file: Path, run: Path, paths: Sequence[str], data: ImageData, config: DataConfig) -> dict[str, Correct]:
    """Return which test images a trained network's paths classify correctly. Read ``file`` if it has the results."""
    found = load_measured(file, paths)
    if found is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        found = Measured(correct(load(run / MODEL), paths, data, config, "test"))
        save_measured(file, found, paths)
    return found.correct


def answers_of_bundle(file: Path, bundle: Bundle, data: ImageData) -> dict[str, Correct]:
    """Return which test images a deployed bundle's paths classify correctly. Read ``file`` if it has the results.

    Raises:
        ValueError: the images are not in memory.
    """
    about = [bundle.digest, *(path.name for path in bundle.paths)]
    found = load_measured(file, about)
    if found is None:
        if not isinstance(data.test, Split):
            raise ValueError("--beside requires images in memory (data.streaming = False)")
        predictor = AnytimePredictor(bundle)
        pixels, labels = data.test.images.permute(0, 2, 3, 1).numpy(), data.test.labels
        rights = {path.name: right_answers(predictor, path.name, pixels, labels.numpy()) for path in bundle.paths}
        found = Measured({name: Correct(hits, name_of(labels)) for name, hits in rights.items()})
        file.parent.mkdir(parents=True, exist_ok=True)
        save_measured(file, found, about)
    return found.correct


def name_of(labels: Tensor) -> str:
    """Return an identifier of a set of images, computed from the sequence of their labels."""
    return f"{len(labels)}-{digest(labels)[:12]}"


def held_out_error(run: Path, paths: Sequence[str], data: ImageData, config: DataConfig) -> float:
    """Return the mean error over a network's paths on the held-out images, in percent."""
    found = correct(load(run / MODEL), paths, data, config, "validation")
    return sum(100.0 * float(1.0 - hits.hits.mean()) for hits in found.values()) / len(found)
