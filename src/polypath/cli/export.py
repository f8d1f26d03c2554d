"""``polypath export``: paths of a network for other runtimes, or as a bundle with a time budget."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polypath.cli.output import say
from polypath.cli.parser import Parser, positive
from polypath.cli.tables import millions, percent, print_json, print_table
from polypath.storage.files import check_vacant

if TYPE_CHECKING:
    from polypath.analysis.finished_run import FinishedRun
    from polypath.core.batchnorm import BatchNormStatistics
    from polypath.core.network import PathNet
    from polypath.core.paths import Paths
    from polypath.deploy.bundle import Bundle

FORMATS = ("bundle", "onnx", "openvino", "torch", "triton")
LOG = logging.getLogger(__name__)


def export(argv: list[str]) -> None:
    """Write paths of a run, or of a saved network, for deployment: a bundle of them, or one path's own graph."""
    parser = Parser("export", export.__doc__)
    parser.add_argument(
        "source", type=Path, help="folder of a finished run, of a saved network, or of a bundle (triton)"
    )
    parser.add_paths()
    parser.add_argument("--format", choices=FORMATS, default="bundle", help="bundle unless said otherwise")
    parser.add_argument("--out", required=True, type=Path, help="new folder")
    parser.add_argument("--name", help="of the bundle; otherwise its folder's")
    parser.add_argument("--keep", action="store_true", help="keep paths that a cheaper one equals (bundle)")
    parser.add_argument(
        "--no-recalibrate", action="store_true", help="norms as they are (of a run they are re-estimated)"
    )
    parser.add_argument("--num-images", type=positive, default=2000, help="training images to re-estimate on (2000)")
    parser.add_argument("--seed", type=int, default=0, help="cuts held-out images into parts (0)")
    parser.add_argument(
        "--measure", type=positive, action="append", default=[], metavar="BATCH", help="time paths at this batch size"
    )
    parser.add_data_moved()
    parser.add_argument("--note", action="append", default=[], help="a sentence for the bundle's card")
    parser.add_json()
    args = parser.read(argv)
    check_vacant(args.out, "--out ")

    from polypath.deploy.needs import check_installed

    check_installed(args.format)
    facts = _FORMAT[args.format](args)
    if args.json:
        print_json(facts)


def _bundle(args: Any) -> dict[str, Any]:
    from polypath.core.batchnorm import statistics_note
    from polypath.deploy.write import HeldOut, write_bundle

    net, run = _opened(args)
    texts = _texts(args)
    stats = held = None
    about: dict[str, Any] = {}
    if run is not None:
        from polypath.training.recipe import recipe_to_json
        from polypath.training.run import environment

        named = net.named_paths()
        chosen = [named.get(t) or net.paths(t) for t in texts] if texts else list(named.values())
        stats = _statistics(args, run, chosen)
        recipe, written = recipe_to_json(run.recipe), environment(run.device)
        recipe["data"]["source"], _ = (
            run.data.name,
            written.pop("command"),
        )  # folders of this machine are nobody's business
        about = {"dataset": run.data.name, "note": run.data.note, "recipe": recipe}
        about |= {"written": written, "run": _run_facts(run)}
        if run.data.validation is not None:
            held = HeldOut(list(run.batches("validation")), run.batches("test"), args.seed)
        else:
            LOG.warning(
                "%s held no images out (data.validation), so nothing is calibrated and no path has an error",
                args.source,
            )
    if args.out.exists():
        args.out.rmdir()
    bundle = write_bundle(
        net.cpu(),
        args.out,
        texts or None,
        statistics=stats,
        held_out=held,
        keep=(texts or list(net.named_paths())) if args.keep else (),
        name=args.name,
        about=about,
        notes=args.note,
        measure=args.measure,
    )
    size = sum(file.stat().st_size for file in args.out.iterdir())
    statistics = statistics_note(stats.record if stats is not None else net.config.get("statistics"))
    if not args.json:
        rows = [
            [p.name, percent(p.error), percent(p.test_error), millions(p.macs), f"{p.params:,}", f"{p.temperature:.3f}"]
            for p in bundle.paths
        ]
        head = ["path", "held-out error %", "test error %", "MACs", "params", "temperature"]
        print_table(f"Bundle {bundle.name}", head, rows, notes=[statistics, f"{size / 2**20:.2f} MiB in {args.out}"])
    changed = _ladder(bundle, quiet=args.json)
    return {"out": str(args.out), "bytes": size, "flips": changed, **bundle.manifest.to_json()}


