"""The claims of a paper as checkable statements, and the verdicts on them.

A claim has a *statistic*: a function of mean errors (percent) and mean scalars by key. The claim is that this statistic
*is above zero*. :func:`better` states an order (by at least a gap), :func:`close` a small gap, :func:`trend` a slope,
and :class:`Claim` itself any other relation. :func:`counted` is about exact numbers.

The verdict is *holds* if the interval (:mod:`polypath.reproduce.bootstrap`) is above zero, *does not hold* if it is
below, else *undecided*. With fewer than two seeds it is always *undecided*. All claims of an experiment are judged
together, by Holm's step-down rule at a level of 5%. The clearest of k claims is judged by an interval of level 1 −
0.05/k, the next by 1 − 0.05/(k−1), and so on. Once a claim is undecided, all later claims are undecided, too. Two kinds
of claims do not take part in Holm's rule: counted claims, which are exact, and claims that the plan declared
undecidable before the runs (:mod:`polypath.reproduce.frozen`).

If arms were also trained for half of the epochs, a claim is decided only if the statistic has the same sign after half
of the epochs. Otherwise the verdict is *depends on training length*. Claims about an ImageNet network that ran on other
images are *exercised*: this shows that the mechanisms run, but decides nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from polypath.reproduce.bootstrap import DRAWS, Sample, Statistic, draw, interval, p_value

Word = Literal["holds", "does not hold", "depends on training length", "undecided", "exercised", "not measured"]
LEVEL = 0.05


@dataclass(frozen=True)
class Claim:
    """A claim of a paper. It is true if ``statistic`` is above zero.

    Attributes:
        id: a few words joined by ``-`` (``drop-path-helps``), unique in its experiment. Verdicts are found by id, so it
            stays the same when ``text`` is reworded. A claim with another meaning gets another id.
        text: a sentence, in the paper's words if possible.
        statistic: a function from means by key to a value. It works on single means and on arrays of draws.
        unit: the unit of the statistic, for display; "points" are percentage points of error.
        says: a description of the statistic, as a noun phrase.
        exact: whether the statistic is of exact numbers, which need no seeds and no interval.
        contradicted: the paper's own printed numbers that contradict the claim (see
            :mod:`polypath.reproduce.in_print`); empty if none do.

    Raises:
        ValueError: the id does not have this form.
    """

    id: str
    text: str
    statistic: Statistic
    unit: str = "points"
    says: str = ""
    exact: bool = False
    contradicted: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9+]+(-[a-z0-9+]+)*", self.id):
            raise ValueError(f"claim id {self.id!r}: must be words of the characters a-z, 0-9 and +, joined by '-'")

    @property
    def told(self) -> str:
        """The claim, with the printed numbers that contradict it, if any."""
        return self.text + (
            f" [the paper's own numbers contradict it: {self.contradicted}]" if self.contradicted else ""
        )


@dataclass(frozen=True)
class Verdict:
    """The judgement of a claim.

    Attributes:
        id: the claim's id; empty in results that were written before claims had ids.
        text, unit, says: the claim's fields, as they were worded at that time.
        word: the verdict in a word, such as ``holds``.
        estimate: the statistic of all seeds and images; None if not measured.
        interval: the interval's ends at ``level`` (1 − 0.05/k of Holm's rule); None for counted claims and single
            seeds.
        p: two-sided p-value of the bootstrap, before Holm's correction.
        reason: why the claim is undecided or not measured, unless this is obvious.
        half: the estimate after half of the epochs, if measured.
    """

    id: str
    text: str
    word: Word
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    level: float | None = None
    p: float | None = None
    seeds: int = 0
    unit: str = "points"
    says: str = ""
    reason: str = ""
    half: float | None = None

    def line(self) -> str:
        """Return the verdict as one line of text."""
        parts = [f"{self.word}: {self.text}"]
        if self.estimate is not None:
            told = f"{self.says or 'difference'}: {_number(self.estimate)} {self.unit}".strip()
            if self.interval is not None and self.level is not None:
                low, high = self.interval
                told += f", interval {_number(low)} to {_number(high)} at {100 * self.level:.3g}%"
            parts.append(f"({told}{'; ' + self.reason if self.reason else ''})")
        elif self.reason:
            parts.append(f"({self.reason})")
        return " ".join(parts)


def better(id: str, winner: str, loser: str, text: str, *, by: float = 0.0) -> Claim:
    """Claim that ``winner``'s error is below ``loser``'s by more than ``by`` points. If ``by`` is negative,
    ``winner``'s error may be higher by up to ``-by`` points."""
    says = f"error of `{loser}` minus error of `{winner}`{beyond(by)}"
    return Claim(id, text, lambda m: m[loser] - m[winner] - by, says=says)


def close(id: str, one: str, other: str, within: float, text: str) -> Claim:
    """Claim that the errors of ``one`` and ``other`` differ by less than ``within`` points."""
    says = f"{within:g} minus the absolute difference between the errors of `{one}` and `{other}`"
    return Claim(id, text, lambda m: within - abs(m[one] - m[other]), says=says)


def above(id: str, key: str, than: float, text: str, unit: str = "points", *, says: str = "") -> Claim:
    """Claim that an error or scalar is above a number."""
    return Claim(id, text, lambda m: m[key] - than, unit, says or f"`{key}` minus {than:g}")


def less(id: str, smaller: str, larger: str, text: str, unit: str = "", *, says: str = "") -> Claim:
    """Claim that a scalar is smaller than another."""
    return Claim(id, text, lambda m: m[larger] - m[smaller], unit, says or f"`{larger}` minus `{smaller}`")


def beyond(by: float) -> str:
    """Return the end of a description, for a statistic from which ``by`` is subtracted."""
    return f", {'minus' if by > 0 else 'plus'} {abs(by):g}" if by else ""


