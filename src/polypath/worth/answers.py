"""Finds which test images a run's paths classify correctly. The paths are scored once; later calls read a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from polypath.core.paths import WHOLE_TEXT
from polypath.reproduce.measured import Measured, load_measured, save_measured
from polypath.reproduce.trained import Trained

OWN = "own norms: "


def in_network(file: Path, run: Callable[[], Trained], paths: Sequence[str], num_images: int) -> Measured:
    """Return which test images each of ``paths`` classifies correctly. Under the path's text, batch-norm is
    recalibrated for the path on ``num_images`` images. Under ``own norms: PATH``, the network's own statistics are
    used. ``run`` is opened only if ``file`` does not contain these results."""

    def score() -> Measured:
        opened = run()
        own = {f"{OWN}{path}": hits for path, hits in opened.correct(paths).items()}
        return Measured(opened.correct(paths, recalibrated=num_images) | own)

    return _kept(file, [*paths, f"{num_images}"], score)


def alone(file: Path, run: Callable[[], Trained]) -> Measured:
    """Return which test images a twin classifies correctly, under the key ``whole``."""
    return _kept(file, [WHOLE_TEXT], lambda: Measured(run().correct([WHOLE_TEXT])))


def stacked(of: Sequence[Measured], key: str) -> np.ndarray:
    """Return which images several runs classify correctly under ``key``, ``(seeds, images)``.

    Raises:
        ValueError: the runs were scored on different images.
    """
    found = [measured.correct[key] for measured in of]
    if len({hits.images for hits in found}) > 1:
        raise ValueError("the runs of this ladder were scored on different test images; all must use the same images")
    return np.stack([hits.hits for hits in found])


def _kept(file: Path, about: Sequence[str], score: Callable[[], Measured]) -> Measured:
    found = load_measured(file, about)
    if found is None:
        file.parent.mkdir(exist_ok=True)
        save_measured(file, found := score(), about)
    return found
