"""Build the parts of a run from its recipe: device, network, batches."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from polypath.core.checks import check, whole
from polypath.core.config import check_classes, completed_classes
from polypath.core.extract import extract
from polypath.core.network import PathNet
from polypath.core.paths import WHOLE_TEXT
from polypath.core.quiet import quiet_loggers
from polypath.data.batches import Part, evaluation_batches, training_batches
from polypath.data.loader import BatchesBase
from polypath.data.sources import ImageData
from polypath.families.base import WHITENING, Family, seeded
from polypath.layers.conv import ConvUnit
from polypath.layers.whitening import most_directions, set_whitening
from polypath.storage.decode import decode
from polypath.storage.loading import load, load_reported
from polypath.storage.saving import save
from polypath.training.distributed import World
from polypath.training.path_objectives import Taught
from polypath.training.recipe import Recipe, replace
from polypath.training.start import timm_net, timm_start

LOG = logging.getLogger(__name__)
EVAL_BATCH = STATISTICS_BATCH = 250
WHITENED = 2000  # images; a whitening layer is computed from at most this many training images
_DRAWN_ANEW = ("num_classes", "init")
INIT, MODEL, TEACHER = "init", "model", "teacher"


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device called ``name``. ``auto`` is CUDA if available, else MPS, else the CPU. On CUDA, each rank gets
    a separate device.

    Raises:
        ValueError: this machine does not have the device.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if there[kind])
    kind, _, index = name.partition(":")
    if not there.get(kind, False) or (kind == "cuda" and index and int(index) >= torch.cuda.device_count()):
        legal = ", ".join(["auto", *(k for k, found in there.items() if found)])
        raise ValueError(f"device = {name!r}: this machine does not have the device; available: {legal}")
    if kind == "cuda":
        return torch.device(kind, int(index) if index else local_rank)
    return torch.device(kind)


def resolve_precision(name: str, device: torch.device) -> str:
    """Replace ``auto`` by bf16 if ``device`` has instructions for bf16, else by fp32. Return other names unchanged.

    Processors without AVX512_BF16 or AMX, and MPS, emulate bf16, which takes several times as long.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and _processor_has_bf16() else "fp32"


def _processor_has_bf16() -> bool:
    known = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(has() for has in known if has is not None)


def build_net(recipe: Recipe, run_dir: Path | None = None, classes: Sequence[str] | None = None) -> PathNet:
    """Build the network that a run trains, on the CPU. The weights are drawn from the seed or loaded from
    ``recipe.init``, see :mod:`polypath.training.start`.

    With ``init``, the result is the saved network, which may be an extracted path of ``recipe.model``. The head is
    re-initialised from the seed if the recipe has another number of classes, or if the saved classes are not
    ``classes`` in the same order. A run that has started loads the copy of the saved network in its folder.

    With ``path``, the result is this path, extracted from the network.

    Raises:
        ValueError: the network does not have the path (the message lists legal paths), or ``recipe.model`` is not
            the network of ``init`` (the message states the field that differs).
    """
    if recipe.init is None:
        return _path_of(recipe.model.build(recipe.seed), recipe.path)
    own = run_dir / INIT if run_dir is not None else None
    if own is not None and own.is_dir():
        return load(own)
    if (start := timm_start(recipe.init, recipe.model)) is not None:
        return _path_of(timm_net(recipe.model, start, recipe.init, recipe.seed), recipe.path)
    net = load_reported(recipe.init)
    _check_model(recipe.model, net, recipe.init)
    known, outputs = net.config.get("classes"), recipe.model.num_classes
    others = bool(known) and classes is not None and net.class_names != completed_classes(classes, outputs)
    if net.num_classes != outputs or others:
        if others:
            LOG.info("init: the classes of %s are not those of the data, so the classifier is new", recipe.init)
        with seeded(recipe.seed):
            net.reset_classifier(outputs)
    return _path_of(net, recipe.path)


