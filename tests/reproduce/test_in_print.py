"""Every claim is true on its paper's printed numbers, or names those that contradict it, or has no numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_experiments import tiny

from polypath.reproduce.claims import better, contradicted, counted
from polypath.reproduce.experiment import Cell
from polypath.reproduce.in_print import in_print, printed_numbers
from polypath.reproduce.registry import get_experiment, list_experiments

TRUE, AGAINST, NONE = "true in print", "contradicted in print", "not printed"

FIGURES = (
    "figures whose numbers the texts do not have",
    {
        "crescendonet/figure3": None,
        "fractalnet/figure3": None,
        "fractalnet/anytime": None,
        "dfn/fig12": None,
        "dfn/fig5": None,
        "dfn/fig4": {
            "six-fusions-beat-three",
            "resnet-beats-six-fusions",
            "ensemble-sizes",
            "three-fusions-within-six",
        },
        "dfn/table6": {"mr-lower-from-epoch-30-to-55"},
        "gunn/fig3": None,
        "drnn/fig6": None,
        "drnn/fig7": None,
        "drnn/fig8": {"loops-near-expectation", "expectation-as-printed"},
        "drnn/fig9": None,
        "drnn/gradients": None,
    },
)
LOST = (
    "tables that the text at hand has lost, or words in place of numbers",
    {
        "fractalnet/table2": None,
        "fractalnet/table3": None,
        "fractalnet/table4": None,
        "fractalnet/table1": {"40-layers-are-consistent-c10", "40-layers-are-consistent-c100"},
        "drnn/table3": {"lvbn-is-crucial"},
    },
)
COUNTED = "counts on the networks themselves, beside no number or already set against it", {
    "crescendonet/cost": None,
    "crescendonet/memory": {
        "gradients-average-a-fourth", "truncated-activations-at-most-half", "exact-activations-at-most-half",
    },
    "dfn/table1": {"depths-as-printed"},
    "dfn/table4": {
        "mr-ensemble-as-large-as-resnets", "mr-ensemble-larger-than-il", "mr-has-half-the-depth",
        "parameters-as-printed",
    },
    "dfn/table7": {"dfn1-ensemble-as-large-as-resnet-50s", "dfn2-ensemble-is-smaller"},
    "dfn/fig11": None,
    "gunn/table1": {"six-exact-parameter-counts", "conversion-keeps-memory"},
    "drnn/table2": {"lower-rate-expects-more-loops"},
    "drnn/cost": {"dr-res-54-saves-computation-over-all", "expected-loops"},
}  # fmt: skip
OURS = (
    "questions that the paper gives no numbers for",
    {
        "fractalnet/suspects": None,
        "gunn/collapse": None,
        "drnn/gate-rates": None,
        "gunn/table3": {"ensemble-beats-last-snapshot"},
    },
)
NOT_PRINTED = {name: ids for _, group in (FIGURES, LOST, COUNTED, OURS) for name, ids in group.items()}
"""Claims that no printed number decides, by experiment; None: all of them."""


@pytest.mark.parametrize("name", list_experiments())
def test_a_claim_is_true_where_it_was_made(name: str) -> None:
    experiment = get_experiment(name)
    found = {claim.id: in_print(experiment, claim) for claim in experiment.claims}
    cited = {claim.id for claim in experiment.claims if claim.contradicted}
    assert {id for id, outcome in found.items() if outcome == AGAINST} == cited
    listed = NOT_PRINTED.get(name, set())
    assert {id for id, outcome in found.items() if outcome == NONE} == (set(found) if listed is None else listed)


def test_most_claims_have_numbers_and_some_papers_contradict_themselves() -> None:
    of = [in_print(e, claim) for e in map(get_experiment, list_experiments()) for claim in e.claims]
    assert of.count(TRUE) > of.count(NONE) > of.count(AGAINST) > 0


def test_the_three_outcomes() -> None:
    """On CrescendoNet's Table II: {1, 2} errs 8.69, {4} 7.96, {3} 8.27."""
    cells = {f"b{n}": Cell("table2", "C10+", paper="crescendonet", branches=list(n)) for n in ((1, 2), (4,), (3,))}
    keys = dict(zip(cells, ("pair", "four", "three"), strict=True))
    experiment = replace(tiny(), published={keys[key]: cell for key, cell in cells.items()})
    assert printed_numbers(experiment)["four"] == 7.96
    claims = {
        TRUE: better("a", "four", "three", "four errs less"),
        AGAINST: contradicted(better("b", "pair", "four", "two err less than one"), "Table II"),
        NONE: better("c", "four", "five", "there is no five"),
    }
    assert {outcome: in_print(experiment, claim) for outcome, claim in claims.items()} == {o: o for o in claims}
    assert "the paper's own numbers contradict it: Table II" in claims[AGAINST].told
    assert in_print(experiment, counted("d", "counts nothing printed", lambda _: 1.0)) == NONE


def test_units_are_those_that_are_measured_in() -> None:
    cells = {
        "error": Cell("table2", "top1_acc", paper="drnn", model="DR-MobileNetV2", complement=True),
        "MACs": Cell("table2", "gflops", paper="drnn", model="DR-MobileNetV2", times=1000),
        "failed": Cell("table4", "C10_plain", paper="dfn", depth_dfn=56),
    }
    numbers = printed_numbers(replace(tiny(), published=cells))
    assert (numbers["error"], numbers["MACs"]) == (28.2, 275.0)
    assert "failed" not in numbers  # a word
