"""Save a network into a folder: config, weights and card. The folder is written atomically and contains no pickle."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast, get_args

import torch

from polypath.core.arguments import SEVERAL, TEXTS, takes
from polypath.core.checks import FLAG, PLACE, TEXT, check, each, json_value, number, one_of, optional, plain, whole
from polypath.core.config import ABOUT, Resize, check_classes
from polypath.core.inputs import sides
from polypath.core.network import PathNet
from polypath.core.network_rules import NETWORK
from polypath.families.base import FAMILIES
from polypath.storage.cards import model_card
from polypath.storage.config import FORMAT_VERSION, MIN_TORCH, PACKAGES, build_net
from polypath.storage.files import new_folder, write_file, write_json
from polypath.storage.layout import CARD, CONFIG, FILES, WEIGHTS, Folder
from polypath.storage.weights import check_tensors, tensors_of


@takes(
    net=NETWORK,
    folder=PLACE,
    overwrite=FLAG,
    path_table=SEVERAL,
    licence=TEXT,
    dataset=optional(TEXT),
    notes=TEXTS,
)
def save(
    net: PathNet,
    folder: Folder,
    *,
    overwrite: bool = False,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | tuple[int, int] | None = None,
    resize: str | None = None,
    resize_to: int | None = None,
    path_table: Sequence[Any] = (),
    licence: str = "apache-2.0",
    dataset: str | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write ``net`` into a new folder, which appears only when it is complete, and return the folder's path.

    Args:
        overwrite: replace an existing saved network. It is moved aside first, and removed at the end.
        classes: class names in the order of the labels, one for each output of the head. ``classes``, ``mean``,
            ``std``, ``image_size`` and ``resize`` are taken from ``net.config`` if they are not given.
        mean, std: values for each channel to subtract from pixels in 0 … 1, and to divide by.
        image_size: size in pixels (side, or height and width) of the images that the network was trained on.
        resize, resize_to: how images of another size are resized; the same values as in ``DataConfig``.
        path_table: results of the network's paths, as mappings or dataclasses such as ``PathRow``. They are stored in
            the config and the card.
        licence: licence of the weights, in the form that the Hub uses.
        dataset: dataset that the network was trained on.
        notes: sentences for the card, such as how the results were obtained.

    Raises:
        ValueError: the folder is not empty or contains other files, the config would not rebuild the network, the
            numbers of classes or means do not fit the network, or weights have no values.
        OSError: there is no space or no permission. Then nothing is left behind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = Path(folder)
    _check_target(target, overwrite)
    rows = json_value("path_table", [asdict(cast(Any, row)) if is_dataclass(row) else dict(row) for row in path_table])
    config = _config_of(net)
    config |= _about(net, classes, mean, std, image_size, resize, resize_to)
    config = json_value("this network's config", config | ({"path_table": rows} if rows else {}))
    tensors = tensors_of(net)
    again = build_net(json.loads(json.dumps(config)), "this network's config")
    check_tensors(again, {k: (tuple(t.shape), t.is_floating_point()) for k, t in tensors.items()}, "this network")
    card = model_card(
        config,
        paper=FAMILIES[config["family"]].paper,
        named_paths=list(net.named_paths()),
        path_table=rows,
        parameters=sum(p.numel() for p in net.parameters()),
        licence=licence,
        dataset=dataset,
        notes=notes,
    )
    with new_folder(target) as made:
        write_json(made / CONFIG, config)
        write_file(made / CARD, card)
        try:
            save_file(tensors, made / WEIGHTS, {"format": "pt"})  # only one entry: the order of several would vary
        except SafetensorError as error:
            raise OSError(f"{target / WEIGHTS}: cannot be written ({error})") from error
        (made / WEIGHTS).chmod((made / CARD).stat().st_mode)  # safetensors makes the file readable only by its owner
        with open(made / WEIGHTS, "rb") as stream:
            os.fsync(stream.fileno())
    return target


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ValueError(f"{target}: must be a folder, but is a file")
    there = sorted(path.name for path in target.iterdir())
    if not there:
        return
    if not overwrite:
        raise ValueError(f"{target}: exists and is not empty; choose another folder, or pass overwrite=True")
    if strangers := [name for name in there if name not in FILES]:
        raise ValueError(
            f"{target}: is not overwritten, because it contains {strangers[0]!r}, which no saved network has"
        )


def _config_of(net: PathNet) -> dict[str, Any]:
    import polypath.families.registry  # noqa: F401 (its import makes the families known)

    if net.config.get("fused"):
        raise ValueError("a fused network cannot be saved: save the original network, and fuse it after loading")
    family = net.config.get("family")
    if family not in FAMILIES:
        raise ValueError(
            f"family {family!r}: must be one of {', '.join(FAMILIES)}; only a network built by a family can be saved"
        )
    known: dict[str, Any] = {**net.config}
    config: dict[str, Any] = {
        "format": "polypath",
        "format_version": FORMAT_VERSION,
        "polypath": metadata.version("polypath"),
        "torch": torch.__version__,
        "min_torch": MIN_TORCH,
    }
    if family in PACKAGES:
        config[PACKAGES[family]] = metadata.version(PACKAGES[family])
    for key in ("model", "family", "arguments", "paths", "statistics", "gates"):
        if key in known:
            config[key] = copy.deepcopy(known[key])
    return config | {"num_classes": net.num_classes, "min_size": net.min_size}


def _about(
    net: PathNet,
    classes: Sequence[str] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: int | tuple[int, int] | None,
    resize: str | None,
    resize_to: int | None,
) -> dict[str, Any]:
    """Return facts for users of the network, from the arguments or else from its config."""
    kept: dict[str, Any] = {key: value for key, value in net.config.items() if key in ABOUT}
    if classes is None:
        classes = kept.get("classes")
    classes = plain(classes)
    if classes is not None and classes != ():
        kept["classes"] = check_classes(classes, net.num_classes)
    if (mean is None) != (std is None):
        raise ValueError("mean and std: must be given together")
    if mean is not None and std is not None:
        chans = net.in_chans
        kept["normalisation"] = {
            "mean": tuple(map(float, check("mean", mean, each(number(), count=chans)))),
            "std": tuple(map(float, check("std", std, each(number(above=0), count=chans)))),
        }
    if size is None and (resize, resize_to) != (None, None):
        raise ValueError(f"resize = {resize!r}, resize_to = {resize_to!r}: require image_size")
    if size is not None:
        kept["image"] = {
            "size": sides(size, "image_size"),
            "resize": check("resize", resize, optional(one_of(*get_args(Resize)))),
            "to": check("resize_to", resize_to, optional(whole(1))),
        }
    return kept
