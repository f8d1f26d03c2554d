"""Cache decoded images on disk. Each split is one safetensors file, which is written atomically and verified when it is
read."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from polypath.core.home import cache_folder
from polypath.data.decode import Decoded
from polypath.storage.decode import decode
from polypath.storage.files import SUFFIX, parse_json, whole

FORMAT = 2
STALE = 24 * 3600  # seconds; older unfinished files of other processes are deleted
LOG = logging.getLogger(__name__)


def key(**what: object) -> str:
    """Make a file name from ``what``: JSON values that determine the decoded images."""
    text = json.dumps({"format": FORMAT, **what}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest(*tensors: Tensor) -> str:
    """Compute a fingerprint of the values, shapes and dtypes of tensors."""
    h = hashlib.blake2b(digest_size=16)
    for t in tensors:
        h.update(f"{tuple(t.shape)} {t.dtype}".encode())
        h.update(t.detach().cpu().contiguous().numpy().data.cast("B") if t.numel() else b"")
    return h.hexdigest()


def load(name: str) -> Decoded | None:
    """Load the images that are stored under ``name``. Return None if there are none. If the file is damaged, warn and
    return None."""
    where = cache_folder()
    if where is None:
        return None
    path = where / f"{name}.safetensors"
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            images, rows = file.get_tensor("images"), file.get_tensor("rows")
        if digest(images, rows) != meta.get("digest"):
            raise ValueError("the checksum is wrong")
        return Decoded(
            images, rows, decode(parse_json(meta["skipped"], "skipped"), tuple[str, ...], "skipped"), meta["format"]
        )
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        warnings.warn(
            f"cached images {path} are damaged ({error}) and will be decoded again", UserWarning, stacklevel=2
        )
        return None


def store(name: str, decoded: Decoded) -> None:
    """Store ``decoded`` under ``name``. If this fails (no space, no permission), only warn."""
    where = cache_folder()
    if where is None:
        return
    path = where / f"{name}.safetensors"
    meta = {
        "digest": digest(decoded.images, decoded.rows),
        "skipped": json.dumps(decoded.skipped),
        "format": decoded.format,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        with whole(path) as part:
            save_file({"images": decoded.images.contiguous(), "rows": decoded.rows}, part, metadata=meta)
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"decoded images could not be cached in {path.parent} ({error}) and must be decoded again next time; "
            "to cache them, set POLYPATH_CACHE to another folder",
            UserWarning,
            stacklevel=2,
        )


def _sweep(where: Path) -> None:
    """Delete unfinished files of processes that were killed."""
    for part in where.glob(f".*{SUFFIX}"):
        if time.time() - part.stat().st_mtime > STALE:
            part.unlink(missing_ok=True)
            LOG.info("removed the unfinished file %s", part)
