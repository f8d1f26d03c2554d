"""``polypath report``: describe a run on one self-contained HTML page."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polypath.cli.output import say
from polypath.cli.parser import PROGRAM, Parser, positive
from polypath.cli.tables import percent, print_json
from polypath.core.display import short_count

if TYPE_CHECKING:
    from torch import Tensor

    from polypath.analysis.finished_run import FinishedRun
    from polypath.analysis.report.contents import Report
    from polypath.analysis.tables import PathTable
    from polypath.core.batchnorm import BatchNormStatistics
    from polypath.data.batches import Part
    from polypath.data.loader import BatchesBase
    from polypath.training.result import RunResult

PAGE = "report.html"
REPEATS = 20
RECALIBRATED = 2000  # training images to recalibrate on, with --paths
ACCELERATED = 50.0  # an accelerator may spend this many times the multiply-adds of a CPU


def report(argv: list[str]) -> None:
    """Describe a finished run on one HTML page that works offline. The page shows the wiring with any path highlighted,
    training curves, the path table, error against cost, confusion between classes, calibration, agreement, importance,
    depths, galleries, and the image regions that support a path's answer (Grad-CAM)."""
    parser = Parser("report", report.__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_paths()
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"file of the page (default RUN/{PAGE})")
    parser.add_argument(
        "--images", type=positive, default=2000, help="largest number of test images per analysis (default 2000)"
    )
    parser.add_argument("--device", help="device that runs the paths (default: the recipe's device)")
    parser.add_data_moved()
    parser.add_json()
    args = parser.read(argv)

    from polypath.analysis.finished_run import FinishedRun
    from polypath.analysis.report.page import page
    from polypath.storage.files import write_file
    from polypath.training.result import read_result

    run = FinishedRun(args.run, args.device, data_moved=args.data_moved, by="report")
    result = read_result(run.run)
    out = args.out or run.folder / PAGE
    check_writable(out)
    inside = out.parent.resolve() == run.folder.resolve()
    with run.run.lock if inside else contextlib.nullcontext():
        contents = gathered(run, result, args.images, args.paths)
        text = page(contents)
        write_file(out, text)
    if args.json:
        facts = {"out": str(out), "bytes": len(text.encode()), "paths": list(contents.paths), "notes": contents.notes}
        print_json(facts)
        return
    say(f"wrote {out} ({len(text.encode()) / 1e6:.1f} MB); open it in a browser, it works offline")


def gathered(run: FinishedRun, result: RunResult, images: int, texts: Sequence[str] | None = None) -> Report:
    """Return the contents of a run's page, for the paths of its path table or for the choices in ``texts``.

    Raises:
        ValueError: the path table or the statistics are damaged or belong to another network, or images are missing.
    """
    from polypath.analysis.report.contents import BUDGET, Report, analysed
    from polypath.cli.runs import STATISTICS
    from polypath.storage.batchnorm import load_statistics
    from polypath.training.recipe import recipe_to_json

    table, computed, stats = _table(run, texts)
    paths = {row.name: _choice(run, row.paths) for row in table.rows}
    if not texts and (run.folder / STATISTICS).is_file():
        stats = load_statistics(run.folder / STATISTICS)
    feed = _Feed(run)
    budget = BUDGET * (1.0 if run.device.type == "cpu" else ACCELERATED)
    found = analysed(
        run.net,
        paths,
        feed,
        feed.stored,
        classes=run.data.classes,
        size=run.image_size,
        held_out=run.data.validation is not None,
        stats=stats,
        views=feed.views,
        most=images,
        budget=budget,
    )
    notes = [table.note, *result.notes, *found.pop("notes")]
    if computed and not texts:
        notes.append(f"the run has no paths.json, so its table was measured now; `{PROGRAM} paths` measures longer")
    sessions = run.run.sessions()
    return Report(
        title=run.name,
        facts=_facts(run, result, table, sessions[-1] if sessions else {}),
        notes=list(dict.fromkeys(note for note in notes if note)),
        wiring=run.net.wiring,
        paths=paths,
        table=table,
        curves=run.run.metrics(),
        recipe=recipe_to_json(run.recipe),
        sessions=sessions,
        **found,
    )


