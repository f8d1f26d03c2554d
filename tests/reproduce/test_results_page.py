"""Results as Markdown, and the committed ones."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tiny_experiments import tiny

from conftest import ROOT
from polypath.reproduce import page, verdicts
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
    assert "| b | 21.00 ± 1.41 % error | – |" in text  # lost in our text of the paper
    assert "| a loss | 0.60 ± 0.14 nats | |" in text.replace("  ", " ")
    assert "12,345" in text
    assert "- all of it" in text
    assert "| **holds** | `a-wins` | a wins | difference: 10.00 points | 5.00 to 15.00 (95%) |" in text
    assert "| **does not hold** | `more-paths` | more paths | difference: -1.00 | exact |" in text
    assert "Claims that this scale does not measure: 1." in text
    assert "It is holds." in text
    assert "0123456789ab" in text


def of_tiny() -> Result:
    """A result of the tiny experiment with its current definition."""
    experiment = tiny()
    words = zip(experiment.claims, RESULT.verdicts, strict=False)
    return replace(
        RESULT,
        definition=definition_id(experiment, "smoke", experiment.scale("smoke")),
        verdicts=[replace(verdict, id=claim.id) for claim, verdict in words],
    )


def test_a_result_of_a_definition_that_has_changed_is_called_stale():
    current = of_tiny()
    assert verdicts.outdated(current, tiny()) == ""
    assert "has changed" in verdicts.outdated(current, tiny(epochs=2))
    assert "no experiment" in verdicts.outdated(current, None)
    assert "no scale large" in verdicts.outdated(replace(current, scale="large"), tiny())


def test_a_claim_in_other_words_leaves_the_result_valid_and_its_verdict_found():
    plain = tiny()
    claim, *others = plain.claims
    experiment = replace(plain, shows="more", claims=(replace(claim, text="to learn helps", says="gap"), *others))
    assert verdicts.outdated(of_tiny(), experiment) == ""
    found = verdicts.reworded(of_tiny(), experiment)
    assert found.shows == "more"
    assert found.verdict("learning-helps") == replace(
        of_tiny().verdict("learning-helps"), text="to learn helps", says="gap"
    )
    assert "| **holds** | `learning-helps` | to learn helps | gap: 10.00 points |" in section(found, experiment)


def test_a_verdict_without_a_claim_and_a_claim_without_a_verdict_say_so():
    gone, left = tiny().claims
    experiment = replace(tiny(), claims=(replace(left, id="newer", text="something newer"), left))
    text = section(verdicts.reworded(of_tiny(), experiment), experiment)
    assert "| **holds** | `learning-helps` | a wins (no longer claimed) |" in text
    assert "| **undecided** | `newer` | something newer (claimed since this was run) | | |" in text.replace("  ", " ")
    assert "| **does not hold** | `two-arms` | two arms |" in text
    with pytest.raises(KeyError, match="newer"):
        of_tiny().verdict("newer")
    assert gone.id == "learning-helps"


def test_a_stale_result_has_the_current_wording_but_no_newer_claims():
    gone, left = tiny().claims
    experiment = replace(
        tiny(), shows="more", claims=(replace(gone, text="new words", says="gap"), replace(left, id="n"))
    )
    found = verdicts.told_anew(of_tiny(), experiment)
    assert (found.shows, found.changes, found.published) == ("more", RESULT.changes, RESULT.published)
    assert [(v.id, v.text) for v in found.verdicts][:2] == [(gone.id, "new words"), (left.id, "more paths")]
    exercised = replace(of_tiny(), verdicts=[Verdict(gone.id, "old", "exercised", 1.0, reason="old words")])
    assert verdicts.told_anew(exercised, experiment).verdicts[0].reason == "an ImageNet network on other images"


def test_results_of_the_first_format_are_read_and_have_no_ids(tmp_path):
    old: dict[str, Any] = RESULT.to_json() | {"format": 1}
    old["verdicts"] = [{k: v for k, v in verdict.items() if k != "id"} for verdict in old["verdicts"]]
    write_json(tmp_path / "result.json", old)
    found = load_result(tmp_path)
    assert found == replace(RESULT, verdicts=[replace(v, id="") for v in RESULT.verdicts])
    assert "| **holds** | | a wins |" in section(found).replace("  ", " ")
    write_json(tmp_path / "result.json", old | {"format": 3})
    with pytest.raises(ValueError, match=r"result\.json: .* is damaged \(its format is 3; it must be 1 or 2\)"):
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
    assert text.count("<details>") == text.count("</details>") >= 2


def test_the_front_tables_separate_counted_claims_from_sampled_ones(tmp_path):
    plain = get_experiment("crescendonet/table2")
    ids = [claim.id for claim in plain.claims]
    told = [
        Verdict(ids[0], "a", "holds", 9.7, (1.4, 16.2), 0.99, 0.001, 4),
        Verdict(ids[1], "b", "does not hold", -2.7, (-5.4, -1.1), 0.98, 0.001, 4),
        Verdict(ids[2], "c", "undecided", 0.5, (-1.0, 2.0), 0.98, 0.3, 4),
    ]
    errors = {"whole": [50.0, 52.0], "branches=4": [60.0, 62.0]}
    held = replace(
        RESULT,
        experiment=plain.name,
        scale="small",
        definition=definition_id(plain, "small", plain.scale("small")),
        verdicts=told,
        errors=errors,
    )
    (tmp_path / "one").mkdir()
    write_json(tmp_path / "one/result.json", held.to_json())
    rows = {row["id"]: row for row in verdicts.verdicts_of(tmp_path)}
    assert rows[ids[0]]["printed"] == pytest.approx(7.96 - 4.81)
    assert rows[ids[1]]["printed"] is None  # single branches of other lengths were not measured
    assert rows[ids[0]]["why"] == "error of `branches=4` minus error of `whole`; 4 seeds: 1.40 to 16.20"
    assert rows[ids[2]]["why"].endswith("; 4 seeds: -1.00 to 2.00")
    assert rows[ids[1]]["tried"].startswith("only the scale *small*")
    assert not any(row["counted"] for row in rows.values())
    text = page.reproduction_page(tmp_path)
    _, counted, sampled = text.split("\n## ", 3)[:3]
    assert counted.startswith("Counted claims")
    assert "| 3.15 | 9.70 points | **holds** | error of `branches=4` minus error of `whole`; 4 seeds: 1.40" in sampled
    assert "Holds: 1, does not hold: 1, undecided: " in sampled


def test_changes_since_the_last_revision_are_listed_by_claim():
    def row(id: str, word: str, why: str = "") -> dict[str, Any]:
        return {"experiment": "dfn/x", "scale": "small", "id": id, "word": word, "why": why}

    before = [row("a", "undecided"), row("b", "holds"), row("c", "holds")]
    now = [row("a", "holds", "5 seeds: 1 to 2"), row("c", "holds", "otherwise"), row("d", "undecided")]
    assert verdicts.changes(before, now) == [
        "`dfn/x` at small, `a`: was *undecided*, is now *holds* (5 seeds: 1 to 2)",
        "`dfn/x` at small, `d`: is new, *undecided*",
        "`dfn/x` at small, `b`: is gone",
    ]
    assert verdicts.changes(now, now) == []


@pytest.mark.parametrize(
    ("id", "better", "worse"),
    [
        ("whole-beats-longest-branch", "whole", "branches=4"),
        ("branch-1-hurts-2-and-4", "branches=2,4", "branches=1,2,4"),
    ],
)
def test_a_verdict_by_hand_from_the_raw_answers(id, better, worse):
    """Computed draw by draw from the file's bits. Only the random numbers are the code's: with as few as four seeds,
    other draws would move the ends."""
    folder = ROOT / "docs/results/reproduce/crescendonet-table2-small"
    with np.load(folder / "correct.npz", allow_pickle=False) as file:
        head = json.loads(file["head"].tobytes())
        places = {key: i for i, key in enumerate(head["keys"])}
        wrong = {
            key: 1.0 - np.unpackbits(file[f"bits{places[key]}"], axis=1)[:, : head["images"][places[key]]]
            for key in (better, worse)
        }
    gap = 100 * (wrong[worse] - wrong[better])  # (seeds, images)
    seeds, images = gap.shape
    verdict = load_result(folder).verdict(id)
    assert verdict.estimate == pytest.approx(gap.mean(), abs=1e-9)
    assert verdict.level is not None
    assert verdict.interval is not None
    rng, upper = np.random.Generator(np.random.PCG64(0)), 0.5 + verdict.level / 2
    widened = np.sqrt(seeds / (seeds - 1)) * stats.t.ppf(upper, seeds - 1) / stats.norm.ppf(upper)
    shares, found = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=4000) / seeds, []
    for chunk in np.split(shares, 20):
        for share, picked in zip(chunk, rng.integers(images, size=(len(chunk), images)), strict=True):
            of_seeds = share @ gap.mean(1)
            of_images = share @ gap[:, picked].mean(1) - of_seeds
            found.append(gap.mean() + widened * (of_seeds - gap.mean()) + of_images)
    low, high = np.quantile(found, [1 - upper, upper], method="inverted_cdf")
    assert (low, high) == pytest.approx(verdict.interval, abs=0.001)
    assert verdict.word == ("holds" if low > 0 else "does not hold" if high < 0 else "undecided")


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
    if verdicts.outdated(result, experiment):
        pytest.skip("judged by the claims of its time")
    plan = experiment.scale(result.scale)
    again = judge(experiment.claims, result.sample(), result.counts, exercised=experiment.exercised(plan))
    assert [v.word for v in again] == [v.word for v in result.verdicts]
    assert [v.id for v in again] == [v.id for v in result.verdicts]
    for new, old in zip(again, result.verdicts, strict=True):
        if old.interval is not None:
            assert new.interval is not None
            assert np.allclose(new.interval, old.interval, atol=0.02)
