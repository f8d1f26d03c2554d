"""The tandem ensemble (Zhao et al. 2016, §3.1, Fig. 1): a fused net expanded into its component chains.

A fused net is a series of fusions, x_k = H_k(B_k^L(x_{k-1}), B_k^R(x_{k-1})). Its expansion has a chain of blocks for
each way to choose one operand at every fusion, LLL … RRR. In chain c, block k is B_k^{c_k}(z_{k-1}), and between the
blocks the chains exchange their outputs::

    z_k = H_k(mean over the chains c with c_k = L, mean over those with c_k = R)

All blocks of one mean are the same module on the same input, so z_k = x_k up to rounding. Expanding the expansion
again gives a chain for each way to choose among the *chains'* blocks. Most of these chains run the same modules as
another chain. Without such duplicates, the result is the first expansion (the paper's footnote 2).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import cast

from polypath.core.config import ABOUT, NetConfig
from polypath.core.network import PathNet
from polypath.core.wiring import INPUT, Join, Operand, Unit, Wiring

MOST_CHAINS = 2**10
CHAINS = "chains"
Modules = tuple[str, tuple[tuple[str, str | None, int], ...]]
"""The identity of a block: the operand's label, then module, variant and depth of each unit."""


@dataclass(frozen=True)
class Block:
    """An operand of a fusion: its label, its chain and its units.

    The chain differs from the label only if the wiring is itself an expansion.
    """

    label: str
    chain: str
    units: tuple[Unit, ...]

    @property
    def modules(self) -> Modules:
        return self.label, tuple((unit.module, unit.variant, unit.depth) for unit in self.units)


@dataclass(frozen=True)
class Fusion:
    """A join that all paths go through, with its blocks, all of which read ``source``."""

    join: Join
    source: str
    blocks: tuple[Block, ...]


def expand(wiring: Wiring, *, duplicates: bool = False) -> Wiring:
    """Expand the fused net ``wiring`` into its component chains, with the exchanges between the chains.

    With K fusions of two operands there are 2^K chains of K blocks; an identity is a block without units. The name of a
    chain's node contains the chain and the name in the fused net: ``chains.RLL.*``. The chains share the fused net's
    modules. Joins, and the units between fusions, keep their names and labels. Without ``duplicates``, only the first
    of several chains that run the same modules is kept.

    Raises:
        ValueError: a net that is not a series of fusions, or has more than 2^10 chains.
    """
    shared = trunk(wiring)
    fusions = [_fusion(wiring, node, source, duplicates) for node, source in shared if isinstance(node, Join)]
    chains = 1
    for fusion in fusions:
        chains *= len(fusion.blocks)
    if chains > MOST_CHAINS:
        counts = "·".join(str(len(fusion.blocks)) for fusion in fusions)
        raise ValueError(f"{len(fusions)} fusions make {counts} = {chains} chains: the limit is {MOST_CHAINS}")
    drawn: list[Unit | Join] = []
    k = 0
    for node, _ in shared:
        if isinstance(node, Unit):
            drawn.append(node)
        else:
            drawn.extend(_level(fusions, k))
            k += 1
    return Wiring(tuple(drawn), wiring.output)


def tandem(net: PathNet) -> PathNet:
    """Expand a fused net into a network that shares the modules of ``net``.

    In evaluation, both networks compute the same output. In training, a norm runs once for each chain that contains it,
    so the norm's running statistics are updated several times per step.

    Raises:
        ValueError: as in :func:`expand`.
    """
    wiring = expand(net.wiring)
    modules = {path: net.get_submodule(path) for path in wiring.modules}
    known = {key: value for key, value in net.config.items() if key in ABOUT}
    return PathNet(
        wiring, modules, stages=net.stage_nodes, min_size=net.min_size, config=cast(NetConfig, known)
    )  # every fusion keeps its name, and so does every stage


def trunk(wiring: Wiring) -> list[tuple[Unit | Join, str]]:
    """List the nodes that every path goes through, in order, each with the previous such node or the input."""
    before: dict[str, str] = {}
    level = {INPUT: 0}

    def meeting(a: str, b: str) -> str:
        while a != b:
            a, b = (before[a], b) if level[a] >= level[b] else (a, before[b])
        return a

    for node in wiring.nodes:
        common, *others = node.sources
        for other in others:
            common = meeting(common, other)
        before[node.name], level[node.name] = common, level[common] + 1
    found: list[tuple[Unit | Join, str]] = []
    name = wiring.output
    while name != INPUT:
        found.append((wiring.by_name[name], before[name]))
        name = before[name]
    return found[::-1]


def _fusion(wiring: Wiring, join: Join, source: str, duplicates: bool) -> Fusion:
    if join.kind == "switch":
        raise ValueError(f"join {join.name!r} is a switch: only fusions (sum, mean, max, concat) can be expanded")
    blocks: list[Block] = []
    for operand in join.operands:
        inner = wiring.by_name.get(operand.source) if operand.source != source else None
        if isinstance(inner, Join) and inner.kind == "mean":  # the wiring is an expansion, and this joins its chains
            blocks += [_block(wiring, join, source, operand.label, o.label, o.source) for o in inner.operands]
        else:
            blocks.append(_block(wiring, join, source, operand.label, operand.label, operand.source))
    if not duplicates:
        first: dict[Modules, Block] = {}
        for block in blocks:
            first.setdefault(block.modules, replace(block, chain=block.label))
        blocks = list(first.values())
        if len(blocks) != len(join.operands):
            raise ValueError(f"join {join.name!r}: an operand is a mean of different blocks, which cannot be expanded")
    return Fusion(join, source, tuple(blocks))


def _block(wiring: Wiring, join: Join, source: str, label: str, chain: str, name: str) -> Block:
    units: list[Unit] = []
    while name != source:
        node = wiring.by_name[name]
        if not isinstance(node, Unit):
            raise ValueError(
                f"join {join.name!r}, operand {label!r}: expected a chain of units from {source!r}, "
                f"but {name!r} is a join; only nets that are a series of fusions can be expanded"
            )
        units.append(node)
        name = node.source
    return Block(label, chain, tuple(reversed(units)))


def _level(fusions: list[Fusion], k: int) -> list[Unit | Join]:
    """Make fusion k of the expansion: each chain's block, a mean of blocks for each operand, and the join."""
    fusion = fusions[k]
    drawn: list[Unit | Join] = []
    ends: dict[str, list[Operand]] = {label: [] for label in fusion.join.labels}
    for blocks in itertools.product(*(f.blocks for f in fusions)):
        chain, block, end = _chain_name(blocks), blocks[k], fusion.source
        for unit in block.units:
            drawn.append(replace(unit, name=f"{CHAINS}.{chain}.{_fused_name(unit.name)}", source=end))
            end = drawn[-1].name
        ends[block.label].append(Operand(end, chain))
    means = {label: Join(f"{fusion.join.name}.{label}", "mean", tuple(of)) for label, of in ends.items()}
    operands = tuple(replace(o, source=means[o.label].name) for o in fusion.join.operands)
    return [*drawn, *means.values(), replace(fusion.join, operands=operands)]


def _chain_name(blocks: tuple[Block, ...]) -> str:
    names = [block.chain for block in blocks]
    return ("" if all(len(name) == 1 for name in names) else "_").join(names)


def _fused_name(name: str) -> str:
    """Return a unit's name in the fused net, without the prefix ``chains.CHAIN.`` that an expansion adds."""
    return name.split(".", 2)[2] if name.startswith(f"{CHAINS}.") else name
