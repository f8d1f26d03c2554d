"""The plan of the scale ``medium``: claims, thresholds, seeds and detectable effects, frozen in a file before any run.

:func:`freeze` makes the contents of ``medium_plan.json`` beside this module. ``polypath reproduce --freeze RESULTS``
writes this file, and a test checks it. Verdicts at ``medium`` follow the plan. A claim that the plan declares
undecidable stays undecided, whatever the result; the verdict says which budget would be enough. An experiment whose
definition differs from the plan's is rejected.

The file keeps the wording of the day on which it was frozen. Claims may be reworded since; they are found by id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polypath.reproduce.claims import LEVEL, Claim
from polypath.reproduce.experiment import EXERCISED, Experiment, Scale, definition_id
from polypath.reproduce.in_print import printed_effect, printed_numbers
from polypath.reproduce.papers.crescendonet import path_wise_at_medium
from polypath.reproduce.papers.rows import SETTING
from polypath.reproduce.plan import Plan, Planned, in_order, scale_pflop
from polypath.reproduce.power import Known, known_spreads, seeds_for, seen, spread_of
from polypath.reproduce.registry import get_experiment
from polypath.reproduce.result import Result
from polypath.reproduce.store import load_result
from polypath.storage.files import read_json

SCALE = "medium"
FILE = Path(__file__).with_name("medium_plan.json")
BUDGET = 10.0
"""The largest allowed PFLOP of all experiments together."""
BEYOND: Mapping[str, Callable[[], Scale]] = {"crescendonet/table1": path_wise_at_medium}
"""Scales that exceed the budget, by experiment."""
THRESHOLDS = {"points": 1.0, "points a layer": 0.05, "nats": 0.05, "epochs": 0.5, "": 0.1, "%": 1.0, "loops": 0.5}
"""The smallest relevant effect, by unit, if the paper's number is lost."""
SMALLEST = 0.1
"""The smallest relevant effect in all other units, if the paper's number is lost."""
SUSPECTED = {"fractalnet/suspects": 2.0}
"""The smallest relevant effect in points, by experiment, instead of the one in :data:`THRESHOLDS`. A suspect is
relevant if it explains a good part of the gap of 7.65 points between the paper and public re-implementations of
FractalNet (29.05% and 36.7% error of the deepest column on CIFAR-100)."""


