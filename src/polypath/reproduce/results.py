"""What an experiment came to, as a value and as a folder:

result.json     what was run (scale and what it changes, seeds, revision, versions, device, time), what was measured,
                the verdicts
result.md       the same for people: measured beside published
figure.png, figure.svg    in the paper's form
correct.npz     which test images each network answers rightly, in bits, so that verdicts can be computed anew; left out
                where it would be larger than 200 kB
recipes.json    the arms' recipes, the first whole, of the others what differs
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polypath.reproduce.bootstrap import Sample
from polypath.reproduce.claims import Verdict
from polypath.reproduce.code import code_id, definition_id
from polypath.reproduce.experiment import Cell, Experiment, Measured, Scale
from polypath.reproduce.measured import packed, unpacked
from polypath.reproduce.published import value
from polypath.storage.files import read_json, write_file, write_json
from polypath.training.build import resolve_device
from polypath.training.recipe import Recipe, recipe_to_json
from polypath.training.run import environment, revision

if TYPE_CHECKING:
    import pandas

FILES = ("result.json", "result.md", "figure.png", "figure.svg", "correct.npz", "recipes.json")
LARGEST = 200_000  # bytes of correct.npz
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Result:
    """An experiment's result.

    Attributes:
        changes: what the scale changes from the paper's setting.
        code: :func:`polypath.reproduce.code.code_id` of the code that made it; ``definition``: of the experiment.
        seconds: of this call; ``training_seconds``: of all runs together.
        data: names of the datasets and what to know of them.
        errors: test error in percent by key, one for each seed.
        images: test images by key.
        values: scalars by key, one for each seed; ``counts``: exact numbers by key.
        curves, histograms: by key, one for each seed.
        pictures: PNG in base64 by key, of the first seed.
        published: printed number by key, None where the text has lost it.
        diverged: runs whose loss was not finite, and why.
        correct: answers ``(seeds, images)`` by key, where they are kept.
    """

    experiment: str
    scale: str
    place: str
    shows: str
    changes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    revision: str | None = None
    code: str = ""
    definition: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    training_seconds: float = 0.0
    data: list[str] = field(default_factory=list)
    errors: dict[str, list[float]] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    curves: dict[str, list[list[tuple[float, float]]]] = field(default_factory=dict)
    histograms: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict, repr=False)
    published: dict[str, float | str | None] = field(default_factory=dict)
    diverged: dict[str, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    arms: dict[str, Any] = field(default_factory=dict, repr=False)
    correct: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    test_sets: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def stale(self) -> bool:
        """Whether it was made by other code than that which runs now."""
        return self.code != code_id()

    def mean(self, key: str) -> float:
        """Mean error or scalar of a key over the seeds, or a count."""
        for found in (self.errors, self.values):
            if key in found:
                return float(np.mean(found[key]))
        return self.counts[key]

    def std(self, key: str) -> float | None:
        """Standard deviation over the seeds; None for fewer than two and for counts."""
        found = self.errors.get(key) or self.values.get(key) or []
        return float(np.std(found, ddof=1)) if len(found) > 1 else None

    def verdict(self, text: str) -> Verdict:
        """The verdict on the claim whose text begins so.

        Raises:
            KeyError: no such claim.
        """
        for found in self.verdicts:
            if found.text.startswith(text):
                return found
        raise KeyError(text)

    def sample(self) -> Sample:
        """What verdicts are computed from; needs ``correct``."""
        values = {key: np.asarray(v, dtype=float) for key, v in self.values.items()}
        return Sample(self.correct, self.test_sets, values)

    def frame(self) -> pandas.DataFrame:
        """A row a key: ``what``, ``measured`` (mean), ``std``, ``unit``, ``seeds``, ``published``."""
        import pandas

        rows = []
        for key in (*self.errors, *self.values, *self.counts):
            n = len(self.errors.get(key, self.values.get(key, [])))
            row = {"what": key, "measured": self.mean(key), "std": self.std(key), "unit": self.unit(key), "seeds": n}
            rows.append(row | {"published": self.published.get(key)})
        return pandas.DataFrame(rows, columns=["what", "measured", "std", "unit", "seeds", "published"])

    def unit(self, key: str) -> str:
        """Unit of a key's numbers: error in percent, or what the experiment says of keys that end so."""
        if key in self.errors:
            return "% error"
        return next((unit for end, unit in self.units.items() if key.endswith(end)), "")

    # --- files -------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """All but the recipes and the answers."""
        small = replace(self, arms={}, correct={})
        return {"format": FORMAT, **{k: v for k, v in asdict(small).items() if k not in ("arms", "correct")}}

    def save(self, folder: str | os.PathLike[str], experiment: Experiment | None = None) -> None:
        """Write the folder's files; each is whole or not there. ``experiment`` draws the figure."""
        from polypath.analysis.plots.paths import save_figure
        from polypath.reproduce.figures import error_bars
        from polypath.reproduce.page import section

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        bits = packed(self.correct, self.test_sets) if self.correct else b""
        if 0 < len(bits) <= LARGEST:
            write_file(folder / "correct.npz", bits)
        write_json(folder / "recipes.json", self.arms)
        figure = (experiment.figure if experiment is not None and experiment.figure else error_bars)(self)
        save_figure(figure, folder, "figure")
        write_file(folder / "result.md", section(self, experiment, level=1))
        write_json(folder / "result.json", self.to_json())  # last: a folder that has it is whole


