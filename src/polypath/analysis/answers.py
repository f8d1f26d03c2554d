"""Answers of paths: the logits of each path on the same images, with the labels. Other analyses start from these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polypath.analysis.scoring import score
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.network import PathNet
from polypath.core.paths import Paths

Logits = Mapping[str, Tensor]
"""Logits ``(images, classes)`` by the name of their path or other network."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Logits ``(images, classes)`` of each path and the labels ``(images,)`` of the same images."""

    logits: dict[str, Tensor]
    labels: Tensor

    def __repr__(self) -> str:
        return f"Answers({len(self.logits)} paths, {len(self.labels):,} images)"

    def rows(self, which: Tensor | slice) -> Answers:
        """Return the answers on these images only."""
        return Answers({name: logits[which] for name, logits in self.logits.items()}, self.labels[which])


def answers(
    net: PathNet,
    paths: Mapping[str, Paths] | Iterable[str] | None,
    batches: Iterable[Sequence[Tensor]],
    *,
    stats: BatchNormStatistics | None = None,
    views: int = 1,
) -> Answers:
    """Run each of ``paths`` (None: the named ones) on all images, as :func:`polypath.analysis.scoring.score` does.

    Raises:
        ValueError: an illegal path, no images, labels beyond the network's classes, or ``stats`` without one of the
            paths.
    """
    chosen, labels = chosen_paths(net, paths), []

    def noted() -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in batches:
            labels.append(y.cpu())
            yield x, y

    found = score(net, chosen, noted(), stats=stats, views=views, keep_logits=True)
    logits = {name: of.logits for name, of in found.items() if of.logits is not None}
    return Answers(logits, torch.cat(labels))


def chosen_paths(net: PathNet, paths: Mapping[str, Paths] | Iterable[str] | None) -> dict[str, Paths]:
    """Return choices by name, from a mapping of names to choices, from texts, or (None) the network's named ones.

    Raises:
        ValueError: an illegal path, or a single text instead of a list of texts.
    """
    if paths is None:
        return net.named_paths()
    if isinstance(paths, Mapping):
        return {str(name): net.paths(path) for name, path in paths.items()}
    if isinstance(paths, str):
        raise ValueError(f"paths {paths!r}: give several, in a list")
    return {text: net.paths(text) for text in paths}


def stacked(logits: Logits, labels: Tensor) -> tuple[list[str], Tensor]:
    """Return the names, and their logits ``(paths, images, classes)`` in float64.

    Raises:
        ValueError: no logits, shapes that do not match each other or the labels, or labels beyond the classes.
    """
    if not logits:
        raise ValueError("no logits: give the logits of at least one path")
    first = next(iter(logits.values()))
    for name, of in logits.items():
        if of.ndim != 2 or of.shape != first.shape:
            raise ValueError(
                f"logits of {name!r}: {tuple(of.shape)}, must be (images, classes) as {tuple(first.shape)}"
            )
    if labels.shape != first.shape[:1] or not len(labels):
        raise ValueError(f"labels {tuple(labels.shape)}: must be one for each of {len(first)} images, at least one")
    if int(labels.min()) < 0 or int(labels.max()) >= first.shape[1]:
        raise ValueError(f"labels {int(labels.min())} to {int(labels.max())}: must be 0 to {first.shape[1] - 1}")
    return list(logits), torch.stack([of.detach().cpu().double() for of in logits.values()])


def right(logits: Logits, labels: Tensor) -> tuple[list[str], Tensor]:
    """Return the names of the paths, and which images each answers correctly: ``(paths, images)`` bool.

    Raises:
        ValueError: as :func:`stacked`.
    """
    names, z = stacked(logits, labels)
    return names, z.argmax(2) == labels.cpu()


def error_of(hits: Tensor) -> float:
    """Return the top-1 error in percent. ``hits`` ``(images,)`` says which images were answered correctly."""
    return 100.0 * float((~hits).double().mean())
