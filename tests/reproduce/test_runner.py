"""Experiments end to end on tiny networks: resumption, refusals, stale results."""

from __future__ import annotations

import json
import logging
import re
import threading
from dataclasses import replace
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_experiments import tiny

from polypath.reproduce import measured, runs, store
from polypath.reproduce.claims import judge
from polypath.reproduce.experiment import Scale, definition_id
from polypath.reproduce.measured import Correct, Measured
from polypath.reproduce.registry import get_experiment, list_experiments
from polypath.reproduce.runner import reproduce
from polypath.reproduce.scales import smoke
from polypath.reproduce.store import load_result
from polypath.training.loop import train
from polypath.training.own_process import here

LOG = logging.getLogger("polypath.reproduce")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A result folder, and the log of its making."""
    folder, records = tmp_path_factory.mktemp("done") / "out", SimpleQueue()
    handler, before = QueueHandler(records), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel("INFO")
    try:
        result = reproduce(tiny(), "smoke", out=folder, runs=folder.parent / "runs")
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before)
    return folder, result, [records.get().message for _ in range(records.qsize())]


@pytest.fixture(autouse=True)
def notes(caplog):
    """The log of ``reproduce`` in the test."""
    caplog.set_level("INFO", LOG.name)
    caplog.clear()
    return caplog


@pytest.fixture
def copy(done, tmp_path):
    import shutil

    shutil.copytree(done[0].parent / "runs", tmp_path / "runs")
    return shutil.copytree(done[0], tmp_path / "copy")


def test_a_result_folder_holds_all_that_verdicts_need(done):
    folder, result, said = done
    assert {p.name for p in folder.iterdir()} == {*store.FILES, "measured"}
    assert len(said) == 4
    assert result.seeds == (0, 1)
    assert set(result.errors) == {"learns", "rests"}
    assert result.images == {"learns": 100, "rests": 100}
    assert len(result.curves["learns/loss"]) == 2
    assert [v.word for v in result.verdicts][1] == "holds"
    found = load_result(folder)
    assert found.to_json() == result.to_json()
    assert judge(tiny().claims, found.sample(), found.counts) == found.verdicts
    assert not found.stale
    text = (folder / "result.md").read_text()
    assert "it is a test" in text
    assert "learning helps" in text
    values = json.loads((folder / "result.json").read_text())
    for field in ("revision", "environment", "seeds", "training_seconds", "changes", "scale", "definition"):
        assert field in values
    assert values["environment"]["torch"]
    assert str(folder) not in (folder / "result.json").read_text()
    arms = json.loads((folder / "recipes.json").read_text())
    assert arms["rests"] == {"optim.lr": 1e-9}


def test_finished_runs_are_read_and_not_trained_again(copy, monkeypatch, notes):
    monkeypatch.setattr(runs, "train", None)
    assert reproduce(tiny(), "smoke", out=copy).errors == load_result(copy).errors
    assert notes.messages == []


def test_an_interrupted_experiment_resumes(done, tmp_path, monkeypatch, notes):
    calls = []

    def killed(recipe, folder, **options):
        calls.append(folder)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(recipe, folder, **options)

    monkeypatch.setattr(runs, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        reproduce(tiny(), "smoke", out=tmp_path / "out")
    assert not (tmp_path / "out/result.json").exists()
    notes.clear()
    result = reproduce(tiny(), "smoke", out=tmp_path / "out")
    assert len(calls) == 3 + 2
    assert len(notes.messages) == 2
    assert result.errors == done[1].errors


def test_more_seeds_add_to_those_there_are(copy, monkeypatch):
    trained = []
    monkeypatch.setattr(runs, "train", lambda recipe, *a, **k: trained.append(recipe.seed) or train(recipe, *a, **k))
    before = load_result(copy)
    result = reproduce(tiny(), "smoke", seeds=3, out=copy)
    assert trained == [2, 2]
    assert result.seeds == (0, 1, 2)
    assert result.errors["learns"][:2] == before.errors["learns"]


def test_runs_and_results_of_other_code_are_not_mixed_in(copy, monkeypatch, notes):
    old = load_result(copy)
    for module in ("runner", "store", "result", "collect"):
        monkeypatch.setattr(f"polypath.reproduce.{module}.code_id", lambda: "another")
    monkeypatch.setattr(runs, "training_id", lambda: "another")
    assert load_result(copy).stale
    trained = []
    monkeypatch.setattr(runs, "train", lambda *a, **k: trained.append(a) or train(*a, **k))
    result = reproduce(tiny(), "smoke", seeds=1, out=copy)
    assert len(trained) == 2
    assert result.code == "another"
    assert result.seeds == (0,)
    warnings = [record.getMessage() for record in notes.records if record.levelname == "WARNING"]
    assert [text.partition(": ")[0] for text in warnings] == ["stale"]
    assert load_result(copy / f"stale-{old.code}").errors == old.errors


def test_a_change_of_measuring_code_retrains_nothing(copy, monkeypatch):
    for module in ("runner", "store", "result", "collect"):
        monkeypatch.setattr(f"polypath.reproduce.{module}.code_id", lambda: "another")
    monkeypatch.setattr(runs, "train", None)
    measured, plain = [], tiny()
    assert plain.measure is not None

    def again(trained, measure=plain.measure):
        measured.append(trained)
        return measure(trained)

    result = reproduce(replace(plain, measure=again), "smoke", out=copy)
    assert len(measured) == 2
    assert result.errors == load_result(copy).errors


def test_a_definition_is_told_from_another_and_not_by_where_images_lie():
    def of(experiment):
        return definition_id(experiment, "smoke", experiment.scale("smoke"))

    assert of(tiny()) == of(tiny()) == of(tiny(device="auto", data__source="elsewhere", seed=3))
    assert of(tiny()) != of(tiny(epochs=2))


def test_words_are_no_part_of_a_definition():
    def of(experiment):
        return definition_id(experiment, "smoke", experiment.scale("smoke"))

    plain = tiny()
    arms = plain.scale("smoke").arms
    worded = tuple(replace(claim, text=f"{claim.text}, it is said", says="otherwise") for claim in plain.claims)
    scale = Scale(arms=arms, seeds=2, changes=("it is only a test",))
    assert of(replace(plain, claims=worded, notes=("a note",), shows="else", scales={"smoke": lambda: scale})) == of(
        plain
    )
    assert of(replace(plain, claims=plain.claims[:1])) == of(plain)
    assert of(replace(plain, scales={"smoke": lambda: Scale(arms={"learns": arms["learns"]})})) != of(plain)


def test_two_claims_of_one_id_are_refused():
    one, other = tiny().claims
    with pytest.raises(ValueError, match="fractalnet/tiny: several claims have the id 'learning-helps'"):
        replace(tiny(), claims=(one, replace(other, id=one.id)))


def test_a_run_that_diverges_counts_as_one_that_answers_the_first_class(tmp_path, notes):
    experiment = tiny()
    arms = dict(experiment.scale("smoke").arms)
    arms["bursts"] = smoke(arms["learns"].model, optim__lr=1e30, epochs=3)
    experiment = replace(experiment, scales={"smoke": lambda: Scale(arms=arms, seeds=1)})
    result = reproduce(experiment, "smoke", out=tmp_path / "out")
    assert "bursts,seed=0: diverged" in notes.messages
    assert list(result.diverged) == ["bursts,seed=0"]
    assert "not finite" in result.diverged["bursts,seed=0"]
    assert result.errors["bursts"] == pytest.approx([90.0], abs=1.5)
    assert reproduce(experiment, "smoke", out=tmp_path / "out").errors == result.errors


def test_workers_train_what_this_process_would(done, tmp_path, monkeypatch, notes):
    slots, turn = [], threading.Lock()  # only one thread at a time may use the global generators

    def beside(recipe, folder, slot, place=None):  # in reality a separate process, which the tests of sweeps start
        slots.append(slot)
        with turn:
            here(recipe, folder, place=place)

    monkeypatch.setattr(runs, "in_process_of_its_own", beside)
    monkeypatch.setattr(runs, "train", None)
    result = reproduce(tiny(), "smoke", seeds=1, out=tmp_path / "out", workers=2)
    assert len(notes.messages) == len(slots) == 2
    for key, errors in result.errors.items():
        assert errors == done[1].errors[key][:1]


def test_a_dataset_without_a_test_split_is_refused(tmp_path):
    for label in "ab":
        (tmp_path / "data/train" / label).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "data/train" / label / "0.png")
    with pytest.raises(ValueError, match=r"no split 'test'.*it has train"):
        reproduce(tiny(), "smoke", out=tmp_path / "out", source=str(tmp_path / "data"))
    with pytest.raises(ValueError, match="no split 'extra'"):
        reproduce(tiny(data__extra_split="extra"), "smoke", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_may_be_given_for_one_of_several_datasets(tmp_path):
    arms = {
        "a": smoke(tiny().scale("smoke").arms["learns"].model),
        "b": smoke(tiny().scale("smoke").arms["learns"].model),
    }
    arms["b"] = replace(arms["b"], data=replace(arms["b"].data, source="cifar10"))
    both = replace(tiny(), scales={"smoke": lambda: Scale(arms=arms)})
    with pytest.raises(ValueError, match="cifar10=FOLDER"):
        reproduce(both, "smoke", out=tmp_path / "out", source="elsewhere")
    with pytest.raises(ValueError, match="source = '/nowhere': does not exist; give a folder"):
        reproduce(both, "smoke", out=tmp_path / "out", source="cifar10=/nowhere")


@pytest.mark.slow
def test_images_may_have_moved(tmp_path, monkeypatch):
    """For existing runs, which record the new folder, and for new ones; other images are refused."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 10)):
        for label in "0123456789":
            (tmp_path / "images" / part / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / label / f"{i}.png")
    folder, place, moved = tmp_path / "out", tmp_path / "images", tmp_path / "moved"
    options: Any = {"out": folder, "source": str(place)}
    first = reproduce(tiny(), "smoke", seeds=1, **options)
    place.rename(moved)
    with pytest.raises(ValueError, match=f"source = '{re.escape(str(place))}': does not exist; give a folder"):
        reproduce(tiny(), "smoke", **options)
    with pytest.raises(ValueError, match=r"--data-moved .*nowhere: no such folder"):
        reproduce(tiny(), "smoke", **options, data_moved=tmp_path / "nowhere")
    begun = []
    monkeypatch.setattr(
        runs, "train", lambda recipe, *args, **more: begun.append(recipe) or train(recipe, *args, **more)
    )
    both = reproduce(tiny(), "smoke", **options, data_moved=moved)
    assert {recipe.seed for recipe in begun} == {1}
    assert {key: errors[0] for key, errors in both.errors.items()} == {key: e[0] for key, e in first.errors.items()}
    Image.new("L", (8, 8), 7).save(moved / "train/0/other.png")
    begun.clear()
    reproduce(tiny(), "smoke", **options, data_moved=moved)
    assert [recipe.seed for recipe in begun] == [0, 0, 1, 1]  # other images, other runs