def trend(
    id: str,
    keys: Sequence[str],
    text: str,
    *,
    at: Sequence[float] | None = None,
    falls: bool = True,
    along: str = "",
) -> Claim:
    """Claim that errors fall (or rise) along ``keys``, judged by the least-squares slope over the positions ``at``
    (default: 1, 2, 3, …). ``along`` describes the positions."""
    x = np.asarray(at if at is not None else range(1, len(keys) + 1), dtype=float)
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum() * (-1.0 if falls else 1.0)
    along = along or f"along the list {', '.join(f'`{key}`' for key in keys)}"
    says = f"{'negated ' if falls else ''}least-squares slope of the error {along}"
    return Claim(
        id, text, lambda m: sum((w * m[k] for w, k in zip(weights, keys, strict=True)), np.zeros(())), says=says
    )


def ordered(id: str, keys: Sequence[str], text: str) -> Claim:
    """Claim that each key has a lower error than the next. The statistic is the smallest difference between
    neighbours."""
    steps = list(itertools.pairwise(keys))
    says = f"smallest increase of the error from one entry to the next in the list {', '.join(f'`{k}`' for k in keys)}"
    return Claim(id, text, lambda m: np.min([m[b] - m[a] for a, b in steps], axis=0), says=says)


def counted(
    id: str, text: str, statistic: Callable[[Mapping[str, Any]], float], unit: str = "", says: str = ""
) -> Claim:
    """Claim that ``statistic`` of exact numbers (``counts``) is above zero."""
    return Claim(id, text, statistic, unit, says, exact=True)


def contradicted(claim: Claim, by: str) -> Claim:
    """Return the claim, marked as contradicted by the paper's own numbers, which ``by`` quotes."""
    return replace(claim, contradicted=by)


def judge(
    claims: Sequence[Claim],
    sample: Sample,
    counts: Mapping[str, float] | None = None,
    *,
    half: Mapping[str, float] | None = None,
    undecidable: Mapping[str, str] | None = None,
    exercised: str = "",
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Verdict]:
    """Return the verdicts on an experiment's claims, in the order of the claims.

    Args:
        half: means by key after half of the epochs.
        undecidable: the reason why the plan declared a claim undecidable, by claim id.
        exercised: the reason why sampled claims are only exercised; empty if they are judged.
    """
    undecidable = undecidable or {}
    verdicts: dict[int, Verdict] = {}
    open_claims: list[tuple[float, float, int]] = []
    means, drawn = sample.means(), None
    for i, claim in enumerate(claims):
        blank = Verdict(claim.id, claim.told, "undecided", unit=claim.unit, says=claim.says)
        try:
            estimate = float(claim.statistic(counts or {} if claim.exact else means))
        except KeyError as missing:
            reason = f"{missing.args[0]!r} is not measured at this scale"
            verdicts[i] = replace(blank, word="not measured", reason=reason)
            continue
        verdicts[i] = replace(blank, estimate=estimate, seeds=0 if claim.exact else sample.seeds)
        if claim.exact:
            verdicts[i] = replace(verdicts[i], word="holds" if estimate > 0 else "does not hold")
        elif not np.isfinite(estimate):
            verdicts[i] = replace(verdicts[i], estimate=None, reason="the statistic is not finite")
        elif sample.seeds < 2:
            verdicts[i] = replace(verdicts[i], reason="one seed does not show how seeds differ")
        else:
            drawn = drawn or draw(sample, draws, seed)
            low, high = interval(sample, drawn, claim.statistic, 1.0 - LEVEL)
            if why := exercised or undecidable.get(claim.id, ""):
                told: Word = "exercised" if exercised else "undecided"
                p, ends = p_value(sample, drawn, claim.statistic), (low, high)
                verdicts[i] = replace(verdicts[i], word=told, interval=ends, level=1.0 - LEVEL, p=p, reason=why)
                continue
            clear = abs(estimate) / max(high - low, 1e-12)  # sorts claims with equal p-values
            open_claims.append((p_value(sample, drawn, claim.statistic), -clear, i))
    stopped = False
    for rank, (p, _, i) in enumerate(sorted(open_claims)):
        assert drawn is not None
        level = 1.0 - LEVEL / (len(open_claims) - rank)
        low, high = interval(sample, drawn, claims[i].statistic, level)
        word: Word = "undecided" if low <= 0 <= high else "holds" if low > 0 else "does not hold"
        reason = "clearer claims of this table are undecided already" if stopped and word != "undecided" else ""
        word = "undecided" if stopped else word
        stopped = stopped or word == "undecided"
        verdicts[i] = replace(verdicts[i], word=word, interval=(low, high), level=level, p=p, reason=reason)
    if half is not None:
        verdicts |= {i: _at_both(verdict, claims[i], half) for i, verdict in verdicts.items()}
    return [verdicts[i] for i in range(len(claims))]


def _at_both(verdict: Verdict, claim: Claim, half: Mapping[str, float]) -> Verdict:
    """Return the verdict with the estimate after half of the epochs. If the two estimates differ in sign, a decided
    verdict becomes *depends on training length*."""
    estimate = verdict.estimate
    if claim.exact or estimate is None:
        return verdict
    try:
        earlier = float(claim.statistic(half))
    except KeyError:
        return verdict
    verdict = replace(verdict, half=earlier)
    if verdict.word not in ("holds", "does not hold") or earlier * estimate > 0:
        return verdict
    reason = f"{_number(earlier)} after half of the epochs"
    return replace(verdict, word="depends on training length", reason=reason)


def _number(x: float) -> str:
    return f"{x:.2f}" if abs(x) < 1000 else f"{x:,.0f}"
