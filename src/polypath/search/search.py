"""Searches for the best paths of a finished run, among all choices of its network in which no gate decides.

Half of the held-out images are used to choose the front of error and time. On the other half, the front is compared
with the named paths and with the front of as many random choices. If there are few enough choices, all are evaluated
together (:mod:`.many`). Otherwise a beam search evaluates some of them (:mod:`.methods`). Intermediate results are kept
until the search is complete, so that an interrupted search can be resumed. The same arguments give the same paths.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from polypath.analysis.finished_run import FinishedRun
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.checks import check, number, one_of, whole
from polypath.core.choices import ChoiceSpace
from polypath.core.display import short_count, short_macs
from polypath.core.paths import Paths
from polypath.core.recalibrate import shared_statistics
from polypath.core.values import from_the_input
from polypath.data.batches import Part
from polypath.deploy.heldout import FEWEST
from polypath.profiling.cost import PathMacs
from polypath.search.front import box_of, front, gain, volume
from polypath.search.latency import LatencyModel, Times, Work, fitted, timed
from polypath.search.many import ManyPaths
from polypath.search.methods import beam, drawn
from polypath.search.parts import Parts
from polypath.search.result import NAME, Gain, Method, Regret, SearchResult, SearchRow, load_search, weights_digest
from polypath.training.flop import PETA
from polypath.training.run import environment, revision
from polypath.worth.deployed import runtime_name

Asked = Literal["auto", "exhaustive", "beam"]
Statistics = Literal["recalibrated", "own"]
TIMED = 40  # number of paths to time, to fit and test the model of times
FLOP_OF_MAC = 2
_DO = {"search": "choose", "confirm": "confirm", "test": "test"}
LOG = logging.getLogger(__name__)


def halves(n: int, seed: int) -> dict[str, torch.Tensor]:
    """Split ``n`` held-out images at random. Return the indices of the two halves, ``search`` and ``confirm``."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return {"search": order[: n // 2].sort().values, "confirm": order[n // 2 :].sort().values}


def search(
    run: FinishedRun,
    *,
    method: Asked = "auto",
    size: int = 5000,
    width: int = 8,
    keep: int = 12,
    seed: int = 0,
    statistics: Statistics = "recalibrated",
    num_images: int = 2000,
    runtime: str | None = "auto",
    timed_paths: int = TIMED,
    pflop: float = 0.3,
    regret: bool = False,
    test: bool = False,
) -> SearchResult:
    """Search for the best paths of a run's network, and write the result as ``search.json`` into the run's folder.

    Args:
        method: ``exhaustive``, ``beam`` or ``auto``. With ``auto``, all choices are evaluated if there are at most
            ``size`` and their evaluation costs at most ``pflop``. Otherwise a beam search is used.
        size: the largest number of choices to evaluate. With a beam search, as many choices are also drawn at random.
        width: width of the beam.
        keep: the largest number of paths to find.
        seed: random seed for splitting the held-out images into halves, and for random choices.
        statistics: batch-norm statistics used to choose: ``recalibrated`` for each choice, or the network's ``own``.
            The statistics used to confirm are always recalibrated. A run with ``norms = frozen`` uses its own only.
        num_images: number of training images to recalibrate on.
        runtime: as for :func:`polypath.worth.deployed.runtime_name`. None means that MACs are used instead of times.
        timed_paths: number of paths to time. The model of times is fitted to some of them and tested on the others.
        pflop: the largest cost of the evaluation, in PFLOP (a MAC is two operations).
        regret: with ``beam``, also evaluate all choices, and report how much better they are (:class:`.Regret`).
        test: also measure the errors of the found, named and random paths on the test split.

    Raises:
        ValueError: an argument is illegal, the run is not finished or held out too few images, the network has only
            one choice, or the evaluation needs more choices or operations than allowed.
    """
    asked = {
        "method": check("method", method, one_of(*get_args(Asked))),
        "size": check("size", size, whole(1)),
        "width": check("width", width, whole(1)),
        "keep": check("keep", keep, whole(1)),
        "seed": check("seed", seed, whole(0)),
        "statistics": check("statistics", statistics, one_of(*get_args(Statistics))) if run.recalibrates else "own",
        "num_images": check("num_images", num_images, whole(2)),
        "runtime": runtime_name(runtime),
        "timed_paths": check("timed_paths", timed_paths, whole(2)),
        "pflop": check("pflop", pflop, number(above=0)),
        "regret": regret,
        "test": test,
    }
    if regret and method != "beam":
        raise ValueError(f"regret is measured only for a beam search: choose method beam, not {method}")
    held = run.data.validation
    if held is None or len(held) < FEWEST:
        some = "none" if held is None else f"{len(held)}"
        raise ValueError(
            f"{run.folder}: {some} of its images were held out (data.validation); a search needs at least {FEWEST} "
            "held-out images, to choose paths and to confirm them"
        )
    return _Search(run, asked).result()


