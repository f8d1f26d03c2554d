"""Train a network by a recipe, from the first step to the reported result. The loop:

    build network, objective, optimiser from the recipe, or load the newest intact checkpoint
    for each epoch:
        release gradients and optimiser state of the frozen parameters
        for each batch, in the order of (seed, epoch):
            for each of this rank's parts of the batch, for each pass of the objective:
                forward on the path drawn from (seed, step); backward
            sum the gradients over the ranks; step the optimiser
            write a checkpoint if one is due; stop if a signal requested it
        evaluate the held-out images; write a line of metrics and a checkpoint
    choose the epoch with the lowest error on held-out images (if none are held out, the last epoch)
    evaluate that epoch's network on the test split, once; save the network; write the summary

    result = train(recipe, "runs/mine")       # a new folder
    result = resume("runs/mine")              # bitwise equal to a run that was not stopped
    result = resume("runs/mine", epochs=60)   # train up to 60 epochs in total, even if the run is finished

Only one process writes into a run folder: rank 0, which holds the folder's lock (:mod:`polypath.storage.lock`). Both
functions also run under ``torchrun``. :mod:`polypath.training.run` describes the files of a run. The functions raise

* ``ValueError``: an argument or a field is illegal; the message states the field, its value and the legal values;
* ``FloatingPointError``: the loss is not finite; the last checkpoint was written before that;
* ``OSError``: there is no space for a checkpoint; the previous one is intact;
* :class:`~polypath.training.signals.Interrupted` (a ``KeyboardInterrupt``) or
  :class:`~polypath.training.signals.Stopped` (a ``SystemExit`` of status 143): Ctrl-C or SIGTERM stopped the run, and
  its state was saved.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polypath.core.arguments import takes
from polypath.core.checks import FLAG, PLACE, instance, optional, whole
from polypath.data.batches import Part
from polypath.data.sources import ImageData, load_images
from polypath.storage.files import write_json
from polypath.training import advice
from polypath.training.build import (
    build_net,
    check_fits,
    eval_batches,
    keep_sources,
    numerics,
    resolve_device,
    resolve_precision,
    statistics_batches,
    train_batches,
    whiten,
    with_own_teacher,
)
from polypath.training.checkpoint import Checkpoint
from polypath.training.distributed import World, join_world
from polypath.training.engine import NONFINITE, Engine
from polypath.training.evaluate import Scores, evaluate
from polypath.training.finish import save_model, save_snapshot, score_snapshots
from polypath.training.fit_head import fit_head
from polypath.training.flop import PETA
from polypath.training.gates import Watched
from polypath.training.path_objectives import TargetRate
from polypath.training.progress import TrainingProgress
from polypath.training.recipe import Recipe, replace
from polypath.training.result import RunResult, read_result
from polypath.training.run import RunFolder, revision
from polypath.training.run_data import images_of, located, record_data, recorded_data, same_training_images
from polypath.training.settle import settled
from polypath.training.signals import StopRequest, leaving, stop_requests
from polypath.training.snapshots import snapshot_due
from polypath.training.trackers import Trackers, check_tracker, draw_curves

LOG = logging.getLogger(__name__)


@takes(
    recipe=instance(Recipe), run_dir=PLACE, data=optional(instance(ImageData)), data_moved=optional(PLACE), quiet=FLAG
)
def train(
    recipe: Recipe,
    run_dir: str | os.PathLike[str],
    *,
    data: ImageData | None = None,
    data_moved: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> RunResult:
    """Train a network by ``recipe``, in the new folder ``run_dir``.

    Images that are already in memory can be passed as ``data``; they must be the images of ``recipe.data``. If the
    images are now in another folder, pass this folder as ``data_moved``. With ``quiet``, no progress is shown and
    nothing is logged. The module's documentation lists the exceptions.
    """
    return _run(RunFolder(Path(run_dir), recipe), False, data, _text(data_moved), quiet)


@takes(
    run_dir=PLACE, epochs=optional(whole(1)), data=optional(instance(ImageData)), data_moved=optional(PLACE), quiet=FLAG
)
def resume(
    run_dir: str | os.PathLike[str],
    *,
    epochs: int | None = None,
    data: ImageData | None = None,
    data_moved: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> RunResult:
    """Resume the run in ``run_dir``. If the run is finished, only return its result.

    If the images were moved since the start, ``data_moved`` is their new folder. They must be the same images.

    With ``epochs``, train up to this number of epochs in total, even if the run is finished. Training continues from
    the newest checkpoint, with the optimiser's state. From there on, the learning rate follows the schedule of a run of
    ``epochs`` epochs, so it may rise again. :mod:`polypath.training.schedules` describes this for each kind of
    schedule. The earlier summary is kept as ``summary-EPOCHS.json``.

    Raises:
        ValueError: as for :func:`train`; or ``epochs`` is not above the number of epochs already trained, or the
            schedule does not allow this number.
    """
    folder = RunFolder.open(Path(run_dir))
    return _run(folder if epochs is None else folder.extended(epochs), True, data, _text(data_moved), quiet)


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _run(folder: RunFolder, resumed: bool, data: ImageData | None, moved: str | None, quiet: bool) -> RunResult:
    device_name = folder.recipe.device
    world = join_world(resolve_device(device_name).type)
    try:
        device = resolve_device(device_name, world.local_rank)
        if not resumed:
            world.on_first(folder.check_vacant)  # before anything that takes long
            if folder.recipe.open_fields and data is not None:
                raise ValueError(
                    f"{folder.recipe.name} settles {', '.join(folder.recipe.open_fields)} from facts about the image "
                    "files, but data contains loaded images: leave out data, or first settle the recipe with "
                    "polypath.training.settle.settled(recipe)"
                )
            folder = RunFolder(folder.path, _settled(folder.recipe, moved, device, world, quiet))
        else:
            world.on_first(folder.lock.take)
            if folder.finished and folder.before is None:
                if world.first and not quiet:
                    LOG.info("%s is already finished", folder.path)
                if moved is not None:
                    world.on_first(lambda: record_data(folder, images_of(folder, moved, data), moved))
                return read_result(folder)
        return _Session(folder, resumed, data, moved, device, world, quiet).run()
    finally:
        folder.lock.release()
        world.close()


def _settled(recipe: Recipe, moved: str | None, device: torch.device, world: World, quiet: bool) -> Recipe:
    """Settle the open fields of ``recipe`` as rank 0 does, and fix a precision that all ranks support. A later resume
    then uses the same values."""
    recipe = world.gather(settled(recipe, moved, quiet=quiet or not world.first))[0]
    taken = set(world.gather(resolve_precision(recipe.precision, device)))
    return replace(recipe, {"precision": taken.pop() if len(taken) == 1 else "fp32"})


class _Session:
    """The work of one process in a run, from the start or a checkpoint until the run ends or is stopped."""

    def __init__(
        self,
        folder: RunFolder,
        resumed: bool,
        data: ImageData | None,
        moved: str | None,
        device: torch.device,
        world: World,
        quiet: bool,
    ) -> None:
        self.folder, self.recipe, self.resumed = folder, folder.recipe, resumed
        self.device, self.world = device, world
        self.quiet = quiet or not world.first
        if not folder.summary_file.exists():
            check_tracker(self.recipe.tracker)  # report a missing extra before any work
        self.moved = moved
        if resumed:
            self.data = images_of(folder, moved, data)
        else:
            self.data = data or load_images(located(self.recipe.data, moved))
        net = build_net(self.recipe, folder.path if resumed else None, self.data.classes)
        check_fits(net, self.data)
        whiten(net, self.recipe, self.data, world)
        if not (resumed and folder.checkpoints.steps()):  # a checkpoint contains the fitted classifier
            fit_head(net, self.recipe, self.data, device, world)
        self.batches = train_batches(self.data, self.recipe, device, world)
        self.parameters = sum(p.numel() for p in net.parameters())
        taught = with_own_teacher(self.recipe, folder.path) if resumed else self.recipe
        self.engine = Engine(taught, net, device, world, len(self.batches))
        if not resumed:  # not earlier, so that a recipe that cannot be trained leaves no folder
            world.on_first(self._create)
        self.epoch = self.batch = self.step = 0
        self.best: dict[str, Any] | None = None
        self.chosen_by = "val_balanced_error" if self.recipe.data.balanced else "val_error"
        self.untried = advice.untried(self.recipe)
        self.chance = advice.chance(self.data.train.labels, balanced=self.recipe.data.balanced)
        self.seen: advice.Operands = set()
        self.warnings: list[str] = []
        self.seconds, self.since = 0.0, time.monotonic()
        self.flop: int | None = 0  # None: not all of the run's operations were counted

    def _create(self) -> None:
        self.folder.create()
        record_data(self.folder, self.data, self.moved)
        keep_sources(self.recipe, self.folder.path, self.data.classes)

    # --- the loop ----------------------------------------------------------------------------------------

    def run(self) -> RunResult:
        total = self.recipe.epochs * len(self.batches)
        with numerics(self.device, self.recipe.deterministic), stop_requests() as request:
            if self.resumed:
                self._restore()
            self.world.on_first(lambda: self.folder.record_environment(self.device, self.world))
            self.progress = TrainingProgress(total, self.step, quiet=self.quiet, tell=partial(self._log, logging.INFO))
            self.trackers = Trackers(self.folder.path, self.recipe, self.step) if self.world.first else None
            try:
                with self.progress:
                    if not self.progress.shown:
                        self._log(logging.INFO, self._beginning())
                    while self.epoch < self.recipe.epochs and not self._waited_enough():
                        self._train_epoch(request)
                        self._end_epoch(request)
                return self._finish()
            finally:
                self.batches.close()
                if self.trackers is not None:
                    self.trackers.close()

    def _train_epoch(self, request: StopRequest) -> None:
        recipe, engine, batches = self.recipe, self.engine, self.batches
        engine.start_epoch(self.epoch)
        batches.set_epoch(self.epoch)
        batches.start(self.batch)
        self.begun = time.monotonic(), self.batch
        for x, y in batches:
            parts = _cut(x, y, self.world.rank * recipe.accumulate, recipe.accumulate)
            in_all = min(recipe.batch_size, batches.order.images - self.batch * recipe.batch_size)
            flag = engine.step(parts, in_all, self.epoch, self.step, request.signal)
            if flag == NONFINITE:
                self._fail(self.step)
            if self.world.size == 1:  # several ranks exchange the flag in the next step
                flag = flag or request.signal
            self.step += 1
            self.batch += 1
            self.progress.advance()
            if self.batch < len(batches):
                if flag:
                    self._checkpoint()
                    self._leave(flag)
                if recipe.checkpoint_steps and self.batch % recipe.checkpoint_steps == 0:
                    self._checkpoint()

    def _end_epoch(self, request: StopRequest) -> None:
        recipe, last = self.recipe, self.epoch + 1 == self.recipe.epochs
        self._flush()  # waits for the device
        self._time_epoch()
        row: dict[str, Any] = {"epoch": self.epoch + 1, "step": self.step, "lr": self.engine.schedule.at(self.step - 1)}
        means = self.engine.meter.means()
        row |= {"train_loss": means.pop("loss"), "train_error": means.pop("error"), **dict(sorted(means.items()))}
        row |= {"pflop": self.flop / PETA} if self.flop is not None else {}
        better = False
        if last or (self.epoch + 1) % recipe.validate_every == 0:
            self._settle()
            if self.data.validation is not None:
                scores, rates = self._watched("validation")
                row |= {"val_loss": scores.loss, "val_error": scores.error}
                row |= {"val_balanced_error": scores.balanced_error} if recipe.data.balanced else {}
                row |= {f"val_rate/{gate}": rate for gate, rate in rates.items()}
                better = self._better(row)
            if recipe.trace_test:
                scores, rates = self._watched("test")
                row["traced_test_error"] = scores.error
                row |= {f"traced_test_rate/{gate}": rate for gate, rate in rates.items()}
            target = recipe.objective.target if isinstance(recipe.objective, TargetRate) else None
            if last and target is not None and (text := advice.drifted_gates(row, target)):
                self._warn(text)
        number = snapshot_due(recipe.schedule, self.epoch, recipe.epochs)
        if number is not None and recipe.schedule.cycles > 1:
            self._settle()
            weights = self.engine.weights()
            if self.world.first:
                save_snapshot(self.folder.path, number, weights)
        self._report(row)
        self.engine.meter.load({})
        self.epoch, self.batch = self.epoch + 1, 0
        if better:
            scored = {name: row[name] for name in ("val_error", "val_loss", self.chosen_by)}
            self.best = {"epoch": self.epoch, "step": self.step, **scored}
        flag = self.world.any(request.signal)
        last = last or self._waited_enough()
        if last or better or flag or self.epoch % recipe.checkpoint_every == 0:
            self._checkpoint()
        if flag and not last:
            self._leave(flag)

    def _better(self, row: Mapping[str, Any]) -> bool:
        """Return whether this epoch has the lowest held-out error so far, or an equal error with a lower loss."""
        if self.best is None:
            return True
        least = self.best.get("val_loss", -math.inf)  # checkpoints of Polypath 0.1 lack it
        return (row[self.chosen_by], row["val_loss"]) < (self.best[self.chosen_by], least)

    def _waited_enough(self) -> bool:
        """Return whether the error on held-out images has not improved for ``recipe.patience`` epochs."""
        if not self.recipe.patience or self.best is None:
            return False
        return self.recipe.patience <= self.epoch - max(self.best["epoch"], self.folder.went_on_from)

    def _finish(self) -> RunResult:
        """Evaluate the reported network on the test split, save this network, and write the summary."""
        reported, epoch = "last", self.epoch
        if self.epoch < self.recipe.epochs:
            patience = f"the error did not improve for {self.recipe.patience} epochs"
            self._log(logging.INFO, f"stopped after {self.epoch} of {self.recipe.epochs} epochs, since {patience}")
        if self.best is not None:
            try:
                chosen = self.folder.checkpoints.load(self.best["step"])
                self.engine.load(chosen.tensors, chosen.state["engine"])
                reported, epoch = "best", self.best["epoch"]
            except ValueError as error:
                self._warn(f"the best epoch's checkpoint cannot be used, so the last epoch is reported: {error}")
        self._settle()
        scores = self._score("test")
        weights, objective_state = self.engine.weights(), self.engine.objective_state()
        if self.recipe.objective.kind != "path":
            for text in advice.never_ran(self.engine.net.wiring, self.seen, self.step):
                self._warn(text)
        if not self.recipe.chooses:
            self._compare(scores)
        result = self._result(reported, epoch, scores, self._snapshots())

        def write() -> None:
            self.folder.lock.take()  # check that this process still holds the lock
            if stale := self.folder.remove_derived():
                self._log(logging.INFO, f"removed {', '.join(stale)}, which described the previously reported network")
            draw_curves(self.folder.metrics(), self.folder.path / "curves.png", self.recipe.name)
            save_model(self.recipe, self.folder.path, self.data, weights, objective_state, result.notes)
            write_json(self.folder.summary_file, asdict(result))

        self.world.on_first(write)
        return result

    # --- parts of the loop -------------------------------------------------------------------------------

    def _score(self, part: Part, predict: Callable[[Tensor], Tensor] | None = None) -> Scores:
        batches = eval_batches(part, self.data, self.recipe, self.device, self.world)
        predict = predict or self.engine.predict
        try:
            return evaluate(self.engine.scored, predict, batches, self.world, self.engine.autocast())
        finally:
            batches.close()

    def _settle(self) -> None:
        """Prepare the network for evaluation: recalibrate the batch-norm statistics of averaged weights, and give all
        ranks the same statistics."""
        if self.engine.average is not None and self.recipe.recalibrate:
            batches = statistics_batches(self.data, self.recipe, self.device)
            try:
                with self.engine.autocast():
                    self.engine.average.recalibrate(batches, self.recipe.recalibrate)
            finally:
                batches.close()
        self.engine.share_statistics()

    def _watched(self, part: Part) -> tuple[Scores, dict[str, float]]:
        """Return the scores and, for the target-rate objective, the rates of the gates without noise. (The training
        loss controls only the rates with noise.)"""
        objective = self.recipe.objective
        if not isinstance(objective, TargetRate):
            return self._score(part), {}
        watched = Watched(self.engine.scored, objective.over)
        scores = self._score(part, watched)
        rates = {f"{switch}/{label}": rate for (switch, label), rate in watched.rates(self.world).items()}
        return scores, {gate: rate for gate, rate in rates.items() if not math.isnan(rate)}

    def _snapshots(self) -> dict[str, float]:
        if self.recipe.schedule.cycles < 2:
            return {}
        batches = eval_batches("test", self.data, self.recipe, self.device, self.world)
        return score_snapshots(self.folder.path, self.engine, batches, self.world, self.engine.autocast())

    def _flush(self) -> None:
        """Fetch the logged values of the steps since the last flush, and check that the losses are finite."""
        rows = self.engine.meter.flush()
        for step, values in rows:
            if not math.isfinite(values["loss"]):
                self._fail(step)
        if self.trackers is not None:
            for step, values in rows:
                self.trackers.log(step, {"step/loss": values["loss"]})
        for seen in self.world.gather(set(self.engine.paths_run)):
            advice.operands_of(self.engine.net.wiring, seen, self.seen)
        self.engine.paths_run.clear()
        taken = sum(self.world.gather(self.engine.flop.take()))
        unseen = bool(rows) and not taken  # the objective bypassed the network's forward
        self.flop = None if self.flop is None or unseen else self.flop + taken

    def _compare(self, test: Scores) -> None:
        """Warn if the network over-fits. Without held-out images, only the test error at the end can show it."""
        rows = self.folder.metrics() if self.world.first else []
        if rows and (
            text := advice.over_fitting([*rows[:-1], rows[-1] | {"test_error": test.error}], self.chance, self.untried)
        ):
            self._warn(text)

    def _report(self, row: dict[str, Any]) -> None:
        for text in advice.stuck_gates(row):
            self._warn(text)
        if not self.world.first:
            return
        self.folder.append(row)
        if self.trackers is not None:
            self.trackers.log(self.step, {k: v for k, v in row.items() if k not in ("epoch", "step")})
        for text in advice.of_epochs(self.folder.metrics(), self.chance, self.untried):
            self._warn(text)
        shown = [f"epoch {row['epoch']}/{self.recipe.epochs}", f"loss {row['train_loss']:.4f}"]
        shown += [f"{s} error {row[f'{s}_error']:.2f}%" for s in ("train", "val") if f"{s}_error" in row]
        text = "  ".join(shown)
        self.progress.describe(text)
        if not self.progress.shown:
            self._log(logging.INFO, text)

    def _beginning(self) -> str:
        where = (
            f"at step {self.step} of {self.recipe.epochs * len(self.batches)}" if self.step else "from the beginning"
        )
        return (
            f"{self.recipe.name}: {self.recipe.epochs} epochs of {len(self.batches)} steps on {self.device}, {where}, "
            f"into {self.folder.path}"
        )

    def _time_epoch(self) -> None:
        """Record the time of this epoch's steps, except steps before a resume."""
        moment, batch = self.begun
        seconds, images = time.monotonic() - moment, self.batches.order.images - batch * self.recipe.batch_size
        row = {"epoch": self.epoch + 1, "seconds": round(seconds, 4), "images": images}
        if self.world.first:
            self.folder.append_time({**row, "images_per_second": round(images / seconds, 2)})

    def _clock(self) -> float:
        """Return the seconds that the run has taken, over all sessions."""
        moment = time.monotonic()
        self.seconds, self.since = self.seconds + moment - self.since, moment
        return self.seconds

    def _log(self, level: int, text: str) -> None:
        if not self.quiet:  # of several ranks, only the first one logs
            LOG.log(level, text)

    def _warn(self, text: str) -> None:
        about = text.partition(":")[0].partition("(")[0]
        if any(told.startswith(about) for told in self.warnings) or not self.world.first:
            return
        self.warnings.append(text)
        self.folder.note(text)
        self._log(logging.WARNING, text)

    def _fail(self, step: int) -> None:
        steps = self.folder.checkpoints.steps()
        kept = f"the checkpoint of step {steps[-1]} is from before that" if steps else "there is no checkpoint yet"
        raise FloatingPointError(
            f"the loss is not finite in epoch {self.epoch + 1}, step {step + 1}, at learning rate "
            f"{self.engine.schedule.at(step):.3g}; {kept}. A lower --optim.lr, a --clip-norm or a warm-up may help; "
            "start a new run with another --out"
        )

    def _leave(self, number: int) -> None:
        text = (
            f"the run was stopped in epoch {min(self.epoch + 1, self.recipe.epochs)} after step {self.step}; "
            f"this command continues it:\npolypath resume {self.folder.path}"
        )
        self._log(logging.WARNING, text)
        raise leaving(number, text)

    # --- checkpoints -------------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        self._flush()
        tensors, engine = self.engine.tensors(), self.engine.state()

        def write() -> None:
            self.folder.lock.take()  # check that this process still holds the lock
            state = {
                "epoch": self.epoch,
                "batch": self.batch,
                "best": self.best,
                "engine": engine,
                "metrics": self.folder.position(),
                "data": self.data.fingerprint,
                "seen": sorted(map(list, self.seen)),
                "warnings": self.warnings,
                "seconds": self._clock(),
                "flop": self.flop,
            }
            self.folder.checkpoints.save(Checkpoint(self.step, tensors, state))
            self.folder.checkpoints.keep(self.recipe.keep, [self.best["step"]] if self.best else [])

        self.world.on_first(write)

    def _restore(self) -> None:
        """Load the newest usable checkpoint, and remove everything that was written after this checkpoint."""
        recorded = recorded_data(self.folder.path) is not None

        def take(checkpoint: Checkpoint) -> None:
            state = checkpoint.state
            try:
                if not same_training_images(state["data"], self.data, recorded):
                    raise ValueError("the training images are not those that the run started with")
                self.folder.check_position(state["metrics"])
                self.engine.load(checkpoint.tensors, state["engine"])
                self.epoch, self.batch, self.best = state["epoch"], state["batch"], state["best"]
                self.seen = {(join, label) for join, label in state["seen"]}
                self.warnings, self.seconds = list(state["warnings"]), state["seconds"]
                self.flop = state.get("flop")  # checkpoints of Polypath 0.1 lack it
            except (KeyError, TypeError) as error:
                raise ValueError(f"the checkpoint of step {checkpoint.step} lacks {error}") from error

        found = self.folder.checkpoints.newest(take, partial(self._log, logging.WARNING))
        if found is None:
            self._log(logging.WARNING, f"{self.folder.path} has no checkpoint yet: starting from the beginning")
        self.step = found.step if found is not None else 0
        if self.folder.before is not None:
            self.folder.check_epochs(self.recipe.epochs, self.epoch)
            if found is None and self.folder.finished:
                raise ValueError(f"{self.folder.path}: the checkpoints are missing, so the run cannot be continued")
        self.world.any(0)  # wait until all ranks have read the files, before any is removed

        def forget() -> None:
            self.folder.extend()
            record_data(self.folder, self.data, self.moved)
            self.folder.checkpoints.after(self.step)
            self.folder.checkpoints.keep(self.recipe.keep, [self.best["step"]] if self.best else [])
            self.folder.cut(found.state["metrics"] if found is not None else None)

        self.world.on_first(forget)

    # --- the end -----------------------------------------------------------------------------------------

    def _result(self, reported: str, epoch: int, scores: Scores, snapshots: dict[str, float]) -> RunResult:
        notes = [note for note in (self.data.note, *self.warnings) if note]
        return RunResult(
            run_dir=str(self.folder.path),
            name=self.recipe.name,
            reported=reported,
            epoch=epoch,
            val_error=self.best["val_error"] if self.best is not None and reported == "best" else None,
            test_error=scores.error,
            balanced_error=scores.balanced_error if self.recipe.data.balanced else None,
            test_loss=scores.loss,
            test_images=scores.images,
            parameters=self.parameters,
            steps=self.step,
            seconds=round(self._clock(), 3),
            pflop=None if self.flop is None else self.flop / PETA,
            test_evaluations=self._test_evaluations(snapshots),
            processes=self.world.size,
            device=str(self.device),
            precision=self.recipe.precision,
            seed=self.recipe.seed,
            revision=revision(),
            notes=notes,
            snapshots=snapshots,
        )

    def _test_evaluations(self, snapshots: Mapping[str, float]) -> int:
        """Count the evaluations on the test split so far."""
        traced = sum("traced_test_error" in row for row in self.folder.metrics())
        return traced + 1 + len(snapshots) + self.folder.earlier_scores()


def _cut(x: torch.Tensor, y: torch.Tensor, first: int, parts: int) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    """Split a rank's images and labels into ``parts`` parts of nearly equal size, numbered from ``first``."""
    pairs = zip(x.tensor_split(parts), y.tensor_split(parts), strict=True)
    return [(first + i, xs, ys) for i, (xs, ys) in enumerate(pairs) if len(ys)]
