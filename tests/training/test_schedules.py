"""Learning-rate schedules against hand-written values."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from polypath.training.schedules import Schedule, ScheduleConfig, cycle_ends, drop_epochs, lr_at
from polypath.training.snapshots import snapshot_due


def curve(config: ScheduleConfig, epochs: int, *, base: float = 1.0, spe: int = 1) -> list[float]:
    return [lr_at(config, s, base_lr=base, steps_per_epoch=spe, epochs=epochs) for s in range(epochs * spe)]


def test_constant_never_moves():
    assert set(curve(ScheduleConfig(), 7, base=0.001, spe=3)) == {0.001}


def test_steps_at_epochs_drop_at_the_first_step_of_that_epoch():
    config = ScheduleConfig(kind="step", at_epochs=(2, 3))
    got = curve(config, 4, base=0.1, spe=5)
    assert got == pytest.approx([0.1] * 10 + [0.01] * 5 + [0.001] * 5)


def test_steps_at_fractions_equal_steps_at_epochs_and_move_with_the_run():
    by_epoch = ScheduleConfig(kind="step", at_epochs=(150, 225))
    by_share = ScheduleConfig(kind="step", at_fractions=(0.5, 0.75))
    assert curve(by_epoch, 300) == curve(by_share, 300)
    assert curve(by_share, 8) == pytest.approx([1] * 4 + [0.1] * 2 + [0.01] * 2)
    assert curve(by_epoch, 300) != curve(ScheduleConfig(kind="step", at_epochs=(151, 225)), 300)


def test_every_epochs_and_a_factor_of_its_own():
    assert curve(ScheduleConfig(kind="step", every_epochs=2, factors=(0.5,)), 6) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_each_drop_may_have_its_own_factor():
    config = ScheduleConfig(kind="step", at_epochs=(1, 2), factors=(0.1, 0.01))
    assert curve(config, 3) == pytest.approx([1.0, 0.1, 0.001])


def test_halving_drops_whenever_the_remaining_epochs_halve():
    config = ScheduleConfig(kind="halving")
    assert drop_epochs(config, 400) == (200, 300, 350, 375)
    got = curve(config, 400, base=0.02)
    for epoch in range(400):
        drops = min(4, math.floor(math.log2(400 / (400 - epoch)) + 1e-9))
        assert got[epoch] == pytest.approx(0.02 * 0.1**drops)
    assert curve(ScheduleConfig(kind="halving", drops=0), 400) == [1.0] * 400


def test_cosine_with_warm_up():
    config = ScheduleConfig(kind="cosine", warmup_epochs=2, final=0.1)
    got = curve(config, 12, spe=5)
    assert got[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert got[10] == 1.0
    assert got[35] == pytest.approx(0.55)
    assert got[-1] == pytest.approx(0.1, abs=0.01)
    assert all(a >= b for a, b in itertools.pairwise(got[10:]))


def test_one_cycle_rises_to_its_peak_and_comes_down():
    got = curve(ScheduleConfig(kind="one-cycle", peak=0.25, start=0.2), 10, spe=10)
    assert got[0] == pytest.approx(0.2)
    assert max(got) == got[25] == 1.0
    assert got[99] == pytest.approx(1 / 75)
    up, down = got[:26], got[25:]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)


@pytest.mark.parametrize(("peak", "start", "final"), [(0.3, 0.04, 0.0), (0.25, 0.1, 0.01)])
def test_one_cycle_is_torch_s_of_one_more_step(peak: float, start: float, final: float):
    """Torch reaches its least rate in the last step, ours would in the step after it."""
    epochs, steps, base = 4, 25, 0.7
    total = epochs * steps
    optimizer = torch.optim.SGD([torch.zeros(1, dtype=torch.float64, requires_grad=True)], lr=base)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=base,
        total_steps=total + 1,
        pct_start=(peak * total + 1) / (total + 1),
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=1 / start,
        final_div_factor=start / final if final else 1e30,
    )
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()
    config = ScheduleConfig(kind="one-cycle", peak=peak, start=start, final=final)
    assert curve(config, epochs, base=base, spe=steps) == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_cyclic_cosine_is_the_snapshot_paper_s_equation():
    epochs, members, spe = 12, 3, 4
    config = ScheduleConfig(kind="cyclic-cosine", cycles=members)
    length = math.ceil(epochs * spe / members)
    expected = [0.1 / 2 * (math.cos(math.pi * (t % length) / length) + 1) for t in range(epochs * spe)]
    assert curve(config, epochs, base=0.1, spe=spe) == pytest.approx(expected)
    assert curve(config, epochs, base=0.1, spe=spe) != pytest.approx(
        curve(dataclasses.replace(config, cycles=2), epochs, base=0.1, spe=spe)
    )


def test_snapshots_are_due_where_a_cycle_ends():
    config = ScheduleConfig(kind="cyclic-cosine", cycles=3)
    assert cycle_ends(config, 12) == (3, 7, 11)
    assert [snapshot_due(config, e, 12) for e in (2, 3, 7, 11)] == [None, 1, 2, 3]
    assert cycle_ends(config, 10) == (3, 7, 9)
    assert cycle_ends(ScheduleConfig(), 5) == (4,)


@pytest.mark.parametrize(
    ("fields", "epochs", "words"),
    [
        ({"kind": "stairs"}, 1, "cyclic-cosine"),
        ({"kind": "step"}, 1, "exactly one"),
        ({"kind": "step", "at_epochs": (1,), "every_epochs": 2}, 5, "exactly one"),
        ({"kind": "cosine", "at_epochs": (1,)}, 5, "only schedule.kind 'step'"),
        ({"kind": "step", "at_epochs": (3, 2)}, 5, "in ascending order"),
        ({"kind": "step", "at_epochs": (5,)}, 5, "not within"),
        ({"kind": "step", "at_fractions": (0.5, 1.0)}, 5, "(0, 1)"),
        ({"kind": "step", "at_epochs": (1, 2), "factors": (0.1, 0.1, 0.1)}, 5, "one for each"),
        ({"warmup_epochs": 6}, 5, "at most epochs = 5"),
        ({"kind": "one-cycle", "warmup_epochs": 1}, 5, "schedule.peak"),
        ({"kind": "cyclic-cosine", "cycles": 0}, 5, "at least 1"),
        ({"kind": "cyclic-cosine", "cycles": 6}, 5, "at most epochs = 5"),
        ({"final": -0.1}, 5, "[0, 1]"),
        ({}, 0, "above 0"),
    ],
)
def test_bad_settings_name_the_field(fields, epochs, words):
    with pytest.raises(ValueError) as caught:
        lr_at(ScheduleConfig(**fields), 0, base_lr=0.1, steps_per_epoch=1, epochs=epochs)
    assert words in str(caught.value)


def test_a_schedule_is_checked_once(monkeypatch):
    checked = []
    monkeypatch.setattr(ScheduleConfig, "check", lambda self, epochs: checked.append(epochs))
    config = ScheduleConfig(kind="cosine", warmup_epochs=1)
    schedule = Schedule(config, 0.1, 4, 5)
    rates = [schedule.at(step) for step in range(20)]
    assert checked == [5]
    assert rates == curve(config, 5, base=0.1, spe=4)


def test_negative_steps_are_refused():
    with pytest.raises(ValueError, match="step = -1"):
        lr_at(ScheduleConfig(), -1, base_lr=0.1, steps_per_epoch=1, epochs=1)
