"""Answers of paths: the logits of each path on the same images, and the labels. Other analyses read them."""

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
"""Logits ``(images, classes)`` by the name of the path or network that computed them."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The logits ``(images, classes)`` of each path, and the labels ``(images,)`` of the same images."""

    logits: dict[str, Tensor]
    labels: Tensor

    def __repr__(self) -> str:
        return f"Answers({len(self.logits)} paths, {len(self.labels):,} images)"

    def rows(self, which: Tensor | slice) -> Answers:
        """Return the answers on only those images that ``which`` selects."""
        return Answers({name: logits[which] for name, logits in self.logits.items()}, self.labels[which])


def answers(
    net: PathNet,
    paths: Mapping[str, Paths] | Iterable[str] | None,
    batches: Iterable[Sequence[Tensor]],
    *,
    stats: BatchNormStatistics | None = None,
    views: int = 1,
) -> Answers:
    """Run each of ``paths`` (None: the named paths) on all images, and return the logits and the labels. ``batches``,
    ``stats`` and ``views`` are as for :func:`polypath.analysis.scoring.score`.

    Raises:
        ValueError: a path is illegal, there are no images, a label is not a class of the network, or ``stats`` lacks
            a path.
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
    """Return choices by name. ``paths`` maps names to choices, or lists texts; None means the network's named paths.

    Raises:
        ValueError: a path is illegal, or ``paths`` is a single text instead of a list of texts.
    """
    if paths is None:
        return net.named_paths()
    if isinstance(paths, Mapping):
        return {str(name): net.paths(path) for name, path in paths.items()}
    if isinstance(paths, str):
        raise ValueError(f"paths = {paths!r}: must be a list of texts, not a single text")
    return {text: net.paths(text) for text in paths}


def stacked(logits: Logits, labels: Tensor) -> tuple[list[str], Tensor]:
    """Return the paths' names, and their logits as one tensor ``(paths, images, classes)`` in float64.

    Raises:
        ValueError: there are no logits, their shapes differ or do not match the labels, or a label is not a class.
    """
    if not logits:
        raise ValueError("there are no logits: give the logits of at least one path")
    first = next(iter(logits.values()))
    for name, of in logits.items():
        if of.ndim != 2 or of.shape != first.shape:
            raise ValueError(
                f"logits of {name!r} have shape {tuple(of.shape)}: must be (images, classes), the same for all paths; "
                f"the first path's shape is {tuple(first.shape)}"
            )
    if labels.shape != first.shape[:1] or not len(labels):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}: must be ({len(first)},), one label for each image, at least one"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= first.shape[1]:
        raise ValueError(
            f"labels are {int(labels.min())} to {int(labels.max())}: must be between 0 and {first.shape[1] - 1}"
        )
    return list(logits), torch.stack([of.detach().cpu().double() for of in logits.values()])


def right(logits: Logits, labels: Tensor) -> tuple[list[str], Tensor]:
    """Return the paths' names, and which images each path classifies correctly, ``(paths, images)`` bool.

    Raises:
        ValueError: the logits or labels are illegal, see :func:`stacked`.
    """
    names, z = stacked(logits, labels)
    return names, z.argmax(2) == labels.cpu()


def error_of(hits: Tensor) -> float:
    """Return the top-1 error in percent. ``hits`` ``(images,)`` says which images were classified correctly."""
    return 100.0 * float((~hits).double().mean())
