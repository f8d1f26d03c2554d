"""Write and read the recalibrated batch-norm statistics of paths, as a safetensors file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.paths import Paths
from polypath.storage.decode import decode
from polypath.storage.files import parse_json, write_file
from polypath.storage.weights import opened

Choices = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class _Record:
    images: int
    seed: int | None


def save_statistics(statistics: BatchNormStatistics, file: str | os.PathLike[str]) -> None:
    """Write statistics as a safetensors file, atomically."""
    from safetensors.torch import save

    tensors, texts = {}, []
    for i, (paths, bank) in enumerate(statistics.banks.items()):
        texts.append([[name, list(labels)] for name, labels in paths.choices])
        for norm, (mean, var) in bank.items():
            tensors[f"{i}.{norm}.mean"], tensors[f"{i}.{norm}.var"] = mean.contiguous(), var.contiguous()
    metadata = {"polypath": "statistics", "paths": json.dumps(texts), "record": json.dumps(statistics.record)}
    write_file(file, _in_order(save(tensors, metadata)))


def load_statistics(file: str | os.PathLike[str]) -> BatchNormStatistics:
    """Read statistics from a file written by :func:`save_statistics`.

    Raises:
        ValueError: the file is missing, damaged, or not a statistics file.
    """
    try:
        with opened(Path(file)) as stream:
            metadata = stream.metadata() or {}
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (no mapping)
        choices = decode(parse_json(metadata["paths"], "paths"), list[Choices], "paths")
        record = decode(parse_json(metadata["record"], "record"), _Record, "record")
        keys = [Paths(choice) for choice in choices]
        banks: dict[Paths, dict[str, tuple[Tensor, Tensor]]] = {key: {} for key in keys}
        for name in tensors:
            index, _, rest = name.partition(".")
            norm, _, which = rest.rpartition(".")
            if which == "mean":
                mean, var = tensors[name], tensors[f"{index}.{norm}.var"]
                if mean.ndim != 1 or mean.shape != var.shape:
                    raise ValueError(
                        f"norm {norm!r}: mean {tuple(mean.shape)} and variance {tuple(var.shape)} must be two vectors "
                        "of the same length"
                    )
                banks[keys[int(index)]][norm] = (mean, var)
        return BatchNormStatistics(banks, record.images, record.seed)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(file)}: is damaged or not a statistics file ({error})") from error


def _in_order(data: bytes) -> bytes:
    """Sort the metadata of a safetensors file, since safetensors writes them in varying order."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format requires this padding
    return len(text).to_bytes(8, "little") + text + data[end:]
