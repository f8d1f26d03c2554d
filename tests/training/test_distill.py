"""Distillation losses against their formulas, in float64: values, gradients, clipping."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polypath.training.distill import alpha_divergence_loss, distillation_loss

HUGE = 1e30


def logits(seed: int, n: int = 6) -> Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)).double() * 2


def value_and_gradient(loss: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    (gradient,) = torch.autograd.grad(loss, at)
    return loss.detach(), gradient


def divergence(p: Tensor, q: Tensor, alpha: float) -> Tensor:
    """D_α(p ‖ q) of each image, as the papers write it."""
    if alpha == 1.0:
        return (p * (p / q).log()).sum(1)
    if alpha == 0.0:
        return (q * (q / p).log()).sum(1)
    return (q * ((p / q) ** alpha - 1.0)).sum(1) / (alpha * (alpha - 1.0))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("alphas", [(-1.0, -1.0), (0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (-1.0, 1.0)])
def test_unclipped_it_is_the_larger_divergence_and_its_gradient(
    alphas: tuple[float, float], temperature: float
) -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    p, q = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
    each = torch.stack([divergence(p, q, alpha) for alpha in alphas])
    hand = value_and_gradient(each.amax(0).mean() * temperature**2, student)
    ours = value_and_gradient(alpha_divergence_loss(student, teacher, temperature, alphas=alphas, clip=HUGE), student)
    torch.testing.assert_close(ours, hand)
    if alphas[0] != alphas[1]:
        assert len(set(each.argmax(0).tolist())) == 2  # some images follow the one, some the other


def test_alpha_1_is_the_kl_of_distillation_whatever_the_clip() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    hand = value_and_gradient(distillation_loss(student, teacher, 2.0), student)
    ours = value_and_gradient(alpha_divergence_loss(student, teacher, 2.0, alphas=(1.0, 1.0), clip=0.1), student)
    torch.testing.assert_close(ours, hand)


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 2.0])
def test_clipped_weights_are_constants(alpha: float) -> None:
    """Descended is −Σ q · ρ · log q with q and the clipped ρ held."""
    student, teacher, clip = logits(0).requires_grad_(), logits(1), 1.5
    q, log_q = student.softmax(1).detach(), student.log_softmax(1)
    ratio = teacher.softmax(1) / q
    assert (ratio**alpha > clip).any() if alpha else (ratio > clip).any()
    if alpha == 0.0:
        rho, f = ratio.clamp(max=clip).log(), -ratio.clamp(max=clip).log()
    else:
        rho = (ratio**alpha).clamp(max=clip) / alpha
        f = ((ratio**alpha).clamp(max=clip) - 1.0) / (alpha * (alpha - 1.0))
    (hand,) = torch.autograd.grad(-(q * rho * log_q).sum(1).mean(), student)
    value, ours = value_and_gradient(alpha_divergence_loss(student, teacher, alphas=(alpha, alpha), clip=clip), student)
    torch.testing.assert_close(ours, hand)
    torch.testing.assert_close(value, (q * f).sum(1).mean())
    open_, _ = value_and_gradient(alpha_divergence_loss(student, teacher, alphas=(alpha, alpha), clip=HUGE), student)
    assert float(value) != pytest.approx(float(open_))


def test_soft_labels_of_cross_entropy_have_the_gradient_of_kl() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    soft = torch.nn.functional.cross_entropy(student, teacher.softmax(1))
    _, of_soft = value_and_gradient(soft, student)
    _, of_kl = value_and_gradient(distillation_loss(student, teacher), student)
    torch.testing.assert_close(of_kl, of_soft)


@pytest.mark.parametrize("loss", [distillation_loss, alpha_divergence_loss])
def test_no_gradient_reaches_the_teacher(loss) -> None:
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    loss(1e4 * student, -1e4 * teacher).backward()  # sure of other classes: probabilities are 0
    assert student.grad.isfinite().all()
    with pytest.raises(ValueError, match="temperature = 0"):
        loss(student, teacher, 0)


def test_equal_answers_are_no_loss() -> None:
    assert float(alpha_divergence_loss(logits(0), logits(0))) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="clip = 0"):
        alpha_divergence_loss(logits(0), logits(1), clip=0)
