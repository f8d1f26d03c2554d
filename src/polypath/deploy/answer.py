"""The results of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polypath.core.checks import check, whole
from polypath.deploy.manifest import Rung


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result of a prediction.

    Attributes:
        probabilities: ``(N, classes)`` float32, calibrated by the path's temperature.
        classes: the class names.
        path: the path that ran; if several paths ran, the last of them.
        ms: milliseconds from the call to the answer, image decoding included.
        runtime: the runtime that ran the path.
        budget_ms: the budget that was given, if any.
        combined: the paths whose probabilities were averaged.
        top_k: default number of classes for :meth:`top`.
    """

    probabilities: np.ndarray
    classes: tuple[str, ...]
    path: str
    ms: float
    runtime: str
    budget_ms: float | None = None
    combined: tuple[str, ...] = ()
    top_k: int | None = None

    def __repr__(self) -> str:
        n = len(self.probabilities)
        best = f"{self.classes[self.labels[0]]!r} {self.confidence[0]:.1%}" if n == 1 else f"{n} images"
        return f"{type(self).__name__}({best}, path {self.path!r}, {self.ms:.3g} ms, {self.runtime})"

    @property
    def labels(self) -> np.ndarray:
        """The index of each image's likeliest class, ``(N,)``."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of each image's likeliest class, ``(N,)``."""
        return self.probabilities.max(1)

    def top(self, k: int | None = None) -> list[list[tuple[str, float]]]:
        """Return each image's ``k`` likeliest classes with their probabilities.

        Args:
            k: number of classes. None means the prediction's ``top_k`` or, if that is None, 5 (all classes if there are
                fewer).

        Raises:
            ValueError: ``k`` is below 1 or above the number of classes.
        """
        if k is None:
            k = min(5, len(self.classes)) if self.top_k is None else self.top_k
        check_top_k(k, self.classes)
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return [
            [(self.classes[i], float(row[i])) for i in best]
            for row, best in zip(self.probabilities, order, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Confident(Answer):
    """An answer for which each image stopped at the first path that was confident enough.

    Attributes:
        paths: for each of the N images, the name of the path at which the image stopped.
        sure: whether each image's confidence reached the threshold that bounds the risk, ``(N,)`` bool.
        risk, trust: with probability ``trust`` over the random choice of held-out images, at most a share ``risk`` of
            the images for which ``sure`` is true is classified wrongly.
    """

    paths: tuple[str, ...]
    sure: np.ndarray
    risk: float
    trust: float


def check_top_k(k: int, classes: Sequence[str]) -> None:
    """Raise ``ValueError`` for a ``k`` below 1 or above the number of classes."""
    check("top_k", k, whole(1, len(classes)))


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities ``(N, classes)`` for logits divided by a temperature."""
    z = logits - np.maximum.reduce(logits, axis=1, keepdims=True)
    if temperature != 1.0:
        z *= np.float32(1.0 / temperature)
    np.exp(z, out=z)
    z /= np.add.reduce(z, axis=1, keepdims=True)
    return z


def averaged(ran: dict[str, np.ndarray], rung: Rung) -> np.ndarray:
    """Return the answer of a rung of the ladder: the mean probabilities of the paths that the rung combines."""
    if len(rung.combine) == 1:
        return ran[rung.combine[0]]
    return np.asarray(np.mean([ran[name] for name in rung.combine], axis=0, dtype=np.float32))
