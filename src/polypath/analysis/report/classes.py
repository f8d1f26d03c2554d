"""The part of a report about classes and images: errors by class, confusion, and the image regions that paths use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from polypath.analysis.answers import Answers
from polypath.analysis.confusion import class_errors, confused_pairs, confusion
from polypath.analysis.galleries import easy_and_hard_by_paths, pixels
from polypath.analysis.grad_cam import grad_cam
from polypath.analysis.report.pictures import Gallery, Picture, png
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.data.augment import centre_crop

MOST_PATHS = 8  # the largest number of columns of errors by class
MOST_PAIRS, EXAMPLES = 10, 3
MOST_CAMS, SIDE, GAP = 6, 96, 4  # number of images; in pixels, their smallest side and the gap between two

Shown = Callable[[Sequence[int]], Tensor]
"""A function from indices of answers to the stored images ``(n, C, H, W)`` uint8."""


@dataclass(frozen=True, kw_only=True)
class Confused:
    """A pair of classes that the whole network confuses. ``images`` is the number of confused images (``a_as_b`` plus
    ``b_as_a``), and ``cheapest`` is this number for the cheapest path. ``share`` is the percentage of both classes'
    images that are confused."""

    a: str
    b: str
    images: int
    a_as_b: int
    b_as_a: int
    cheapest: int
    share: float
    pictures: list[Picture]


@dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
    """The part of a report about classes.

    Attributes:
        names: names of all classes.
        counts: confusion matrices ``(classes, classes)`` of the whole network and of the cheapest path, by name.
        errors: :func:`~polypath.analysis.confusion.class_errors` of some paths, from the whole network to the cheapest
            path.
        left: number of paths that ``errors`` leaves out.
        pairs: the most confused pairs of classes.
    """

    names: tuple[str, ...]
    counts: dict[str, Tensor]
    errors: pd.DataFrame
    left: int
    pairs: list[Confused]


def of_classes(scored: Answers, names: Sequence[str], shown: Shown, classes: Sequence[str]) -> Classes:
    """Compute the part about classes from the answers of paths. ``names`` lists the paths from the whole to the
    cheapest."""
    whole, cheapest, last = names[0], names[-1], len(names) - 1
    steps = min(last, MOST_PATHS - 1)
    columns = [names[i * last // max(1, steps)] for i in range(steps + 1)]
    counts = confusion({name: scored.logits[name] for name in dict.fromkeys((whole, cheapest))}, scored.labels)
    pairs = []
    for row in confused_pairs(scored.logits[whole], scored.labels, MOST_PAIRS, EXAMPLES).to_dict("records"):
        i, j, places = int(row["a"]), int(row["b"]), row["examples"]
        labels: list[int] = scored.labels[places].tolist()
        truths = [classes[c] for c in labels]
        drawn = pixels(shown(places), range(len(places)))
        pairs.append(
            Confused(
                a=classes[i],
                b=classes[j],
                cheapest=int(counts[cheapest][i, j] + counts[cheapest][j, i]),
                pictures=[
                    Picture(source=png(image), about=f"test image, {truth}", caption=truth)
                    for image, truth in zip(drawn, truths, strict=True)
                ],
                **{name: row[name] for name in ("images", "a_as_b", "b_as_a", "share")},
            )
        )
    return Classes(
        names=tuple(classes),
        counts=counts,
        errors=class_errors({name: scored.logits[name] for name in columns}, scored.labels),
        left=len(names) - len(columns),
        pairs=pairs,
    )


def cams(
    net: PathNet,
    paths: Mapping[str, Paths],
    scored: Answers,
    shown: Shown,
    inputs: Callable[[Sequence[int]], Tensor],
    classes: Sequence[str],
    stats: BatchNormStatistics | None,
) -> Gallery:
    """Return images with the heat maps of ``paths``, each for the class that the path predicts. Images that only the
    last path classifies correctly come first.

    Args:
        inputs: like ``shown``, but the images are normalised for the network.

    Raises:
        ValueError: the network's head reads no feature maps.
    """
    places = _worth_looking_at(scored, list(paths))
    x = inputs(places)
    heats = [grad_cam(net, x, p, stats=stats).cpu() for p in paths.values()]
    stored = shown(places)
    if stored.shape[-2:] != x.shape[-2:]:
        stored = centre_crop(stored, x.shape[-1])
    pictures = []
    for n, (place, image) in enumerate(zip(places, pixels(stored, range(len(places))), strict=True)):
        truth = classes[int(scored.labels[place])]
        said = [f"{name}: {classes[int(scored.logits[name][place].argmax())]}" for name in paths]
        source = png(side_by_side(image, [heat[n] for heat in heats]), most=(1 + len(heats)) * (2 * SIDE + GAP))
        about = f"test image, {truth}, and where {' and '.join(paths)} look"
        pictures.append(Picture(source=source, about=about, caption=" · ".join([truth, *said])))
    text = f"with heat maps (Grad-CAM) for the predicted class, of {' and then '.join(paths)}"
    return Gallery(title="Where paths look", text=text, pictures=pictures, wide=True)


def side_by_side(image: Tensor, heats: Sequence[Tensor]) -> Tensor:
    """Return an image ``(H, W, 4)`` uint8 that shows, side by side, an image ``(H, W, 3)`` uint8 and the image in grey
    under each heat map ``(H, W)``. Small images are enlarged."""
    from matplotlib import colormaps

    times = max(1, SIDE // min(image.shape[:2]))
    image = image.repeat_interleave(times, 0).repeat_interleave(times, 1)
    parts, grey = [image], 0.4 * image.float().mean(2, keepdim=True)
    for heat in heats:
        fine = F.interpolate(heat[None, None], image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        colour = torch.from_numpy(colormaps["inferno"](fine.numpy())[..., :3])
        parts.append((grey + 0.6 * 255 * colour).round().to(torch.uint8))
    gap = image.new_zeros(len(image), GAP, 4)
    row = [part for of in parts for part in (gap, torch.cat([of, torch.full_like(of[..., :1], 255)], 2))]
    return torch.cat(row[1:], 1)


def _worth_looking_at(scored: Answers, names: list[str]) -> list[int]:
    least, most = scored.logits[names[0]], scored.logits[names[-1]]
    frame = easy_and_hard_by_paths(least, most, scored.labels, MOST_CAMS, spread=True)
    ranked = [
        *frame.loc[frame["kind"] == "hard", "image"].tolist(),
        *frame.loc[frame["kind"] == "easy", "image"].tolist(),
    ]
    return ranked[:MOST_CAMS] or [0]


def rows_of(batches: Iterable[Sequence[Tensor]], places: Sequence[int]) -> Tensor:
    """Return the images with these indices in the sequence of all batches, in the order of ``places``."""
    found, begin, wanted = {}, 0, set(places)
    for x, *_ in batches:
        found |= {place: x[place - begin] for place in wanted if begin <= place < begin + len(x)}
        begin += len(x)
        if len(found) == len(wanted):
            break
    return torch.stack([found[place] for place in places])
