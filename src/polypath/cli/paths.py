"""``polypath paths``: measure error, cost and latency of every named path of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from polypath.cli.output import say
from polypath.cli.parser import Parser, positive
from polypath.cli.tables import millions, milliseconds, percent, print_json, print_table

if TYPE_CHECKING:
    from polypath.analysis.finished_run import FinishedRun
    from polypath.analysis.tables import PathTable


def paths(argv: list[str]) -> None:
    """Measure the test error, cost and latency of every named path of a run. With --paths, measure the whole network
    and the given paths instead. The results are written into the run's folder as paths.csv, paths.json, paths.png and
    paths.svg, and as a table in the model card."""
    parser = Parser("paths", paths.__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_paths()
    parser.add_argument(
        "--recalibrate", action="store_true", help="also measure errors with batch-norm recalibrated for each path"
    )
    parser.add_argument(
        "--num-images", type=positive, default=2000, help="training images to recalibrate on (default 2000)"
    )
    parser.add_argument(
        "--rival", type=Path, action="append", default=[], metavar="RUN", help="another run to compare with; repeatable"
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="PATHS",
        help="an additional choice, such as column=2; repeatable",
    )
    parser.add_argument("--repeats", type=positive, default=50, help="latency measurements of each path (default 50)")
    parser.add_argument("--device", help="device on which to measure (default: the recipe's device)")
    parser.add_data_moved()
    parser.add_json()
    args = parser.read(argv)

    from polypath.analysis.finished_run import FinishedRun
    from polypath.analysis.tables import path_table
    from polypath.cli.runs import STATISTICS, paths_of, subject

    run = FinishedRun(args.run, args.device, data_moved=args.data_moved, by="paths")
    with run.run.lock:
        chosen = paths_of(run, args.paths) | {text: run.net.paths(text) for text in args.also}
        rivals = [_rival(folder, run, args.device) for folder in args.rival]
        table, stats = path_table(
            subject(run, chosen),
            [subject(rival) for rival in rivals],
            data=run.data.name,
            note="; ".join(note for note in (run.data.note, gates_note(run)) if note),
            num_images=args.num_images if args.recalibrate else None,
            seed=run.recipe.seed,
            repeats=args.repeats,
        )
        table = replace(table, test_evaluations=run.test_evaluations)
        written = table.save(run.folder)
        if stats is not None:
            from polypath.storage.batchnorm import save_statistics

            save_statistics(stats, run.folder / STATISTICS)
            written.append(run.folder / STATISTICS)
        _update_card(run, table)
    if args.json:
        print_json(table.to_json())
        return
    show(table)
    if run.recalibrates and not args.recalibrate:
        say("--recalibrate also shows the errors that the paths have in a bundle")
    say(f"wrote {', '.join(path.name for path in written)} into {run.folder}")


def show(table: PathTable) -> None:
    """Print a path table."""
    recalibrated = table.recalibrated is not None
    head = ["path", *(["error %", "recalibrated %"] if recalibrated else ["error %"])]
    head += ["p50 ms", "p95 ms", "depth", "params", "activations"]
    rows = []
    for run, of_run in table.runs.items():
        for row in of_run:
            name = row.name if run == table.run else run if row.name == "whole" else f"{run}: {row.name}"
            errors = [percent(row.error), *([percent(row.error_recalibrated)] if recalibrated else [])]
            times = [milliseconds(row.p50_ms), milliseconds(row.p95_ms)]
            memory = f"{row.activation_bytes / 2**20:.2f} MiB"
            rows.append([name, *errors, *times, str(row.depth), f"{row.params:,}", memory])
    whole = table.rows[0]
    shares = ", ".join(f"{row.name} {row.macs / whole.macs:.0%}" for row in table.rows[1:])
    notes = [table.facts(), f"MACs of one image: {millions(whole.macs)}" + (f"; {shares}" if shares else "")]
    notes += [table.note] if table.note else []
    print_table(f"Paths of {table.run}", head, rows, notes=notes)


def gates_note(run: FinishedRun) -> str:
    """Return a caveat on the figures of a network with gates. For other networks, return an empty text."""
    if not any(join.gates for join in run.net.wiring.joins.values()):
        return ""
    return "where gates decide, MACs are the maximum for any image, and latency is that of one random image"


def _rival(folder: Path, run: FinishedRun, device: str | None) -> FinishedRun:
    """Open another run that has the same test images.

    Raises:
        ValueError: the test images of the other run are different.
    """
    from polypath.analysis.finished_run import FinishedRun

    rival = FinishedRun(folder, device, by="paths")
    if rival.reads_as(run):
        rival.data = run.data
    elif rival.data.test.fingerprint() != run.data.test.fingerprint():
        raise ValueError(
            f"--rival {folder}: has other test images ({rival.data.name}, {len(rival.data.test)} images) than "
            f"{run.folder} ({run.data.name}, {len(run.data.test)}); train the rival on the same data"
        )
    return rival


def _update_card(run: FinishedRun, table: PathTable) -> None:
    from polypath.storage.saving import save

    save(
        run.net.cpu(),
        run.folder / "model",
        overwrite=True,
        path_table=table.rows,
        dataset=run.data.name,
        notes=[note for note in (table.facts(), table.note) if note],
    )
