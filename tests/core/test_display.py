"""Text for people: short texts, escaped tables, pictures of limited size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import polypath as pp
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.display import as_unicode, html_table, printable, short_count, short_macs
from polypath.core.paths import Paths

EVIL = '<img src=x onerror="run()">&\''


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (3125, "3,125"),
        (2**54, "2^54"),
        (4 * 3**17, "4·3^17"),
        (26**5, "26^5"),
        (142214324707157, "1.42e14"),
        (999_999_999_999_999, "1.00e15"),
    ],
)
def test_counts_in_few_characters(count, text):
    assert short_count(count) == text


def test_counts_that_are_too_large_for_pythons_text():
    assert short_count(7**9999 + 2) == "1.37e8450"


def test_macs_in_few_characters():
    assert [short_macs(n) for n in (5_213_000, 52_130_000, 521_300_000, 1.3e9)] == [
        "5.21 M",
        "52.1 M",
        "521 M",
        "1.30 G",
    ]


def test_a_table_escapes_its_texts():
    root: Any = ElementTree.fromstring(html_table(EVIL, ["path", EVIL], [(EVIL, "1"), ("b", EVIL)]))
    assert [cell.text for cell in root.iter("th")] == ["path", EVIL, EVIL, "b"]
    assert [cell.text for cell in root.iter("td")] == ["1", EVIL]
    assert root.find("caption").text == EVIL


@pytest.mark.parametrize("name", ["fractalnet20", "dfn_mr56", "gunn_small", "resnet110_cifar"])
def test_a_wiring_is_one_short_line(name):
    with torch.device("meta"):
        wiring = pp.create_model(name, num_classes=10).wiring
    text = repr(wiring)
    assert len(text) < 100
    assert f"{len(wiring.nodes)} nodes" in text
    assert short_count(wiring.count_paths()) in text


def test_choices_and_statistics_are_short():
    net = pp.create_model("dr_resnet_small", num_classes=10)
    paths = net.paths("loops=2")
    assert repr(paths) == f"Paths({str(paths)!r})"
    assert repr(Paths()) == "Paths('whole')"
    stats = BatchNormStatistics({paths: {"norm": (torch.zeros(900), torch.ones(900))}}, images=2000, seed=1)
    assert repr(stats) == "BatchNormStatistics(1 paths, 2,000 images, seed 1)"


def drawn(markup: str | None) -> Any:
    """The HTML in a notebook; checks that it is well-formed."""
    assert markup is not None
    return ElementTree.fromstring(f"<div>{markup}</div>")


def nodes(root: ElementTree.Element) -> set[str | None]:
    return {group.get("data-node") for group in root.iter("{http://www.w3.org/2000/svg}g")}


def test_a_notebook_draws_a_wiring_with_every_node():
    wiring = pp.create_model("crescendonet_128", num_classes=10).wiring
    picture = wiring._repr_svg_()
    assert picture == wiring.to_svg()
    assert nodes(drawn(picture)) == {"input", *wiring.by_name}


def test_a_notebook_draws_large_wirings_within_bounds():
    with torch.device("meta"):
        large = pp.create_model("dfn_mr56", num_classes=10)
        huge = pp.create_model("resnet110_cifar", depth=1002, width=1)
    assert len(large.wiring._repr_svg_() or "") in range(1, 100_000)
    assert huge.wiring._repr_svg_() is None
    shown = huge._repr_html_()
    assert len(shown) < 2_000
    assert "Too many nodes" in shown
    assert len(repr(huge.wiring)) < 100


def test_a_notebook_shows_the_facts_and_the_wiring_of_a_network():
    net = pp.create_model("fractalnet20", num_classes=10)
    root = drawn(net._repr_html_())
    facts = {row.find("th").text: row.find("td").text for row in root.iter("tr")}
    assert facts["parameters"] == f"{sum(p.numel() for p in net.parameters()):,}"
    assert facts["paths"].startswith(short_count(net.wiring.count_paths()))
    assert all(name in facts["named paths"] for name in net.named_paths())
    assert nodes(root) == {"input", *net.wiring.by_name}
    assert "fractalnet20" in root.find("table/caption").text
    assert repr(net).startswith("PathNet(\n")  # the tree of modules, as for any other module


def test_a_notebook_escapes_the_name_of_a_network():
    net = pp.create_model("gunn_small", num_classes=10)
    net.config = {**net.config, "model": EVIL}
    assert EVIL in drawn(net._repr_html_()).find("table/caption").text


def test_unprintable_characters_are_escaped():
    odd = os.fsdecode(b"caf\xe9")
    assert printable(odd) == "caf\\xe9"
    assert printable(Path("a") / odd) == "a/caf\\xe9"
    assert printable("a\nb\x1b[31m\x85\u202e\ud83d") == r"a\nb\x1b[31m\x85\u202e\ud83d"
    assert printable("déjà 日本 👩‍🔬") == "déjà 日本 👩‍🔬"
    assert as_unicode(f"{odd}\n") == "caf\\xe9\n"
