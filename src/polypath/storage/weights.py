"""Collect the tensors of a network for ``model.safetensors``, read them, and check that they fit the network."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from polypath.core.network import PathNet
from polypath.storage.bounded import Held
from polypath.storage.files import read_regular
from polypath.storage.layout import CONFIG

MOST_HEADER = 2**24  # bytes; the header for 10,000 tensors has a megabyte


def tensors_of(net: PathNet) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    seen: dict[int, str] = {}
    for key, tensor in net.state_dict().items():
        if tensor.is_meta:
            raise ValueError(f"weight {key!r} is on the meta device and has no value to save")
        if tensor.numel() and (other := seen.setdefault(tensor.data_ptr(), key)) != key:
            raise ValueError(
                f"weights {other!r} and {key!r} are the same tensor, which cannot be saved under two names"
            )
        tensors[key] = tensor.detach().cpu().contiguous()
    storages = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    return {key: t.clone() if storages[t.untyped_storage().data_ptr()] > 1 else t for key, t in tensors.items()}


def held_by(file: Path) -> Held:
    """Return the number of tensors in a weights file, and the size of the file. Read only the file's header.

    Raises:
        ValueError: the file is missing, damaged, or not a weights file.
    """
    with opened(file) as stream:
        return Held(len(list(stream.keys())), file.stat().st_size)


def read_tensors(file: Path, net: PathNet) -> dict[str, Tensor]:
    """Read the tensors of a weights file, which must fit ``net``.

    Raises:
        ValueError: the file is missing, damaged, or not a weights file, or its tensors do not fit.
    """
    with opened(file) as stream:
        names = list(stream.keys())
        slices = {name: stream.get_slice(name) for name in names}
        found = {n: (tuple(s.get_shape()), s.get_dtype().startswith(("F", "BF"))) for n, s in slices.items()}
        check_tensors(net, found, str(file))
        # copied, since views would be invalid once the mapped file is closed
        return {name: stream.get_tensor(name).clone() for name in names}


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a safetensors file of torch tensors with ``safe_open``.

    Raises:
        ValueError: the file is missing, damaged, or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        length = int.from_bytes(read_regular(file, 8), "little")
        if length > MOST_HEADER:
            raise SafetensorError(f"the header has {length:,} bytes, more than the {MOST_HEADER:,} allowed")
        with safe_open(file, "pt") as stream:
            yield stream
    except FileNotFoundError as error:
        raise ValueError(f"{file.parent}: {file.name} is missing (weights in any other form are never read)") from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: is damaged or not a safetensors file ({error})") from error


def check_tensors(net: PathNet, found: Mapping[str, tuple[tuple[int, ...], bool]], where: str) -> None:
    """Raise ``ValueError`` unless tensors have the names, shapes and kinds (floating-point or not) that ``net`` has."""
    wanted = net.state_dict()
    wrong = []
    if missing := [key for key in wanted if key not in found]:
        wrong.append(f"missing: {_some(missing)}")
    if spare := [key for key in found if key not in wanted]:
        wrong.append(f"unexpected: {_some(spare)}")
    shared = [key for key in wanted if key in found]
    if bent := [key for key in shared if found[key][0] != tuple(wanted[key].shape)]:
        wrong.append(f"wrong shapes: {_some([f'{k} {found[k][0]}, not {tuple(wanted[k].shape)}' for k in bent])}")
    if odd := [key for key in shared if found[key][1] != wanted[key].is_floating_point()]:
        wrong.append(f"wrong types: {_some(odd)}")
    if wrong:
        raise ValueError(f"{where}: the weights do not fit the network in {CONFIG} ({'; '.join(wrong)})")


def _some(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
