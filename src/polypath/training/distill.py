"""Distillation: a path learns the answers of the whole network beside the labels (Hinton et al. 2015)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from polypath.core.checks import check, number
from polypath.core.precision import at_least_float32


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), the mean over a batch of logits ``(N, classes)``.

    No gradient reaches the teacher. T² keeps the gradient's size when T changes (Hinton et al. 2015, §2.1).

    Raises:
        ValueError: a temperature that is not above 0.
    """
    check("temperature", temperature, number(above=0))
    learned = F.log_softmax(at_least_float32(student) / temperature, dim=1)
    taught = F.log_softmax(at_least_float32(teacher.detach()) / temperature, dim=1)
    return F.kl_div(learned, taught, reduction="batchmean", log_target=True) * temperature**2
