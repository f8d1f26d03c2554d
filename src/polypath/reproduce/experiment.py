"""An experiment: a table or figure of a paper, as networks to train, measurements, and claims to check.

A definition resembles the table in the paper::

    Experiment(
        name="crescendonet/table2",
        place="Table II",
        shows="the errors of sub-networks that keep only some branches of every block",
        scales={"smoke": lambda: Scale(...), "small": lambda: Scale(...), "paper": lambda: Scale(...)},
        measure=per_arm(named_paths),
        published={"whole": Cell("table2", "C10+", branches=[1, 2, 3, 4]), ...},
        claims=(better("ensemble-beats-longest", "whole", "branches=4", "the ensemble beats its longest branch"), ...),
    )

An *arm* is a named recipe. Every arm is trained once for each seed. Each measurement has a *key*: the arm's name, or
``ARM/WHAT`` for one of several measurements of an arm.
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
EXERCISED = "an ImageNet network on other images"
"""The reason why the sampled claims of an experiment are only exercised."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An experiment at one scale.

    Args:
        arms: the recipes to train, by name; may be empty.
        seeds: the default number of seeds.
        changes: differences from the paper's setting, one phrase each; they are printed above the result.
        both_lengths: whether every arm is also trained for half of its epochs. A claim is then decided only if the
            statistic has the same sign at both lengths.
    """

    arms: Mapping[str, Recipe] = field(default_factory=dict)
    seeds: int = 3
    changes: tuple[str, ...] = ()
    both_lengths: bool = False


def halved(recipe: Recipe) -> Recipe:
    """Return the recipe with half of the epochs, and with its schedule shortened to these epochs.

    Raises:
        ValueError: the recipe has one epoch.
    """
    return changed(recipe, {"epochs": recipe.epochs // 2})


Measure = Callable[[Mapping[str, Trained]], Measured]
"""A function from one seed's trained arms, by name, to their measurements."""


class Cell:
    """The place of a printed number: paper (default: the experiment's), table, column, and the values that identify the
    row.

    ``complement`` converts an accuracy to an error: 100 minus the printed number. ``times`` converts the number to our
    unit (1000: GFLOPs to millions). ``part`` selects one of several numbers in a cell.
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
    """A table or figure of a paper, in a form that can be run.

    Args:
        name: ``PAPER/TABLE``.
        place: its place in the paper, such as ``Table II``.
        shows: the content of the table or figure, as a phrase that follows the word "Shows".
        scales: functions that return the experiment's scales, by name (:data:`SCALES`). They are functions because some
            scales take a while to build.
        measure: a function that measures the trained arms; see :data:`Measure`. :mod:`polypath.reproduce.measure` has
            the usual ones.
        counts: a function from a scale's name to exact numbers that need no training (parameters, paths), by key.
        units: the units of keys in ``values`` and ``counts``, by the end of the key (``{"loss": "nats"}``).
        published: the printed numbers by key. A result contains only those whose keys were measured.
        claims: the paper's statements, in checkable form.
        figure: a function that draws the result in the paper's form; None draws the errors as bars.
        answer: a function that summarises the verdicts, for the page of results.
        notes: caveats about the definition.
        imagenet: whether the paper used ImageNet. On other images, sampled claims are *exercised*, never decided.
        arms_of: a function from a key to the names of the ``paper`` arms that it comes from; needed if keys do not
            begin with an arm's name.

    Raises:
        ValueError: two claims have the same id.
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
            raise ValueError(f"{self.name}: several claims have the id {twice[0]!r}; ids must be unique")

    @property
    def paper(self) -> str:
        return self.name.partition("/")[0]

    def exercised(self, plan: Scale) -> str:
        """Return the reason why the sampled claims of a scale are only exercised; empty if they may be decided."""
        others = self.imagenet and any(recipe.data.source != "imagenet" for recipe in plan.arms.values())
        return EXERCISED if others else ""

    def scale(self, name: str) -> Scale:
        """Return the experiment at a scale.

        Raises:
            ValueError: the experiment does not have this scale.
        """
        if name not in self.scales:
            raise ValueError(
                f"--scale {name!r}: {self.name} has only the scales {', '.join(s for s in SCALES if s in self.scales)}"
            )
        return self.scales[name]()


def definition_id(experiment: Experiment, scale: str, plan: Scale) -> str:
    """Return a digest of the definition of a scale: the arms' recipes, without seed, device and source of images. Texts
    are excluded, so a result stays valid when a claim or note is reworded. Recipe fields that were added later are
    excluded if their values change nothing."""
    arms: dict[str, Any] = {}
    for arm, recipe in plan.arms.items():
        values = recipe_to_json(recipe)
        leave_out_later(recipe, values)
        values = {k: v for k, v in values.items() if k not in ("name", "seed", "device", "assumed")}
        arms[arm] = values | {"data": {k: v for k, v in values["data"].items() if k != "source"}}
    return json_digest([experiment.name, scale, arms])[:12]
