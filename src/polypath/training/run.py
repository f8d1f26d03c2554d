"""The folder of a run, and its files:

recipe.json         the recipe
environment.json    revision, versions, device, threads: one entry for the start and one for each resume
data.json           location and identity of the images, see polypath.training.run_data
metrics.jsonl       one line per epoch: losses, errors in percent, learning rate; bitwise the same after a resume
times.jsonl         time of the training steps of each epoch (without validation)
log.txt             warnings and remarks
events.*            logs for TensorBoard
tracker.json        the run's id in W&B or trackio
checkpoints/        see polypath.training.checkpoint
init/, teacher/     copies of the network that the run starts from, and of the teacher
snapshots/          weights of the members of a snapshot ensemble
search.json         the paths that ``polypath search`` found; search.parts/ has intermediate results of the search
curves.png          losses and errors, drawn at the end
model/              the reported network, saved by :func:`polypath.save`
ensemble.safetensors    the trained ensemble with the statistics of its members, if the objective trains one
looks/              counts of evaluations on the test split after training, see :mod:`polypath.storage.looks`
summary.json        the result; a run with this file is finished
summary-30.json     the result after 30 epochs, if the run was extended after that (``resume --epochs``)
earlier.json        digests of the earlier recipes of an extended run
.lock               locked by the process that writes into the folder, see :mod:`polypath.storage.lock`
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from polypath.core.checks import check, whole
from polypath.profiling.cores import processor
from polypath.storage.decode import decode, read
from polypath.storage.digests import file_digest, json_digest
from polypath.storage.files import contents, parse_json, read_json, remove, write_json
from polypath.storage.lock import FolderLock
from polypath.training.checkpoint import Checkpoints
from polypath.training.distributed import World
from polypath.training.recipe import Recipe, recipe_from_json, recipe_to_json, replace

DATA = "data.json"
DERIVED = (
    *("paths.json", "paths.csv", "paths.png", "paths.svg", "statistics.safetensors", "report.html"),
    *("search.json", "search.parts"),
)
"""Files about the reported network that ``polypath paths``, ``report`` and ``search`` write into the run's folder."""
EARLIER = "earlier.json"
PACKAGES = ("polypath", "torchvision", "timm", "datasets", "safetensors", "numpy")


