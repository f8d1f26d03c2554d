"""Checkpoints. Tensors are stored as safetensors and the rest as JSON, both with checksums. Pickle is not used.

The folder ``checkpoints/`` of a run has two files for the state after, say, 1200 steps:

    step-00001200.safetensors     weights, optimiser, objective, moving average
    step-00001200.json            epoch and batch, sums of the metrics, checksum of the other file

The JSON file is written last, so if it exists, both files exist. Each file is written under a temporary name, flushed
and renamed. The newest checkpoints and the best one are kept. If a checkpoint is damaged, a warning is logged and the
checkpoint before it is used.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from polypath.storage.decode import decode
from polypath.storage.digests import file_digest, json_digest
from polypath.storage.files import read_json, remove, sweep_out, whole, write_json

FORMAT = 1
LOG = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{8,})\.json")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after ``step`` steps: ``tensors`` on the CPU, and ``state`` as JSON values."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


@dataclass(frozen=True)
class _Head:
    """The JSON file of a checkpoint, without its own checksum."""

    format: int
    recipe: str
    step: int
    sha256: str
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in ``folder``. Each checkpoint stores ``recipe``, the digest of the run's recipe;
    ``earlier`` are digests of the run's earlier recipes, which are accepted too."""

    def __init__(self, folder: Path, recipe: str, earlier: Sequence[str] = ()) -> None:
        self.folder, self.recipe, self.earlier = folder, recipe, tuple(earlier)

    def steps(self) -> list[int]:
        """List the steps that have a checkpoint, in order."""
        found = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*.json"))
        return sorted(int(match[1]) for match in found if match)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint. If this fails, the earlier checkpoints stay intact.

        Raises:
            OSError: there is no space left; the message states the newest intact checkpoint and what to do.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file, beside = self._files(checkpoint.step)
        plain = {name: t.detach().to("cpu").contiguous() for name, t in checkpoint.tensors.items()}
        try:
            with whole(file) as temporary:
                save_file(plain, temporary, {"polypath": "checkpoint"})
                checksum = file_digest(temporary)
            body = asdict(_Head(FORMAT, self.recipe, checkpoint.step, checksum, checkpoint.state))
            write_json(beside, {**body, "checksum": json_digest(body)})
        except (OSError, SafetensorError) as error:
            raise self._no_space(checkpoint, plain, error) from error

    def load(self, step: int) -> Checkpoint:
        """Read the checkpoint of ``step``.

        Raises:
            ValueError: the checkpoint is missing, damaged or from another run.
        """
        file, beside = self._files(step)
        body = read_json(beside)
        if not isinstance(body, dict) or body.pop("checksum", None) != json_digest(body):
            raise ValueError(f"{beside.name}: the file is damaged (its checksum does not match)")
        if body.get("format") != FORMAT:
            raise ValueError(f"{beside.name}: has format {body.get('format')!r}, but must have format {FORMAT}")
        head = decode(body, _Head, beside.name)
        if head.recipe not in (self.recipe, *self.earlier):
            raise ValueError(f"{beside.name}: the checkpoint is from another recipe than this run's recipe.json")
        if head.step != step:
            raise ValueError(f"{beside.name}: the file contains the checkpoint of another step, {head.step}")
        try:
            if file_digest(file) != head.sha256:
                raise ValueError(f"{file.name}: the file is damaged (its checksum does not match)")
            return Checkpoint(step, load_file(file), head.state)
        except OSError as error:
            raise ValueError(f"{file.name}: {error.strerror or error}") from error
        except SafetensorError as error:
            raise ValueError(f"{file.name}: this is not a safetensors file ({error})") from error

    def newest(
        self, fits: Callable[[Checkpoint], None] = lambda _: None, warn: Callable[[str], None] = LOG.warning
    ) -> Checkpoint | None:
        """Return the newest intact checkpoint that ``fits`` accepts, or None if there is no checkpoint yet.

        ``fits`` raises ``ValueError`` for a checkpoint that cannot be used. ``warn`` is called with one line of text
        for each checkpoint that is skipped.

        Raises:
            ValueError: there are checkpoints, but none can be used.
        """
        refused = []
        for step in reversed(self.steps()):
            try:
                checkpoint = self.load(step)
                fits(checkpoint)
            except ValueError as error:
                refused.append(str(error))
                continue
            for problem in refused:
                warn(f"skipped a checkpoint: {problem}; resuming from step {step}")
            return checkpoint
        if refused:
            raise ValueError(f"{self.folder}: no checkpoint can be used: {'; '.join(refused)}")
        return None

    def keep(self, last: int, also: Iterable[int] = ()) -> None:
        """Remove all checkpoints except the newest ``last`` checkpoints and the checkpoints of the steps ``also``."""
        steps = self.steps()
        for step in set(steps[:-last]) - set(also):
            for path in reversed(self._files(step)):  # the JSON first: without it, the tensors are ignored
                remove(path)

    def after(self, step: int) -> None:
        """Remove checkpoints of steps after ``step``, and unfinished files of a killed process."""
        for later in (s for s in self.steps() if s > step):
            for path in reversed(self._files(later)):
                remove(path)
        sweep_out(self.folder)
        known = {f"step-{s:08d}.safetensors" for s in self.steps()}
        for path in self.folder.glob("step-*.safetensors"):
            if path.name not in known:
                remove(path)

    def _files(self, step: int) -> tuple[Path, Path]:
        name = f"step-{step:08d}"
        return self.folder / f"{name}.safetensors", self.folder / f"{name}.json"

    def _no_space(self, checkpoint: Checkpoint, tensors: Mapping[str, Tensor], error: Exception) -> OSError:
        size = sum(t.numel() * t.element_size() for t in tensors.values()) / 2**20
        steps = [s for s in self.steps() if s != checkpoint.step]
        rest = f"the checkpoint of step {steps[-1]} is intact" if steps else "there is no earlier checkpoint"
        number = getattr(error, "errno", None) or errno.ENOSPC
        reason = getattr(error, "strerror", None) or str(error)
        text = (
            f"cannot write the checkpoint of step {checkpoint.step} ({size:.1f} MiB): {reason}; {rest}; "
            f"free some space, then run `polypath resume {self.folder.parent}`"
        )
        return OSError(number, text, str(self.folder))


def same_tensors(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Return whether two sets of tensors have the same names and dtypes and are bitwise equal."""
    if a.keys() != b.keys():
        return False
    return all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and torch.equal(_bits(a[k]), _bits(b[k])) for k in a
    )


def _bits(t: Tensor) -> Tensor:
    return t.detach().cpu().contiguous().view(torch.uint8) if t.ndim else t.detach().cpu().reshape(1).view(torch.uint8)
