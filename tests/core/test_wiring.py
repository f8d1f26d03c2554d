"""The path algebra against brute force on random small diagrams."""

from __future__ import annotations

from collections import Counter

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypath.core.builder import WiringBuilder
from polypath.core.paths import Paths
from polypath.core.wiring import INPUT, Gate, Join, Operand, Unit, Wiring


@st.composite
def wirings(draw, kinds=("mean", "sum", "max", "switch", "concat")) -> Wiring:
    """A random diagram of at most 8 nodes, without those that do not lead to the output."""
    names, nodes = [INPUT], {}
    for i in range(draw(st.integers(1, 8))):
        name = f"n{i}"
        if draw(st.booleans()):
            nodes[name] = Unit(name, draw(st.sampled_from(names)), name, draw(st.integers(0, 3)))
        else:
            sources = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4))
            operands = tuple(Operand(source, f"o{j}") for j, source in enumerate(sources))
            nodes[name] = Join(name, draw(st.sampled_from(kinds)), operands)
        names.append(name)
    needed, todo = set(), [names[-1]]
    while todo:
        name = todo.pop()
        if name != INPUT and name not in needed:
            needed.add(name)
            todo.extend(nodes[name].sources)
    return Wiring(tuple(node for name, node in nodes.items() if name in needed), names[-1])


@st.composite
def choices(draw):
    """A diagram and a legal choice on it."""
    wiring = draw(wirings())
    choice = {}
    for join in wiring.joins.values():
        if join.kind == "concat" or not draw(st.booleans()):
            continue
        size = 1 if join.kind == "switch" else draw(st.integers(1, len(join.labels)))
        choice[join.name] = tuple(draw(st.permutations(join.labels))[:size])
    return wiring, choice


def brute_force(wiring: Wiring, choice) -> list[tuple[tuple[str, ...], tuple, int]]:
    """All chains by plain recursion, operand by operand."""

    def back(name):
        if name == INPUT:
            return [((INPUT,), (), 0)]
        node = wiring.by_name[name]
        if isinstance(node, Unit):
            return [((*nodes, name), taken, d + node.depth) for nodes, taken, d in back(node.source)]
        labels = node.labels if choice is None or node.kind != "switch" else node.labels[-1:]
        alive = [o for o in node.operands if o.label in (choice or {}).get(name, labels)]
        return [((*nodes, name), (*taken, (name, o.label)), d) for o in alive for nodes, taken, d in back(o.source)]

    return back(wiring.output)


@settings(max_examples=150, deadline=None)
@given(choices(), st.booleans())
def test_counts_depths_and_enumeration_agree_with_brute_force(case, chosen):
    wiring, choice = case if chosen else (case[0], None)
    expected = brute_force(wiring, choice)
    assert wiring.count_paths(choice) == len(expected)
    assert wiring.depth_distribution(choice) == dict(sorted(Counter(d for *_, d in expected).items()))
    assert wiring.shortest(choice) == min(d for *_, d in expected)
    assert wiring.longest(choice) == max(d for *_, d in expected)
    found = [(c.nodes, tuple(sorted(c.taken)), c.depth) for c in wiring.routes(choice)]
    assert sorted(found) == sorted((nodes, tuple(sorted(taken)), d) for nodes, taken, d in expected)
    assert len(set(found)) == len(found)


@settings(max_examples=150, deadline=None)
@given(choices())
def test_alive_nodes_are_those_that_the_output_reaches(case):
    wiring, choice = case
    graph = nx.DiGraph()
    graph.add_node(wiring.output)
    for node in wiring.nodes:
        for source in [o.source for o in node.chosen(choice)] if isinstance(node, Join) else [node.source]:
            graph.add_edge(source, node.name)
    reached = nx.ancestors(graph, wiring.output) | {wiring.output}
    assert [n.name for n in wiring.alive(choice)] == [n.name for n in wiring.nodes if n.name in reached]


@settings(max_examples=150, deadline=None)
@given(choices())
def test_pruning_keeps_the_paths_and_is_idempotent(case):
    wiring, choice = case
    pruned = wiring.prune(choice)
    assert pruned.depth_distribution() == wiring.depth_distribution(choice)
    assert pruned.depth_distribution() == wiring.depth_distribution(Paths.of(wiring, choice))
    assert pruned.prune() == pruned
    assert {n.name for n in pruned.nodes} <= {n.name for n in wiring.alive(choice)}
    assert {n.name for n in pruned.nodes if isinstance(n, Unit)} == {
        n.name for n in wiring.alive(choice) if isinstance(n, Unit)
    }
    assert not [j for j in pruned.joins.values() if len(j.operands) == 1]


