"""The result of an experiment. :mod:`polypath.reproduce.store` writes and reads it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from polypath.reproduce.bootstrap import Sample
from polypath.reproduce.claims import Verdict
from polypath.reproduce.code import code_id

if TYPE_CHECKING:
    import pandas

FORMAT = 2
"""The format of ``result.json``. In format 1, verdicts had no ids."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of an experiment.

    Attributes:
        changes: differences of the scale from the paper's setting.
        code: :func:`polypath.reproduce.code.code_id` of the code that made the result.
        definition: the digest of the experiment's definition.
        seconds: duration of this call. ``training_seconds`` is the duration of all runs together.
        data: names of the datasets, with caveats.
        errors: test errors in percent by key, one for each seed.
        images: number of test images by key.
        values: scalars by key, one for each seed. ``counts`` are exact numbers by key.
        half_errors, half_values: errors and values after half of the epochs, if the scale trains for both lengths.
        precisions: the precisions in which the runs were trained.
        curves, histograms: by key, one for each seed.
        pictures: PNG in base64 by key, from the first seed.
        published: printed numbers by key; None if a number is missing in our copy of the paper.
        diverged: runs whose loss was not finite, with the reason.
        test_evaluations: number of errors measured on the test splits for these runs, by any command; None in results
            that were written before this was counted.
        correct: whether each image is classified correctly ``(seeds, images)``, by key; empty if this was not kept.
    """

    experiment: str
    scale: str
    place: str
    shows: str
    changes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    revision: str | None = None
    code: str = ""
    definition: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    training_seconds: float = 0.0
    data: list[str] = field(default_factory=list)
    errors: dict[str, list[float]] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    half_errors: dict[str, list[float]] = field(default_factory=dict)
    half_values: dict[str, list[float]] = field(default_factory=dict)
    precisions: list[str] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    curves: dict[str, list[list[tuple[float, float]]]] = field(default_factory=dict)
    histograms: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict, repr=False)
    published: dict[str, float | str | None] = field(default_factory=dict)
    diverged: dict[str, str] = field(default_factory=dict)
    test_evaluations: int | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    arms: dict[str, Any] = field(default_factory=dict, repr=False)
    correct: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    test_sets: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def stale(self) -> bool:
        """Whether code other than the current one made the result."""
        return self.code != code_id()

    @property
    def measured_keys(self) -> set[str]:
        """Keys of errors, scalars and counts."""
        return {*self.errors, *self.values, *self.counts}

    def mean(self, key: str) -> float:
        """Return the mean error or scalar of a key over the seeds, or a count."""
        for found in (self.errors, self.values):
            if key in found:
                return float(np.mean(found[key]))
        return self.counts[key]

    def std(self, key: str) -> float | None:
        """Return the standard deviation of a key over the seeds; None for fewer than two seeds and for counts."""
        found = self.errors.get(key) or self.values.get(key) or []
        return float(np.std(found, ddof=1)) if len(found) > 1 else None

    def verdict(self, id: str) -> Verdict:
        """Return the verdict on the claim with this id.

        Raises:
            KeyError: no verdict has this id.
        """
        for found in self.verdicts:
            if found.id == id:
                return found
        raise KeyError(id)

    def sample(self) -> Sample:
        """Return the sample from which verdicts are computed. It needs ``correct``."""
        values = {key: np.asarray(v, dtype=float) for key, v in self.values.items()}
        return Sample(self.correct, self.test_sets, values)

    def half_means(self) -> dict[str, float]:
        """Return mean errors and scalars after half of the epochs, by key."""
        return {key: float(np.mean(v)) for key, v in {**self.half_errors, **self.half_values}.items()}

    def frame(self) -> pandas.DataFrame:
        """Return a row for each key: ``what``, ``measured`` (mean), ``std``, ``unit``, ``seeds``, ``published``."""
        import pandas

        rows = []
        for key in (*self.errors, *self.values, *self.counts):
            n = len(self.errors.get(key, self.values.get(key, [])))
            row = {"what": key, "measured": self.mean(key), "std": self.std(key), "unit": self.unit(key), "seeds": n}
            rows.append(row | {"published": self.published.get(key)})
        return pandas.DataFrame(rows, columns=["what", "measured", "std", "unit", "seeds", "published"])

    def unit(self, key: str) -> str:
        """Return the unit of a key's numbers: error in percent, or the experiment's unit for keys with this suffix."""
        if key in self.errors:
            return "% error"
        return next((unit for end, unit in self.units.items() if key.endswith(end)), "")

    def to_json(self) -> dict[str, Any]:
        """Return all fields except ``arms`` and ``correct`` as JSON values."""
        small = replace(self, arms={}, correct={})
        return {"format": FORMAT, **{k: v for k, v in asdict(small).items() if k not in ("arms", "correct")}}