def whiten(net: PathNet, recipe: Recipe, data: ImageData, world: World) -> None:
    """Compute the whitening layer of a new network, if it has one, from training images without augmentation. Rank 0
    computes the layer for all ranks.

    Raises:
        ValueError: the images have no variance, or fewer principal directions than ``model.whitening`` requires.
    """
    if recipe.init is not None or not recipe.model.whitening:
        return
    check("model.whitening", recipe.model.whitening, whole(0, most_directions(recipe.model.in_chans)))
    unit = net.get_submodule(WHITENING)
    assert isinstance(unit, ConvUnit)
    if world.first:
        batches = statistics_batches(data, recipe, torch.device("cpu"))
        try:
            set_whitening(unit, (x for x, _ in itertools.islice(batches, WHITENED // STATISTICS_BATCH)))
        finally:
            batches.close()
    found = world.gather(unit.conv.state_dict())[0]
    unit.conv.load_state_dict(found)


def _check_model(model: Family, net: PathNet, init: str) -> None:
    """Raise ``ValueError`` unless the saved network was built from ``model``. The number of classes and the weight
    initialisation may differ."""
    family = net.config.get("family")
    if family != model.family:
        raise ValueError(
            f"model is a {model.family}, but the network in init = {init!r} is a {family}: use a recipe of that family"
        )
    loaded = decode(json.loads(json.dumps(net.config.get("arguments", {}))), type(model), "arguments")
    for field in dataclasses.fields(model):
        mine, theirs = getattr(model, field.name), getattr(loaded, field.name)
        if mine != theirs and field.name not in _DRAWN_ANEW:
            raise ValueError(f"model.{field.name} = {mine!r}: must be {theirs!r}, as in init = {init!r}")


def _path_of(net: PathNet, path: str) -> PathNet:
    try:
        return net if path == WHOLE_TEXT else extract(net, path)
    except ValueError as error:
        raise ValueError(f"path = {path!r}: {str(error).removeprefix(f'path {path!r}: ')}") from error


def keep_sources(recipe: Recipe, run_dir: Path, classes: Sequence[str]) -> None:
    """Copy the network that a new run starts from, and the teacher, into the run's folder. The run can then resume
    without the original folders."""
    if recipe.init is not None:
        with quiet_loggers(LOG.name):  # the run has already built the network, and logged the same lines
            save(build_net(recipe, classes=classes), run_dir / INIT)
    if isinstance(recipe.objective, Taught):
        save(load_reported(recipe.objective.teacher), run_dir / TEACHER)


def with_own_teacher(recipe: Recipe, run_dir: Path) -> Recipe:
    """Return the recipe of a started run with its teacher replaced by the copy in the run's folder."""
    own = run_dir / TEACHER
    return replace(recipe, {"objective.teacher": str(own)}) if own.is_dir() else recipe


def check_fits(net: PathNet, data: ImageData) -> None:
    """Raise ``ValueError`` if the network does not fit the size, the channels or the classes of these images."""
    if len(data.classes) > net.num_classes:
        raise ValueError(
            f"model.num_classes = {net.num_classes}: {data.name} has {len(data.classes)} classes; "
            f"set --model.num-classes {len(data.classes)}"
        )
    check_classes(data.classes, len(data.classes))  # check now, not when the trained network is saved
    chans = net.config.get("arguments", {}).get("in_chans")
    if chans is not None and chans != data.channels:
        raise ValueError(
            f"model.in_chans = {chans}: the images of {data.name} have {data.channels} channel(s); "
            f"set --model.in-chans {data.channels}, or --data.channels {chans}"
        )
    if min(data.size) < net.min_size:
        height, width = data.size
        raise ValueError(
            f"data.size: the images of {data.name} have {height}x{width} pixels, but this network needs at least "
            f"{net.min_size}x{net.min_size}; set --data.size {net.min_size} or more"
        )


def train_batches(data: ImageData, recipe: Recipe, device: torch.device, world: World) -> BatchesBase:
    """Return the training batches of this rank. A last batch with fewer than two images per part is dropped, since
    batch-norm needs two.

    Raises:
        ValueError: the batch size is larger than the training set, or not a multiple of the number of ranks.
    """
    size, images = recipe.batch_size, len(data.train)
    if images < size:
        raise ValueError(f"batch_size = {size}: there are only {images} training images")
    dropped = leaves_out_last(images, recipe, world.size)
    shared = {"rank": world.rank, "world_size": world.size, "drop_last": dropped}
    layout = {"device": device, "channels_last": recipe.channels_last}
    return training_batches(data, recipe.data, size, seed=recipe.seed, **shared, **layout)


def leaves_out_last(images: int, recipe: Recipe, ranks: int = 1) -> bool:
    """Return whether the last batch of an epoch is dropped because it has too few images for its parts."""
    return 0 < images % recipe.batch_size < 2 * ranks * recipe.accumulate


def eval_batches(part: Part, data: ImageData, recipe: Recipe, device: torch.device, world: World) -> BatchesBase:
    """Return the batches of images to evaluate on, in order. Under FSDP2, every rank evaluates all batches."""
    alone = world.size == 1 or recipe.parallel.strategy == "fsdp"
    ranks = 1 if alone else world.size
    size = max(1, EVAL_BATCH // recipe.data.eval_crops // ranks) * ranks
    shared = {"rank": 0 if alone else world.rank, "world_size": ranks}
    return evaluation_batches(
        data, recipe.data, size, part, device=device, channels_last=recipe.channels_last, **shared
    )


def statistics_batches(data: ImageData, recipe: Recipe, device: torch.device) -> BatchesBase:
    """Return batches of training images without augmentation, for the recalibration of batch-norm. The order of the
    images is drawn from the recipe's seed."""
    config, size = dataclasses.replace(recipe.data, eval_crops=1), min(STATISTICS_BATCH, len(data.train))
    layout = {"device": device, "channels_last": recipe.channels_last}
    return evaluation_batches(data, config, size, "train", shuffle=True, seed=recipe.seed, **layout)


@contextlib.contextmanager
def numerics(device: torch.device, deterministic: bool) -> Iterator[None]:
    """Save the state of torch's global generators and restore it after the ``with`` block. Inside the block,
    ``deterministic`` selects CUDA algorithms with bitwise repeatable results."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = deterministic, not deterministic
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
