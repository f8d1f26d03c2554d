"""A picture of a wiring shows every node once, highlights the nodes that run, and is well-formed."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

import polypath as pp
from polypath.core.wiring_layout import layout
from polypath.core.wiring_svg import wiring_svg

MODELS = {
    "fractalnet20": "column=3",
    "crescendonet_128": "branches=2,4",
    "dr_resnet_small": "loops=1",
    "dfn_mr14": "stream=1",
    "resnet56_cifar": "units=4",
    "gunn_small": None,
}


@pytest.fixture(scope="module", params=MODELS)
def drawn(request):
    net = pp.create_model(request.param, num_classes=10)
    return net, net.paths(MODELS[request.param] or "whole")


def lit(svg: str) -> dict[str, bool]:
    """Whether each node is lit, by name."""
    root = ElementTree.fromstring(svg)
    found = {}
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        shape = next(e for e in group if "node" in e.get("class", "").split())
        assert group.get("data-node") not in found
        found[group.get("data-node")] = "live" in shape.get("class", "").split()
    return found


def test_every_node_is_there_and_what_runs_is_lit(drawn):
    net, paths = drawn
    alive = {node.name for node in net.wiring.alive(paths)}
    assert lit(wiring_svg(net.wiring, paths)) == {
        "input": True,
        **{n.name: n.name in alive for n in net.wiring.nodes},
    }


def test_another_choice_is_another_picture():
    net = pp.create_model("crescendonet_128", num_classes=10)
    pictures = {wiring_svg(net.wiring, net.paths(text)) for text in ("whole", "branches=1", "branches=2")}
    assert len(pictures) == 3
    assert all(lit(wiring_svg(net.wiring)).values())


def test_edges_go_right_along_lanes_and_nodes_do_not_cover_each_other(drawn):
    net, _ = drawn
    plan = layout(net.wiring, 20)
    for edge in plan.edges:
        for a, b in zip(edge.points, edge.points[1:], strict=False):
            assert a[0] <= b[0]
            assert (a[0] == b[0]) != (a[1] == b[1])  # vertical or horizontal
        assert edge.points[0] == plan.places[edge.source]
        assert edge.points[-1] == plan.places[edge.target]
    assert len(set(plan.places.values())) == len(plan.places)
    assert len(plan.edges) == sum(len(node.sources) for node in net.wiring.nodes)


def test_rows_have_at_most_the_given_columns(drawn):
    net, _ = drawn
    narrow, wide = layout(net.wiring, 12), layout(net.wiring, 400)
    assert len(wide.breaks) == 2
    assert max(b - a for a, b in zip(narrow.breaks, narrow.breaks[1:], strict=False)) <= 1.15 * 12
    for place, _lane in narrow.places.values():
        assert min(abs(place - b) for b in narrow.breaks) > 0.05  # no node on a break


def test_only_the_chosen_operands_edges_are_lit():
    net = pp.create_model("crescendonet_128", num_classes=10)
    root = ElementTree.fromstring(wiring_svg(net.wiring, net.paths("branches=1,2")))
    live = sum(e.get("class") == "live" for e in root.iter("{http://www.w3.org/2000/svg}path"))
    nodes = net.wiring.alive(net.paths("branches=1,2"))
    joins = [n for n in nodes if n.name in net.wiring.joins]
    assert live == len(nodes) - len(joins) + 2 * len(joins)


def test_names_are_escaped_and_the_title_is_shown():
    net = pp.create_model("gunn_small", num_classes=10)
    root = ElementTree.fromstring(wiring_svg(net.wiring, title='<a & "b">'))
    assert root.get("aria-label") == '<a & "b">'
