"""Networks in folders and on the hub: config, weights and card; no code, no pickle.

config.json         how to build the network again, and what a user of it has to know (see :func:`read_config`)
model.safetensors   its weights and buffers
README.md           the model card, with the table of its paths

A folder appears whole or not at all. Loading builds the family's network without weights, takes the config's paths
out of it, and puts the file's tensors in; names and shapes must agree.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from polypath.cards import model_card
from polypath.families.base import FAMILIES
from polypath.files import sync_folder, write_file, write_json
from polypath.meta import sides
from polypath.network import PathNet, extract

CONFIG, WEIGHTS, CARD = FILES = ("config.json", "model.safetensors", "README.md")
FORMAT_VERSION = 1
MIN_TORCH = "2.11"
PACKAGES = {"timm": "timm", "pytorchcv": "pytorchcv"}  # families whose networks another package draws
ABOUT = ("classes", "normalisation", "image")  # kept in ``net.config`` from load to the next save

Folder = str | os.PathLike[str]


# --- saving --------------------------------------------------------------------------------------------------


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
    """Write ``net`` into a new folder, which is there whole or not at all; return its path.

    Args:
        overwrite: replace a saved network that is there already; it is set aside first and removed at the end.
        classes: names in the order of the labels. It, ``mean``/``std`` and the image's fields are taken over from
            ``net.config`` where they are not given, as a loaded network has them.
        mean, std: per channel, of pixels in 0 … 1: what is subtracted and divided by.
        image_size: pixels (side, or height and width) of the images that it was trained on.
        resize, resize_to: how an image of another size comes to it, in the words of ``DataConfig``.
        path_table: results of its paths, mappings or dataclasses such as ``PathRow``; kept in config and card.
        licence: of the weights, as the hub writes it.
        dataset: what it was trained on.
        notes: what a reader has to know of the results.

    Raises:
        ValueError: a folder that is there already or holds something else, a network that its config would not build
            again, more classes than the head has, means that do not fit the channels, weights without values.
        OSError: no space, no permission; nothing is left behind then.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = Path(folder)
    _check_target(target, overwrite)
    rows = [_row(row) for row in path_table]
    config = _config_of(net)
    config |= _about(net, classes, mean, std, image_size, resize, resize_to)
    config |= {"path_table": rows} if rows else {}
    tensors = _tensors_of(net)
    again = _build(json.loads(json.dumps(config)), "this network's config")
    _check_tensors(again, {k: (tuple(t.shape), t.is_floating_point()) for k, t in tensors.items()}, "this network")
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
            save_file(tensors, made / WEIGHTS, {"format": "pt", "polypath": "model"})
        except SafetensorError as error:
            raise OSError(f"{target / WEIGHTS}: cannot be written ({error})") from error
        (made / WEIGHTS).chmod((made / CARD).stat().st_mode)  # safetensors writes for the owner alone
        with open(made / WEIGHTS, "rb") as stream:
            os.fsync(stream.fileno())
    return target


