"""What an experiment is: a table or figure of a paper as networks to train, things to measure, and claims to check.

A definition reads like its paper's table::

    Experiment(
        name="crescendonet/table2",
        place="Table II",
        shows="what sub-networks err that keep only some branches of every block",
        scales={"smoke": lambda: Scale(...), "small": lambda: Scale(...), "paper": lambda: Scale(...)},
        measure=per_arm(named_paths),
        published={"whole": Cell("table2", "C10+", branches=[1, 2, 3, 4]), ...},
        claims=(better("ensemble-beats-longest", "whole", "branches=4", "the ensemble beats its longest branch"), ...),
    )

An *arm* is one thing that is trained, a recipe by a name; every arm is trained once for each seed. What is measured has
*keys*: an arm's name, or ``ARM/WHAT`` for one of several things of an arm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from polypath.core.later import leave_out_later
from polypath.reproduce.claims import Claim
from polypath.reproduce.measured import Measured
from polypath.reproduce.result import Result
from polypath.reproduce.trained import Trained
from polypath.storage.digests import json_digest
from polypath.training.recipe import Recipe, recipe_to_json
from polypath.training.recipe import replace as changed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCALES = ("smoke", "small", "medium", "paper")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An experiment at one scale.

    Args:
        arms: what is trained, by name; may be empty where nothing is.
        seeds: how many seeds a run of it takes unless told otherwise.
        changes: what differs from the paper's setting, a sentence each; printed above the result.
        both_lengths: train every arm for half of its epochs as well. A verdict then needs the same sign at both.
    """

    arms: Mapping[str, Recipe] = field(default_factory=dict)
    seeds: int = 3
    changes: tuple[str, ...] = ()
    both_lengths: bool = False


def halved(recipe: Recipe) -> Recipe:
    """The recipe for half of the epochs, its schedule over those.

    Raises:
        ValueError: one epoch.
    """
    return changed(recipe, {"epochs": recipe.epochs // 2})


Measure = Callable[[Mapping[str, Trained]], Measured]
"""From one seed's trained arms, by name, to what they came to."""


class Cell:
    """A printed number: paper (the experiment's own unless given), table, column, and what its row says.

    ``complement`` reads an accuracy as an error: 100 minus the printed number; ``times`` brings it to the unit that is
    measured in (GFLOPs, 1000, to millions); ``part`` is which one of several numbers in one cell.
    """

    def __init__(
        self,
        table: str,
        column: str,
        paper: str | None = None,
        *,
        complement: bool = False,
        times: float = 1.0,
        part: int | None = None,
        **row: Any,
    ) -> None:
        self.table, self.column, self.paper, self.row = table, column, paper, row
        self.complement, self.times, self.part = complement, times, part


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or figure of a paper, runnable.

    Args:
        name: ``PAPER/TABLE``.
        place: where in the paper it stands.
        shows: what it shows, half a sentence.
        scales: of :data:`SCALES`, each as a function, since building some takes a while.
        measure: see :data:`Measure`; :mod:`polypath.reproduce.measure` has the usual ones.
        counts: exact numbers that need no training (parameters, paths), by key, for a scale.
        units: unit of keys in ``values`` and ``counts``, by the end of the key (``{"loss": "nats"}``).
        published: printed number of a key. Keys that were not measured at a scale are left out.
        claims: what the paper says, checkable.
        figure: draws the result in the paper's form; None draws the errors as bars.
        answer: sentences that the verdicts add up to, for the page of results.
        notes: what a reader has to know of the definition itself.
        imagenet: the paper ran it on ImageNet; on other images its sampled claims are *exercised*, never decided.
        arms_of: names of the arms of ``paper`` that a key comes from, where its name does not begin with its arm's.

    Raises:
        ValueError: two claims of one id.
    """

    name: str
    place: str
    shows: str
    scales: Mapping[str, Callable[[], Scale]]
    measure: Measure | None = None
    counts: Callable[[str], Mapping[str, float]] | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, Cell] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    figure: Callable[[Result], Figure] | None = None
    answer: Callable[[Result], str] | None = None
    notes: tuple[str, ...] = ()
    imagenet: bool = False
    arms_of: Callable[[str], Sequence[str]] | None = None

    def __post_init__(self) -> None:
        twice = [id for id, n in Counter(claim.id for claim in self.claims).items() if n > 1]
        if twice:
            raise ValueError(f"{self.name}: several claims have the id {twice[0]!r}; each needs one of its own")

    @property
    def paper(self) -> str:
        return self.name.partition("/")[0]

    def exercised(self, plan: Scale) -> str:
        """Why a scale's sampled claims are only exercised; empty where they may be decided."""
        others = self.imagenet and any(recipe.data.source != "imagenet" for recipe in plan.arms.values())
        return "a network of ImageNet's on other images" if others else ""

    def scale(self, name: str) -> Scale:
        """The experiment at a scale.

        Raises:
            ValueError: a scale that it does not have.
        """
        if name not in self.scales:
            raise ValueError(f"--scale {name!r}: {self.name} has {', '.join(s for s in SCALES if s in self.scales)}")
        return self.scales[name]()


def definition_id(experiment: Experiment, scale: str, plan: Scale) -> str:
    """A digest of what is measured at a scale: the arms' recipes, without seed, device and source of images. Words are
    not in it, so that a result outlives a claim or a note that is worded otherwise; nor are fields that recipes got
    later, while they change nothing."""
    arms: dict[str, Any] = {}
    for arm, recipe in plan.arms.items():
        values = recipe_to_json(recipe)
        leave_out_later(recipe, values)
        values = {k: v for k, v in values.items() if k not in ("name", "seed", "device", "assumed")}
        arms[arm] = values | {"data": {k: v for k, v in values["data"].items() if k != "source"}}
    return json_digest([experiment.name, scale, arms])[:12]
