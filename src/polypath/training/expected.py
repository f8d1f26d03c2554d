"""The expected cost of a run, before training. The steps of the run are simulated on PyTorch's meta device, with the
paths that the run will draw."""

from __future__ import annotations

import torch

from polypath.core.checks import check, whole
from polypath.core.inputs import sides
from polypath.core.meta import weightless
from polypath.profiling.cost import PathMacs, Size
from polypath.training.build import build_net, leaves_out_last
from polypath.training.engine import step_info
from polypath.training.flop import PETA, FlopCounter
from polypath.training.recipe import Recipe


def expected_pflop(recipe: Recipe, images: int, size: Size = 32, *, every: int = 1) -> float:
    """Count the PFLOP (10^15 floating-point operations) of a run of ``recipe`` in one process, on ``images`` training
    images of ``size`` pixels (side, or height and width).

    The run's summary will report the same number, since the paths depend only on the seed and the step. Muon's matrix
    products are not counted, since they depend on which parameters get gradients.

    With ``every`` = n, only every n-th step is counted, and the result is extrapolated.

    Raises:
        ValueError: there are fewer images than a batch needs, or the network does not support the objective.
    """
    check("images", images, whole(recipe.batch_size))
    check("every", every, whole(1))
    net = weightless(build_net(recipe)).train()
    bound, counter, (height, width) = recipe.objective.bind(net), FlopCounter(), sides(size)
    for each in (net, *bound.teachers):
        counter.watch(each, PathMacs(each), teacher=each is not net)
    full, rest = divmod(images, recipe.batch_size)
    batches = [recipe.batch_size] * full + [rest] * (rest > 0 and not leaves_out_last(images, recipe))
    seen = flop = 0
    for step in range(0, recipe.epochs * len(batches), every):
        epoch, batch = divmod(step, len(batches))
        seen += batches[batch]
        x = torch.empty(batches[batch], net.in_chans, height, width, device="meta")
        y = torch.zeros(batches[batch], dtype=torch.long, device="meta")
        parts = zip(x.tensor_split(recipe.accumulate), y.tensor_split(recipe.accumulate), strict=True)
        for number, (xs, ys) in enumerate(parts):
            for part in bound.passes(xs, ys, step_info(recipe, len(batches), epoch, step, number)):
                counter.add(len(xs), part.macs)
        flop += counter.take()
    return flop / PETA * (recipe.epochs * sum(batches) / seen)
