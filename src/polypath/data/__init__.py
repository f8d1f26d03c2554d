"""Images: data sources, batched augmentation, and loaders for images in memory and for streaming.

Names are imported on first use, so that decoding an image does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polypath.core.lazy import looked_up

if TYPE_CHECKING:
    from polypath.data.augment import average_views, ten_crop
    from polypath.data.batches import evaluation_batches, training_batches
    from polypath.data.config import (
        GUNN_RELEASED,
        IMAGENET,
        IMAGENET_GUNN,
        IMAGENET_PHOTOMETRIC,
        IMAGENET_RESNET,
        PLUS,
        PLUS_PLUS,
        SVHN_HELD_OUT,
        AugmentConfig,
        DataConfig,
    )
    from polypath.data.loader import Batches
    from polypath.data.sources import KNOWN, ImageData, load_images
    from polypath.data.split import Split, StreamedSplit
    from polypath.data.streaming import StreamingBatches

__all__ = [
    "GUNN_RELEASED",
    "IMAGENET",
    "IMAGENET_GUNN",
    "IMAGENET_PHOTOMETRIC",
    "IMAGENET_RESNET",
    "KNOWN",
    "PLUS",
    "PLUS_PLUS",
    "SVHN_HELD_OUT",
    "AugmentConfig",
    "Batches",
    "DataConfig",
    "ImageData",
    "Split",
    "StreamedSplit",
    "StreamingBatches",
    "average_views",
    "evaluation_batches",
    "load_images",
    "ten_crop",
    "training_batches",
]

_PLACES = {
    "GUNN_RELEASED": "config",
    "IMAGENET": "config",
    "IMAGENET_GUNN": "config",
    "IMAGENET_PHOTOMETRIC": "config",
    "IMAGENET_RESNET": "config",
    "KNOWN": "sources",
    "PLUS": "config",
    "PLUS_PLUS": "config",
    "SVHN_HELD_OUT": "config",
    "AugmentConfig": "config",
    "Batches": "loader",
    "DataConfig": "config",
    "ImageData": "sources",
    "Split": "split",
    "StreamedSplit": "split",
    "StreamingBatches": "streaming",
    "average_views": "augment",
    "evaluation_batches": "batches",
    "load_images": "sources",
    "ten_crop": "augment",
    "training_batches": "batches",
}


if not TYPE_CHECKING:  # otherwise type checkers would accept every misspelt name

    def __getattr__(name: str) -> Any:
        return looked_up(__name__, _PLACES, name)
