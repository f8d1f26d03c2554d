"""The calibration error of logits, and the temperature that calibrates them (Guo et al. 2017).

The expected calibration error (Eq. 3) is computed by torchmetrics, with bins of equal width over the top probability.
The logits are divided by a temperature T (§4.2). This changes no prediction.
"""

from __future__ import annotations

from torch import Tensor

from polypath.core.checks import check, whole

BINS = 15


def calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error of logits ``(images, classes)``, in percent.

    Raises:
        ValueError: ``bins`` is below 1.
    """
    from torchmetrics.functional.classification import multiclass_calibration_error

    check("bins", bins, whole(1))
    probabilities = logits.detach().cpu().double().softmax(1)
    found = multiclass_calibration_error(
        probabilities, labels.cpu(), num_classes=logits.shape[1], n_bins=bins, norm="l1", validate_args=False
    )
    return 100.0 * float(found)


def fit_temperature(logits: Tensor, labels: Tensor, least: float = 0.01, most: float = 100.0) -> float:
    """Find the T in [``least``, ``most``] with the smallest cross-entropy of ``logits / T`` ``(images, classes)``.

    The cross-entropy is convex in 1/T. So T is found by bisection over log T, using the sign of the derivative.
    """
    z, labels = logits.detach().cpu().double(), labels.cpu()
    truth = z.gather(1, labels[:, None]).squeeze(1)

    def too_sharp(t: float) -> bool:  # the derivative with respect to 1/T is above 0, so T must grow
        return float(((z / t).softmax(1) * z).sum(1).mean() - truth.mean()) > 0.0

    low, high = least, most
    if too_sharp(high):
        return high
    if not too_sharp(low):
        return low
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if too_sharp(middle) else (low, middle)
    return (low * high) ** 0.5
