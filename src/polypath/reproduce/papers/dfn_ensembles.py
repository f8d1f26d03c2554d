"""Deeply-fused nets (Zhao et al. 2016), §4: the deepest component network in Tables 2 and 3 and Figure 5.

These tables and this figure are about the eight routes of a fused network with three fusions. *Ensemble-8* is the
ensemble of all routes with one set of weights. *Ensemble-7* leaves out the deepest route, RRR, in training and
evaluation. The members without weight sharing are eight networks that are trained separately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from polypath.families.fusenet import FusedNet
from polypath.reproduce.claims import Claim
from polypath.reproduce.experiment import Cell, Experiment
from polypath.reproduce.measured import Measured
from polypath.reproduce.members import average, separate_members, shared_members, without
from polypath.reproduce.papers.dfn import HALF, NARROW
from polypath.reproduce.papers.dfn_fused import ROUTE_TEXTS
from polypath.reproduce.papers.drawing import along_rows
from polypath.reproduce.papers.grouped import grouped
from polypath.reproduce.papers.quick import quick
from polypath.reproduce.papers.rows import Values, gaps, on_average, rows_of
from polypath.reproduce.scales import at_scales, medium, paper, smoke
from polypath.reproduce.trained import Trained
from polypath.training.path_objectives import OnePath, SharedEnsemble
from polypath.training.recipe import Recipe
from polypath.training.recipes.dfn import ROUTES, SHARING

SHALLOW, DEEP = ("LLL", "RLL", "LRL", "LLR"), ("RRL", "RLR", "LRR", "RRR")
MEDIUM = ("LLR", "RLR", "LRR")
SMOKE_DEPTH, SMALL_DEPTH = 8, 26
EPOCHS = 4  # few, as each step runs eight networks
SMALL_SAYS = (NARROW, f"only depth {SMALL_DEPTH}")


def _shared(depth: int, members: Sequence[str] = ROUTE_TEXTS) -> Recipe:
    net, objective = FusedNet(depth=depth, width=8), SharedEnsemble(routes=tuple(members))
    return quick(net, objective, epochs=EPOCHS)


def _alone(depth: int, route: str) -> Recipe:
    return quick(FusedNet(depth=depth, width=8), OnePath(paths=f"route={route}"), epochs=EPOCHS)


def _medium(recipe: str) -> Recipe:
    return medium(paper(f"fusenet_nf3_{SMALL_DEPTH}-cifar10-{recipe}"), EPOCHS, model__width=8)


def _medium_eight() -> dict[str, Recipe]:
    return {_eight(SMALL_DEPTH): _medium("ensemble")}


MEDIUM_SAYS = (HALF, f"only depth {SMALL_DEPTH}")


def _eight(depth: int) -> str:
    return f"Ensemble-8 {depth}"


def _published_eight() -> dict[str, Recipe]:
    return {_eight(d): paper(f"fusenet_nf3_{d}-cifar10-ensemble") for d in SHARING}


def _smoke_shared(members: Sequence[str] = ROUTE_TEXTS) -> Recipe:
    return smoke(FusedNet(depth=SMOKE_DEPTH, width=4), SharedEnsemble(routes=tuple(members)))


def _smoke_alone(route: str) -> Recipe:
    return smoke(FusedNet(depth=SMOKE_DEPTH, width=4), OnePath(paths=f"route={route}"))


def _depths(trained: Mapping[str, Trained]) -> list[int]:
    return [int(arm.split()[1]) for arm in trained if arm.startswith("Ensemble-8 ")]


def _arms_of(key: str) -> list[str]:
    """Return the arms that a key of Tables 2 and 3 and Figure 5 comes from."""
    *words, depth = key.split()
    if words[0] == "separate":
        return [f"{route} {depth}" for route in (ROUTES if words[1] == "overall" else words[1:])]
    return [key] if words == ["Ensemble-7"] else [_eight(int(depth))]


# --- Table 2: with and without weight sharing ---------------------------------------------------------------------


def members_with_and_without(trained: Mapping[str, Trained]) -> Measured:
    """Measure which test images each route and the ensemble classify correctly, with weight sharing (``shared RLL 26``)
    and without (``separate RLL 26``)."""
    found = Measured()
    for depth in _depths(trained):
        run = trained[_eight(depth)]
        kinds = {
            "shared": shared_members(run),
            "separate": separate_members({route: trained[f"{route} {depth}"] for route in ROUTES}),
        }
        for kind, members in kinds.items():
            found.correct |= {f"{kind} {route} {depth}": run.marked(members[route]) for route in ROUTES}
            found.correct[f"{kind} overall {depth}"] = run.marked(average(members))
    return found


def _sharing(routes: Sequence[str], m: Values) -> np.ndarray:
    """Return the error with weight sharing minus the error without, averaged over routes and depths."""
    return np.mean([g for r in routes for g in gaps(m, f"shared {r}", f"separate {r}").values()], axis=0)


TABLE2 = Experiment(
    name="dfn/table2",
    place="Table 2",
    shows="the errors of component networks and of their ensemble, with and without weight sharing",
    scales=at_scales(
        lambda: {_eight(SMOKE_DEPTH): _smoke_shared()} | {f"{r} {SMOKE_DEPTH}": _smoke_alone(r) for r in ROUTES},
        lambda: (
            {_eight(SMALL_DEPTH): _shared(SMALL_DEPTH)} | {f"{r} {SMALL_DEPTH}": _alone(SMALL_DEPTH, r) for r in ROUTES}
        ),
        lambda: (
            _published_eight() | {f"{r} {d}": paper(f"fusenet_nf3_{d}-cifar10-{r}") for d in SHARING for r in ROUTES}
        ),
        lambda: _medium_eight() | {f"{r} {SMALL_DEPTH}": _medium(r) for r in ROUTES},
        small_says=SMALL_SAYS,
        medium_says=MEDIUM_SAYS,
    ),
    measure=members_with_and_without,
    published={
        f"{kind} {route} {depth}": Cell(
            "table2", route if route in ROUTES else "overall", depth=depth, weight_sharing=kind == "shared"
        )
        for depth in SHARING
        for kind in ("separate", "shared")
        for route in (*ROUTES, "overall")
    },
    claims=(
        Claim(
            "sharing-hurts-the-shallow",
            "weight sharing hurts the shallow component networks (LLL, RLL, LRL, LLR)",
            lambda m: _sharing(SHALLOW, m),
            says="error with weight sharing minus error without it, averaged over the four networks and all depths",
        ),
        Claim(
            "sharing-helps-the-deep",
            "weight sharing helps the deep component networks (RRL, RLR, LRR, RRR)",
            lambda m: -_sharing(DEEP, m),
            says="error without weight sharing minus error with it, averaged over the four networks and all depths",
        ),
        Claim(
            "sharing-helps-the-deepest",
            "weight sharing helps the deepest component network, RRR",
            lambda m: -_sharing(("RRR",), m),
            says="error of RRR without weight sharing minus error of RRR with it, averaged over the depths",
        ),
        Claim(
            "separate-ensemble-is-better",
            "the ensemble is better without weight sharing, since its members are less correlated",
            lambda m: _sharing(("overall",), m),
            says="error of the ensemble with weight sharing minus its error without it, averaged over the depths",
        ),
    ),
    figure=grouped(
        [f"{{kind}} {r} {{row}}" for r in (*ROUTES, "overall")],
        {"separate": "without weight sharing", "shared": "with weight sharing"},
        [*ROUTES, "overall"],
    ),
    arms_of=_arms_of,
)


# --- Table 3: leave one out ---------------------------------------------------------------------------------------


def leave_one_out(trained: Mapping[str, Trained]) -> Measured:
    """Measure which test images Ensemble-8 classifies correctly, with all members and without one of them (``without
    RLL 26``)."""
    found = Measured()
    for depth in _depths(trained):
        run = trained[_eight(depth)]
        members = shared_members(run)
        found.correct[f"overall {depth}"] = run.marked(average(members))
        found.correct |= {f"without {route} {depth}": run.marked(without(members, route)) for route in ROUTES}
    return found


def _matters_more(m: Values) -> np.ndarray:
    deepest = rows_of(m, "without RRR")
    medium = {d: np.mean([m[f"without {r} {d}"] for r in MEDIUM], axis=0) for d in deepest}
    if not medium:
        raise KeyError("without RRR")
    return np.mean([medium[d] - deepest[d] for d in deepest], axis=0)


TABLE3 = Experiment(
    name="dfn/table3",
    place="Table 3",
    shows="the error of Ensemble-8 without one of its members",
    scales=at_scales(
        lambda: {_eight(SMOKE_DEPTH): _smoke_shared()},
        lambda: {_eight(SMALL_DEPTH): _shared(SMALL_DEPTH)},
        _published_eight,
        _medium_eight,
        small_says=SMALL_SAYS,
        medium_says=MEDIUM_SAYS,
    ),
    measure=leave_one_out,
    published={f"without {r} {d}": Cell("table3", f"without_{r}", depth=d) for d in SHARING for r in ROUTES}
    | {f"overall {d}": Cell("table3", "overall", depth=d) for d in SHARING},
    claims=(
        Claim(
            "deepest-contributes-less",
            "the deepest component network contributes less than those of medium depth (LLR, RLR, LRR)",
            _matters_more,
            says="mean error without one of LLR, RLR and LRR, minus error without RRR, averaged over the depths",
        ),
        on_average(
            "worse-without-llr",
            "without LLR",
            "overall",
            "without LLR, the ensemble is worse (printed: at five of seven depths)",
        ),
        Claim(
            "deepest-is-not-the-most-significant",
            "the deepest component network is not the most significant one: the error without it is close to the "
            "error of the whole ensemble (read here: within half a point)",
            lambda m: 0.5 - np.abs(np.mean(list(gaps(m, "without RRR", "overall").values()), axis=0)),
            says="0.5 minus the absolute difference between the mean errors without RRR and of the whole ensemble",
        ),
    ),
    figure=grouped(
        [f"without {r} {{row}}" for r in ROUTES] + ["overall {row}"],
        {"": "Ensemble-8"},
        [*(f"− {r}" for r in ROUTES), "all"],
    ),
    arms_of=_arms_of,
)


# --- Figure 5: Ensemble-7 against Ensemble-8 ----------------------------------------------------------------------


def with_and_without_deepest(trained: Mapping[str, Trained]) -> Measured:
    """Measure which test images are classified correctly by Ensemble-8, by Ensemble-7, and by Ensemble-8 without its
    deepest member (``w/o retraining``)."""
    found = Measured()
    for depth in _depths(trained):
        run, seven = trained[_eight(depth)], trained[f"Ensemble-7 {depth}"]
        members = shared_members(run)
        answers: dict[str, Tensor] = {
            "Ensemble-8": average(members),
            "Ensemble-7": average(shared_members(seven)),
            "Ensemble-7 w/o retraining": without(members, "RRR"),
        }
        found.correct |= {f"{name} {depth}": run.marked(answer) for name, answer in answers.items()}
    return found


def _deep_only(m: Values) -> np.ndarray:
    found = {d: g for d, g in gaps(m, "Ensemble-8", "Ensemble-7").items() if d > 50}
    if not found:
        raise KeyError("Ensemble-7 beyond 50 layers")
    return np.mean(list(found.values()), axis=0)


FIGURE5 = Experiment(
    name="dfn/fig5",
    place="Figure 5",
    shows="the error of the ensemble of routes, with and without the deepest route",
    scales=at_scales(
        lambda: {_eight(SMOKE_DEPTH): _smoke_shared(), f"Ensemble-7 {SMOKE_DEPTH}": _smoke_shared(ROUTE_TEXTS[:-1])},
        lambda: {
            _eight(SMALL_DEPTH): _shared(SMALL_DEPTH),
            f"Ensemble-7 {SMALL_DEPTH}": _shared(SMALL_DEPTH, ROUTE_TEXTS[:-1]),
        },
        lambda: _published_eight() | {f"Ensemble-7 {d}": paper(f"fusenet_nf3_{d}-cifar10-ensemble7") for d in SHARING},
        lambda: _medium_eight() | {f"Ensemble-7 {SMALL_DEPTH}": _medium("ensemble7")},
        small_says=SMALL_SAYS,
        medium_says=MEDIUM_SAYS,
    ),
    measure=with_and_without_deepest,
    published={f"Ensemble-8 {d}": Cell("table3", "overall", depth=d) for d in SHARING}
    | {f"Ensemble-7 w/o retraining {d}": Cell("table3", "without_RRR", depth=d) for d in SHARING},
    claims=(
        Claim(
            "eight-and-seven-are-close",
            "the errors of Ensemble-8 and Ensemble-7 are very close (read here: within a point)",
            lambda m: 1.0 - np.abs(np.mean(list(gaps(m, "Ensemble-8", "Ensemble-7").values()), axis=0)),
            says="1 minus the absolute difference between the mean errors of Ensemble-8 and Ensemble-7",
        ),
        on_average(
            "retraining-helps-seven",
            "Ensemble-7 w/o retraining",
            "Ensemble-7",
            "Ensemble-7 is superior to Ensemble-7 without retraining",
        ),
        Claim(
            "seven-beats-eight-beyond-50-layers",
            "beyond 50 layers, Ensemble-7 performs better than Ensemble-8 (caption; according to the text, at 98 and "
            "110)",
            _deep_only,
            says="error of Ensemble-8 minus error of Ensemble-7, averaged over depths above 50",
        ),
    ),
    figure=along_rows({k: k for k in ("Ensemble-7 w/o retraining", "Ensemble-7", "Ensemble-8")}, "depth (layers)"),
    notes=(
        "The numbers of Figure 5 are missing in our copy of the paper. Table 3 prints those of two of its three "
        "ensembles.",
    ),
    arms_of=_arms_of,
)

EXPERIMENTS = (TABLE2, TABLE3, FIGURE5)
