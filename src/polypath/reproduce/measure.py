"""The usual measurements of a trained arm. :func:`per_arm` combines them into a
:data:`~polypath.reproduce.experiment.Measure`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from polypath.reproduce.experiment import Measure
from polypath.reproduce.measured import Correct, Measured
from polypath.reproduce.trained import Choice, Trained

One = Callable[[Trained], Measured]
"""A function from one trained arm to its measurements. Their keys do not contain the arm's name."""


def per_arm(*parts: One, single: bool = False) -> Measure:
    """Return a function that measures every arm with each of ``parts``. The key ``whole`` becomes ``ARM``, ``whole
    KEY`` becomes ``ARM KEY``, and any other ``KEY`` becomes ``ARM/KEY``. With ``single``, for experiments of one arm,
    keys stay as they are."""

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
    """Measure which test images the whole network classifies correctly, and its training loss in the last epoch
    (``loss``)."""
    return Measured(run.correct({"whole": run.net.paths("whole")}), last_loss(run))


def top_five(run: Trained) -> Measured:
    """Measure the test images whose label is among the whole network's five most probable classes (``whole top-5``)."""
    return Measured({"whole top-5": within_five(run, run.logits(["whole"])["whole"])})


def within_five(run: Trained, logits: Tensor) -> Correct:
    """Return the test images whose label is among the five largest of ``logits`` ``(images, classes)``."""
    five = (logits.topk(min(5, logits.shape[1]), dim=1).indices == run.labels[:, None]).any(1)
    return Correct(five.numpy(), run.images)


def paths(choice: Choice = None, *, recalibrated: int = 0, suffix: str = "") -> One:
    """Return a function that measures which test images each path classifies correctly. The default is all named paths
    and ``whole``. Keys are the paths' texts plus ``suffix``."""

    def measure(run: Trained) -> Measured:
        found = run.correct(choice, recalibrated=recalibrated)
        return Measured({f"{name}{suffix}": hits for name, hits in found.items()})

    return measure


def costs(choice: Choice = None) -> One:
    """Return a function that counts parameters (``PATH params``) and multiply-adds for one image (``PATH MACs``), both
    in millions."""

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
    """Measure the training loss by epoch, as the curve ``loss``."""
    return Measured(curves={"loss": [(row["epoch"], row["train_loss"]) for row in run.metrics()]})


def error_along_training(choice: Choice = None, *, recalibrated: int = 0) -> One:
    """Return a function that measures the test error (percent) of paths at each kept checkpoint, as curves by the
    paths' texts."""

    def measure(run: Trained) -> Measured:
        curves: dict[str, list[tuple[float, float]]] = {}
        for epoch, net in run.epochs():
            for name, hits in run.correct(choice, recalibrated=recalibrated, net=net).items():
                curves.setdefault(name, []).append((epoch, 100.0 * (1.0 - float(hits.hits.mean()))))
        return Measured(curves=curves)

    return measure


def curves(run: Trained) -> Measured:
    """Measure training loss and test error by epoch, as curves, and their means over the epochs (``loss area`` and
    ``error area``). A curve that falls faster has a smaller mean."""
    rows = run.metrics()
    loss = [(r["epoch"], r["train_loss"]) for r in rows]
    error = [(r["epoch"], r["traced_test_error"]) for r in rows if "traced_test_error" in r]
    values = {"loss area": float(np.mean([y for _, y in loss]))} if loss else {}
    values |= {"error area": float(np.mean([y for _, y in error]))} if error else {}
    return Measured(values=values, curves={"loss": loss, "error": error})


def named_whole(run: Trained) -> Measured:
    """Measure the same as :func:`curves`, but prefix each key with ``whole``, which :func:`per_arm` replaces by the
    arm's name."""
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
