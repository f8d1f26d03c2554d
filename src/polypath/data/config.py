"""Configuration of a run's images and their preparation, as frozen dataclasses of JSON values.

The settings of the papers (on CIFAR-10 and CIFAR-100, ``size`` is 32):

=====================  ====================================================  ==========================================
paper                  augment                                               other fields
=====================  ====================================================  ==========================================
no augmentation        ``AugmentConfig()``
"+" (all five papers)  ``PLUS``: pad 4 (zeros after normalising), mirror
FractalNet "++"        ``PLUS_PLUS``: the same, reflect-padded
FractalNet             any of these                                          ``normalise="mean"``
GUNN, released code    ``GUNN_RELEASED``: "+", then a cyclic roll
SVHN, CrescendoNet     ``AugmentConfig()``                                   ``extra_split="extra"`` (604,388 images)
SVHN, DFN              ``AugmentConfig()``                                   the same, ``**SVHN_HELD_OUT`` (598,388)
ImageNet, GoogLeNet's  ``IMAGENET``: scale and aspect crops, mirror          ``size=224, resize_to=256``
ImageNet, ResNet, DFN  ``IMAGENET_RESNET``: shorter side, mirror, lighting   the same
ImageNet, GUNN's code  ``IMAGENET_GUNN``: ``IMAGENET``, jitter, lighting     the same
ImageNet, DRNN         ``IMAGENET_PHOTOMETRIC``                              the same, ``resize="squash"``
ImageNet, FractalNet   ``IMAGENET``                                          the same, ``eval_crops=10``
=====================  ====================================================  ==========================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from polypath.core.checks import (
    FLAG,
    NAME,
    SHARE,
    check_fields,
    each,
    instance,
    interval,
    number,
    one_of,
    optional,
    plain_fields,
    whole,
)
from polypath.core.config import Resize
from polypath.core.later import later
from polypath.storage.decode import decode

PadMode = Literal["zero", "reflect"]
Normalise = Literal["channel", "mean", "none"]
Broken = Literal["refuse", "skip"]
Policy = Literal["none", "trivial", "rand"]
HoldOut = Literal["proportional", "equal"]
PHOTOMETRIC = (0.5, 0.1)
"""Values of ``jitter`` and ``lighting`` in Howard 2013."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Data augmentation: random changes of training images, drawn for each image. The default changes nothing.

    The order of the changes is: ``scale`` or ``shorter_side`` crop, ``policy``, ``jitter``, ``lighting``,
    normalisation, ``pad`` and crop, ``mirror``, ``roll``, ``erase``.

    Args:
        pad: pixels to pad on each side before a random crop to the image's original size; 0 does not pad.
        pad_mode: ``zero`` pads the normalised image with zeros; ``reflect`` mirrors the image at its border
            (FractalNet's "++").
        mirror: flip left to right with probability 1/2.
        alternate: with ``mirror``, flip each image in every second epoch instead of at random (Jordan 2024). So two
            epochs in a row show both versions of each image. It is random whether an image is flipped in the even or in
            the odd epochs.
        roll: probability of a cyclic shift by a uniform offset, along a random axis (2/3 in GUNN's released loader).
        scale: smallest and largest area of a random crop, as a share of the image's area (GoogLeNet: 0.08 and 1). The
            crop is resized to the image's size. None does not crop at random.
        aspect: smallest and largest width/height of the random crop; used with ``scale``.
        photometric: photometric distortion of Howard 2013. It is the same as ``jitter`` 0.5 and ``lighting`` 0.1, so
            these two must be left at 0.
        shorter_side: resize the shorter side of each image to a random length between these two, in pixels. Then crop a
            square of side ``DataConfig.size`` at random (ResNet: 256, 480). Cannot be combined with ``scale``.
        jitter: multiply brightness, contrast and colour by random factors in 1 ± ``jitter``, in random order
            (fb.resnet.torch and GUNN: 0.4).
        lighting: standard deviation of the noise along the principal components of ImageNet's pixels (AlexNet: 0.1).
        policy: one or two random changes of shape or colour for each image, by torchvision's TrivialAugment
            (``trivial``, Müller and Hutter 2021) or RandAugment (``rand``, Cubuk et al. 2020).
        erase: probability of filling a random rectangle with the mean colour (random erasing, Zhong et al. 2020).

    Raises:
        ValueError: a value is out of range, or values cannot be combined.
    """

    pad: int = 0
    pad_mode: PadMode = "zero"
    mirror: bool = False
    roll: float = 0.0
    scale: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    photometric: bool = False
    shorter_side: tuple[int, int] | None = later(None)
    jitter: float = later(0.0)
    lighting: float = later(0.0)
    alternate: bool = later(False)
    policy: Policy = later("none")  # noqa: RUF009 (a Literal by name)
    erase: float = later(0.0)

    def __post_init__(self) -> None:
        plain_fields(self)
        check_fields(
            self,
            pad=whole(0),
            pad_mode=one_of(*get_args(PadMode)),
            mirror=FLAG,
            roll=SHARE,
            scale=optional(interval(1)),
            aspect=interval(),
            photometric=FLAG,
            shorter_side=optional(each(whole(1), count=2)),
            jitter=SHARE,
            lighting=number(0),
            alternate=FLAG,
            policy=one_of(*get_args(Policy)),
            erase=SHARE,
        )
        if self.alternate and not self.mirror:
            raise ValueError("AugmentConfig.alternate = True: needs mirror = True")
        if self.shorter_side and (self.shorter_side[0] > self.shorter_side[1] or self.scale):
            why = "cannot be combined with scale" if self.scale else "the second number must not be below the first"
            raise ValueError(f"AugmentConfig.shorter_side = {self.shorter_side}: {why}")
        if self.photometric and (self.jitter or self.lighting):
            raise ValueError(
                f"AugmentConfig.photometric = True: is the same as jitter {PHOTOMETRIC[0]} and lighting "
                f"{PHOTOMETRIC[1]}; give either photometric or jitter {self.jitter} and lighting {self.lighting}"
            )

    @property
    def colour(self) -> tuple[float, float]:
        """The strength of the jitter and of the lighting noise."""
        return PHOTOMETRIC if self.photometric else (self.jitter, self.lighting)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images come from, which of them are used for training, validation and test, and how they are prepared.

    Args:
        source: ``digits`` (from scikit-learn, no download), ``cifar10``, ``cifar100``, ``svhn``, ``imagenet``, the name
            of any Hugging Face dataset, or a local folder. A folder contains parquet files, the output of
            ``save_to_disk``, one sub-folder of images per class, or images with a ``metadata.csv`` or
            ``metadata.jsonl`` (columns ``file_name`` and ``label``). Splits are recognised by many names (``train``,
            ``Training_set``, ``seg_test``, ``valid``).
        subset: a configuration of the Hugging Face dataset (``cropped_digits`` for SVHN), or a sub-folder of a local
            folder.
        image_column, label_column: names of the columns. None finds them by their types, or in metadata files by their
            names.
        train_split, extra_split: splits to train on. SVHN has a second training split, ``extra``.
        test_split: the split to test on. None uses ``test`` or, if there is none, ``validation``. If neither exists,
            ``test_fraction`` of the training images are used. This choice does not depend on ``split_seed``.
        validation_split: a split of the dataset to use for validation, instead of held-out training images.
        validation, validation_extra: number of images of ``train_split`` and of ``extra_split`` to hold out for
            validation, drawn with ``split_seed``.
        split_seed: seed for drawing the held-out images and the ``train_images``.
        test_fraction: share of the training images to test on if there is no test split.
        hold_out: number of held-out images of each class: ``equal``, or ``proportional`` to the size of the class.
        train_images, test_images: number of images to keep, drawn in proportion to the class sizes; None keeps all. The
            draw of training images depends on ``split_seed``. Held-out images do not depend on these fields.
        size: side of the network's square input, in pixels. None keeps the size of the images, which must then all have
            the same size.
        resize: how to resize images of another size or shape. ``crop`` resizes the shorter side to the size and crops
            the centre. ``squash`` resizes both sides, which changes the aspect ratio. ``pad`` resizes the longer side
            and adds black borders.
        resize_to: first resize images to this side. Then crop a square of side ``size``: at random in training, and at
            the centre in evaluation.
        channels: number of channels, 1 or 3. None uses 1 if all training images are grey, else 3. For streamed
            datasets, None uses 3.
        broken: what to do if images cannot be read. ``refuse`` raises an error with their names; ``skip`` leaves them
            out and records their names.
        normalise: ``channel`` subtracts the mean of each channel over the training images and divides by the standard
            deviation; we understand CrescendoNet's "dividing the variance" in this way. ``mean`` only subtracts the
            mean, and ``none`` leaves pixels in 0 … 1.
        mean, std: mean and standard deviation for normalising pixels in 0 … 1, one number per channel. They replace
            those of ``normalise``. For a pretrained network, use the values of its training.
        augment: random changes of training images.
        eval_crops: 1 evaluates the centre crop. 10 averages the probabilities of the centre crop, the corner crops and
            the mirror images of all five; this requires ``resize_to``.
        streaming: decode in worker processes during each epoch, for datasets that do not fit into memory.
        workers: number of worker processes for streaming; 0 decodes in the training process.
        cache: cache decoded images on disk, in the folder ``POLYPATH_CACHE`` or, if that is not set,
            ``~/.cache/polypath``.
        balanced: draw equally many images of each class in an epoch; images of small classes are repeated. The best
            epoch is then the one with the lowest mean of the per-class errors.

    Raises:
        ValueError: a value is out of range, or values cannot be combined.
    """

    source: str = "digits"
    subset: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    train_split: str = "train"
    extra_split: str | None = None
    test_split: str | None = None
    validation_split: str | None = None
    validation: int = 0
    validation_extra: int = 0
    hold_out: HoldOut = "proportional"
    split_seed: int = 0
    test_fraction: float = 0.2
    train_images: int | None = None
    test_images: int | None = None
    size: int | None = None
    resize: Resize = "crop"
    resize_to: int | None = None
    channels: int | None = None
    broken: Broken = "refuse"
    normalise: Normalise = "channel"
    augment: AugmentConfig = AugmentConfig()
    eval_crops: int = 1
    streaming: bool = False
    workers: int = 4
    cache: bool = True
    balanced: bool = later(False)
    mean: tuple[float, ...] | None = later(None)
    std: tuple[float, ...] | None = later(None)

    def __post_init__(self) -> None:
        if isinstance(self.augment, dict):  # when read from JSON
            object.__setattr__(self, "augment", decode(self.augment, AugmentConfig, "DataConfig.augment"))
        plain_fields(self)
        check_fields(
            self,
            source=NAME,
            subset=optional(NAME),
            image_column=optional(NAME),
            label_column=optional(NAME),
            train_split=NAME,
            extra_split=optional(NAME),
            test_split=optional(NAME),
            validation_split=optional(NAME),
            augment=instance(AugmentConfig, legal="an AugmentConfig"),
            resize=one_of(*get_args(Resize)),
            normalise=one_of(*get_args(Normalise)),
            broken=one_of(*get_args(Broken)),
            hold_out=one_of(*get_args(HoldOut)),
            streaming=FLAG,
            cache=FLAG,
            balanced=FLAG,
            validation=whole(0),
            validation_extra=whole(0),
            workers=whole(0),
            train_images=optional(whole(1)),
            test_images=optional(whole(1)),
            size=optional(whole(1)),
            resize_to=optional(whole(1)),
            split_seed=whole(0),
            test_fraction=number(above=0, below=1),
            channels=one_of(1, 3, None),
            eval_crops=one_of(1, 10),
            mean=optional(each(SHARE)),
            std=optional(each(number(above=0))),
        )
        self._check_normalisation()
        self._check_sizes()
        self._check_splits()

    def _check_normalisation(self) -> None:
        lengths = [None if values is None else len(values) for values in (self.mean, self.std)]
        if lengths[0] != lengths[1]:
            raise ValueError(f"DataConfig.std = {self.std}: must have as many numbers as mean ({self.mean})")
        if self.mean is not None and self.normalise != "channel":
            raise ValueError(f"DataConfig.normalise = {self.normalise!r}: give either normalise or mean and std")
        if self.channels is not None and lengths[0] not in (None, self.channels):
            raise ValueError(f"DataConfig.mean = {self.mean}: must have {self.channels} numbers, one per channel")

    def _check_sizes(self) -> None:
        if self.resize_to is not None and (self.size is None or self.resize_to < self.size):
            size = f"requires a size that is not larger (size {self.size})"
            raise ValueError(f"DataConfig.resize_to = {self.resize_to}: {size}")
        if self.eval_crops == 10 and (self.size is None or (self.resize_to or 0) <= self.size):
            raise ValueError(
                f"DataConfig.eval_crops = 10: requires a resize_to that is larger than size "
                f"(size {self.size}, resize_to {self.resize_to})"
            )
        if self.streaming and self.size is None:
            raise ValueError("DataConfig.size = None: must be a number of pixels if streaming = True")

    def _check_splits(self) -> None:
        if self.validation_extra and self.extra_split is None:
            raise ValueError(f"DataConfig.validation_extra = {self.validation_extra}: requires an extra_split")
        if self.validation_split is not None and (self.validation or self.validation_extra):
            raise ValueError(
                f"DataConfig.validation_split = {self.validation_split!r}: give either a split or "
                f"numbers of images to hold out (validation {self.validation}, "
                f"validation_extra {self.validation_extra})"
            )
        training = [self.train_split, self.extra_split]
        for name in ("test_split", "validation_split"):
            if getattr(self, name) is not None and getattr(self, name) in training:
                raise ValueError(f"DataConfig.{name} = {getattr(self, name)!r}: must not be a training split")
        if self.extra_split is not None and self.extra_split == self.train_split:
            raise ValueError(f"DataConfig.extra_split = {self.extra_split!r}: must differ from train_split")

    @property
    def stored_size(self) -> int | None:
        """The side of the stored images, before they are cropped to ``size``."""
        return self.resize_to or self.size


PLUS = AugmentConfig(pad=4, mirror=True)
PLUS_PLUS = AugmentConfig(pad=4, pad_mode="reflect", mirror=True)
GUNN_RELEASED = AugmentConfig(pad=4, mirror=True, roll=2 / 3)
IMAGENET = AugmentConfig(scale=(0.08, 1.0), mirror=True)
IMAGENET_RESNET = AugmentConfig(shorter_side=(256, 480), mirror=True, lighting=0.1)
IMAGENET_GUNN = AugmentConfig(scale=(0.08, 1.0), mirror=True, jitter=0.4, lighting=0.1)
IMAGENET_PHOTOMETRIC = AugmentConfig(scale=(0.08, 1.0), mirror=True, photometric=True)

SVHN_HELD_OUT: dict[str, Any] = {"validation": 4000, "validation_extra": 2000, "hold_out": "equal"}
"""Fields that hold out 400 images per class of ``train`` and 200 of ``extra`` (DFN §6.1)."""
