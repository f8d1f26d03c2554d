"""Results as Markdown, and the committed ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_experiments import tiny

from conftest import ROOT
from polypath.reproduce import page
from polypath.reproduce.claims import Verdict, judge
from polypath.reproduce.experiment import definition_id
from polypath.reproduce.registry import get_experiment
from polypath.reproduce.result import Result
from polypath.reproduce.section import section
from polypath.reproduce.store import load_result
from polypath.storage.files import write_json

COMMITTED = sorted(p.parent for p in (ROOT / "docs/results/reproduce").glob("*/result.json"))
RESULT = Result(
    experiment="fractalnet/tiny",
    scale="smoke",
    place="nowhere",
    shows="something",
    changes=("all of it",),
    seeds=(0, 1),
    revision="0123456789abcdef",
    errors={"a": [10.0, 12.0], "b": [20.0, 22.0]},
    images={"a": 100, "b": 100},
    values={"a loss": [0.5, 0.7]},
    units={"loss": "nats"},
    counts={"paths": 12345.0},
    published={"a": 4.81, "b": None},
    verdicts=[
        Verdict("a-wins", "a wins", "holds", 10.0, (5.0, 15.0), 0.95, 0.001, 2),
        Verdict("more-paths", "more paths", "does not hold", -1.0, unit=""),
        Verdict("elsewhere", "elsewhere", "not measured", reason="'z' is not measured"),
    ],
)


def test_a_section_has_measured_beside_published_and_the_verdicts():
    text = section(RESULT, replace(tiny(), answer=lambda r: f"It is {r.verdict('a-wins').word}."))
    assert "| a | 11.00 ± 1.41 % error | 4.81 |" in text
    assert "| b | 21.00 ± 1.41 % error | – |" in text  # lost in the text at hand
    assert "| a loss | 0.60 ± 0.14 nats | |" in text.replace("  ", " ")
    assert "12,345" in text
    assert "- all of it" in text
    assert "| **holds** | `a-wins` | a wins | difference: 10.00 points | 5.00 to 15.00 (95%) |" in text
    assert "| **does not hold** | `more-paths` | more paths | difference: -1.00 | exact |" in text
    assert "Claims that this scale does not measure: 1." in text
    assert "It is holds." in text
    assert "0123456789ab" in text


def of_tiny() -> Result:
    """A result of the tiny experiment as it is defined now."""
    experiment = tiny()
    words = zip(experiment.claims, RESULT.verdicts, strict=False)
    return replace(
        RESULT,
        definition=definition_id(experiment, "smoke", experiment.scale("smoke")),
        verdicts=[replace(verdict, id=claim.id) for claim, verdict in words],
    )


def test_a_result_of_a_definition_that_has_changed_is_called_stale():
    current = of_tiny()
    assert page.outdated(current, tiny()) == ""
    assert "has changed" in page.outdated(current, tiny(epochs=2))
    assert "no experiment" in page.outdated(current, None)
    assert "no scale large" in page.outdated(replace(current, scale="large"), tiny())


def test_a_claim_in_other_words_leaves_the_result_valid_and_its_verdict_found():
    plain = tiny()
    claim, *others = plain.claims
    experiment = replace(plain, shows="more", claims=(replace(claim, text="to learn helps", says="gap"), *others))
    assert page.outdated(of_tiny(), experiment) == ""
    found = page.reworded(of_tiny(), experiment)
    assert found.shows == "more"
    assert found.verdict("learning-helps") == replace(
        of_tiny().verdict("learning-helps"), text="to learn helps", says="gap"
    )
    assert "| **holds** | `learning-helps` | to learn helps | gap: 10.00 points |" in section(found, experiment)


def test_a_verdict_without_a_claim_and_a_claim_without_a_verdict_say_so():
    gone, left = tiny().claims
    experiment = replace(tiny(), claims=(replace(left, id="newer", text="something newer"), left))
    text = section(page.reworded(of_tiny(), experiment), experiment)
    assert "| **holds** | `learning-helps` | a wins (no longer claimed) |" in text
    assert "| **undecided** | `newer` | something newer (claimed since this was run) | | |" in text.replace("  ", " ")
    assert "| **does not hold** | `two-arms` | two arms |" in text
    with pytest.raises(KeyError, match="newer"):
        of_tiny().verdict("newer")
    assert gone.id == "learning-helps"


def test_results_of_the_first_format_are_read_and_have_no_ids(tmp_path):
    old: dict[str, Any] = RESULT.to_json() | {"format": 1}
    old["verdicts"] = [{k: v for k, v in verdict.items() if k != "id"} for verdict in old["verdicts"]]
    write_json(tmp_path / "result.json", old)
    found = load_result(tmp_path)
    assert found == replace(RESULT, verdicts=[replace(v, id="") for v in RESULT.verdicts])
    assert "| **holds** | | a wins |" in section(found).replace("  ", " ")
    write_json(tmp_path / "result.json", old | {"format": 3})
    with pytest.raises(ValueError, match=r"result\.json: no result, or a damaged one \(of format 3, not 2\)"):
        load_result(tmp_path)


def test_the_page_of_a_folder_lists_every_experiment_and_shows_its_results(tmp_path, monkeypatch):
    held = replace(RESULT, experiment="crescendonet/table2", place="Table II", scale="small")
    (tmp_path / "one").mkdir()
    write_json(tmp_path / "one/result.json", held.to_json())
    text = page.reproduction_page(tmp_path, "there")
    assert "[`crescendonet/table2`](#crescendonet-table2-table-ii)" in text or "(#crescendonettable2-table-ii)" in text
    assert "| `fractalnet/table4` | Table 4 | not run yet |" in text
    assert "](there/one/figure.png)" in text
    assert "**Stale:** the definition" in text
    assert "| Table II | small, stale |" in text


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda f: f.name)
def test_committed_verdicts_are_those_of_the_committed_answers(folder):
    result = load_result(folder)
    assert len(result.seeds) >= 3 or not result.errors
    assert sum(p.stat().st_size for p in folder.iterdir()) < 1_500_000
    if result.errors and not result.correct:
        pytest.skip("answers too large to keep")
    for key, hits in result.correct.items():
        assert [round(100 * (1 - float(row.mean())), 4) for row in hits] == pytest.approx(result.errors[key])
    experiment = get_experiment(result.experiment)
    if page.outdated(result, experiment):
        pytest.skip("judged by the claims of its time")
    again = judge(experiment.claims, result.sample(), result.counts)
    assert [v.word for v in again] == [v.word for v in result.verdicts]
    assert [v.id for v in again] == [v.id for v in result.verdicts]
    for new, old in zip(again, result.verdicts, strict=True):
        if old.interval is not None:
            assert new.interval is not None
            assert np.allclose(new.interval, old.interval, atol=0.02)