class Frozen:
    """The frozen plan of one experiment."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.name, self.definition, self.seeds = values["name"], values["definition"], values["seeds"]
        self.claims: dict[str, Mapping[str, Any]] = {claim["id"]: claim for claim in values["claims"]}

    @property
    def undecidable(self) -> dict[str, str]:
        """The reasons why claims cannot be decided, by claim id."""
        return {id: why(claim, self.seeds) for id, claim in self.claims.items() if not claim["decidable"]}


UNKNOWN = "no result so far shows how much this statistic varies between seeds"


def why(claim: Mapping[str, Any], seeds: int) -> str:
    """Return the reason why a claim of the plan cannot be decided by ``seeds`` seeds, in the current wording."""
    if claim["why"].startswith("exercised"):
        return f"exercised ({EXERCISED})"
    if "needs_seeds" in claim:
        effect = "the printed effect" if claim["effect_from"] == "print" else "the smallest relevant effect"
        return (
            f"{seeds} seeds can detect an effect of {claim['sees']:g}, but half of {effect} is "
            f"{rounded(abs(claim['effect']) / 2):g}; this needs {claim['needs_seeds']} seeds "
            f"({claim['needs_pflop']:g} PFLOP)"
        )
    return UNKNOWN if "effect" in claim and "spread" not in claim else claim["why"]


def frozen(name: str) -> Frozen | None:
    """Return the frozen plan of an experiment; None if the experiment has no scale ``medium``."""
    return next((Frozen(values) for values in read_json(FILE)["experiments"] if values["name"] == name), None)


def checked(experiment: Experiment, plan: Scale) -> Frozen | None:
    """Return the frozen plan of an experiment that is about to run at ``medium``.

    Raises:
        ValueError: the experiment's definition or claims differ from the frozen ones.
    """
    held = frozen(experiment.name)
    if held is None:
        return None
    sampled = {claim.id for claim in experiment.claims if not claim.exact}
    if held.definition != definition_id(experiment, SCALE, plan) or not set(held.claims) <= sampled:
        raise ValueError(
            f"{experiment.name} at {SCALE}: the definition or the claims have changed since the plan {FILE.name} was "
            "frozen; first freeze the plan again by `polypath reproduce --freeze RESULTS`"
        )
    return held


def planned() -> Plan:
    """Return the plan of ``medium`` from the frozen file, without counting PFLOP again."""
    held = read_json(FILE)["experiments"]
    found = []
    for of in held:
        place, runs = get_experiment(of["name"]).place, of["new_runs"]
        found.append(Planned(of["name"], place, of["seeds"], len(of["arms"]), runs, of["pflop"], of["new_pflop"]))
    return Plan(SCALE, tuple(found))


def load_small(folder: Path) -> list[Result]:
    """Load the results at ``small`` in a folder. The spread of statistics is computed from them.

    Raises:
        ValueError: the folder has no such results, or a result is damaged.
    """
    results = [load_result(file.parent) for file in sorted(folder.glob("*/result.json"))]
    small = [result for result in results if result.scale == "small"]
    if not small:
        raise ValueError(f"{folder} has no results at small, from which the spread of the statistics is computed")
    return small


def beyond() -> dict[str, float]:
    """Return the PFLOP of the scales in :data:`BEYOND`, by experiment."""
    return {name: scale_pflop(make()) for name, make in BEYOND.items()}


def freeze(plan: Plan, results: Sequence[Result], beyond: Mapping[str, float]) -> dict[str, Any]:
    """Return the contents of the plan's file: each experiment's claims at ``medium``, and the effects that its seeds
    can detect.

    Args:
        plan: the plan of ``medium``.
        results: the committed results at ``small``, from which the spread is computed.
        beyond: the PFLOP of scales that exceed the budget; see :func:`beyond`.
    """
    cost, known = {planned.name: planned for planned in plan.experiments}, known_spreads(results)
    experiments = []
    for name in in_order(SCALE):
        experiment, planned = get_experiment(name), cost[name]
        scale = experiment.scale(SCALE)
        keys = Keys(experiment, scale)
        asked = [claim for claim in experiment.claims if not claim.exact and asks(keys, claim)]
        experiments.append(
            {
                "name": name,
                "definition": definition_id(experiment, SCALE, scale),
                "arms": list(scale.arms),
                "seeds": scale.seeds,
                "epochs": sorted({recipe.epochs for recipe in scale.arms.values()}),
                "pflop": rounded(planned.own),
                "new_pflop": rounded(planned.pflop),
                "new_runs": planned.runs,
                "claims": [_claim(experiment, scale, keys, claim, planned.own, known) for claim in asked],
            }
        )
    decided = [claim["decidable"] for of in experiments for claim in of["claims"]]
    return {
        "scale": SCALE,
        "budget_pflop": BUDGET,
        "pflop": rounded(plan.pflop),
        "level": 1.0 - LEVEL,
        "decidable": sum(decided),
        "undecidable": len(decided) - sum(decided),
        "beyond": [_left_out(name, BEYOND[name](), pflop) for name, pflop in beyond.items()],
        "experiments": experiments,
    }


def _left_out(name: str, scale: Scale, pflop: float) -> dict[str, Any]:
    """Describe a scale that exceeds the budget, with the claims that need it."""
    experiment = get_experiment(name)
    keys = Keys(experiment, scale)
    claims = [claim.id for claim in experiment.claims if not claim.exact and asks(keys, claim)]
    epochs = sorted({recipe.epochs for recipe in scale.arms.values()})
    return {"name": name, "claims": claims, "seeds": scale.seeds, "epochs": epochs, "pflop": rounded(pflop)}


def _claim(
    experiment: Experiment, scale: Scale, keys: Keys, claim: Claim, pflop: float, known: Known
) -> dict[str, Any]:
    numbers = {k: v for k, v in printed_numbers(experiment).items() if SETTING in k or keys.owns(k)}
    printed = printed_effect(claim, numbers)
    frozen_here = SUSPECTED.get(experiment.name, THRESHOLDS.get(claim.unit, SMALLEST))
    effect = frozen_here if printed is None else printed
    spread = spread_of(experiment, claim, known)
    told: dict[str, Any] = {
        "id": claim.id,
        "text": claim.text,
        "statistic": claim.says or "difference",
        "unit": claim.unit,
        "holds": "above 0 at both lengths",
        "effect": rounded(effect),
        "effect_from": "frozen here: print is lost" if printed is None else "print",
    }
    if reason := experiment.exercised(scale):
        return told | {"decidable": False, "why": f"exercised ({reason})"}
    if spread is None:
        return told | {"decidable": False, "why": UNKNOWN}
    sees = seen(spread.deviation, scale.seeds)
    told |= {"spread": rounded(spread.deviation), "spread_from": spread.source, "sees": rounded(sees)}
    if sees <= abs(effect) / 2:
        return told | {"decidable": True}
    if not rounded(effect):
        return told | {"decidable": False, "why": "the printed effect is 0"}
    needed = seeds_for(spread.deviation, effect)
    budget = rounded(pflop / scale.seeds * needed)
    told |= {"needs_seeds": needed, "needs_pflop": budget, "decidable": False, "why": ""}
    return told | {"why": why(told, scale.seeds)}


class Keys(Mapping[str, float]):
    """The keys that a scale measures, found from the names of its arms. Every key has the value 1."""

    def __init__(self, experiment: Experiment, scale: Scale) -> None:
        self._experiment, self._scale = experiment, scale
        self._published = experiment.scale("paper").arms
        self._single = len(scale.arms) == len(self._published) == 1

    def owns(self, key: str) -> bool:
        """Return whether all arms that a key comes from are arms of the scale."""
        arms = self._scale.arms
        if self._experiment.arms_of is not None:
            try:
                return all(arm in arms for arm in self._experiment.arms_of(key))
            except (ValueError, IndexError):
                return False
        named = [arm for arm in {**arms, **self._published} if key == arm or key.startswith((f"{arm} ", f"{arm}/"))]
        return self._single or (bool(named) and max(named, key=len) in arms)

    def __getitem__(self, key: str) -> float:
        if SETTING in key or not self.owns(key):
            raise KeyError(key)
        return 1.0

    def __iter__(self) -> Iterator[str]:
        arms = list(self._scale.arms)
        areas = [f"{arm} {end}" for arm in arms for end in ("loss area", "error area")]
        yield from filter(self.owns, dict.fromkeys([*arms, *areas, *self._experiment.published]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def asks(keys: Keys, claim: Claim) -> bool:
    """Return whether a scale measures all keys that a claim's statistic reads."""
    try:
        claim.statistic(keys)
    except KeyError:
        return False
    return True


def rounded(x: float) -> float:
    """Round to three significant digits, so that the plan's file is the same on every machine."""
    return float(f"{x:.3g}")