class RunFolder:
    """The folder of one run. :meth:`create` starts a new run, and :meth:`open` opens an earlier run.

    Args:
        document: contents of ``recipe.json``; checkpoints store the digest of this document.
        earlier: digests of earlier versions of ``recipe.json``, with other numbers of epochs.

    Attributes:
        lock: the lock that a process must hold to write into the folder.
        before: number of epochs that were trained before :meth:`extended` was called. It is None for other runs, and
            after :meth:`extend`.
    """

    def __init__(
        self, path: Path, recipe: Recipe, document: dict[str, Any] | None = None, earlier: Sequence[str] = ()
    ) -> None:
        self.path, self.recipe, self.earlier = path, recipe, tuple(earlier)
        self.document = recipe_to_json(recipe) if document is None else document
        self.checkpoints = Checkpoints(path / "checkpoints", json_digest(self.document), self.earlier)
        self.lock = FolderLock(path, "checkpoints", "snapshots")
        self.before: int | None = None

    def create(self) -> None:
        """Create the folder, take the lock, and write the recipe.

        Raises:
            ValueError: the folder is not empty, or another process is starting a run in it.
        """
        self.check_vacant()
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock.take()
        self.check_vacant()  # another process may have written in between
        write_json(self.path / "recipe.json", self.document)

    def check_vacant(self) -> None:
        """Raise ``ValueError`` if the folder is not empty."""
        path = self.path
        if path.exists() and (not path.is_dir() or contents(path)):
            if (path / "recipe.json").is_file():
                raise ValueError(
                    f"{path} is already a run: continue it with `polypath resume {path}`, or choose another --out"
                )
            raise ValueError(f"{path} exists and is not empty: choose another --out")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the folder of an earlier run.

        Raises:
            ValueError: ``path`` is not a run folder, or its recipe is damaged.
        """
        if not path.is_dir():
            raise ValueError(f"{path}: no such run folder")
        if not (path / "recipe.json").is_file():
            raise ValueError(f"{path}: this is not a run folder, since it has no recipe.json")
        try:
            document = read_json(path / "recipe.json")
            recipe = recipe_from_json(document)
        except ValueError as error:
            raise ValueError(f"{path / 'recipe.json'} cannot be used: {error}") from error
        earlier = read(path / EARLIER, list[str]) if (path / EARLIER).is_file() else ()
        return cls(path, recipe, document, earlier)

    # --- more epochs -------------------------------------------------------------------------------------

    def extended(self, epochs: int) -> RunFolder:
        """Return the run with ``epochs`` epochs in total. :meth:`extend` writes the change to disk.

        Raises:
            ValueError: the run has already been trained for ``epochs`` epochs or more, or its schedule does not allow
                this number of epochs.
        """
        check("epochs", epochs, whole(1))
        trained = self.recipe.epochs
        if self.finished:
            trained = self.metrics()[-1]["epoch"]  # fewer than recipe.epochs if it stopped early
            self.check_epochs(epochs, trained)
        elif epochs == self.recipe.epochs:
            return self
        recipe, document = replace(self.recipe, {"epochs": epochs}), {**self.document, "epochs": epochs}
        earlier = dict.fromkeys([*self.earlier, json_digest(self.document)])
        run = RunFolder(self.path, recipe, document, [digest for digest in earlier if digest != json_digest(document)])
        run.before = trained
        return run

    def check_epochs(self, epochs: int, trained: int) -> None:
        """Raise ``ValueError`` if a run of ``epochs`` epochs has nothing left to do after ``trained`` epochs."""
        if epochs <= trained:
            raise ValueError(
                f"epochs = {epochs}: must be more than the {trained} that {self.path} has already been trained for"
            )

    def extend(self) -> None:
        """Write the new number of epochs to disk. If the process is killed meanwhile, the run stays consistent."""
        if self.before is None:
            return
        write_json(self.path / EARLIER, self.earlier)
        if self.finished:  # before the recipe: a summary must belong to the epochs of recipe.json
            os.replace(self.summary_file, self.path / f"summary-{self.before}.json")
        write_json(self.path / "recipe.json", self.document)
        self.before = None

    @property
    def went_on_from(self) -> int:
        """The epoch after which the run was extended the last time; 0 if the run was never extended."""
        return max((int(file.stem.removeprefix("summary-")) for file in self._summaries()), default=0)

    def _summaries(self) -> list[Path]:
        return list(self.path.glob("summary-*.json"))

    def earlier_scores(self) -> int:
        """Count the evaluations on the test split that were done before the run was extended."""
        files = [read(file, dict[str, Any], finite=False) for file in self._summaries()]
        return sum(1 + len(summary.get("snapshots", ())) for summary in files)

    def remove_derived(self) -> list[str]:
        """Remove files about a network that the run no longer reports, and return their names."""
        found = [name for name in DERIVED if (self.path / name).exists()]
        for name in found:
            remove(self.path / name)
        return found

    # --- metrics and log ---------------------------------------------------------------------------------

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    def append(self, row: dict[str, Any]) -> None:
        """Append a line to the metrics, and flush it to disk."""
        with open(self.metrics_file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def append_time(self, row: dict[str, Any]) -> None:
        with open(self.path / "times.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def note(self, text: str) -> None:
        """Append a line to ``log.txt``."""
        with open(self.path / "log.txt", "a", encoding="utf-8") as stream:
            stream.write(f"{now()}  {text}\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Read all lines of the metrics.

        Raises:
            ValueError: a line is damaged; the message states the number of the line.
        """
        if not self.metrics_file.is_file():
            return []
        lines = enumerate(self.metrics_file.read_bytes().splitlines(), 1)
        places = ((line, f"{self.metrics_file}, line {number}") for number, line in lines)
        return [decode(parse_json(line, place), dict[str, Any], place) for line, place in places]

    def position(self) -> dict[str, Any]:
        """Return the length and the digest of the metrics so far, for a checkpoint."""
        if not self.metrics_file.is_file():
            return {"bytes": 0, "sha256": json_digest("")}
        return {"bytes": self.metrics_file.stat().st_size, "sha256": file_digest(self.metrics_file)}

    def check_position(self, position: dict[str, Any]) -> None:
        """Raise ``ValueError`` unless the metrics begin with the lines that existed when a checkpoint was written."""
        if position["bytes"] == 0:
            return
        file = self.metrics_file
        if not file.is_file() or file.stat().st_size < position["bytes"]:
            raise ValueError(f"{file.name} has lost lines that were there when the checkpoint was written")
        if file_digest(file, position["bytes"]) != position["sha256"]:
            raise ValueError(f"{file.name} is damaged within its first {position['bytes']} bytes")

    def cut(self, position: dict[str, Any] | None) -> None:
        """Remove the lines of the metrics that are newer than a checkpoint. Without a checkpoint, remove all lines."""
        if self.metrics_file.is_file():
            os.truncate(self.metrics_file, position["bytes"] if position else 0)

    # --- documents ---------------------------------------------------------------------------------------

    def record_environment(self, device: torch.device, world: World) -> None:
        """Add this process's environment to ``environment.json``."""
        try:
            sessions = self.sessions()
        except ValueError:  # the record is only for information, so a damaged one is replaced
            sessions = []
            remove(self.environment_file)
        here = environment(device) | {
            "seed": self.recipe.seed,
            "processes": world.size,
            "precision": self.recipe.precision,
        }
        write_json(self.environment_file, {"sessions": [*sessions, here]})

    def sessions(self) -> list[dict[str, Any]]:
        """Read the environments of the run's start and of each resume.

        Raises:
            ValueError: the record is damaged.
        """
        file = self.environment_file
        return read(file, dict[str, list[dict[str, Any]]]).get("sessions", []) if file.exists() else []

    @property
    def environment_file(self) -> Path:
        return self.path / "environment.json"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @property
    def finished(self) -> bool:
        return self.summary_file.exists()


def environment(device: torch.device) -> dict[str, Any]:
    """Describe the environment of this process: versions, device and platform, on which results depend too."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "started": now(),
        "revision": revision(),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "device": str(device),
        "device_name": name,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def revision() -> str | None:
    """Return the git revision of the running source, with ``+changes`` if files were changed; None outside a
    repository."""
    here = Path(__file__).parents[1]
    try:
        head = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changed else "")


def _git(folder: Path, *args: str) -> str:
    command = ["git", "-C", str(folder), *args]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