def check_writable(out: Path) -> None:
    """Check that a file can be written, before the analyses run.

    Raises:
        ValueError: ``out`` is a folder, its folder does not exist, or there is no permission.
    """
    if out.is_dir():
        raise ValueError(f"--out {out}: is a folder; give a file in it, such as {out / PAGE}")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent)
    except OSError as error:
        raise ValueError(f"--out {out}: cannot be written ({error.strerror or error})") from error
    os.close(handle)
    os.unlink(name)


def _table(run: FinishedRun, texts: Sequence[str] | None) -> tuple[PathTable, bool, BatchNormStatistics | None]:
    """Return the run's path table, whether it was measured now, and the batch-norm statistics used to measure it.

    With ``texts``, the table is always measured, with batch-norm recalibrated for each path, as search and export do.
    """
    from polypath.analysis.tables import PathTable, path_table
    from polypath.cli.paths import gates_note
    from polypath.cli.runs import paths_of, subject
    from polypath.storage.decode import read

    file = run.folder / "paths.json"
    if file.is_file() and not texts:
        try:
            return read(file, PathTable), False, None
        except ValueError as error:
            raise ValueError(f"{error}; `{PROGRAM} paths {run.folder}` rewrites the file") from error
    note = "; ".join(text for text in (run.data.note, gates_note(run)) if text)
    table, stats = path_table(
        subject(run, paths_of(run, texts)),
        data=run.data.name,
        note=note,
        num_images=RECALIBRATED if texts and run.recalibrates else None,
        seed=run.recipe.seed,
        repeats=REPEATS,
    )
    return table, True, stats


def _choice(run: FinishedRun, text: str) -> Any:
    try:
        return run.net.paths(text)
    except ValueError as error:
        raise ValueError(
            f"{run.folder / 'paths.json'}: belongs to another network ({error}); "
            f"`{PROGRAM} paths {run.folder}` rewrites the file"
        ) from error


class _Feed:
    """A source of batches of a run's test or held-out images. At most ``most`` images are used, spread evenly over the
    split."""

    def __init__(self, run: FinishedRun) -> None:
        self.run, self.views = run, run.recipe.data.eval_crops

    def __call__(self, part: Part, most: int, looks: int = 1) -> BatchesBase:
        split = getattr(self.run.data, part)
        fewer = dataclasses.replace(self.run.data, **{part: split.subset(_evenly(len(split), most))})
        return self.run.batches(part, fewer, looks=looks)

    def stored(self, places: Sequence[int], most: int) -> Tensor:
        """Return the stored test images ``(n, C, H, W)`` uint8 at the given indices into ``self("test", most)``."""
        from polypath.data.split import Split

        split = self.run.data.test
        indices = _evenly(len(split), most)[list(places)]
        return split.images[indices] if isinstance(split, Split) else split.decode(indices.tolist())[0]


def _evenly(count: int, most: int) -> Tensor:
    import torch

    return torch.arange(count) if count <= most else torch.arange(most) * count // most


def _facts(run: FinishedRun, result: RunResult, table: PathTable, session: dict[str, Any]) -> dict[str, str]:
    from polypath.core.display import short_macs

    counted = run.net.wiring.depth_distribution()
    least, most, total = min(counted), max(counted), sum(counted.values())
    model = run.recipe.model
    return {
        "test error": f"{percent(result.test_error)}%",
        "test images": f"{result.test_images:,}",
        "test evaluations": f"{run.test_evaluations:,}",
        "network": str(getattr(model, "family", type(model).__name__)),
        "parameters": f"{result.parameters:,}",
        "MACs of one image": short_macs(table.rows[0].macs),
        "paths": f"{total:,}" if total < 10**9 else short_count(total),
        "depth": f"{least} layers" if least == most else f"{least} to {most} layers",
        "data": run.data.name,
        "epoch": f"{result.epoch} of {run.recipe.epochs} ({result.reported})",
        "seed": str(result.seed),
        "training": f"{result.seconds:,.0f} s, {result.steps:,} steps",
        "device": str(session.get("device_name") or result.device),
        "torch": str(session.get("torch") or "–"),
        "revision": _short(result.revision),
    }


def _short(revision: str | None) -> str:
    if revision is None:
        return "not in a git checkout"
    head, plus, rest = revision.partition("+")
    return head[:12] + plus + rest
