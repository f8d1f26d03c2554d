"""Training of dynamic recursive nets (Guo et al., CVPR 2019): the gradient by loop, which is the paper's argument for
LVBN, and the rates of gates with and without noise. The pages that describe the method are missing in our copy of the
paper, so there are no printed numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from polypath.analysis.gate_rates import correct_gates, rates_of_blocks
from polypath.core.execute import Trace
from polypath.core.network import PathNet
from polypath.profiling.expected import expected_macs
from polypath.reproduce.claims import Claim, above, less
from polypath.reproduce.experiment import Experiment
from polypath.reproduce.figures import bars, lines
from polypath.reproduce.gating import mean_macs
from polypath.reproduce.measure import per_arm, whole
from polypath.reproduce.measured import Measured
from polypath.reproduce.papers.drnn import at_arms, loops_of
from polypath.reproduce.trained import Trained
from polypath.training.build import build_net
from polypath.training.path_objectives import TargetRate

IMAGES = 200
HELD_OUT = 2000


def first(batches: Iterable[Sequence[Tensor]], images: int) -> Iterator[Sequence[Tensor]]:
    """Yield the first batches, until they contain at least ``images`` images."""
    seen = 0
    for batch in batches:
        if seen >= images:
            return
        yield batch
        seen += len(batch[0])


def gradients_by_loop(net: PathNet, x: Tensor, y: Tensor) -> dict[str, list[float]]:
    """Compute ‖∂loss/∂x_k‖ for each recursive block, for k = 0 (the block's input) to l (the output of its last loop).

    A copy of the network runs in training mode. Batch-norm normalises by the batch, and the running statistics of
    ``net`` do not change.
    """
    net = copy.deepcopy(net).train()
    blocks = {name: join for name, join in net.wiring.joins.items() if join.kind == "switch" and len(join.labels) > 2}
    sources = {name: [operand.source for operand in join.operands] for name, join in blocks.items()}
    flat = list(dict.fromkeys(source for of in sources.values() for source in of))
    trace = Trace(frozenset(flat))
    loss = functional.cross_entropy(net(x, trace=trace), y)
    found = torch.autograd.grad(loss, [trace.values[source] for source in flat])
    norms = dict(zip(flat, (float(g.norm()) for g in found), strict=True))
    return {name: [norms[source] for source in of] for name, of in sources.items()}


def growth(run: Trained) -> Measured:
    """Measure the ratio of the gradient before a block's loops to the gradient after them, as the geometric mean over
    blocks. The ratio is measured before training (``start``) and after training. A curve shows the ratio by loop,
    averaged over the blocks with the most loops."""
    found = Measured()
    for when, net in (("start ", build_net(run.recipe, run.folder).to(run.device)), ("", run.net)):
        batches = list(first(run.statistics_batches(), IMAGES))
        x, y = (torch.cat([batch[i] for batch in batches])[:IMAGES] for i in range(2))
        norms = gradients_by_loop(net, x, y)
        factors = [np.log(of[0] / of[-1]) for of in norms.values()]
        found.values[f"whole {when}growth"] = float(np.exp(np.mean(factors)))
        most = max(map(len, norms.values()))
        logs = np.mean([np.log(np.array(of) / of[-1]) for of in norms.values() if len(of) == most], axis=0)
        found.curves[f"whole {when}gradient"] = [(k, float(v)) for k, v in enumerate(np.exp(logs))]
    return found


GRADIENTS = Experiment(
    name="drnn/gradients",
    imagenet=True,
    place="§3 (pages lost)",
    shows="the growth of the gradient from a block's last loop back to its first, with a shared norm and with LVBN",
    scales=at_arms(("naive", "LVBN")),
    measure=per_arm(whole, growth),
    units={" growth": "times", " loss": "nats"},
    claims=(
        less(
            "naive-gradient-grows-more", "LVBN growth", "naive growth",
            "LVBN solves gradient explosion: without it, the gradient grows more through the loops (§4.2)", "times",
            says="growth of the gradient: `naive` minus `LVBN`",
        ),
        above(
            "naive-gradient-explodes", "naive growth", 2.0,
            "the gradient of naive recursion explodes (abstract; read here: it more than doubles through a block)",
            "times", says="growth of the gradient in `naive` minus 2",
        ),
    ),
    figure=lines(
        {"naive gradient": "naive", "LVBN gradient": "LVBN", "naive start gradient": "naive, untrained"},
        "loop (0: before the first)", "‖gradient‖ over that behind the last loop", log=True,
    ),
    notes=(
        "The figure shows the gradient of the loss with respect to each loop's input, relative to the gradient after "
        f"the last loop. It is measured on {IMAGES} training images in training mode. Before training, both nets are "
        "equal, since separate norms start with equal values.",
    ),
)  # fmt: skip


def rates(trained: Mapping[str, Trained]) -> Measured:
    """Measure how far gates are from their target rate: sampled in training, without noise, and with corrected biases.
    Also measure errors and MACs."""
    run = trained["gated"]
    objective = run.recipe.objective
    assert isinstance(objective, TargetRate)
    target, over = objective.target, objective.over
    sampled = [rate for name, rate in run.metrics()[-1].items() if name.startswith("rate/")]
    held_out = list(first(run.statistics_batches(), HELD_OUT))
    corrected, correction = correct_gates(run.net, held_out, target, over=over)
    found = Measured({"gated": run.correct(["whole"])["whole"]})
    found.correct["corrected"] = run.correct(["whole"], net=corrected)["whole"]
    found.values |= {
        "sampled off target": _off(sampled, target),
        "evaluated off target": _off(rates_of_blocks(run.net, run.test_batches(), over)[0].values(), target),
        "corrected off target": _off(rates_of_blocks(corrected, run.test_batches(), over)[0].values(), target),
        "unmet blocks": float(len(correction.unmet)),
        "gated MACs": _macs(run, run.net),
        "corrected MACs": _macs(run, corrected),
        "on target MACs": expected_macs(run.net, target, run.image_size[0], over) / 1e6,
    }
    return found


def _off(rates: Iterable[float], target: float) -> float:
    """Return the largest distance of a rate from the target. Gates that no image reaches are ignored."""
    return max((abs(rate - target) for rate in rates if rate == rate), default=0.0)


def _macs(run: Trained, net: PathNet) -> float:
    gates = loops_of(run, net).gates
    shares = {(s, k): v for s, k, v in zip(gates["switch"], gates["loop"], gates["share"], strict=True)}
    return mean_macs(net, shares, run.image_size[0]) / 1e6


GATE_RATES = Experiment(
    name="drnn/gate-rates",
    imagenet=True,
    place="§3, §4.2 (target rate)",
    shows="the deviation of gates from their target rate: sampled as in training, without noise, with corrected biases",
    scales=at_arms(("gated",)),
    measure=rates,
    units={" target": "of 1", " blocks": "blocks", " MACs": "M MACs an image"},
    claims=(
        less(
            "evaluation-is-farther-off-than-sampling", "sampled off target", "evaluated off target",
            "without noise, gates are farther from their target rate than when they are sampled", "of 1",
            says="largest distance from the target rate: without noise minus sampled",
        ),
        less(
            "corrected-gates-are-nearer", "corrected off target", "evaluated off target",
            "with corrected biases, gates are nearer to their target rate on test images", "of 1",
            says="largest distance from the target rate: without correction minus with correction",
        ),
        Claim(
            "corrected-gates-are-on-target",
            "with corrected biases, gates are within 0.05 of their target rate on test images",
            lambda m: 0.05 - m["corrected off target"], "of 1", "0.05 minus the largest distance from the target rate",
        ),
    ),
    figure=bars([f"{kind} off target" for kind in ("sampled", "evaluated", "corrected")], "largest distance from t"),
    notes=(
        f"Biases are corrected on {HELD_OUT:,} training images without augmentation, since these runs have no held-out "
        "images. The rates are measured on test images, except *sampled*: these are the rates of each gate over the "
        "last epoch. The others are the rates of each block over its loops, which share one gate.",
    ),
)  # fmt: skip

EXPERIMENTS = (GRADIENTS, GATE_RATES)