def _ladder(bundle: Bundle, *, quiet: bool) -> list[dict[str, int]]:
    """Show the steps of better and better answers; how many held-out answers each puts right and wrong."""
    from dataclasses import asdict

    from polypath.analysis.flips import flips
    from polypath.deploy.stopping import held_out

    if len(bundle.ladder) < 2:
        return []
    changed = flips(held_out(bundle)[1]) if bundle.manifest.held_out is not None else []
    if not quiet:
        runs = [bundle.path(r.path).macs if r.step is None else r.step.macs for r in bundle.ladder]
        rows = [
            [r.path, "+".join(r.combine), millions(macs), percent(r.error), *both]
            for r, macs, both in zip(
                bundle.ladder,
                runs,
                [("", ""), *((str(f.to_right), str(f.to_wrong)) for f in changed)]
                if changed
                else [("", "")] * len(runs),
                strict=True,
            )
        ]
        share = sum(runs) / max(path.macs for path in bundle.paths)
        notes = [f"all steps: {share:.2f} times the MACs of the dearest path"]
        notes += [f"changes of {changed[0].images:,} held-out answers, from one step to the next"] if changed else []
        head = ["step", "answers by", "MACs run", "held-out error %", "wrong to right", "right to wrong"]
        print_table("Better and better answers", head, rows, notes=notes)
    return [asdict(f) for f in changed]


def _one(args: Any) -> dict[str, Any]:
    from polypath.core.batchnorm import statistics_note
    from polypath.deploy.export import export_path

    net, run = _opened(args)
    texts = _texts(args)
    if args.format == "onnx" and not texts and any(join.gates for join in net.wiring.joins.values()):
        from polypath.deploy.stepwise_write import write_stepwise

        if args.out.exists():
            args.out.rmdir()
        found = write_stepwise(net.cpu(), args.out)
        checks = [{"runtime": c.runtime, "max_abs": c.max_abs} for c in found]
        files = [file for file in args.out.iterdir() if file.is_file()]
        _tell(args, f"wrote {len(files)} files into {args.out}: {sum(f.stat().st_size for f in files) / 2**20:.2f} MiB")
        return {"out": str(args.out), "format": "onnx, step by step", "checks": checks}
    rows, total = [], 0
    for text in texts or ["whole"]:
        stats = _statistics(args, run, [net.paths(text)])
        done = export_path(net.cpu(), text, args.out, args.format, stats=stats)
        total += done.bytes
        statistics = statistics_note(stats.record if stats is not None else net.config.get("statistics"))
        _tell(args, f"wrote {', '.join(map(str, done.files))}: {done.bytes / 2**20:.2f} MiB; {statistics}")
        checks = [{"runtime": c.runtime, "max_abs": c.max_abs} for c in done.checks]
        rows.append({"paths": text, "files": [str(file) for file in done.files], "bytes": done.bytes, "checks": checks})
    return {"out": str(args.out), "format": args.format, "bytes": total, "exports": rows}


def _triton(args: Any) -> dict[str, Any]:
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.triton import write_repository

    bundle = Bundle.open(args.source)
    if args.paths:
        bundle = bundle.with_paths(args.paths)
    names = write_repository(bundle, args.out)
    _tell(args, f"wrote {len(names)} models into {args.out}: {', '.join(names)}")
    return {"out": str(args.out), "models": names}


def _tell(args: Any, text: str) -> None:
    """A line of the result for people."""
    if not args.json:
        say(text)


_FORMAT = {"bundle": _bundle, "triton": _triton} | dict.fromkeys(("onnx", "openvino", "torch"), _one)


def _opened(args: Any) -> tuple[PathNet, FinishedRun | None]:
    """The network, and the run that it comes from, if it does."""
    source = args.source
    if (source / "recipe.json").is_file():
        from polypath.analysis.finished_run import FinishedRun

        run = FinishedRun(source, data_moved=args.data_moved)
        return run.net, run
    from polypath.storage.loading import load

    return load(source), None


def _texts(args: Any) -> list[str]:
    """The choices that were asked for; none where none were.

    Raises:
        ValueError: ``found`` where nothing was found, or in another network.
    """
    from polypath.cli.runs import texts_of

    return texts_of(args.source, args.paths or ())


def _statistics(args: Any, run: FinishedRun | None, chosen: list[Paths]) -> BatchNormStatistics | None:
    return None if args.no_recalibrate or run is None else run.recalibrated(chosen, args.num_images)


def _run_facts(run: FinishedRun) -> dict[str, Any]:
    """Revision and seed of the training itself."""
    from polypath.training.result import read_result

    try:
        sessions, result = run.run.sessions(), read_result(run.run)
    except ValueError:
        return {"seed": run.recipe.seed}
    keep = ("revision", "torch", "device_name", "threads", "started")
    return {
        "seed": run.recipe.seed,
        "sessions": [{key: session.get(key) for key in keep} for session in sessions],
        "seconds": result.seconds,
        "test_error_of_the_run": result.test_error,
    }