@settings(max_examples=100, deadline=None)
@given(choices())
def test_canonical_form_runs_the_same_nodes_and_its_text_round_trips(case):
    wiring, choice = case
    paths = Paths.of(wiring, choice)
    assert wiring.alive(paths) == wiring.alive(choice)
    assert Paths.parse(str(paths), wiring) == paths
    assert Paths.of(wiring, paths) == paths
    assert set(paths) <= {n.name for n in wiring.alive(choice)}


@settings(max_examples=60, deadline=None)
@given(wirings(kinds=("mean", "sum", "max", "switch")))
def test_every_chain_is_a_choice_that_runs_just_its_nodes(wiring):
    for chain in list(wiring.routes())[:50]:
        paths = Paths.along(wiring, chain)
        assert {n.name for n in wiring.alive(paths)} == set(chain.nodes) - {INPUT}
        assert wiring.depth_distribution(paths) == {chain.depth: 1}


@settings(max_examples=60, deadline=None)
@given(wirings())
def test_networkx_export_has_all_nodes_and_operands(wiring):
    graph = wiring.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    assert set(graph) == {INPUT, *wiring.by_name}
    assert graph.number_of_edges() == sum(len(n.sources) for n in wiring.nodes)


def test_a_count_too_large_to_enumerate():
    b, z = WiringBuilder(), INPUT
    for i in range(200):
        z = b.join(f"j{i}", {"skip": z, "run": b.unit(f"u{i}", z, depth=2)}, "sum")
    wiring = b.wiring(z)
    assert wiring.count_paths() == 2**200
    assert sum(wiring.depth_distribution().values()) == 2**200
    assert (wiring.shortest(), wiring.longest()) == (0, 400)
    assert next(iter(wiring.routes())).depth == 0  # lazy: the first comes at once


def test_graphviz_draws_dead_nodes_grey():
    b = WiringBuilder()
    wiring = b.wiring(b.join("j", {"a": b.unit("one", INPUT), "b": b.unit("two", INPUT)}))
    plain, chosen = wiring.to_graphviz(), wiring.to_graphviz({"j": ("a",)})
    assert "grey" not in plain
    assert next(line for line in chosen.splitlines() if '"two"' in line and "shape" in line).count("grey")
    assert not next(line for line in chosen.splitlines() if '"one" [' in line).count("grey")


def unit(name, source=INPUT, module=None):
    return Unit(name, source, module or name)


@pytest.mark.parametrize(
    ("nodes", "output", "message"),
    [
        ([unit("a"), unit("a")], "a", "twice"),
        ([unit("a", "b")], "a", "no earlier node has that name"),
        ([unit("a"), unit("b")], "b", "does not lead"),
        ([unit("a")], "b", "output 'b'"),
        ([unit("a b")], "a b", "must be a dotted identifier"),
        ([unit("a"), unit("a.b", "a")], "a.b", "prefix"),
        ([Join("j", "average", (Operand(INPUT, "x"),))], "j", "mean, sum, max, switch, concat"),
        ([Join("j", "mean", ())], "j", "no operands"),
        ([Join("j", "mean", (Operand(INPUT, "x"), Operand(INPUT, "x")))], "j", "not distinct"),
        ([Join("j", "mean", (Operand(INPUT, "x,y"),))], "j", "letters"),
        ([Join("j", "sum", (Operand(INPUT, "x", 0.0),))], "j", "survival"),
        ([Join("j", "mean", (Operand(INPUT, "x", 0.5),))], "j", "sums"),
        ([Join("j", "mean", (Operand(INPUT, "x"),), (Gate("g", INPUT, "x"),))], "j", "only a switch"),
        ([Join("j", "switch", (Operand(INPUT, "x"),), (Gate("g", INPUT, "y"),))], "j", "opens 'y'"),
    ],
)
def test_an_illegal_diagram_is_refused_with_a_reason(nodes, output, message):
    with pytest.raises(ValueError, match=message):
        Wiring(tuple(nodes), output)


def test_wirings_are_values():
    b, c = WiringBuilder(), WiringBuilder()
    one, same = b.wiring(b.unit("a", INPUT, depth=1)), c.wiring(c.unit("a", INPUT, depth=1))
    other = WiringBuilder()
    assert one == same
    assert hash(one) == hash(same)
    assert one != other.wiring(other.unit("a", INPUT, depth=2))
