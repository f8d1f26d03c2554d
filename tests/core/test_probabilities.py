"""Averages after softmax, and their logarithms."""

from __future__ import annotations

import pytest
import torch

from polypath.core.probabilities import average_probabilities, log_average_probabilities

MEMBERS = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_members_are_averaged_after_softmax():
    mean = MEMBERS.softmax(2).mean(0)
    torch.testing.assert_close(average_probabilities(MEMBERS), mean)
    torch.testing.assert_close(average_probabilities(iter(MEMBERS)), mean)
    torch.testing.assert_close(log_average_probabilities(MEMBERS), mean.log())
    torch.testing.assert_close(log_average_probabilities(MEMBERS.transpose(0, 1), dim=1), mean.log())
    with pytest.raises(ValueError, match="at least one"):
        average_probabilities([])


@pytest.mark.parametrize(
    ("given", "expected"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_it_is_computed_in_float32_or_in_the_logits_own_wider_type(given, expected):
    assert average_probabilities(MEMBERS.to(given)).dtype == expected
    assert log_average_probabilities(MEMBERS.to(given)).dtype == expected


def test_the_logarithm_is_finite_where_probabilities_underflow():
    logits = torch.tensor([[[200.0, -200.0]], [[200.0, -200.0]]], requires_grad=True)
    found = log_average_probabilities(logits)
    assert found.tolist() == [[0.0, -400.0]]
    found[0, 1].backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
