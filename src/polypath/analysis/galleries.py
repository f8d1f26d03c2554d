"""Easy and hard images, selected by the loops that they take or by the paths that classify them correctly."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from polypath.analysis.answers import stacked
from polypath.analysis.loops import Loops
from polypath.core.checks import check, whole

_COUNT = whole(1)

COUNT = 12


def easy_and_hard_by_loops(loops: Loops | pd.DataFrame, count: int = COUNT, *, spread: bool = False) -> pd.DataFrame:
    """Select, among the correctly classified images, those with the fewest and those with the most loops (DRNN Fig. 9).

    Images with the same number of loops keep the order of the data. With ``spread``, the first image of each class is
    taken, then the second of each class, and so on. Otherwise, all images may be of one class.

    Returns:
        A row for each image: ``kind`` (``easy``, ``hard``), ``rank`` (from 0), ``image``, ``label``, ``answer`` (the
        predicted class), ``value`` (loops).

    Raises:
        ValueError: ``count`` is below 1.
    """
    check("count", count, _COUNT)
    images = loops.images if isinstance(loops, Loops) else loops
    known = images.loc[images["right"].to_numpy(dtype=bool)]
    easy = known.sort_values(by="loops", kind="stable")
    hard = known.sort_values(by="loops", kind="stable", ascending=False)
    parts = [
        _ranked(kind, of.rename(columns={"loops": "value"}), count, spread)
        for kind, of in (("easy", easy), ("hard", hard))
    ]
    return pd.concat(parts, ignore_index=True)


def easy_and_hard_by_paths(
    short: Tensor, whole: Tensor, labels: Tensor, count: int = COUNT, *, spread: bool = False
) -> pd.DataFrame:
    """Select easy images, which the short path classifies correctly, and hard ones, which only the whole network does.

    ``short`` and ``whole`` are logits ``(images, classes)``. Easy images are sorted by the short path's probability of
    the true class, the highest first. Hard images are sorted by how much higher this probability is in the whole
    network. ``spread`` is as in :func:`easy_and_hard_by_loops`.

    Returns:
        A row for each image: ``kind`` (``easy``, ``hard``), ``rank``, ``image``, ``label``, ``answer`` (the short
        path's prediction), ``value`` (the probability, or its difference).

    Raises:
        ValueError: ``count`` is below 1, or logits or labels are illegal (see
            :func:`~polypath.analysis.answers.stacked`).
    """
    check("count", count, _COUNT)
    _, z = stacked({"short": short, "whole": whole}, labels)
    labels = labels.cpu()
    given = z.argmax(2)
    truth = z.softmax(2)[:, torch.arange(len(labels)), labels]
    right = given == labels
    wanted = {"easy": (right[0], truth[0]), "hard": (~right[0] & right[1], truth[1] - truth[0])}
    parts = []
    for kind, (among, value) in wanted.items():
        members = among.nonzero().squeeze(1)
        best = members[value[members].argsort(descending=True, stable=True)]
        columns = {"image": best, "label": labels[best], "answer": given[0][best], "value": value[best]}
        parts.append(_ranked(kind, pd.DataFrame({name: of.numpy() for name, of in columns.items()}), count, spread))
    return pd.concat(parts, ignore_index=True)


def pixels(images: Tensor, places: Sequence[int], mean: Sequence[float] = (), std: Sequence[float] = ()) -> Tensor:
    """Return images ``(n, H, W, 3)`` uint8 for display, from stored uint8 images ``(N, C, H, W)`` or normalised
    floats."""
    chosen = images[list(places)]
    if chosen.dtype != torch.uint8:
        x = chosen.detach().cpu().float()
        if mean:
            x = x * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
        chosen = (x.clamp(0, 1) * 255).round().to(torch.uint8)
    return chosen.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()


def _ranked(kind: str, frame: pd.DataFrame, count: int, spread: bool) -> pd.DataFrame:
    if spread:
        turns = frame.groupby("label").cumcount().to_numpy().argsort(kind="stable")
        frame = frame.iloc[turns]
    frame = frame.loc[:, ["image", "label", "answer", "value"]].head(count).reset_index(drop=True)
    frame.insert(0, "kind", kind)
    frame.insert(1, "rank", range(len(frame)))
    return frame
