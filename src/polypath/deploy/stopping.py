"""Computes thresholds of confidence at which images may stop, with a bound on the risk of wrong answers.

The held-out images have three disjoint parts: one to choose paths, one to fit temperatures, and one to fit these
thresholds. The answers to the third part are stored in the bundle.

At each step of the ladder, an image stops if its confidence reaches the step's threshold. The threshold is the lowest
at which at most a share ``risk`` of the answers is wrong, by the exact binomial bound of Clopper and Pearson (1934).
Thresholds are tried from the highest down, and the first that fails ends the search (fixed-sequence testing,
Angelopoulos et al. 2021, "Learn then Test"). So trying many thresholds does not weaken the guarantee. Each of the K
steps may fail with probability (1 − trust)/K. At a threshold above 1, no image stops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polypath.core.checks import check, number, whole
from polypath.deploy.bundle import Bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRID = (*(1.0 - 10.0**-k for k in (5, 4, 3)), *(round(0.995 - 0.005 * i, 3) for i in range(170)))  # 0.99999 … 0.15
NEVER = 1.1


@dataclass(frozen=True)
class Stopping:
    """A set of confidence thresholds, one for each step of the ladder.

    Attributes:
        risk, trust: the bound that the thresholds guarantee, as in ``predict_confident``.
        thresholds: the confidence at which an image stops, for each step. At a threshold above 1, no image stops.
        stopped, wrong: for each step, the number of held-out images that stop, and of wrong answers among these.
        images: total number of held-out images.
    """

    risk: float
    trust: float
    thresholds: tuple[float, ...]
    stopped: tuple[int, ...]
    wrong: tuple[int, ...]
    images: int


def upper_bound(wrong: int, n: int, doubt: float) -> float:
    """Return the Clopper–Pearson upper bound of the share of wrong answers, which holds with probability 1 − ``doubt``.

    Raises:
        ValueError: the counts are impossible, or ``doubt`` is outside (0, 1).
    """
    check("n", n, whole(1))
    check("wrong", wrong, whole(0, n))
    check("doubt", doubt, number(above=0, below=1))
    if wrong == n:
        return 1.0
    if wrong == 0:
        return 1.0 - doubt ** (1.0 / n)
    from scipy.stats import beta

    return float(beta.ppf(1.0 - doubt, wrong + 1, n - wrong))


def images_needed(risk: float, doubt: float) -> int:
    """Return the number of answers, all of them correct, needed to show with probability 1 − ``doubt`` that at most a
    share ``risk`` is wrong."""
    return math.ceil(math.log(doubt) / math.log1p(-risk))


def plan_stopping(bundle: Bundle, risk: float, trust: float) -> Stopping:
    """Compute thresholds for a bundle from its held-out answers.

    Raises:
        ValueError: ``risk`` or ``trust`` is outside (0, 1), or the bundle has no held-out answers or too few.
    """
    for name, value in (("risk", risk), ("trust", trust)):
        check(name, value, number(above=0, below=1))
    confidence, right = held_out(bundle)
    return fit(confidence, right, risk, trust)


def held_out(bundle: Bundle) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read the confidences ``(steps, n)`` of answers to held-out images, and whether each answer is correct.

    Raises:
        ValueError: the bundle has no held-out answers, or their file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    name = bundle.manifest.held_out
    if name is None:
        raise ValueError(f"{bundle.folder} has no held-out answers of these paths, which are needed to fit thresholds")
    try:
        tensors = load_file(bundle.folder / name)
        confidence, right = tensors["confidence"], tensors["right"].astype(bool)
    except (SafetensorError, OSError, KeyError, AttributeError, TypeError, ValueError) as error:  # types numpy lacks
        raise ValueError(f"{bundle.folder / name} is damaged: {error}") from error
    if confidence.ndim != 2 or confidence.shape != right.shape or len(confidence) != len(bundle.ladder):
        raise ValueError(
            f"{bundle.folder / name}: confidences {confidence.shape} must have a row per step of the ladder"
        )
    if not (np.issubdtype(confidence.dtype, np.floating) and ((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError(f"{bundle.folder / name}: confidences must be numbers from 0 to 1")
    return confidence, right


def fit(confidence: NDArray[np.float32], right: NDArray[np.bool_], risk: float, trust: float) -> Stopping:
    """Compute thresholds from the confidences of answers ``(steps, n)``, and from whether each answer is correct.

    Raises:
        ValueError: there are fewer images than :func:`images_needed` returns. The message states the number needed.
    """
    steps, n = confidence.shape
    doubt = (1.0 - trust) / steps
    if n < (needed := images_needed(risk, doubt)):
        raise ValueError(
            f"risk {risk:g} with trust {trust:g} needs at least {needed:,} held-out answers for {steps} steps, "
            f"but there are {n:,}; allow more risk, or hold out more images"
        )
    left = np.ones(n, bool)
    thresholds, stopped, wrong = [], [], []
    for conf, ok in zip(confidence, right, strict=True):
        threshold = _lowest(conf[left], ok[left], risk, doubt)
        stops = left & (conf >= threshold)
        thresholds.append(threshold)
        stopped.append(int(stops.sum()))
        wrong.append(int((stops & ~ok).sum()))
        left &= ~stops
    return Stopping(risk, trust, tuple(thresholds), tuple(stopped), tuple(wrong), n)


def _lowest(conf: NDArray[np.float32], ok: NDArray[np.bool_], risk: float, doubt: float) -> float:
    needed, best = images_needed(risk, doubt), NEVER
    for threshold in GRID:
        chosen = conf >= threshold
        n = int(chosen.sum())
        if n < needed:  # too few for any proof; skipping is not a test, since ``n`` does not depend on errors
            continue
        if upper_bound(int((chosen & ~ok).sum()), n, doubt) > risk:
            break
        best = threshold
    return best
