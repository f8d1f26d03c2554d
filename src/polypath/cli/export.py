"""``polypath export``: write paths for other runtimes, or as a bundle that classifies images within a time budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from polypath.cli.output import say
from polypath.cli.parser import Parser, number_of, positive
from polypath.cli.tables import millions, percent, print_json, print_table
from polypath.core.checks import number
from polypath.storage.files import check_vacant

if TYPE_CHECKING:
    from polypath.analysis.finished_run import FinishedRun
    from polypath.core.batchnorm import BatchNormStatistics
    from polypath.core.network import PathNet
    from polypath.core.paths import Paths
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.candidates import BundleNetwork

FORMATS = ("bundle", "onnx", "openvino", "torch", "triton")


def export(argv: list[str]) -> None:
    """Write paths of a run, or of a saved network, for deployment: as a bundle, or each as a separate graph. Several
    runs with the same classes and images can be written as one bundle, whose paths are called NETWORK:PATH."""
    parser = Parser("export", export.__doc__)
    parser.add_argument(
        "source",
        nargs="+",
        type=Path,
        help="folder of a finished run, a saved network, or (for triton) a bundle; several runs make one bundle",
    )
    parser.add_argument(
        "--paths",
        action="append",
        metavar="TEXT",
        help="a choice, such as column=3; 'found' means the paths found by `polypath search`; with several networks, "
        "TEXT applies to each of them, and NETWORK:TEXT to one; repeatable",
    )
    parser.add_argument("--format", choices=FORMATS, default="bundle", help="format to write (default bundle)")
    parser.add_argument(
        "--out", type=Path, help="new folder (default for one source: ./SOURCE-FORMAT, such as my-images-bundle)"
    )
    parser.add_argument("--name", help="name of the bundle (default: the name of its folder)")
    parser.add_argument("--keep", action="store_true", help="keep paths even if cheaper ones are as accurate (bundle)")
    parser.add_argument(
        "--no-recalibrate", action="store_true", help="do not recalibrate the batch-norm statistics of a run's paths"
    )
    parser.add_argument(
        "--num-images", type=positive, default=2000, help="training images to recalibrate on (default 2000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed for splitting the held-out images (default 0)")
    parser.add_argument(
        "--measure", type=positive, action="append", default=[], metavar="BATCH", help="time paths at this batch size"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "int8", "mixed"),
        default="float32",
        help="precision of a bundle's graphs (default float32); int8: write a path in int8 instead of float32 if its "
        "error rises by at most --max-drop; mixed: keep all float32 paths, and add an int8 path where no other path is "
        "as fast and as accurate on this machine",
    )
    parser.add_argument(
        "--max-drop",
        type=number_of(float, number(0, 100)),
        metavar="POINTS",
        help="largest rise of a path's held-out error in int8, in percentage points (default 0.5)",
    )
    parser.add_argument(
        "--calibration-images", type=positive, help="training images to compute the int8 ranges from (default 300)"
    )
    parser.add_data_moved()
    parser.add_argument("--note", action="append", default=[], help="a sentence for the bundle's card")
    parser.add_json()
    args = parser.read(argv)
    if args.out is None:
        if len(args.source) > 1:
            raise ValueError("--out: is required with several sources")
        args.out = Path(f"{args.source[0].resolve().name}-{args.format}")
    check_vacant(args.out, "--out ")
    if len(args.source) > 1 and args.format != "bundle":
        raise ValueError(f"--format {args.format}: accepts one run or network; only a bundle accepts several")

    if args.precision == "float32":
        for option, value in (("--max-drop", args.max_drop), ("--calibration-images", args.calibration_images)):
            if value is not None:
                raise ValueError(f"{option} {value:g}: is only allowed with --precision int8 or mixed")
    elif args.format != "bundle":
        raise ValueError(
            f"--precision {args.precision}: is only allowed for a bundle; --format {args.format} writes float32"
        )

    from polypath.deploy.needs import check_installed

    check_installed(args.format)
    if args.precision != "float32":
        check_installed("int8")
    facts = _FORMAT[args.format](args)
    if args.json:
        print_json(facts)


def _bundle(args: Any) -> dict[str, Any]:
    from polypath.deploy.precision import on_kind
    from polypath.profiling.instructions import instructions

    bundle, statistics = _of_several(args) if len(args.source) > 1 else _of_one(args)
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    if any(path.precision == "int8" for path in bundle.paths):
        statistics.append(f"errors in int8 were measured with {instructions()} instructions")
    elif args.precision != "float32":
        statistics.append("no path is in int8: each loses too much accuracy, or saves too little time")
    if not args.json:
        rows = [
            [
                p.name,
                percent(p.error),
                percent(p.test_error),
                millions(p.macs),
                f"{p.params:,}",
                f"{p.temperature:.3f}" if p.calibration.get("fitted_on") else "–",
            ]
            for p in on_kind(bundle, instructions()).paths
        ]
        head = ["path", "held-out error %", "test error %", "MACs", "params", "temperature"]
        print_table(f"Bundle {bundle.name}", head, rows, notes=[*statistics, f"{size / 2**20:.2f} MiB in {args.out}"])
    changed = _ladder(bundle, quiet=args.json)
    return {"out": str(args.out), "bytes": size, "flips": changed, **bundle.manifest.to_json()}


def _of_one(args: Any) -> tuple[Bundle, list[str]]:
    """Write the bundle of one source. Return the bundle, and a note on its batch-norm statistics."""
    from polypath.cli.runs import texts_of
    from polypath.deploy.from_runs import count_looks, notes_of
    from polypath.deploy.write import write_bundle

    net, run = _opened(args, args.source[0])
    texts = texts_of(args.source[0], args.paths or ()) or None
    one = _network(args, net, run, texts)
    _make_room(args)
    bundle = write_bundle(
        one.net,
        args.out,
        one.paths,
        statistics=one.statistics,
        held_out=one.held_out,
        keep=(texts or list(net.named_paths())) if args.keep else (),
        name=args.name,
        about={**_written(run), **one.about} if run is not None else {},
        notes=[*args.note, *(notes_of(run) if run is not None else ())],
        measure=args.measure,
        calibration=one.calibration,
        **_precision(args),
    )
    if run is not None and one.held_out is not None:
        count_looks(bundle, {"": run})
    return bundle, [_norms(one)]


def _of_several(args: Any) -> tuple[Bundle, list[str]]:
    """Write one bundle of several sources, which are all runs or all saved networks. Return the bundle, and a note on
    the batch-norm statistics of each source."""
    from polypath.cli.runs import texts_of
    from polypath.deploy.candidates import of_network
    from polypath.deploy.from_runs import check_same_runs, count_looks, names_of, notes_of
    from polypath.deploy.write import write_networks

    opened_at = names_of(args.source)
    opened = {name: _opened(args, source) for name, source in opened_at.items()}
    runs = {name: run for name, (_, run) in opened.items() if run is not None}
    if runs and len(runs) < len(opened):
        other = next(name for name in opened if name not in runs)
        raise ValueError(f"{opened_at[other]}: is not a run, unlike the others, so its training images are unknown")
    texts = {name: texts_of(opened_at[name], _texts(args.paths, name, list(opened))) or None for name in opened}
    for name, (net, _) in opened.items():
        with of_network(name):
            for text in texts[name] or ():
                net.paths(text)
    if runs:
        check_same_runs(runs)
    networks = {name: _network(args, net, run, texts[name]) for name, (net, run) in opened.items()}
    named = {name: texts[name] or list(net.named_paths()) for name, (net, _) in opened.items()}
    _make_room(args)
    bundle = write_networks(
        networks,
        args.out,
        keep=[f"{name}:{text}" for name in named for text in named[name]] if args.keep else (),
        name=args.name,
        about=_written(next(iter(runs.values()))) if runs else {},
        notes=[*args.note, *(f"{name}: {note}" for name, run in runs.items() for note in notes_of(run))],
        measure=args.measure,
        **_precision(args),
    )
    count_looks(bundle, {name: run for name, run in runs.items() if networks[name].held_out is not None})
    return bundle, [f"{name}: {_norms(one)}" for name, one in networks.items()]


def _texts(asked: list[str] | None, name: str, names: list[str]) -> list[str]:
    """Return the choices that were requested for the network ``name``."""
    own = []
    for text in asked or ():
        network, colon, rest = text.partition(":")
        if colon and network not in names:
            raise ValueError(f"--paths {text}: there is no network {network!r}; the networks are {', '.join(names)}")
        if not colon or network == name:
            own.append(rest if colon else text)
    return own


def _network(args: Any, net: PathNet, run: FinishedRun | None, texts: list[str] | None) -> BundleNetwork:
    from polypath.deploy.candidates import BundleNetwork
    from polypath.deploy.from_runs import network_of
    from polypath.deploy.quantise import IMAGES_NEEDED

    if run is None:
        return BundleNetwork(net.cpu(), texts)
    return network_of(
        run,
        texts,
        num_images=None if args.no_recalibrate else args.num_images,
        seed=args.seed,
        calibration_images=None if args.precision == "float32" else args.calibration_images or IMAGES_NEEDED,
    )


def _precision(args: Any) -> dict[str, Any]:
    """Return the precision arguments for the functions that write bundles."""
    return {"precision": args.precision} | ({} if args.max_drop is None else {"max_drop": args.max_drop})


def _norms(one: BundleNetwork) -> str:
    from polypath.core.batchnorm import statistics_note

    return statistics_note(one.statistics.record if one.statistics is not None else one.net.config.get("statistics"))


def _written(run: FinishedRun) -> dict[str, Any]:
    """Return the facts for a bundle's manifest: its data set, and the machine and versions that wrote the bundle."""
    from polypath.training.run import environment

    written = environment(run.device)
    written.pop("command")  # it contains local paths
    return {"dataset": run.data.name, "written": written}


