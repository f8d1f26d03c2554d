"""Decisions of gates: how many loops each image takes, and the rate of each gate (DRNN §4, Fig. 8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from polypath.core.execute import Trace, loops_run
from polypath.core.network import PathNet


class Loops(NamedTuple):
    """The decisions of gates, as two data frames.

    ``images`` has a row for each image: ``image`` (its index), ``label``, ``answer`` (the predicted class), ``right``
    (whether the prediction is correct), ``loops``. ``gates`` has a row for each gate: ``switch``, ``loop``,
    ``reached`` and ``passed`` (numbers of images), ``rate`` (``passed`` / ``reached``; NaN if no image reached the
    gate), ``share`` (``passed`` / all images).
    """

    images: pd.DataFrame
    gates: pd.DataFrame

    @property
    def most(self) -> int:
        """The largest number of loops that an image can take."""
        return len(self.gates)


@torch.no_grad()
def loops_taken(net: PathNet, batches: Iterable[Sequence[Tensor]]) -> Loops:
    """Run a gated network on all images of ``batches`` ``(images, labels)``, and record the decisions of its gates.

    The network runs in evaluation mode; its mode is restored.

    Raises:
        ValueError: the network has no gates, or there are no images.
    """
    if not any(join.gates for join in net.wiring.joins.values()):
        raise ValueError("this network has no gates; build it with gates=True")
    device, modes = next(net.parameters()).device, [(module, module.training) for module in net.modules()]
    loops, given, truth, gates = [], [], [], {}
    net.eval()
    try:
        for x, labels in batches:
            trace = Trace()
            given.append(net(x.to(device), trace=trace).argmax(1).cpu())
            truth.append(labels.cpu())
            loops.append(loops_run(trace).cpu())
            for switch, loop, reached, passed in trace.gates:
                at = gates.setdefault((switch, loop), [0, 0])
                at[0] += int(reached.sum())
                at[1] += int(passed.sum())
    finally:
        for module, training in modes:
            module.training = training
    if not truth:
        raise ValueError("there are no images: the batches are empty")
    y, answer = torch.cat(truth), torch.cat(given)
    images = pd.DataFrame(
        {
            "image": range(len(y)),
            "label": y.numpy(),
            "answer": answer.numpy(),
            "right": (y == answer).numpy(),
            "loops": torch.cat(loops).long().numpy(),
        }
    )
    rows = [
        {"switch": s, "loop": k, "reached": n, "passed": m, "rate": m / n if n else float("nan"), "share": m / len(y)}
        for (s, k), (n, m) in gates.items()
    ]
    return Loops(images, pd.DataFrame(rows))


def loop_histogram(loops: Tensor | Iterable[int], most: int, right: Iterable[bool] | None = None) -> pd.DataFrame:
    """Count how many images take each number of loops, 0 to ``most``.

    Returns:
        A row for each number: ``loops``, ``images``, ``share``. If ``right`` is given (whether each image is classified
        correctly), a row also has ``error`` (%, NaN without images).

    Raises:
        ValueError: a number of loops is not between 0 and ``most``, or there are no images.
    """
    taken = torch.as_tensor([int(n) for n in loops])
    if not len(taken) or int(taken.min()) < 0 or int(taken.max()) > most:
        raise ValueError(f"loops ({len(taken)} values): must be one or more numbers, each between 0 and most = {most}")
    counts = torch.bincount(taken, minlength=most + 1)
    frame = pd.DataFrame({"loops": range(most + 1), "images": counts, "share": counts.double() / len(taken)})
    if right is not None:
        wrong = torch.bincount(taken, torch.tensor([not hit for hit in right]).double(), minlength=most + 1)
        frame["error"] = (100.0 * wrong / counts).numpy()
    return frame
