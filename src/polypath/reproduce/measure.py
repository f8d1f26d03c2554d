"""The usual measurements: parts of a :data:`~polypath.reproduce.experiment.Measure`, and functions that return them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from polypath.reproduce.experiment import Measure
from polypath.reproduce.measured import Correct, Measured
from polypath.reproduce.trained import Choice, Trained

One = Callable[[Trained], Measured]
"""A function from one trained arm to its measurements, with keys without the arm's name."""


def per_arm(*parts: One, single: bool = False) -> Measure:
    """Measure every arm separately. The key ``whole`` becomes ``ARM``, others become ``ARM/KEY``. With ``single``, for
    experiments of one arm, keys stay as they are."""

    def measure(trained: Mapping[str, Trained]) -> Measured:
        all_of = Measured()
        for arm, run in trained.items():
            for part in parts:
                found = part(run)
                named = found if single else _named(found, arm)
                all_of.update(named)
        return all_of

    return measure


def whole(run: Trained) -> Measured:
    """Measure the whole network's answers, and its loss in the last epoch of training (``loss``)."""
    return Measured(run.correct({"whole": run.net.paths("whole")}), last_loss(run))


def top_five(run: Trained) -> Measured:
    """Measure whether the label is among the whole network's five most probable classes, ``top-5``."""
    return Measured({"whole top-5": within_five(run, run.logits(["whole"])["whole"])})


def within_five(run: Trained, logits: Tensor) -> Correct:
    """Return which test images have their label among the five largest of ``logits`` ``(images, classes)``."""
    five = (logits.topk(min(5, logits.shape[1]), dim=1).indices == run.labels[:, None]).any(1)
    return Correct(five.numpy(), run.images)


def paths(choice: Choice = None, *, recalibrated: int = 0, suffix: str = "") -> One:
    """Measure the answers of paths, by default of all named ones and ``whole``. Keys are the paths' texts plus
    ``suffix``."""

    def measure(run: Trained) -> Measured:
        found = run.correct(choice, recalibrated=recalibrated)
        return Measured({f"{name}{suffix}": hits for name, hits in found.items()})

    return measure


def costs(choice: Choice = None) -> One:
    """Measure ``KEY params`` and ``KEY MACs`` of paths, in millions, for one image."""

    def measure(run: Trained) -> Measured:
        values = {}
        for name, chosen in run.choice(choice).items():
            spent = run.cost(chosen)
            values |= {f"{name} params": spent.params / 1e6, f"{name} MACs": spent.macs / 1e6}
        return Measured(values=values)

    return measure


def last_loss(run: Trained) -> dict[str, float]:
    """Return ``loss``, the mean training loss of the last recorded epoch; empty if no epoch was recorded."""
    rows = run.metrics()
    return {"loss": rows[-1]["train_loss"]} if rows else {}


def training_curves(run: Trained) -> Measured:
    """Measure the training loss by epoch, ``loss``."""
    return Measured(curves={"loss": [(row["epoch"], row["train_loss"]) for row in run.metrics()]})


def error_along_training(choice: Choice = None, *, recalibrated: int = 0) -> One:
    """Measure the test error (percent) of paths at each kept checkpoint, as curves by the paths' texts."""

    def measure(run: Trained) -> Measured:
        curves: dict[str, list[tuple[float, float]]] = {}
        for epoch, net in run.epochs():
            for name, hits in run.correct(choice, recalibrated=recalibrated, net=net).items():
                curves.setdefault(name, []).append((epoch, 100.0 * (1.0 - float(hits.hits.mean()))))
        return Measured(curves=curves)

    return measure


def curves(run: Trained) -> Measured:
    """Measure training loss and test error by epoch, and their means over the epochs (``area``: how fast they fall)."""
    rows = run.metrics()
    loss = [(r["epoch"], r["train_loss"]) for r in rows]
    error = [(r["epoch"], r["traced_test_error"]) for r in rows if "traced_test_error" in r]
    values = {"loss area": float(np.mean([y for _, y in loss]))} if loss else {}
    values |= {"error area": float(np.mean([y for _, y in error]))} if error else {}
    return Measured(values=values, curves={"loss": loss, "error": error})


def named_whole(run: Trained) -> Measured:
    """Measure :func:`curves`, with keys that begin with the arm's name."""
    found = curves(run)
    return Measured(
        values={f"whole {key}": v for key, v in found.values.items()},
        curves={f"whole {key}": v for key, v in found.curves.items()},
    )


def _named(found: Measured, arm: str) -> Measured:
    def name(key: str) -> str:
        return arm if key == "whole" else f"{arm}{key[len('whole') :]}" if key.startswith("whole ") else f"{arm}/{key}"

    return Measured(
        {name(k): v for k, v in found.correct.items()},
        {name(k): v for k, v in found.values.items()},
        {name(k): v for k, v in found.curves.items()},
        {name(k): v for k, v in found.histograms.items()},
    )
