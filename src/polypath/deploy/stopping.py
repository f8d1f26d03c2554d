"""Stopping at answers that are confident enough, with a bound on the risk.

The held-out images have three disjoint parts: one to choose paths, one to fit temperatures, and one to fit the
thresholds here, which is stored in the bundle as answers.

At each step of the ladder, the remaining images whose confidence reaches the step's threshold stop. The threshold is
the lowest one at which the share of wrong answers among them is at most ``risk``, by the exact binomial bound of
Clopper and Pearson (1934). Thresholds are tried from the strictest down, and the first that fails ends the search
(fixed-sequence testing, Angelopoulos et al. 2021, "Learn then Test"). So trying many does not weaken the guarantee.
Each of the K steps may fail with probability (1 − trust)/K. At a threshold above 1 no image stops.
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
    """Thresholds of confidence, one for each step of the ladder.

    Attributes:
        risk, trust: the bound that the thresholds keep, as in ``predict_confident``.
        thresholds: an image stops at a step when its confidence is at least this; above 1, none does.
        stopped, wrong: how many of the held-out images stop at each step, and how many of these are wrong.
        images: held-out images in all.
    """

    risk: float
    trust: float
    thresholds: tuple[float, ...]
    stopped: tuple[int, ...]
    wrong: tuple[int, ...]
    images: int


def upper_bound(wrong: int, n: int, doubt: float) -> float:
    """Clopper–Pearson: an upper bound of the share of wrong answers, which holds with probability 1 − ``doubt``.

    Raises:
        ValueError: impossible counts, a doubt outside (0, 1).
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
    """The fewest answers, all of them right, that prove a share of wrong answers of at most ``risk``."""
    return math.ceil(math.log(doubt) / math.log1p(-risk))


def plan_stopping(bundle: Bundle, risk: float, trust: float) -> Stopping:
    """Thresholds for a bundle from its held-out answers.

    Raises:
        ValueError: a risk or trust outside (0, 1), a bundle without held-out answers, too few of them.
    """
    for name, value in (("risk", risk), ("trust", trust)):
        check(name, value, number(above=0, below=1))
    confidence, right = held_out(bundle)
    return fit(confidence, right, risk, trust)


def held_out(bundle: Bundle) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Confidences ``(steps, n)`` of held-out images and whether the answers were right.

    Raises:
        ValueError: the bundle has none, or a damaged file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    name = bundle.manifest.held_out
    if name is None:
        raise ValueError(f"{bundle.folder}: has no held-out answers of these paths to fit thresholds on")
    try:
        tensors = load_file(bundle.folder / name)
        confidence, right = tensors["confidence"], tensors["right"].astype(bool)
    except (SafetensorError, OSError, KeyError, AttributeError, TypeError, ValueError) as error:  # types numpy lacks
        raise ValueError(f"{bundle.folder / name}: damaged ({error})") from error
    if confidence.ndim != 2 or confidence.shape != right.shape or len(confidence) != len(bundle.ladder):
        raise ValueError(f"{bundle.folder / name}: shape {confidence.shape} is not a row for each step of the ladder")
    if not (np.issubdtype(confidence.dtype, np.floating) and ((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError(f"{bundle.folder / name}: confidences must be numbers from 0 to 1")
    return confidence, right


def fit(confidence: NDArray[np.float32], right: NDArray[np.bool_], risk: float, trust: float) -> Stopping:
    """Thresholds from confidences ``(steps, n)`` and whether these answers were right.

    Raises:
        ValueError: fewer images than :func:`images_needed`; the message says how many.
    """
    steps, n = confidence.shape
    doubt = (1.0 - trust) / steps
    if n < (needed := images_needed(risk, doubt)):
        raise ValueError(
            f"risk {risk:g} with trust {trust:g}: needs at least {needed:,} held-out answers over {steps} steps, "
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
        if n < needed:  # too few for any proof, so this is no test: their number says nothing about errors
            continue
        if upper_bound(int((chosen & ~ok).sum()), n, doubt) > risk:
            break
        best = threshold
    return best