def _make_room(args: Any) -> None:
    if args.out.exists():
        args.out.rmdir()


def _ladder(bundle: Bundle, *, quiet: bool) -> list[dict[str, int]]:
    """Print the steps of the bundle's ladder. Return how many held-out answers each step changes from wrong to right,
    and from right to wrong."""
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
        notes = [f"all steps together take {share:.2f} times the MACs of the most expensive path"]
        notes += [f"the last two columns count changes among {changed[0].images:,} held-out answers"] if changed else []
        head = ["step", "average of", "MACs run", "held-out error %", "wrong to right", "right to wrong"]
        print_table("Successively better answers", head, rows, notes=notes)
    return [asdict(f) for f in changed]


def _one(args: Any) -> dict[str, Any]:
    from polypath.cli.runs import texts_of
    from polypath.core.batchnorm import statistics_note
    from polypath.deploy.export import export_path

    net, run = _opened(args, args.source[0])
    asked = texts_of(args.source[0], args.paths or ())
    if args.format == "onnx" and not asked and any(join.gates for join in net.wiring.joins.values()):
        from polypath.deploy.stepwise_write import write_stepwise

        _make_room(args)
        found = write_stepwise(net.cpu(), args.out)
        checks = [{"runtime": c.runtime, "max_abs": c.max_abs} for c in found]
        files = [file for file in args.out.iterdir() if file.is_file()]
        _tell(args, f"wrote {len(files)} files into {args.out}: {sum(f.stat().st_size for f in files) / 2**20:.2f} MiB")
        return {"out": str(args.out), "format": "onnx, step by step", "checks": checks}
    rows, total = [], 0
    for text in asked or ["whole"]:
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

    bundle = Bundle.open(args.source[0])
    if args.paths:
        bundle = bundle.with_paths(args.paths)
    names = write_repository(bundle, args.out)
    _tell(args, f"wrote {len(names)} models into {args.out}: {', '.join(names)}")
    return {"out": str(args.out), "models": names}


def _tell(args: Any, text: str) -> None:
    """Print a line of the result, unless the output is JSON."""
    if not args.json:
        say(text)


_FORMAT = {"bundle": _bundle, "triton": _triton} | dict.fromkeys(("onnx", "openvino", "torch"), _one)


def _opened(args: Any, source: Path) -> tuple[PathNet, FinishedRun | None]:
    """Return the network of a source, and also the run if the source is a run."""
    if (source / "recipe.json").is_file():
        from polypath.analysis.finished_run import FinishedRun

        run = FinishedRun(source, data_moved=args.data_moved, by="export")
        return run.net, run
    from polypath.storage.loading import load

    return load(source), None


def _statistics(args: Any, run: FinishedRun | None, chosen: list[Paths]) -> BatchNormStatistics | None:
    return None if args.no_recalibrate or run is None else run.recalibrated(chosen, args.num_images)
