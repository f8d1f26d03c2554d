"""Small images in all forms that sources accept."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own cache folder, also for the Hugging Face library."""
    monkeypatch.setattr("sys.path", list(sys.path))  # datasets 3.0 adds to it
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("POLYPATH_CACHE", str(folder))
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "hf")
    return folder


def picture(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """A random image of ``size`` (width, height)."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode=None)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write ``n`` images per class into one folder per split (without ``splits``: into class folders directly)."""

    def write(
        splits: Sequence[str] = ("train", "test"),
        classes: Sequence[str] = ("cat", "dog"),
        n: int = 6,
        sizes: Sequence[tuple[int, int]] = ((8, 8),),
        mode: str = "RGB",
        kind: str = "PNG",
    ) -> Path:
        seed = 0
        for split in splits or ("",):
            for name in classes:
                folder = tmp_path / "images" / split / name
                folder.mkdir(parents=True)
                for i in range(n):
                    seed += 1
                    image = picture(seed, sizes[seed % len(sizes)], mode)
                    (folder / f"{i}.{kind.lower()}").write_bytes(encoded(image, kind))
        return tmp_path / "images"

    return write


@pytest.fixture
def parquet_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write splits as the hub's parquet files; ``columns`` overrides or adds columns and their features."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    def write(
        splits: Sequence[str] = ("train", "test"),
        n: int = 12,
        columns: dict | None = None,
        features: dict | None = None,
        drop: Sequence[str] = (),
        at: str = "data",
        size: tuple[int, int] = (8, 8),
    ) -> Path:
        root = tmp_path / "table"
        (root / at).mkdir(parents=True, exist_ok=True)
        for number, split in enumerate(splits):
            data = {
                "img": [{"bytes": encoded(picture(100 * number + i, size)), "path": None} for i in range(n)],
                "label": [i % 3 for i in range(n)],
                **(columns or {}),
            }
            kinds = {"img": ImageFeature(), "label": ClassLabel(names=["a", "b", "c"]), **(features or {})}
            kinds = {name: kind for name, kind in kinds.items() if kind is not None and name not in drop}
            data = {name: values for name, values in data.items() if name in kinds}
            table = Dataset.from_dict(data, features=Features(kinds))
            table.to_parquet(root / at / f"{split}-00000-of-00001.parquet")
        return root

    return write


@pytest.fixture
def images(rng: torch.Generator) -> torch.Tensor:
    """A batch (16, 3, 12, 10) uint8, neither square nor symmetric."""
    return torch.randint(0, 256, (16, 3, 12, 10), generator=rng, dtype=torch.uint8)