def load_result(folder: str | os.PathLike[str]) -> Result:
    """What :meth:`Result.save` wrote; ``correct`` is empty where it was too large to keep.

    Raises:
        ValueError: no result, or a damaged one.
    """
    folder = Path(folder)
    held = read_json(folder / "result.json")
    try:
        if held.pop("format") != FORMAT:
            raise ValueError(f"{folder / 'result.json'}: of another format than {FORMAT}")
        held["verdicts"] = [
            Verdict(**(v | {"interval": tuple(v["interval"]) if v["interval"] else None})) for v in held["verdicts"]
        ]
        held["curves"] = {k: [[(x, y) for x, y in line] for line in lines] for k, lines in held["curves"].items()}
        held |= {name: tuple(held[name]) for name in ("changes", "seeds")}
        result = Result(**held)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'result.json'}: no result, or a damaged one ({error})") from error
    if (folder / "correct.npz").is_file():
        correct, _ = unpacked(folder / "correct.npz")
        result = replace(result, correct=correct)
    return result


def set_aside(folder: Path) -> Path | None:
    """Move the result of another revision that ``folder`` holds to ``stale-CODE`` in it; None where there is none."""
    if not (folder / "result.json").is_file():
        return None
    code = str(read_json(folder / "result.json").get("code") or "unknown")
    if code == code_id():
        return None
    kept = folder / f"stale-{code}"
    if kept.exists():
        shutil.rmtree(kept)
    kept.mkdir()
    for name in FILES:
        if (folder / name).exists():
            os.replace(folder / name, kept / name)
    return kept


def collect(
    experiment: Experiment,
    scale: str,
    plan: Scale,
    measured: Mapping[int, Measured],
    counts: Mapping[str, float],
    runs: Path,
    data: list[str],
    seconds: float,
) -> Result:
    """Put the seeds' measurements together; keys that not every seed has are left out."""
    per_seed = list(measured.values())
    correct = {key: np.stack([m.correct[key].hits for m in per_seed]) for key in _common(per_seed, "correct")}
    done = [read_json(p) for p in sorted(runs.glob("*/summary.json"))]
    failed = {p.parent.name: p.read_text(encoding="utf-8").strip() for p in sorted(runs.glob("*/failed.json"))}
    names = {f"{folder.name}" for folder in runs.glob("*,seed=*")}
    devices = {recipe.device for recipe in plan.arms.values()} or {"cpu"}
    keys = {*correct, *_common(per_seed, "values"), *counts}
    return Result(
        experiment=experiment.name,
        scale=scale,
        place=experiment.place,
        shows=experiment.shows,
        changes=plan.changes,
        seeds=tuple(measured),
        revision=revision(),
        code=code_id(),
        definition=definition_id(experiment, scale, plan),
        environment=_environment(sorted(devices)[0]),
        seconds=round(seconds, 1),
        training_seconds=round(sum(d["seconds"] for d in done), 1),
        data=data,
        errors={key: [round(100.0 * (1.0 - float(row.mean())), 4) for row in hits] for key, hits in correct.items()},
        images={key: hits.shape[1] for key, hits in correct.items()},
        values={key: [float(m.values[key]) for m in per_seed] for key in _common(per_seed, "values")},
        counts={key: float(v) for key, v in counts.items()},
        units=dict(experiment.units),
        curves={key: [list(m.curves[key]) for m in per_seed] for key in _common(per_seed, "curves")},
        histograms={key: [dict(m.histograms[key]) for m in per_seed] for key in _common(per_seed, "histograms")},
        pictures=dict(per_seed[0].pictures) if per_seed else {},
        published={k: _printed(experiment, cell) for k, cell in experiment.published.items() if k in keys},
        diverged={k: v for k, v in failed.items() if k in names},
        arms=_arms(plan.arms),
        correct=correct,
        test_sets={key: per_seed[0].correct[key].images for key in correct},
    )


def _common(per_seed: list[Measured], what: str) -> list[str]:
    """Keys that all seeds have, in the first one's order."""
    if not per_seed:
        return []
    return [key for key in getattr(per_seed[0], what) if all(key in getattr(m, what) for m in per_seed)]


def _printed(experiment: Experiment, cell: Cell) -> float | str | None:
    printed = value(cell.paper or experiment.paper, cell.table, cell.column, **cell.row)
    return round(100.0 - printed, 4) if cell.complement and isinstance(printed, float | int) else printed


def _environment(device: str) -> dict[str, Any]:
    found = environment(resolve_device(device))
    return {k: v for k, v in found.items() if k not in ("command", "revision")}  # a command names paths of a machine


def _arms(arms: Mapping[str, Recipe]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    first: dict[str, Any] = {}
    for arm, recipe in arms.items():
        flat = _flat(recipe_to_json(recipe))
        flat = {k: v for k, v in flat.items() if k not in ("name", "seed", "data.source")}
        told[arm] = {k: v for k, v in flat.items() if first.get(k) != v or k not in first}
        first = first or flat
    return told


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, v in values.items():
        flat |= _flat(v, f"{prefix}{key}.") if isinstance(v, dict) and v else {f"{prefix}{key}": v}
    return flat
