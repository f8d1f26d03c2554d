"""``polypath extract``: save a path of a run as a standalone network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from polypath.cli.output import say
from polypath.cli.parser import Parser, number_of, positive
from polypath.cli.tables import millions, print_json
from polypath.core.checks import SHARE
from polypath.storage.files import check_vacant

if TYPE_CHECKING:
    from polypath.analysis.finished_run import FinishedRun
    from polypath.analysis.gate_rates import GateCorrection
    from polypath.core.network import PathNet

LOG = logging.getLogger(__name__)


def extract(argv: list[str]) -> None:
    """Save a path of a run, or of a saved network, as a standalone network."""
    parser = Parser("extract", extract.__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run, or of a saved network")
    parser.add_argument(
        "--paths", required=True, metavar="TEXT", help="choice of the path, such as branches=2,4 or column=3"
    )
    parser.add_argument("--out", required=True, type=Path, help="new folder for the network")
    parser.add_argument("--recalibrate", action="store_true", help="recalibrate batch-norm for the path (needs a run)")
    parser.add_argument(
        "--num-images", type=positive, default=2000, help="training images to recalibrate on (default 2000)"
    )
    parser.add_argument(
        "--gate-rate",
        type=number_of(float, SHARE),
        metavar="SHARE",
        help="shift the gates' biases until each block's gate lets pass this share of the held-out images that reach "
        "it (needs a run with held-out images)",
    )
    parser.add_data_moved()
    parser.add_json()
    args = parser.read(argv)

    check_vacant(args.out, "--out ")

    from polypath.core.extract import extract as extract_path
    from polypath.profiling.cost import cost
    from polypath.storage.loading import load
    from polypath.storage.saving import save

    if (args.run / "recipe.json").is_file():
        from polypath.analysis.finished_run import FinishedRun

        run = FinishedRun(args.run, data_moved=args.data_moved, by="extract")
        net = run.net
    else:
        net, run = load(args.run), None
    chosen, stats = net.paths(args.paths), None
    if args.recalibrate:
        if run is None:
            raise ValueError(f"--recalibrate: {args.run} is not a run, so it has no training images")
        if not run.recalibrates:
            raise ValueError("--recalibrate: the run has norms = 'frozen', so all paths use the network's statistics")
        stats = run.recalibrated([chosen], args.num_images)
    child = extract_path(net, chosen, stats=stats)
    correction = None
    if args.gate_rate is not None:
        child, correction = _corrected(child, run, args.gate_rate)
    child = child.cpu()
    height, width = (child.config.get("image") or {}).get("size") or (max(32, child.min_size),) * 2
    child_cost, parent_cost = cost(child, size=(height, width)), cost(net, size=(height, width))
    save(child, args.out)
    facts = {
        "out": str(args.out),
        "paths": str(chosen),
        "params": child_cost.params,
        "macs": child_cost.macs,
        "size": [height, width],
        "parent": {"params": parent_cost.params, "macs": parent_cost.macs},
        "recalibrated": stats.record if stats is not None else None,
        "gates": correction.record if correction is not None else None,
    }
    if args.json:
        print_json(facts)
        return
    done = f"batch-norm recalibrated on {stats.images:,} training images" if stats else "batch-norm not recalibrated"
    say(
        f"{args.out}: {chosen}; {child_cost.params:,} of {parent_cost.params:,} parameters, "
        f"{millions(child_cost.macs)} of {millions(parent_cost.macs)} MACs; {done}"
    )
    if correction is not None:
        say(f"gates let pass {_span(correction.after)} of the held-out images ({correction.images:,}) that reach them")
        say(
            f"before the correction {_span(correction.before)}; target {correction.target:g} ± {correction.tolerance:g}"
        )


def _corrected(net: PathNet, run: FinishedRun | None, target: float) -> tuple[PathNet, GateCorrection]:
    from polypath.analysis.gate_rates import correct_gates

    if run is None or run.data.validation is None:
        told = "this is not a run" if run is None else "this run has none (data.validation)"
        raise ValueError(f"--gate-rate {target:g}: gates are corrected on held-out images, but {told}")
    corrected, correction = correct_gates(net, run.batches("validation"), target)
    if correction.unmet:
        LOG.warning(
            "these gates miss the target, since they decide alike for all images: %s", ", ".join(correction.unmet)
        )
    return corrected, correction


def _span(rates: Mapping[str, float]) -> str:
    return f"{min(rates.values()):.3f} to {max(rates.values()):.3f}"