class _Search:
    """A search with checked arguments."""

    def __init__(self, run: FinishedRun, asked: Mapping[str, Any]) -> None:
        self.run, self.asked, self.net = run, asked, run.net
        self.space = ChoiceSpace(self.net.wiring)
        if self.space.count < 2:
            raise ValueError(
                f"{run.folder}: the network has only one choice without gates, so there is nothing to search"
            )
        self.counted = PathMacs(self.net)
        self.work = Work(self.counted, run.image_size)
        self.classes = self.net.num_classes
        held = run.data.validation
        assert held is not None
        self.cut = halves(len(held), asked["seed"])
        self.named = {text: p for text, p in self.net.named_paths().items() if self.space.is_fixed(p)}
        self.model = weights_digest(run.folder)
        self.every: list[Paths] = []  # all choices, if they may be evaluated
        self.cost = 0  # MACs for evaluating these choices
        self.method: Method
        self.method, self.told, self.most = self._planned()

    # --- preparation -------------------------------------------------------------------------------------

    def _planned(self) -> tuple[Method, str, int]:
        """Return the method, its description, and the largest number of choices to evaluate.

        Raises:
            ValueError: the search would need more choices or operations than allowed.
        """
        asked, count = self.asked, self.space.count
        many = f"{count:,} choices" if count < 10**9 else f"{short_count(count)} choices"
        limit = int(asked["pflop"] * PETA / FLOP_OF_MAC)
        if asked["method"] != "beam" or asked["regret"]:
            refused = self._listed(limit)
            if refused and (asked["method"] == "exhaustive" or asked["regret"]):
                raise ValueError(f"not all choices can be evaluated: the network has {many}; {refused}")
            if not refused and not asked["regret"]:
                return "exhaustive", f"{many}: exhaustive, {short_macs(self.cost)} MACs", count
        one = self._images() * self._macs(Paths())
        most = min(asked["size"], limit // one)
        if most < 1:
            raise ValueError(f"pflop = {asked['pflop']:g}: is too low, since one choice alone costs {_pflop(one)}")
        how = f"beam of width {asked['width']}, at most {most:,} evaluated, {short_macs(most * one)} MACs"
        return "beam", f"{many}: {how}", most

    def _listed(self, limit: int) -> str:
        """List all choices and count their cost. Return why they cannot all be evaluated, or an empty text."""
        if self.space.count > self.asked["size"]:
            return f"at most {self.asked['size']:,} may be evaluated (size)"
        self.every = sorted(self.space, key=lambda p: from_the_input(self.net.wiring, p))
        self.cost = self._cost(ManyPaths(self.net, self.every))
        if self.cost > limit:
            return f"they cost {_pflop(self.cost)}, and at most {self.asked['pflop']:g} PFLOP may be spent (pflop)"
        return ""

    def _images(self) -> int:
        """Return the number of images that each choice processes during the search."""
        calibrated = min(self.asked["num_images"], len(self.run.data.train)) * (
            self.asked["statistics"] == "recalibrated"
        )
        return (len(self.cut["search"]) * self.run.recipe.data.eval_crops) + calibrated

    def _cost(self, many: ManyPaths) -> int:
        return many.macs(self.counted, self.run.image_size) * self._images()

    def _macs(self, choice: Paths) -> int:
        return self.counted(choice, self.run.image_size)[0]

    # --- answers -----------------------------------------------------------------------------------------

    def _statistics(self, choices: Sequence[Paths]) -> BatchNormStatistics | None:
        if not self.run.recalibrates:
            return None
        batches, seed = self.run.statistics_batches(), self.run.recipe.seed
        return self.parts.statistics(
            choices, lambda: shared_statistics(self.net, choices, batches, self.asked["num_images"], seed=seed)
        )

    def _right(self, part: str, choices: Sequence[Paths]) -> NDArray[np.bool_]:
        """Return which images of a part each choice classifies correctly, ``(choices, images)``."""
        split: Part = "test" if part == "test" else "validation"
        data = self.run.data
        if part != "test":
            assert data.validation is not None
            data = dataclasses.replace(data, validation=data.validation.subset(self.cut[part]))
        batches = self.run.batches(split, data, looks=len(choices))
        found = [self.parts.answers(part, i, choices) for i in range(len(batches))]
        if any(chunk is None for chunk in found):
            own = part == "search" and self.asked["statistics"] == "own"
            many = ManyPaths(self.net, choices, None if own else self._statistics(choices))
            for i, (x, labels) in enumerate(batches):
                if found[i] is None:
                    right = found[i] = many.right(x, labels, batches.views)
                    self.parts.keep_answers(part, i, choices, right)
            LOG.info("evaluated %s choices on the images used to %s", f"{len(choices):,}", _DO[part])
        return np.concatenate([chunk for chunk in found if chunk is not None], axis=1)

    def _errors(self, choices: Sequence[Paths]) -> list[float]:
        """Return the errors of choices on the search images, in percent."""
        if not choices:
            return []
        return (100.0 * (1.0 - self._right("search", choices).mean(1))).tolist()

    # --- time --------------------------------------------------------------------------------------------

    def _measured(self, name: str, choices: Iterable[Paths]) -> Times | None:
        runtime = self.asked["runtime"]
        if runtime is None:
            return None
        chosen = list(dict.fromkeys(choices))

        def measure() -> dict[str, Any]:
            LOG.info("measuring the times of %d paths in %s", len(chosen), runtime)
            return json.loads(json.dumps(dataclasses.asdict(timed(runtime, self.net, chosen))))

        return Times(**self.parts.value(name, measure))

    def _fitted(self) -> tuple[LatencyModel, Times] | None:
        """Fit the model of times to named paths (at most half of all timed paths) and random ones."""
        count = min(self.asked["timed_paths"], self.space.count)
        known = [self.space.fixed(Paths()), *self.named.values()]
        chosen = list(dict.fromkeys(known))[: max(1, count // 2)]
        for p in drawn(self.space, count, torch.Generator().manual_seed(self.asked["seed"])):
            if len(chosen) < count and p not in chosen:
                chosen.append(p)
        times = self._measured("times", chosen)
        if times is None:
            return None
        return fitted([self.work(p) for p in chosen], [times.ms[str(p)] for p in chosen]), times

    # --- result ------------------------------------------------------------------------------------------

    def result(self) -> SearchResult:
        """Search, or read the result of an earlier search with the same arguments."""
        claim = {"model": self.model, "asked": dict(self.asked)}
        if (known := self._known(claim)) is not None:
            LOG.info("%s exists already, with the same arguments", self.run.folder / NAME)
            return known
        LOG.info(self.told)
        with self.run.run.lock:
            self.parts = Parts(self.run.folder, claim)
            try:
                found = self._searched()
            except KeyboardInterrupt:
                LOG.warning("the search was stopped; the same command resumes it (from %s)", self.parts.folder)
                raise
            found.save(self.run.folder)
            self.parts.remove()
        return found

    def _known(self, claim: Mapping[str, Any]) -> SearchResult | None:
        try:
            known = load_search(self.run.folder)
        except ValueError:
            return None
        return known if {"model": known.model, "asked": known.asked} == claim else None

    def _searched(self) -> SearchResult:
        asked, net, fit = self.asked, self.net, self._fitted()

        def cost(choice: Paths) -> float:
            return float(self._macs(choice)) if fit is None else fit[0](self.work(choice))

        spent = 0

        def errors_of(choices: Sequence[Paths]) -> list[float]:
            nonlocal spent
            spent += self._cost(ManyPaths(net, choices))
            return self._errors(choices)

        generator = torch.Generator().manual_seed(asked["seed"])
        random: dict[Paths, float] = {}
        if self.method == "exhaustive":
            spent = self.cost
            looked = dict(zip(self.every, self._errors(self.every), strict=True))
        else:
            start = [self.space.fixed(Paths()), *self.named.values()]
            options: dict[str, Any] = {"width": asked["width"], "most": self.most, "classes": self.classes}
            looked = beam(self.space, errors_of, cost, start=start, generator=generator, **options)
            chosen = drawn(self.space, len(looked), generator)
            random = dict(zip(chosen, self._errors(chosen), strict=True))
        costs = {p: cost(p) for p in {**looked, **random}}
        sets = {
            "found": front(looked, costs, asked["keep"], self.classes),
            "named": sorted(self.named.values(), key=lambda p: costs.setdefault(p, cost(p))),
            "drawn": front(random, costs, asked["keep"], self.classes) if random else [],
        }
        union = list(dict.fromkeys(p for of in sets.values() for p in of))
        errors = looked | random
        errors |= zip(late := [p for p in union if p not in errors], self._errors(late), strict=True)
        right = {part: dict(zip(union, self._right(part, union), strict=True)) for part in self._parts()}
        times = self._measured("found", union)
        final = {p: costs[p] if times is None else times.ms[str(p)] for p in union}
        wrong = {part: {p: 100.0 * (1.0 - float(hits.mean())) for p, hits in of.items()} for part, of in right.items()}

        def row(p: Paths) -> SearchRow:
            return SearchRow(
                paths=str(p),
                search_error=round(errors[p], 4),
                confirm_error=round(wrong["confirm"][p], 4),
                test_error=round(wrong["test"][p], 4) if "test" in wrong else None,
                macs=self._macs(p),
                predicted_ms=None if fit is None else round(costs[p], 5),
                ms=None if times is None else times.ms[str(p)],
            )

        box = box_of([final[p] for p in union], self.classes)

        def rows(name: str) -> tuple[SearchRow, ...]:
            return tuple(row(p) for p in sorted(sets[name], key=lambda p: final[p]))

        def gains(other: str) -> tuple[Gain, ...]:
            pairs = [(part, gain(sets["found"], sets[other], hits, final, box)) for part, hits in right.items()]
            return tuple(
                Gain(
                    images=part,
                    found=round(mine, 6),
                    other=round(theirs, 6),
                    difference=round(between.value, 6),
                    low=round(between.low, 6),
                    high=round(between.high, 6),
                )
                for part, (mine, theirs, between) in pairs
            )

        written = {key: value for key, value in environment(self.run.device).items() if key != "command"}
        return SearchResult(
            run=self.run.name,
            data=self.run.data.name,
            model=self.model,
            revision=revision(),
            method=self.method,
            told=self.told,
            asked=dict(asked),
            choices=str(self.space.count),
            evaluated=len(looked),
            macs=spent,
            images={"search": len(self.cut["search"])} | {part: len(of[union[0]]) for part, of in right.items()},
            statistics={
                "search": asked["num_images"] if asked["statistics"] == "recalibrated" else None,
                "confirm": asked["num_images"] if self.run.recalibrates else None,
            },
            found=rows("found"),
            named=rows("named"),
            drawn=rows("drawn"),
            gains={other: gains(other) for other in ("named", "drawn") if sets[other]},
            regret=self._regret(looked, random, cost) if asked["regret"] else None,
            latency=None if fit is None else {**dataclasses.asdict(fit[0]), "runtime": fit[1].runtime},
            test_evaluations=len(union) if asked["test"] else 0,
            environment=written,
        )

    def _parts(self) -> list[str]:
        return ["confirm", *(["test"] if self.asked["test"] else [])]

    def _regret(self, looked: Mapping[Paths, float], random: Mapping[Paths, float], cost: Any) -> Regret:
        every = dict(zip(self.every, self._errors(self.every), strict=True))
        costs = {p: cost(p) for p in every}
        box = box_of(list(costs.values()), self.classes)

        def reached(errors: Mapping[Paths, float]) -> float:
            return volume(list(errors), errors, costs, box)

        best = reached(every)
        return Regret(
            choices=len(every), found=round(best - reached(looked), 6), drawn=round(best - reached(random), 6)
        )


def _pflop(macs: int) -> str:
    return f"{FLOP_OF_MAC * macs / PETA:.3g} PFLOP"
