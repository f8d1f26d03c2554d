"""Images: sources, batched augmentation, in-memory and streaming loaders."""

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