def push_to_hub(
    net: PathNet,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload network",
    **options: Any,
) -> str:
    """Save ``net`` as :func:`save` does (``options`` are its own) and upload the folder; return the repo's address."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as place:
        folder = save(net, Path(place) / "model", **options)
        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo.repo_id, folder_path=folder, allow_patterns=list(FILES), commit_message=commit_message
        )
    return str(repo)


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ValueError(f"{target}: is a file; name a folder")
    there = sorted(path.name for path in target.iterdir())
    if not there:
        return
    if not overwrite:
        raise ValueError(f"{target}: exists and is not empty; choose another folder, or pass overwrite=True")
    if strangers := [name for name in there if name not in FILES]:
        raise ValueError(f"{target}: holds {strangers[0]!r}, which no saved network has; it is not overwritten")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when the block has ended well, and is gone otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    made, old = (target.with_name(f".{target.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    for left_over in (made, old):
        shutil.rmtree(left_over, ignore_errors=True)
    made.mkdir()
    try:
        yield made
        sync_folder(made)
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(made, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
        sync_folder(target.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _config_of(net: PathNet) -> dict[str, Any]:
    import polypath.registry  # noqa: F401 (its import makes the families known)

    family = net.config.get("family")
    if family not in FAMILIES:
        raise ValueError(
            f"family {family!r}: only a network that a family has built can be saved; there are {', '.join(FAMILIES)}"
        )
    config: dict[str, Any] = {
        "format": "polypath",
        "format_version": FORMAT_VERSION,
        "polypath": metadata.version("polypath"),
        "torch": torch.__version__,
        "min_torch": MIN_TORCH,
    }
    if family in PACKAGES:
        config[PACKAGES[family]] = metadata.version(PACKAGES[family])
    for key in ("model", "family", "arguments", "paths", "statistics"):
        if key in net.config:
            config[key] = copy.deepcopy(net.config[key])
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
    """What a user of the network has to know, given or taken over."""
    kept = {key: net.config[key] for key in ABOUT if key in net.config}
    if classes is not None:
        if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"classes {classes!r}: give a list of names")
        if len(classes) > net.num_classes:
            raise ValueError(f"classes: {len(classes)} names, and the network's head has {net.num_classes} outputs")
        kept["classes"] = list(classes)
    elif len(kept.get("classes", ())) > net.num_classes:  # of the head that it had before
        del kept["classes"]
    if (mean is None) != (std is None):
        raise ValueError("mean and std: give both or neither")
    if mean is not None and std is not None:
        chans = net.config["arguments"].get("in_chans", len(mean))
        if not len(mean) == len(std) == chans or not all(s > 0 for s in std):
            raise ValueError(f"mean {tuple(mean)}, std {tuple(std)}: give {chans} numbers each, std above 0")
        kept["normalisation"] = {"mean": [float(m) for m in mean], "std": [float(s) for s in std]}
    if size is not None:
        kept["image"] = {"size": list(sides(size)), "resize": resize, "to": resize_to}
    return kept


def _row(row: Any) -> dict[str, Any]:
    return asdict(cast(Any, row)) if is_dataclass(row) else dict(row)


def _tensors_of(net: PathNet) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    seen: dict[int, str] = {}
    for key, tensor in net.state_dict().items():
        if tensor.is_meta:
            raise ValueError(f"weight {key!r} is on the meta device and has no value to save")
        if tensor.numel() and (other := seen.setdefault(tensor.data_ptr(), key)) != key:
            raise ValueError(f"weights {other!r} and {key!r} are one tensor under two names, which cannot be saved")
        tensors[key] = tensor.detach().cpu().contiguous()
    storages = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    return {key: t.clone() if storages[t.untyped_storage().data_ptr()] > 1 else t for key, t in tensors.items()}


# --- loading -------------------------------------------------------------------------------------------------


def load(source: Folder, *, revision: str | None = None, device: str | torch.device = "cpu") -> PathNet:
    """The network saved in a folder, or under a hub name (``owner/name``, cached), in evaluation mode.

    No code is run from there and no pickle read.

    Raises:
        ValueError: no such folder or hub name, a missing, damaged or foreign file, a family or argument that is not
            known here, weights that do not fit the network.
    """
    folder = _fetch(source, revision)
    config = read_config(folder)
    net = _build(config, str(folder / CONFIG))
    file = folder / WEIGHTS
    tensors = _read_tensors(file, net)
    net.load_state_dict(tensors, assign=True)
    for key in (*ABOUT, "model", "statistics"):
        if key in config:
            net.config[key] = tuple(config[key]) if key == "classes" else config[key]
    return net.to(device).eval()


def read_config(source: Folder) -> dict[str, Any]:
    """What ``config.json`` of a saved network says: ``family``, ``arguments``, ``paths`` (of an extracted one),
    ``model``, ``num_classes``, ``min_size``, ``classes``, ``normalisation``, ``image``, ``path_table`` and versions.

    Raises:
        ValueError: a folder or file that is missing, damaged, something else or of a later version.
    """
    file = Path(source) / CONFIG
    if not file.is_file():
        raise ValueError(f"{source}: no saved network, {CONFIG} is missing")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: damaged, or no JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != "polypath":
        raise ValueError(f'{file}: not written by polypath (it has no "format": "polypath")')
    version = config.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(f"{file}: format_version {version!r}; this polypath reads 1 to {FORMAT_VERSION}")
    for key, kind in (("family", str), ("arguments", dict)):
        if not isinstance(config.get(key), kind):
            raise ValueError(f"{file}: {key} {config.get(key)!r} must be {'a name' if kind is str else 'a table'}")
    if not isinstance(config.get("paths", ""), str):
        raise ValueError(f"{file}: paths {config['paths']!r} must be a text")
    if not all(isinstance(config.get(key, kind()), kind) for key, kind in (("classes", list), ("model", str))):
        raise ValueError(f"{file}: classes must be a list and model a name")
    return config


def _build(config: Mapping[str, Any], where: str) -> PathNet:
    """The network that a config describes, without values for what the weights file holds."""
    import polypath.registry  # noqa: F401 (its import makes the families known)

    family, arguments = config["family"], config["arguments"]
    if family not in FAMILIES:
        raise ValueError(f"{where}: unknown family {family!r}; there are {', '.join(FAMILIES)}")
    legal = [field.name for field in fields(FAMILIES[family])]
    if unknown := [key for key in arguments if key not in legal]:
        raise ValueError(f"{where}: family {family!r} has no argument {unknown[0]!r}; it has {', '.join(legal)}")
    try:
        spec = cast(Any, FAMILIES[family])(**{key: _tupled(value) for key, value in arguments.items()})
        net = _meta_built(spec)
        return extract(net, config["paths"]) if "paths" in config else net
    except ImportError:
        raise
    except Exception as error:  # whatever a family makes of values that somebody else wrote
        raise ValueError(f"{where}: {family!r} cannot be built from it ({error})") from error


def _meta_built(spec: Any) -> PathNet:
    try:
        with torch.device("meta"):
            net = spec.build(seed=0)
    except RuntimeError:  # a module of another package that computes while it is made
        return spec.build(seed=0)
    # what no state-dict has must be computed
    return spec.build(seed=0) if _unsaved(net) else net


def _unsaved(net: nn.Module) -> bool:
    saved = net.state_dict()
    attributes = (value for module in net.modules() for value in vars(module).values())
    return any(name not in saved for name, _ in net.named_buffers()) or any(isinstance(v, Tensor) for v in attributes)


def _tupled(value: Any) -> Any:
    """JSON's lists as tuples, as the families' arguments have them."""
    if isinstance(value, list):
        return tuple(_tupled(entry) for entry in value)
    return {key: _tupled(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def _read_tensors(file: Path, net: PathNet) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise ValueError(f"{file.parent}: {WEIGHTS} is missing (weights in any other form are never read)")
    try:
        with safe_open(file, "pt") as stream:
            names = list(stream.keys())
            slices = {name: stream.get_slice(name) for name in names}
            found = {n: (tuple(s.get_shape()), s.get_dtype().startswith(("F", "BF"))) for n, s in slices.items()}
            _check_tensors(net, found, str(file))
            # copies: views of the mapped file would die with it
            return {name: stream.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: damaged, or no safetensors file ({error})") from error


def _check_tensors(net: PathNet, found: Mapping[str, tuple[tuple[int, ...], bool]], where: str) -> None:
    """Raise ``ValueError`` unless names, shapes and kinds (floating or not) of tensors are those that ``net`` has."""
    wanted = net.state_dict()
    wrong = []
    if missing := [key for key in wanted if key not in found]:
        wrong.append(f"missing {_some(missing)}")
    if spare := [key for key in found if key not in wanted]:
        wrong.append(f"unexpected {_some(spare)}")
    shared = [key for key in wanted if key in found]
    if bent := [key for key in shared if found[key][0] != tuple(wanted[key].shape)]:
        wrong.append(f"of other shapes {_some([f'{k} {found[k][0]} for {tuple(wanted[k].shape)}' for k in bent])}")
    if odd := [key for key in shared if found[key][1] != wanted[key].is_floating_point()]:
        wrong.append(f"of other types {_some(odd)}")
    if wrong:
        raise ValueError(f"{where}: its weights are not those of the network in {CONFIG}: {'; '.join(wrong)}")


def _some(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _fetch(source: Folder, revision: str | None) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(source)):
        raise ValueError(f"{source}: no folder; give the folder of a saved network, or its hub name (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # whatever the network and the hub may answer
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{source}: no folder here, and not to be had from the hub ({reason})") from error