def test_folders_of_something_else_are_refused(done, tmp_path):
    with pytest.raises(ValueError, match="choose another --out"):
        reproduce(replace(tiny(), name="fractalnet/other"), "smoke", out=done[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="choose another --out"):
        reproduce(tiny(), "smoke", out=tmp_path)
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        reproduce(tiny(), "smoke", seeds=0, out=tmp_path / "x")
    with pytest.raises(ValueError, match="has only the scales smoke"):
        reproduce(tiny(), "paper", out=tmp_path / "x")


def test_unknown_experiments_suggest_similar_names():
    with pytest.raises(ValueError, match=r"did you mean .*crescendonet/table2"):
        get_experiment("crescendonet/tabel2")
    with pytest.raises(ValueError, match="crescendonet/table2"):
        get_experiment("table2")
    with pytest.raises(ValueError, match="known experiments: crescendonet/"):
        get_experiment("xyzzy")
    assert get_experiment("CrescendoNet/Table2").name in list_experiments("crescendonet")


def test_measurements_survive_the_disk_and_damage_is_seen(tmp_path):
    hits = np.arange(13) % 3 == 0
    m = Measured({"a": Correct(hits, "t")}, {"v": 0.5}, {"c": [(1.0, 2.0)]}, {"h": {"1": 2.0}})
    measured.save_measured(tmp_path / "m.npz", m, ["a"])
    again = measured.load_measured(tmp_path / "m.npz", ["a"])
    assert again is not None
    assert np.array_equal(again.correct["a"].hits, hits)
    assert (again.values, again.curves, again.histograms) == (m.values, m.curves, m.histograms)
    assert measured.load_measured(tmp_path / "m.npz", ["a", "b"]) is None
    (tmp_path / "m.npz").write_bytes((tmp_path / "m.npz").read_bytes()[:100])
    assert measured.load_measured(tmp_path / "m.npz", ["a"]) is None
    assert measured.load_measured(tmp_path / "none.npz", ["a"]) is None


def test_damaged_results_are_named(copy, tmp_path):
    with pytest.raises(ValueError, match=r"result\.json"):
        load_result(tmp_path)
    held = json.loads((copy / "result.json").read_text())
    for damaged, says in (
        ({}, "'format'"),
        ([], "damaged"),
        (held | {"errors": {"learns": "many"}}, r"result\.errors\['learns'\] = 'many'"),
        (held | {"verdicts": [held["verdicts"][0] | {"word": "perhaps"}]}, "word = 'perhaps': must be one of holds"),
        (held | {"verdicts": [{"id": "a"}]}, "lacks the field 'text'"),
        (held | {"format": 1, "verdicts": 3}, "damaged"),
    ):
        (tmp_path / "result.json").write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=rf"result\.json.*{says}"):
            load_result(tmp_path)
