"""The page of a report: self-contained, escaped, and working in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
import torch

import polypath as pp
from browser import console_errors, overflow, view
from conftest import randomise_norms
from polypath.analysis.answers import Answers
from polypath.analysis.depths import depths
from polypath.analysis.plots.marks import Mark, Series, front
from polypath.analysis.plots.svg_chart import chart, ticks
from polypath.analysis.report.classes import of_classes, side_by_side
from polypath.analysis.report.contents import Report, analysed
from polypath.analysis.report.page import page
from polypath.analysis.scoring import PathRow
from polypath.analysis.tables import PathTable
from polypath.core.builder import NetBuilder
from polypath.core.network import PathNet
from polypath.core.recalibrate import recalibrate

G = torch.Generator().manual_seed(4)
STORED = torch.randint(256, (240, 3, 8, 8), generator=G).byte()
LABELS = torch.randint(10, (240,), generator=G)
CLASSES = [f"class {i}" for i in range(9)] + ["<b>&\"'"]
EVIL = "</script><script>alert('run')</script>"
VOID = {"meta", "link", "img", "input", "br", "hr"}


def feed(part: str, most: int, looks: int = 1):
    x = STORED[:most].float() / 128 - 1
    return list(zip(x.split(100), LABELS[:most].split(100), strict=True))


def stored(places, most: int) -> torch.Tensor:
    return STORED[:most][list(places)]


def measured(net: PathNet, **options):
    defaults = {"classes": CLASSES, "size": (8, 8), "held_out": True, "most": 100}
    return analysed(net, net.named_paths(), feed, stored, **(defaults | options))


def reported(net: PathNet, found: dict, **values) -> Report:
    rows = []
    for i, (name, p) in enumerate(net.named_paths().items()):
        row = {"error": 20.0 + 7 * i % 13, "params": 1000 * i, "macs": 10**6 * (20 - i % 20), "activation_bytes": i}
        rows.append(
            PathRow(name=name, paths=str(p), depth=net.wiring.longest(p), p50_ms=3.0 + i, p95_ms=4.0 + i, **row)
        )
    measured = {"device": "cpu", "threads": 1, "torch": "2", "batch_size": 1, "size": [8, 8], "repeats": 1}
    table = PathTable(run="run", rows=rows, data="noise", images=200, measured=measured)
    curves = [{"epoch": k, "train_loss": 2.0 / k, "train_error": 90.0 / k, "val_error": 95.0 / k} for k in range(1, 6)]
    known = {"title": EVIL, "facts": {"seed": "0"}, "notes": [EVIL, *found.pop("notes")], "curves": curves}
    known |= {"recipe": {"name": EVIL, "optim": {"lr": 0.1}}, "sessions": [{"torch": "2", "command": ["a", "b"]}]}
    return Report(**{**known, **found, **values}, wiring=net.wiring, paths=net.named_paths(), table=table)


@pytest.fixture(scope="module")
def net() -> PathNet:
    return randomise_norms(pp.create_model("fractalnet16_small", seed=1, filters=(4, 4), columns=3)).eval()


@pytest.fixture(scope="module")
def report(net) -> Report:
    return reported(net, measured(net))


@pytest.fixture(scope="module")
def text(report) -> str:
    return page(report)


# --- what is in it -------------------------------------------------------------------------------------------


def test_every_part_of_a_network_with_paths_is_there(report):
    assert report.images == 100
    assert "100 held-out images" in report.held_out
    assert len(report.calibration) == len(report.paths)
    assert len(report.importance) == 2 * (2 + 3)
    assert report.importance_images == 100
    assert [gallery.title for gallery in report.galleries] == ["Easy", "Hard", "Where paths look"]
    assert report.loops is None
    assert report.channels is None


def test_without_held_out_images_every_second_test_image_fits(net):
    found = measured(net, held_out=False)
    assert found["images"] == 50
    assert "every second one" in found["held_out"]
    pictures = found["galleries"][0].pictures
    rights = {CLASSES[label] for label in LABELS[0:100:2].tolist()}
    assert {picture.caption.partition(" ·")[0] for picture in pictures} <= rights


def test_what_would_take_too_long_is_left_out_and_said(net):
    found = measured(net, budget=1.0)
    assert "calibration" not in found
    assert len([note for note in found["notes"] if "takes too long here" in note]) == 2
    assert "Calibration" not in page(reported(net, found))


def test_statistics_are_used_where_they_are_of_all_paths(net):
    paths = net.named_paths().values()
    stats = recalibrate(net, paths, feed("train", 100), 100)
    found, plain = measured(net, stats=stats), measured(net)
    assert "batch-norm is recalibrated on 100 images" in found["notes"][0]
    assert (found["calibration"]["ece"] != plain["calibration"]["ece"]).any()
    some = recalibrate(net, list(paths)[:2], feed("train", 100), 100)
    assert measured(net, stats=some)["notes"] == []


def test_classes_are_of_the_images_that_are_scored(net, report):
    with torch.no_grad():
        answers = {name: net(feed("", 100)[0][0], paths=name).argmax(1) for name in report.paths}
    truth, least = LABELS[:100], "column=1"
    assert list(report.classes.counts) == ["whole", least]
    for name, counts in report.classes.counts.items():
        for i in range(10):
            for j in range(10):
                assert int(counts[i, j]) == int(((truth == i) & (answers[name] == j)).sum())
    errors = report.classes.errors
    assert list(errors.columns[:3]) == ["class", "images", "whole"]
    assert errors.columns[-1] == least
    assert set(errors.columns[2:]) == set(report.paths)
    first = report.classes.pairs[0]
    i, j = CLASSES.index(first.a), CLASSES.index(first.b)
    for name, n in (("whole", first.images), (least, first.cheapest)):
        of = report.classes.counts[name]
        assert n == int(of[i, j] + of[j, i])
    assert (first.a_as_b, first.b_as_a) == (
        int(((truth == i) & (answers["whole"] == j)).sum()),
        first.images - first.a_as_b,
    )
    assert {picture.caption for picture in first.pictures} <= {first.a, first.b}


def test_of_many_paths_and_classes_some_are_shown(net):
    many = Answers(
        {("whole" if k == 0 else f"p{k}"): torch.randn(400, 150, generator=G) for k in range(20)},
        torch.arange(400) % 150,
    )
    found = of_classes(many, list(many.logits), lambda places: STORED[: len(places)], [f"c{i}" for i in range(150)])
    columns = list(found.errors.columns[2:])
    assert (len(columns), columns[0], columns[-1], found.left) == (8, "whole", "p19", 12)
    text = page(reported(net, {"notes": [], "depths": depths(net), "classes": found, "images": 400}))
    assert "of 8 paths from the whole to the cheapest" in text
    assert "The 100 classes of 150 with the largest error" in text
    assert "The 16 classes that the whole network confuses most; 134 are left out" in text


def test_where_paths_look_is_side_by_side():
    image = torch.full((8, 8, 3), 100, dtype=torch.uint8)
    heat = torch.zeros(8, 8)
    heat[:, 4:] = 1
    drawn = side_by_side(image, [heat, heat])
    assert drawn.shape == (96, 3 * 96 + 2 * 4, 4)
    assert torch.equal(drawn[:, :96, :3], torch.full((96, 96, 3), 100, dtype=torch.uint8))
    assert drawn[:, 96:100, 3].max() == 0
    cold, hot = drawn[:, 100:120, :3].float().mean(), drawn[:, 180:196, :3].float().mean()
    assert cold < 50 < 130 < hot
    assert side_by_side(image.repeat(20, 20, 1), []).shape == (160, 160, 4)


def test_a_network_without_maps_has_no_grad_cam():
    b = NetBuilder()
    flat = b.add("flat", "input", torch.nn.Flatten())
    found = measured(b.net(b.add("head.classifier", flat, torch.nn.Linear(192, 10))))
    assert found["galleries"] == []
    assert re.search(r"left out: path 'whole': its head reads 'flat' of shape \(\d, 192\)", found["notes"][0])


def test_gated_and_gunn_networks_have_their_own_parts():
    gated = pp.create_model("dr_resnet_small", seed=1, blocks=(1, 2, 2), loops=(1, 2, 3), width=4)
    found = measured(gated)
    assert found["loops"]["images"].sum() == 100
    assert len(found["gates"]) == 5
    assert [gallery.title for gallery in found["galleries"]] == [
        *("Easy", "Hard", "Where paths look", "Fewest loops", "Most loops")
    ]
    assert 'id="loops"' in page(reported(gated, found))
    gunn = pp.create_model("gunn_small", seed=1)
    found = measured(gunn)
    assert len(found["channels"]) == len(set(found["spectrum"]["layer"]))
    assert 'id="channels"' in page(reported(gunn, found))


# --- the page ------------------------------------------------------------------------------------------------


class Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open, self.ids, self.addresses, self.scripts = [], [], [], 0

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert len(given) == len(attrs), f"an attribute of {tag} is there twice"
        if "id" in given:
            self.ids.append(given["id"])
        self.addresses += [given[key] for key in ("src", "href", "action", "data") if given.get(key)]
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_self_contained_and_well_formed(text):
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert all(address.startswith(("#", "data:")) for address in checker.addresses)
    assert {address[1:] for address in checker.addresses if address.startswith("#")} <= set(checker.ids)
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in text
    assert "@import" not in text


def test_what_a_run_calls_things_cannot_write_into_the_page(text, net):
    checker = Checker()
    checker.feed(text)
    assert checker.scripts == 2  # the data and ours
    assert EVIL not in text
    assert "&lt;/script&gt;&lt;script&gt;" in text
    assert "<b>&" not in text
    renamed = reported(net, measured(net, budget=1.0))
    renamed.paths[EVIL] = net.paths("column=1")
    assert EVIL not in page(renamed)


def test_every_path_and_its_figures_stand_in_the_table(text, report):
    for row in report.table.rows:
        assert f'data-path="{row.name}"' in text
        assert f'data-value="{row.error}">{row.error:.2f}</td>' in text


def test_charts():
    marks = [Mark(x=1, y=3), Mark(x=2, y=1, about="a<b"), Mark(x=3, y=2)]
    assert front(marks) == marks[:2]
    drawn = chart([Series(name="s", kind="dots", marks=marks)], xlabel="x", ylabel="y", about="it")
    assert drawn.count('class="dot"') == 3
    assert "a&lt;b" in drawn
    assert chart([Series(name="s", kind="line", marks=[])], xlabel="", ylabel="", about="") == ""
    nothing = [Mark(x=0, y=float("nan"))]
    assert chart([Series(name="s", kind="dots", marks=nothing)], xlabel="", ylabel="", about="") == ""
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    one = [Mark(x=5, y=0)]
    assert "nan" not in chart([Series(name="s", kind="bars", marks=one)], xlabel="", ylabel="", about="")


# --- in a browser --------------------------------------------------------------------------------------------


def opened(driver, tmp_path, text: str, width: int = 1280) -> None:
    file = tmp_path / "report.html"
    file.write_text(text, encoding="utf-8")
    view(driver, width)
    console_errors(driver)
    driver.get(file.as_uri())


def column(driver, i: int) -> list[float]:
    cells = f"#paths-table tbody td:nth-child({i + 1})"
    script = "return [...document.querySelectorAll(arguments[0])].map(cell => Number(cell.dataset.value))"
    return driver.execute_script(script, cells)


def test_the_table_sorts_by_the_heading_that_is_pressed(driver, tmp_path, text, report):
    opened(driver, tmp_path, text)
    assert console_errors(driver) == []
    errors = [row.error for row in report.table.rows]
    assert column(driver, 1) == errors != sorted(errors)
    heading = driver.find_elements("css selector", "#paths-table thead th")[1]
    button = heading.find_element("css selector", "button")
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column(driver, 1) == sorted(errors)
    button.send_keys("\n")  # as with the keyboard
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(driver, 1) == sorted(errors, reverse=True)
    first = driver.find_elements("css selector", "#paths-table thead th")[0]
    first.find_element("css selector", "button").click()
    assert heading.get_attribute("aria-sort") is None
    assert column(driver, 1) == errors  # names in the order of the table
    assert console_errors(driver) == []


def lit(driver) -> set[str]:
    script = "return [...document.querySelectorAll('.pp-wiring .node.live')].map(n => n.parentNode.dataset.node)"
    return set(driver.execute_script(script))


def test_choosing_a_path_highlights_it(driver, tmp_path, text, net):
    opened(driver, tmp_path, text)
    assert lit(driver) == {"input", *net.wiring.by_name}
    driver.find_element("css selector", '#paths-table tr[data-path="column=2"] .pick').click()
    assert lit(driver) == {"input", *(node.name for node in net.wiring.alive(net.paths("column=2")))}
    chosen = driver.find_elements("css selector", "tr.chosen")
    assert [row.get_attribute("data-path") for row in chosen] == ["column=2"]
    edges = driver.find_elements("css selector", ".pp-wiring path.live")
    assert 0 < len(edges) < len(driver.find_elements("css selector", ".pp-wiring path"))
    option = driver.find_element("css selector", "#path option:nth-child(1)")
    option.click()
    assert lit(driver) == {"input", *net.wiring.by_name}
    assert console_errors(driver) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out(driver, tmp_path, text, width):
    opened(driver, tmp_path, text.replace(EVIL, "x" * 80), width)
    assert overflow(driver) == 0
    diagram = driver.find_element("css selector", ".diagram")  # it may scroll by itself, which hides a part
    assert driver.execute_script("return arguments[0].scrollWidth - arguments[0].clientWidth", diagram) == 0


@pytest.mark.slow
def test_a_network_of_thousands_of_nodes_opens(driver, tmp_path):
    with torch.device("meta"):
        deep = pp.create_model("resnet110_cifar", depth=1002, width=1)
    assert len(deep.wiring.nodes) > 2000
    found = {"notes": [], "depths": depths(deep)}
    text = page(reported(deep, found))
    assert len(text) < 3e6
    opened(driver, tmp_path, text)
    driver.find_element("css selector", "#path option:nth-child(2)").click()
    name = list(deep.named_paths())[1]
    assert len(lit(driver)) == 1 + len(deep.wiring.alive(deep.paths(name)))
    assert overflow(driver) == 0
    assert driver.find_element("css selector", ".diagram").size["height"] <= 0.76 * 900
    assert console_errors(driver) == []
