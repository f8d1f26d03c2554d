"""Charts' data and placement of names, independent of the renderer."""

from __future__ import annotations

import itertools
import random
from typing import Any
from xml.etree import ElementTree

import pytest

from polypath.analysis.plots.labels import Box, place
from polypath.analysis.plots.marks import LATENCY, MACS, Mark, Series, error_against, front, named_front
from polypath.analysis.plots.parts import Value, side_by_side
from polypath.analysis.plots.style import canvas, legend_below
from polypath.analysis.plots.svg_chart import Rule, chart, ticks
from polypath.analysis.scoring import PathRow


def row(name: str, error: float, **values) -> PathRow:
    known = {"paths": name, "error": error, "params": 1, "macs": 2_000_000, "activation_bytes": 1, "depth": 1}
    return PathRow(name=name, **(known | values))


RUNS = {
    "mine": [row("whole", 9.0, p50_ms=2.0, p95_ms=3.0), row("column=1", 20.0, error_recalibrated=12.0, macs=10**6)],
    "rival": [row("whole", 8.0, macs=4_000_000), row("column=1", 30.0)],
}


def test_paths_become_marks_of_error_against_cost():
    mine, rival = error_against(MACS, RUNS)
    assert [(m.x, m.y, m.from_y, m.label, m.path) for m in mine.marks] == [
        (2.0, 9.0, None, "whole", "whole"),
        (1.0, 12.0, 20.0, "1", "column=1"),
    ]
    assert [(m.label, m.path) for m in rival.marks] == [("rival", ""), ("rival: column=1", "")]
    assert "9.00%, 2.00 M MACs, 2.00 ms" in mine.marks[0].about
    assert (mine.colour, rival.colour) == (1, 2)


def test_paths_without_a_time_are_left_out_of_times():
    mine, rival = error_against(LATENCY, RUNS)
    assert [(m.x, m.to_x) for m in mine.marks] == [(2.0, 3.0)]
    assert rival.marks == []


def test_the_front_is_what_nothing_beats():
    marks = [Mark(x=x, y=y) for x, y in ((1, 9), (2, 5), (3, 6), (2, 7), (4, 5))]
    assert front(marks) == [marks[0], marks[1]]
    assert front(marks, upper=True) == [marks[0]]
    assert front([]) == []
    series = Series(name="s", kind="dots", marks=[Mark(x=m.x, y=m.y, label="n", strong=m.x == 4) for m in marks])
    assert [m.label for m in named_front(series).marks] == ["n", "n", "", "", "n"]


@pytest.mark.parametrize("seed", range(5))
def test_names_cover_nothing_where_there_is_room(seed):
    rng = random.Random(seed)
    cells = rng.sample(list(itertools.product(range(5), range(5))), 10)
    marks = [(100.0 * i + 50, 100.0 * j + 50) for i, j in cells]
    taken = [Box.around(x, y, 10, 10) for x, y in marks]
    spots = place(marks, [(40.0, 12.0)] * 10, taken, Box(0, 0, 500, 500))
    boxes = [Box.around(x + s.dx, y + s.dy, 40, 12) for (x, y), s in zip(marks, spots, strict=True)]
    assert all(s.covered < 1e-9 for s in spots)
    assert all(a.overlap(b) == 0 for a, b in itertools.combinations(boxes, 2))
    assert all(a.overlap(b) == 0 for a in boxes for b in taken)


def test_a_name_in_a_corner_goes_inside_and_one_without_room_says_so():
    inside = Box(0, 0, 100, 100)
    (spot,) = place([(99.0, 1.0)], [(40.0, 12.0)], [], inside)
    assert spot.dx < 0 < spot.dy
    (spot,) = place([(50.0, 50.0)], [(40.0, 12.0)], [inside], inside)
    assert spot.covered == pytest.approx(40 * 12)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.013), (3.2, 97), (0, 1234.5), (9.9, 10.1)])
def test_ticks_are_few_and_inside(low, high):
    found = ticks(low, high, 6)
    assert 2 <= len(found) <= 7
    assert low <= found[0] < found[-1] <= high


# --- as SVG --------------------------------------------------------------------------------------------------


def svg(*series: Series, **options: Any) -> Any:
    return ElementTree.fromstring(chart(series, xlabel="x", ylabel="y", about="a<b", **options))


def test_labels_of_crowded_marks_are_left_out_but_for_strong_ones():
    marks = [Mark(x=1 + i / 1000, y=1, label=f"name {i}", strong=i == 7) for i in range(30)]
    root = svg(Series(name="s", kind="dots", marks=marks), bounds=(0, 2, 0, 2))
    names = [e.text for e in root.iter("text") if "name" in e.get("class")]
    assert "name 7" in names
    assert len(names) < 10


def test_stairs_go_from_mark_to_mark_and_on_to_the_edge():
    marks = [Mark(x=1, y=3), Mark(x=2, y=1)]
    root = svg(Series(name="s", kind="stairs", marks=marks), bounds=(0, 4, 0, 4), width=468, height=254)
    (path,) = [e for e in root.iter("path") if "stairs" in e.get("class")]
    assert path.get("d") == "M154.0 62.0H254.0V162.0H454.0"


def test_a_rule_has_its_name_and_a_state_its_class():
    marks = [Mark(x=1, y=1, state="late", about="<late>"), Mark(x=2, y=2, label="a<b")]
    root = svg(Series(name="s", kind="dots", marks=marks), rule=Rule(1.5, "budget <1.5>"))
    assert "budget <1.5>" in [e.text for e in root.iter("text")]
    assert "a<b" in [e.text for e in root.iter("text")]
    assert [e.find("title").text for e in root.iter("g") if "late" in e.get("class")] == ["<late>"]


def test_a_line_of_one_point_is_seen():
    root = svg(
        Series(name="training", kind="line", marks=[Mark(x=1, y=3), Mark(x=2, y=1)]),
        Series(name="held out", kind="line", marks=[Mark(x=2, y=2)], colour=2),
    )
    assert [e.get("class") for e in root.iter("g")] == ["mark s2"]
    assert len(list(root.iter("circle"))) == 1


# --- with Matplotlib -----------------------------------------------------------------------------------------

VALUES = {"a": {0: Value(1.0, 0.1, 2.0), 1: Value(3.0)}, "b": {1: Value(4.0, 0.2)}}


@pytest.mark.parametrize("kind", ["bar", "barh", "dots"])
def test_values_side_by_side(kind):
    figure, (axis,) = canvas()
    side_by_side(axis, ["first", "second"], VALUES, kind=kind)
    names = axis.get_yticklabels() if kind == "barh" else axis.get_xticklabels()
    assert [text.get_text() for text in names] == ["first", "second"]
    assert axis.get_legend_handles_labels()[1].count("published") == 1
    if kind != "dots":
        lengths = [getattr(patch, "get_width" if kind == "barh" else "get_height")() for patch in axis.patches]
        assert lengths == [1.0, 3.0, 4.0]
    legend_below(figure)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"a", "b", "published"}


def test_no_legend_where_nothing_has_a_label():
    figure, _ = canvas()
    legend_below(figure)
    assert figure.legends == []
