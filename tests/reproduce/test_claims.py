"""Verdicts on samples with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polypath.reproduce import bootstrap
from polypath.reproduce.bootstrap import Draws, Sample
from polypath.reproduce.claims import above, better, close, counted, judge, less, ordered, trend

IMAGES = 1000


def answers(errors: dict[str, float], seeds: int = 3, images: int = IMAGES, spread: float = 0.01, seed: int = 0):
    """Independent answers with these error rates; seeds differ by about ``spread``."""
    g = np.random.default_rng(seed)
    correct = {
        key: np.stack([g.random(images) > rate + g.normal(0, spread) for _ in range(seeds)])
        for key, rate in errors.items()
    }
    return Sample(correct, dict.fromkeys(errors, "test"))


def word(claim, sample, **options) -> str:
    return judge([claim], sample, draws=2000, **options)[0].word


def test_a_clear_gap_holds_and_its_reverse_does_not():
    sample = answers({"a": 0.2, "b": 0.4})
    assert word(better("a-wins", "a", "b", "a wins"), sample) == "holds"
    assert word(better("b-wins", "b", "a", "b wins"), sample) == "does not hold"
    assert word(better("a-wins-by-a-lot", "a", "b", "by a lot", by=50.0), sample) == "does not hold"


def test_no_gap_is_undecided():
    assert word(better("a-wins", "a", "b", "a wins"), answers({"a": 0.3, "b": 0.3})) == "undecided"


def test_one_seed_is_undecided_however_clear():
    verdict = judge([better("a-wins", "a", "b", "a wins")], answers({"a": 0.0, "b": 0.9}, seeds=1))[0]
    assert (verdict.word, verdict.interval) == ("undecided", None)
    assert "one seed" in verdict.reason
    assert verdict.estimate == pytest.approx(90, abs=5)


def test_seeds_that_disagree_are_undecided_however_many_images():
    wrong = {"a": [0.30, 0.20, 0.40], "b": [0.35, 0.36, 0.34]}  # a is better twice, worse once
    correct = {k: np.stack([np.arange(4000) / 4000 >= r for r in rates]) for k, rates in wrong.items()}
    sample = Sample(correct, dict.fromkeys(wrong, "test"))
    assert word(better("a-wins", "a", "b", "a wins"), sample) == "undecided"
    agreeing = {"a": [0.30, 0.31, 0.29], "b": [0.35, 0.36, 0.34]}
    correct = {k: np.stack([np.arange(4000) / 4000 >= r for r in rates]) for k, rates in agreeing.items()}
    assert word(better("a-wins", "a", "b", "a wins"), Sample(correct, dict.fromkeys(agreeing, "test"))) == "holds"


def test_three_seeds_of_scalars_are_judged_about_as_by_a_t_test():
    """The paired t-test on differences d − s, d, d + s is significant at 5% for d/s above 4.303/√3 = 2.48."""
    for ratio, expected in ((1.5, "undecided"), (4.0, "holds")):
        sample = Sample(values={"x": np.array([ratio - 1.0, ratio, ratio + 1.0])})
        assert word(above("x-above-zero", "x", 0.0, "x is above zero"), sample) == expected


def test_pairing_makes_a_small_gap_visible():
    """b is wrong on all images where a is, and on 2% more: paired, the gap is clear; unpaired, it is not."""
    g = np.random.default_rng(0)
    a = np.stack([g.random(IMAGES) > 0.5] * 3)
    b = a & (np.arange(IMAGES) % 25 != 0)
    claim = better("a-wins", "a", "b", "a wins")
    assert word(claim, Sample({"a": a, "b": b}, {"a": "test", "b": "test"})) == "holds"
    assert word(claim, Sample({"a": a, "b": b}, {"a": "test", "b": "other"})) == "undecided"


def test_holm_judges_the_clearest_by_the_widest_interval_and_stops_at_the_first_undecided():
    sample = answers({"a": 0.2, "b": 0.5, "c": 0.5, "d": 0.22}, seeds=5)
    claims = [
        better("nothing", "b", "c", "nothing"),
        better("clear", "a", "b", "clear"),
        better("little", "a", "d", "little"),
    ]
    verdicts = judge(claims, sample, draws=2000)
    assert [v.word for v in verdicts] == ["undecided", "holds", "undecided"]
    assert verdicts[1].level == pytest.approx(1 - 0.05 / 3)
    assert sorted(v.level or 0.0 for v in verdicts) == pytest.approx([0.95, 0.975, 1 - 0.05 / 3])
    alone = judge([claims[1]], sample, draws=2000)[0]
    assert alone.level == 0.95
    assert np.ptp(alone.interval or ()) < np.ptp(verdicts[1].interval or ())


def test_trends_orders_and_closeness():
    sample = answers({"1": 0.5, "2": 0.4, "3": 0.3, "4": 0.2}, images=4000)
    keys = list("1234")
    assert word(trend("falls", keys, "falls"), sample) == "holds"
    assert word(trend("rises", keys, "rises", falls=False), sample) == "does not hold"
    assert word(ordered("deeper-is-better", keys[::-1], "deeper is better"), sample) == "holds"
    assert word(ordered("no-order", ["1", "3", "2"], "no order"), sample) == "does not hold"
    same = Sample({"a": sample.correct["1"], "b": sample.correct["1"]}, {"a": "t", "b": "t"})
    assert word(close("equal", "a", "b", 1.0, "equal"), same) == "holds"
    assert word(close("equal", "1", "4", 1.0, "equal"), sample) == "does not hold"
    scalars = Sample(values={"x": np.array([1.0, 1.1, 0.9]), "y": np.array([2.0, 2.1, 1.9])})
    assert word(less("x-smaller", "x", "y", "x is smaller"), scalars) == "holds"


def test_counted_claims_are_exact_and_take_no_part_in_the_correction():
    sample = answers({"a": 0.2, "b": 0.4})
    claims = [
        counted("more-paths", "more paths", lambda c: c["n"] - 10),
        counted("fewer", "fewer", lambda c: 10 - c["n"]),
        better("a-wins", "a", "b", ""),
    ]
    verdicts = judge(claims, sample, {"n": 11})
    assert [v.word for v in verdicts] == ["holds", "does not hold", "holds"]
    assert verdicts[0].interval is None
    assert verdicts[2].level == 0.95
    assert judge(claims[:1], Sample(), {"n": 11})[0].word == "holds"


def test_what_a_scale_leaves_out_is_not_measured():
    verdict = judge([better("a-wins", "a", "z", "a wins")], answers({"a": 0.2}))[0]
    assert verdict.word == "not measured"
    assert "'z'" in verdict.reason
    undefined = Sample(values={"x": np.array([math.nan, 1.0])})
    assert word(above("x-above-zero", "x", 0.0, "x"), undefined) == "undecided"


def test_a_verdict_bears_the_id_of_its_claim():
    claims = [better("a-wins", "a", "b", "a is better"), counted("more-paths", "more paths", lambda c: c["n"] - 10)]
    found = judge(claims, answers({"a": 0.2, "b": 0.4}), {"n": 11})
    assert [v.id for v in found] == ["a-wins", "more-paths"]
    assert found[0].line().startswith("holds: a is better (")


@pytest.mark.parametrize("id", ["", "A wins", "a_wins", "-a", "a--b", "ä"])
def test_an_id_that_is_no_slug_is_refused(id):
    with pytest.raises(ValueError, match=f"claim id '{id}'"):
        better(id, "a", "b", "a wins")


def test_the_bootstrap_by_hand():
    """Two seeds, one key with scalars 1 and 3: the mean is 1, 2 or 3 with odds 1:2:1, and the deviation is stretched
    by √2 · t₁/z."""
    sample = Sample(values={"x": np.array([1.0, 3.0])})
    drawn = bootstrap.draw(sample, draws=20_000)
    odds = {v: float((drawn.both["x"] == v).mean()) for v in (1.0, 2.0, 3.0)}
    assert odds == pytest.approx({1.0: 0.25, 2.0: 0.5, 3.0: 0.25}, abs=0.01)
    stretch = math.sqrt(2) * 12.7062 / 1.95996
    assert bootstrap.stretch(2, 0.95) == pytest.approx(stretch, rel=1e-4)
    ends = bootstrap.interval(sample, drawn, lambda m: m["x"], 0.95)
    assert ends == pytest.approx((2 - stretch, 2 + stretch), rel=1e-4)


def test_images_by_hand():
    """For given draws, the interval and the p-value can be counted by hand."""
    sample = Sample({"a": np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)}, {"a": "t"})
    assert float(sample.means()["a"]) == 62.5
    both = {"a": np.array([25.0, 50.0, 50.0, 75.0])}
    draws = Draws({"a": np.full(4, 62.5)}, both)  # seeds do not differ, so nothing is stretched
    low, high = bootstrap.interval(sample, draws, lambda m: m["a"] - 40, 0.5)
    assert (low, high) == (-15.0, 10.0)
    assert bootstrap.p_value(sample, draws, lambda m: m["a"] - 40) == pytest.approx(2 * (1 + 1) / 5)


def test_drawn_images_have_the_right_mean_and_spread():
    sample = answers({"a": 0.3}, seeds=4, spread=0.0)
    drawn = bootstrap.draw(sample, draws=3000)
    assert drawn.both["a"].mean() == pytest.approx(float(sample.means()["a"]), abs=0.1)
    within = drawn.both["a"] - drawn.seeds_only["a"]
    per_image = 100.0 * ~sample.correct["a"]  # a bit more than with four seeds, since seeds drawn twice weigh more
    assert per_image.mean(0).std() <= within.std() * math.sqrt(IMAGES) <= 1.5 * per_image.mean(0).std()
    again = bootstrap.draw(sample, draws=3000)
    assert np.array_equal(again.both["a"], drawn.both["a"])
    other = bootstrap.draw(sample, draws=3000, seed=1)
    assert not np.array_equal(other.both["a"], drawn.both["a"])


# --- both lengths, the plan, networks of ImageNet -----------------------------------------------------------------

SURE = Sample(values={"a": np.array([1.0, 1.1, 0.9]), "b": np.array([5.0, 5.1, 4.9])})


def test_a_verdict_needs_the_same_sign_after_half_of_the_epochs():
    claims = [better("b-loses", "a", "b", "a wins"), counted("two", "two", lambda c: c["n"] - 1)]
    same, exact = judge(claims, SURE, {"n": 2.0}, half={"a": 2.0, "b": 3.0})
    assert (same.word, same.half) == ("holds", 1.0)
    assert (exact.word, exact.half) == ("holds", None)
    other, _ = judge(claims, SURE, {"n": 2.0}, half={"a": 3.0, "b": 2.0})
    assert (other.word, other.half) == ("depends on training length", -1.0)
    assert "-1.00 after half of the epochs" in other.line()
    unknown, _ = judge(claims, SURE, {"n": 2.0}, half={"a": 3.0})
    assert (unknown.word, unknown.half) == ("holds", None)


def test_what_the_plan_calls_undecidable_stays_so_and_takes_no_part_in_holms_rule():
    claims = [better("b-loses", "a", "b", "a wins"), better("a-loses", "b", "a", "b wins")]
    first, second = judge(claims, SURE, undecidable={"a-loses": "9 seeds would do"})
    assert (first.word, first.level) == ("holds", 0.95)
    assert (second.word, second.level, second.reason) == ("undecided", 0.95, "9 seeds would do")
    assert second.estimate == pytest.approx(-4.0)


def test_networks_of_imagenet_on_other_images_are_only_exercised():
    claims = [better("b-loses", "a", "b", "a wins"), counted("two", "two", lambda c: c["n"] - 1)]
    sampled, exact = judge(claims, SURE, {"n": 2.0}, half={"a": 3.0, "b": 2.0}, exercised="of ImageNet")
    assert (sampled.word, sampled.half) == ("exercised", -1.0)
    assert exact.word == "holds"
