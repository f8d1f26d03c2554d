"""Log a run to TensorBoard and, if the recipe says so, to W&B or trackio. Draw ``curves.png``."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from polypath.core.extras import need
from polypath.storage.decode import read
from polypath.storage.files import write_file, write_json
from polypath.training.recipe import Recipe, recipe_to_json

PROJECT = "polypath"


class Trackers:
    """The trackers of a run: TensorBoard, and the recipe's tracking service, if it has one."""

    def __init__(self, run_dir: Path, recipe: Recipe, step: int = 0) -> None:
        """
        Args:
            step: the step from which the run resumes. TensorBoard then hides old events of later steps.

        Raises:
            ImportError: the package of the service is missing; the message says which extra to install.
        """
        from torch.utils.tensorboard import SummaryWriter

        self.service = open_service(recipe.tracker, run_dir, recipe_to_json(recipe))
        self.board = SummaryWriter(str(run_dir), purge_step=step or None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars of one step, by name."""
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        if self.service is not None:
            self.service.log(dict(values), step=step)

    def close(self) -> None:
        self.board.close()
        if self.service is not None:
            with contextlib.redirect_stdout(sys.stderr):
                self.service.finish()


def check_tracker(service: str) -> ModuleType | None:
    """Import the package of a tracking service. Return None for ``none``.

    Raises:
        ImportError: the package is missing; the message says which extra to install.
    """
    return None if service == "none" else need(service, f"tracker {service!r}", service)


def open_service(service: str, run_dir: Path, config: Mapping[str, Any]) -> Any:
    """Open a tracking service. Return an object with wandb's interface (``log``, ``finish``), or None for ``none``.

    Raises:
        ImportError: as for :class:`Trackers`.
    """
    if service == "none":
        return None
    module: Any = check_tracker(service)
    own = _own_id(run_dir)
    options = {"name": f"{run_dir.name}-{own}"}  # trackio identifies a run by its name
    if service == "wandb":
        options = {"name": run_dir.name, "id": own, "dir": str(run_dir)}
    with contextlib.redirect_stdout(sys.stderr):  # a service's messages must not mix with a command's output
        module.init(project=PROJECT, config=dict(config), resume="allow", **options)
    return module


def _own_id(run_dir: Path) -> str:
    """Return the run's id in the service. It is kept in ``tracker.json``, since run folders may have equal names."""
    file = run_dir / "tracker.json"
    with contextlib.suppress(ValueError, KeyError):
        return read(file, dict[str, str])["id"]
    own = uuid.uuid4().hex[:8]
    write_json(file, {"id": own})
    return own


def draw_curves(rows: Sequence[Mapping[str, Any]], file: Path, title: str) -> None:
    """Plot the losses and errors of ``rows`` over the epochs, and write the plot to ``file`` as PNG."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes, what, label in ((left, "loss", "loss"), (right, "error", "error (%)")):
        for split, style in (("train", "-"), ("val", "-"), ("traced_test", "--")):
            points = [(row["epoch"], row[f"{split}_{what}"]) for row in rows if f"{split}_{what}" in row]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=split.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.suptitle(title)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_file(file, data.getvalue())
