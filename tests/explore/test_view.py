"""What the page shows, without a page."""

from __future__ import annotations

import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from subjects import Given, picture

from polypath.explore import view as views
from polypath.explore.curve import curve_svg, short
from polypath.explore.view import budgets, look


@pytest.fixture
def subject():
    return Given()


@pytest.mark.parametrize(("budget", "path"), [(1.0, "branches=1"), (3.9, "branches=1,2"), (4.0, "whole")])
def test_a_larger_budget_runs_a_better_path(subject, budget, path):
    view = look(subject, picture(), budget)
    assert view.path == path
    assert subject.ran == [path]
    assert view.message == ""
    assert sum(view.answer.values()) == pytest.approx(1.0)
    assert f"<dd>{path}</dd>" in view.facts


def test_the_picture_of_the_wiring_and_the_curve_follow_the_path(subject):
    small, large = look(subject, picture(), 1.0), look(subject, picture(), 4.0)
    assert small.wiring != large.wiring
    assert "Highlighted nodes ran" in small.wiring
    assert small.curve != large.curve
    assert small.wiring.count("does not run") > large.wiring.count("does not run") == 0


def test_a_budget_that_no_path_meets_is_told_and_runs_nothing(subject):
    view = look(subject, picture(), 0.99)
    assert subject.ran == []
    assert view.path is None
    assert not view.answer
    assert "0.99 ms cannot be met" in view.message
    assert "branches=1, needs 1 ms" in view.message
    assert "pp-off" in view.wiring
    assert look(subject, picture(), 1.0).message == ""  # what the message asks for is enough


def test_numbers_are_short():
    assert [short(v) for v in (0.012345, 1.0, 12.345, 1500.0)] == ["0.0123", "1", "12.3", "1500"]


@pytest.mark.parametrize("p99", [0.123456, 1.0001, 23.456, 999.9, 0.0501])
def test_what_the_message_asks_for_is_enough(p99):
    assert p99 <= views._up(p99) < 1.02 * p99


@pytest.mark.parametrize("budget", [None, math.nan, math.inf, 0.0, -1.0])
def test_budgets_that_are_none_are_told(subject, budget):
    view = look(subject, picture(), budget)
    assert "number of milliseconds" in view.message
    assert subject.ran == []


def test_without_an_image_the_page_says_what_to_do(subject):
    view = look(subject, None, 2.0)
    assert "Drop an image" in view.message
    assert "Highlighted nodes would run" in view.wiring
    assert view.path is None
    assert subject.ran == []


def test_broken_images_are_told(subject):
    for broken in (b"no image", picture(size=64)[:-200], b""):
        view = look(subject, broken, 2.0)
        assert view.message.startswith("This image cannot be read")
        assert view.path is None
    assert subject.ran == []


def test_a_machine_that_is_too_busy_is_told(subject):
    subject.late = 2.0
    view = look(subject, picture(), 2.0)
    assert "passed before" in view.message
    assert view.path is None
    assert look(subject, picture(), 2.1).message == ""


def test_nothing_is_lit_where_no_path_is_fast_enough(subject):
    wiring = look(subject, picture(), 0.99).wiring
    assert "Highlighted" not in wiring
    assert "Nothing runs within this budget." in wiring


def test_times_of_a_busy_machine_are_said_to_be_such(subject):
    assert look(subject, None, 2.0).note == ""
    subject.busy = True
    for image, budget in ((None, 2.0), (picture(), 2.0), (picture(), 0.5)):
        assert "busy while the times were measured" in look(subject, image, budget).note
    subject.measure()
    assert look(subject, None, 2.0).note == ""


def test_the_slider_goes_from_too_little_to_more_than_enough(subject):
    scale = budgets(subject)
    assert subject.choose(scale.low) is None
    assert subject.choose(scale.value) == "branches=1,2"
    assert subject.choose(scale.high) == "whole"
    steps = (scale.high - scale.low) / scale.step
    assert steps == pytest.approx(round(steps))
    assert 50 < steps < 1000


def test_the_curve_marks_the_chosen_point_and_the_paths_that_are_late(subject):
    root = ElementTree.fromstring(curve_svg(list(subject.paths.values()), 2.0, "branches=1,2", 5.0))
    groups = {g.get("data-path"): g for g in root.iter("g") if g.get("data-path")}
    assert set(groups) == set(subject.paths)
    states = {name: {*g.get("class", "").split()} & {"late", "chosen"} for name, g in groups.items()}
    assert states == {"branches=1": set(), "branches=1,2": {"chosen"}, "whole": {"late"}}
    height = {name: float(next(e for e in g if e.tag.endswith("circle")).attrib["cy"]) for name, g in groups.items()}
    assert height["whole"] > height["branches=1,2"] > height["branches=1"]  # less error is lower


def test_the_curve_names_the_paths_that_no_other_beats(subject):
    paths = list(subject.paths.values())
    worse = replace(paths[1], name="worse", error=25.0)
    names = [e.text for e in ElementTree.fromstring(curve_svg([*paths, worse], 5.0, None, 5.0)).iter("text")]
    assert {path.name for path in paths} <= set(names)
    assert "worse" not in names
    chosen = ElementTree.fromstring(curve_svg([*paths, worse], 2.5, "worse", 5.0))
    assert [e.text for e in chosen.iter("text") if "strong" in e.get("class", "")] == ["worse"]


def test_without_errors_the_curve_shows_macs():
    paths = list(Given((None, None, None)).paths.values())
    assert "million MACs" in curve_svg(paths, 2.0, None, 5.0)
    assert "top-1 error" in curve_svg(list(Given().paths.values()), 2.0, None, 5.0)


def test_a_precision_other_than_float32_is_told(subject):
    assert "precision" not in look(subject, picture(), 4.0).facts
    subject.paths["whole"] = replace(subject.paths["whole"], precision="int8")
    assert "<dt>precision</dt><dd>int8</dd>" in look(subject, picture(), 4.0).facts
    assert "precision" not in look(subject, picture(), 1.0).facts
