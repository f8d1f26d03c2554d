"""Losses for distillation, by which a path learns the outputs of the whole network in addition to the labels (Hinton et
al. 2015)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from polypath.core.checks import check, number
from polypath.core.precision import at_least_float32


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute T² · KL(softmax(teacher / T) ‖ softmax(student / T)), averaged over a batch of logits ``(N, classes)``.

    The KL divergence is the cross-entropy with the teacher's soft labels minus the entropy of these labels. This
    entropy is a constant, so the gradient is that of the cross-entropy. No gradient reaches the teacher. The factor T²
    keeps the size of the gradient when T changes (Hinton et al. 2015, §2.1).

    Raises:
        ValueError: the temperature is not above 0.
    """
    check("temperature", temperature, number(above=0))
    learned = F.log_softmax(at_least_float32(student) / temperature, dim=1)
    taught = F.log_softmax(at_least_float32(teacher.detach()) / temperature, dim=1)
    return F.kl_div(learned, taught, reduction="batchmean", log_target=True) * temperature**2


def alpha_divergence_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    *,
    alphas: tuple[float, float] = (-1.0, 1.0),
    clip: float = 5.0,
) -> Tensor:
    """Compute T² times the larger of two α-divergences for each image (AlphaNet, Wang et al. 2021), averaged over a
    batch of logits ``(N, classes)``. The divergences are between the teacher's probabilities p and the student's q:

        D_α(p ‖ q) = Σ q · ((p / q)^α − 1) / (α · (α − 1)),      D_1 = KL(p ‖ q),      D_0 = KL(q ‖ p)

    A negative α penalises classes whose probability the student overestimates. A positive α penalises classes whose
    probability it underestimates. The weights (p / q)^α in the value and in the gradient are clipped from above, except
    for α = 1. A clipped weight is a constant in the gradient. This clipping is that of the authors' code. No gradient
    reaches the teacher.

    Args:
        alphas: the two values of α, called α− and α+.
        clip: upper limit of the weights.

    Raises:
        ValueError: the temperature or ``clip`` is not above 0.
    """
    check("temperature", temperature, number(above=0))
    check("clip", clip, number(above=0))
    log_q = F.log_softmax(at_least_float32(student) / temperature, dim=1)
    log_p = F.log_softmax(at_least_float32(teacher.detach()) / temperature, dim=1)
    (low, to_low), (high, to_high) = (_alpha_divergence(log_p, log_q, alpha, clip) for alpha in alphas)
    descended = torch.where(low > high, to_low, to_high)
    value = torch.maximum(low, high)
    return (value + descended - descended.detach()).mean() * temperature**2


def _alpha_divergence(log_p: Tensor, log_q: Tensor, alpha: float, clip: float) -> tuple[Tensor, Tensor]:
    """Return the values D_α ``(N,)`` without a graph, and a surrogate that has the gradient of D_α.

    The surrogate is −Σ q · ρ(p / q) · log q with constant q and ρ, where ρ(t) = t f'(t) − f(t) for D_α = Σ q f(p / q).
    """
    q, log_ratio = log_q.detach().exp(), log_p - log_q.detach()
    if alpha == 1.0:  # q times the ratio is p, which is finite even if the ratio is not
        terms, pull = log_p.exp() * log_ratio, log_p.exp()
    elif alpha == 0.0:
        pull = q * log_ratio.clamp(max=math.log(clip))
        terms = -pull
    else:
        weight = (alpha * log_ratio).exp().clamp(max=clip)
        terms, pull = q * (weight - 1.0) / (alpha * (alpha - 1.0)), q * weight / alpha
    return terms.sum(1), -(pull * log_q).sum(1)
