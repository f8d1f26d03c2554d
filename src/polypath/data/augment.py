"""Batched image augmentation: apply random changes to images ``(N, C, H, W)`` on any device.

Random numbers are drawn on the CPU from an explicit generator, as a tensor with one row per image. So a seed gives the
same images on every device. Ranks (processes) that share a batch draw the numbers of the complete batch, and each rank
uses the rows of its part. Functions called ``draw_*`` only draw random numbers. :func:`pad_and_crop`, :func:`mirror`,
:func:`roll`, :func:`random_resized_crop` and :func:`photometric` draw and apply them. The other functions apply given
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from polypath.core.probabilities import log_average_probabilities
from polypath.data.config import PHOTOMETRIC, AugmentConfig, PadMode, Policy

TRIES = 10  # draws of a scale-and-aspect crop; if none fits, the largest centre crop is used
# Principal components of ImageNet's RGB pixels in 0 … 1 (Krizhevsky et al. 2012, §4.1): the commonly used values.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
GREY = (0.299, 0.587, 0.114)  # ITU-R 601 luma
ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch, one row per image. A field is None if the configuration has no such change.

    ``crop`` (N, 2), ``roll`` (N, 3) and ``box`` are uniform in [0, 1). They are converted to pixels when the size of
    the image is known. ``box`` is (N, 2 * TRIES + 2), or (N, 3) for ``shorter_side``. ``mirror`` is (N,) bool.
    ``light`` is (N, 7), see :func:`draw_photometric`. ``policy`` and ``erase`` (N,) are seeds, see
    :func:`each_by_seed`.
    """

    crop: Tensor | None = None
    mirror: Tensor | None = None
    roll: Tensor | None = None
    box: Tensor | None = None
    light: Tensor | None = None
    policy: Tensor | None = None
    erase: Tensor | None = None

    def rows(self, which: slice | Tensor) -> Draws:
        """Return the random numbers of some images of the batch."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Draws(**{name: None if v is None else v[which] for name, v in values.items()})


def draw(config: AugmentConfig, n: int, generator: Generator) -> Draws:
    """Draw the random numbers that ``config`` needs for ``n`` images. Always draw a crop position, even if unused."""
    columns = 2 * TRIES + 2 if config.scale else 3 if config.shorter_side else 0
    return Draws(
        crop=_uniform(n, 2, generator),
        mirror=draw_mirror(n, generator) if config.mirror else None,
        roll=_uniform(n, 3, generator) if config.roll else None,
        box=_uniform(n, columns, generator) if columns else None,
        light=draw_photometric(n, generator, *config.colour) if any(config.colour) else None,
        policy=_seeds(n, generator) if config.policy != "none" else None,
        erase=_seeds(n, generator) if config.erase else None,
    )


# --- crops ------------------------------------------------------------------------------------------------


def pad_and_crop(
    images: Tensor, pad: int, generator: Generator, *, mode: PadMode = "zero", size: int | None = None
) -> Tensor:
    """Pad by ``pad`` pixels on each side, then crop each image at a random position, to its original size or to
    ``size``."""
    wanted = (size, size) if size else (images.shape[-2], images.shape[-1])
    padded = pad_images(images, pad, mode)
    return crop_at(padded, offsets(_uniform(len(images), 2, generator), padded.shape[-2:], wanted), wanted)


def pad_images(images: Tensor, pad: int, mode: PadMode = "zero") -> Tensor:
    """Pad each side with zeros or reflected pixels. Return ``(N, C, H + 2 pad, W + 2 pad)``.

    Raises:
        ValueError: ``mode`` is ``reflect``, but ``pad`` is not smaller than the shorter side of the images.
    """
    if pad == 0:
        return images
    if mode == "zero":
        return F.pad(images, (pad, pad, pad, pad))
    if pad >= min(images.shape[-2:]):
        height, width = images.shape[-2:]
        raise ValueError(f"AugmentConfig.pad = {pad}: is too large to reflect images of {height}x{width} pixels")
    if images.is_floating_point():
        return F.pad(images, (pad, pad, pad, pad), mode="reflect")
    rows, columns = (_reflected(n, pad, images.device) for n in images.shape[-2:])
    return images[:, :, rows][:, :, :, columns]  # F.pad cannot reflect uint8


def offsets(uniform: Tensor, have: torch.Size | tuple[int, int], want: tuple[int, int]) -> Tensor:
    """Convert uniform numbers ``(N, 2)`` to the positions (top, left) ``(N, 2)`` of crops. ``want`` is the size of the
    crops, and ``have`` is the size of the images."""
    room = torch.tensor([have[0] - want[0] + 1, have[1] - want[1] + 1], dtype=torch.float64)
    if (room < 1).any():
        raise ValueError(f"images of {have[0]}x{have[1]} pixels are too small for crops of {want[0]}x{want[1]}")
    return _whole(uniform, room)


def crop_at(images: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop each image to ``size``. Each row of ``places`` (N, 2) is the position (top, left) of one crop."""
    if images.shape[-2:] == size:
        return images
    windows = images.unfold(2, size[0], 1).unfold(3, size[1], 1)  # a view: (N, C, tops, lefts, height, width)
    top, left = places.to(images.device, non_blocking=True).unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def centre_crop(images: Tensor, size: int) -> Tensor:
    """Crop the central ``size`` x ``size`` pixels. If the margins cannot be equal, those at the right and the bottom
    are one pixel larger."""
    top, left = ((n - size) // 2 for n in images.shape[-2:])
    if min(top, left) < 0:
        height, width = images.shape[-2:]
        raise ValueError(f"images of {height}x{width} pixels are too small for crops of {size}x{size}")
    return images[..., top : top + size, left : left + size]


def ten_crop(images: Tensor, size: int) -> Tensor:
    """Crop the four corners and the centre, and add their mirror images. Return ``(N * 10, C, size, size)``, with the
    views of an image adjacent."""
    centre = centre_crop(images, size)
    corners = [images[..., y, x] for y in (slice(size), slice(-size, None)) for x in (slice(size), slice(-size, None))]
    five = torch.stack([*corners, centre], dim=1)
    return torch.cat([five, five.flip(-1)], dim=1).flatten(0, 1)


def average_views(logits: Tensor, views: int) -> Tensor:
    """Average the probabilities of each image over its views: from ``(N * views, K)`` logits to ``(N, K)``. Return the
    logarithm of the averages. With one view, the logits are returned unchanged."""
    if views == 1:
        return logits
    if len(logits) % views:
        raise ValueError(f"logits have {len(logits)} rows: the number must be a multiple of {views} views")
    return log_average_probabilities(logits.unflatten(0, (-1, views)), dim=1)


# --- scale and aspect, shorter side ------------------------------------------------------------------------


def places(config: AugmentConfig, uniform: Tensor, heights: Tensor, widths: Tensor, size: int) -> Tensor:
    """Convert ``Draws.box`` to the crop boxes ``(N, 4)`` of ``config``, for images of these heights and widths."""
    if config.shorter_side:
        return shorter_side_boxes(uniform, heights, widths, config.shorter_side, size)
    return boxes(uniform, heights, widths, config.scale or (1.0, 1.0), config.aspect)


def shorter_side_boxes(uniform: Tensor, heights: Tensor, widths: Tensor, sides: tuple[int, int], size: int) -> Tensor:
    """Convert uniform numbers ``(N, 3)`` to top, left, height and width ``(N, 4)`` of ResNet's crops.

    The shorter side is resized to a whole number of pixels, drawn uniformly from ``sides``. Then a square of ``size``
    is cropped at a uniform position. The box is in pixels of the original image, so only the crop has to be resized.
    """
    heights, widths = heights.double()[:, None], widths.double()[:, None]
    shorter = sides[0] + _whole(uniform[:, :1], torch.tensor(sides[1] - sides[0] + 1, dtype=torch.float64))
    side = torch.round(torch.minimum(heights, widths) * size / shorter).clamp(min=1)
    place = _whole(uniform[:, 1:], torch.cat([heights - side, widths - side], dim=1) + 1)
    return torch.cat([place, side.long(), side.long()], dim=1)


def random_resized_crop(
    images: Tensor, size: int, scale: tuple[float, float], aspect: tuple[float, float], generator: Generator
) -> Tensor:
    """Crop a box of random area and shape from each image and resize the crop to ``size``. This is scale-and-aspect
    augmentation (Szegedy et al. 2015)."""
    n, (height, width) = len(images), images.shape[-2:]
    uniform = _uniform(n, 2 * TRIES + 2, generator)
    heights, widths = torch.full((n,), height), torch.full((n,), width)
    return crop_and_resize(images, boxes(uniform, heights, widths, scale, aspect), size)


def boxes(
    uniform: Tensor, heights: Tensor, widths: Tensor, scale: tuple[float, float], aspect: tuple[float, float]
) -> Tensor:
    """Convert uniform numbers ``(N, 2 * TRIES + 2)`` to top, left, height and width ``(N, 4)`` of random crops.

    The area is a share of the image's area, uniform in ``scale``; width/height is log-uniform in ``aspect``. The first
    of TRIES draws that fits is used. If none fits, the largest centre crop with an allowed aspect is used.
    """
    share, shape = uniform[:, :TRIES], uniform[:, TRIES : 2 * TRIES]
    heights, widths = heights.double()[:, None], widths.double()[:, None]
    area = heights * widths * (scale[0] + share * (scale[1] - scale[0]))
    low, high = math.log(aspect[0]), math.log(aspect[1])
    ratio = torch.exp(low + shape * (high - low))
    width, height = torch.round(torch.sqrt(area * ratio)), torch.round(torch.sqrt(area / ratio))
    fits = (width >= 1) & (height >= 1) & (width <= widths) & (height <= heights)
    first = fits.to(torch.int8).argmax(1, keepdim=True)
    own = (widths / heights).clamp(*aspect)  # the centre crop: as large as the nearest legal aspect allows
    centre_width, centre_height = torch.minimum(widths, heights * own), torch.minimum(heights, widths / own)
    found = fits.any(1, keepdim=True)
    width = torch.where(found, width.gather(1, first), centre_width.round().clamp(min=1))
    height = torch.where(found, height.gather(1, first), centre_height.round().clamp(min=1))
    room = torch.cat([heights - height, widths - width], dim=1)
    place = torch.where(found, _whole(uniform[:, -2:], room + 1), torch.div(room, 2, rounding_mode="floor").long())
    return torch.cat([place, height.long(), width.long()], dim=1)


def crop_and_resize(images: Tensor, places: Tensor, size: int) -> Tensor:
    """Crop each image to its box (top, left, height, width) and resize the crop to ``size`` x ``size``.

    Resizing is bilinear with antialiasing, as two matrix products per image. For uint8 images, the result is rounded
    to uint8.
    """
    height, width = images.shape[-2:]
    top, left, tall, wide = places.float().to(images.device, non_blocking=True).unbind(1)
    down, across = _weights(top, tall, height, size), _weights(left, wide, width, size)
    out = down[:, None] @ images.to(down.dtype) @ across[:, None].mT
    return out if images.is_floating_point() else out.round_().clamp_(0, 255).to(images.dtype)


def _weights(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Return the weights ``(N, size, pixels)`` that resample each image's crop box. The weights of an output pixel form
    a triangle around its centre, and are zero outside the box."""
    start, length = start[:, None, None], length[:, None, None]
    step = length / size
    at = torch.arange(pixels, device=start.device) + 0.5
    centre = start + (torch.arange(size, device=start.device) + 0.5)[:, None] * step
    weights = (1 - (at - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((at > start) & (at < start + length))
    return weights / weights.sum(-1, keepdim=True)


# --- mirror, roll -----------------------------------------------------------------------------------------


def draw_mirror(n: int, generator: Generator) -> Tensor:
    """Draw which of ``n`` images to mirror, each with probability 1/2."""
    return torch.randint(2, (n,), generator=generator, dtype=torch.bool)


def mirror(images: Tensor, generator: Generator) -> Tensor:
    """Flip each image left to right with probability 1/2."""
    return mirror_where(images, draw_mirror(len(images), generator))


def mirror_where(images: Tensor, which: Tensor) -> Tensor:
    """Flip the images marked in ``which`` (N,) left to right."""
    return torch.where(which.to(images.device, non_blocking=True)[:, None, None, None], images.flip(3), images)


def roll(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """Shift each image cyclically along one axis, with ``probability``. The axis and the offset are drawn uniformly."""
    return roll_by(images, shifts(_uniform(len(images), 3, generator), probability, images.shape[-2:]))


def shifts(uniform: Tensor, probability: float, size: torch.Size | tuple[int, int]) -> Tensor:
    """Convert uniform numbers ``(N, 3)`` to shifts ``(N, 2)`` (down, right) in pixels. At least one of the two is 0."""
    rolled, vertical = uniform[:, 0] < probability, uniform[:, 1] < 0.5
    axes = torch.stack([rolled & vertical, rolled & ~vertical], dim=1)
    return _whole(uniform[:, 2:], torch.tensor([size[0], size[1]], dtype=torch.float64)) * axes


def roll_by(images: Tensor, pixels: Tensor) -> Tensor:
    """Shift each image cyclically. Each row of ``pixels`` (N, 2) is the shift (down, right) of one image."""
    down, right = pixels.to(images.device, non_blocking=True).unbind(1)
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - down[:, None]) % height
    columns = (torch.arange(width, device=images.device) - right[:, None]) % width
    which = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


# --- torchvision's transforms -------------------------------------------------------------------------------


def by_policy(images: Tensor, seeds: Tensor, policy: Policy) -> Tensor:
    """Apply torchvision's TrivialAugment or RandAugment to uint8 images ``(N, C, H, W)``, with a separate seed for each
    image."""
    return each_by_seed(images, seeds, _policy(policy))


def erase(images: Tensor, seeds: Tensor, probability: float) -> Tensor:
    """Fill a random rectangle of normalised images with the mean colour. Each image is changed with ``probability`` and
    has a separate seed."""
    return each_by_seed(images, seeds, _erasing(probability))


def each_by_seed(images: Tensor, seeds: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply ``change`` to each image. Seed torch's global CPU generator with the image's seed before each call."""
    with torch.random.fork_rng(devices=[]):
        changed = []
        for image, seed in zip(images, seeds.tolist(), strict=True):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the accelerators' generators
            changed.append(change(image))
    return torch.stack(changed) if changed else images


@lru_cache
def _policy(policy: Policy) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import RandAugment, TrivialAugmentWide

    return TrivialAugmentWide() if policy == "trivial" else RandAugment()


@lru_cache
def _erasing(probability: float) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import RandomErasing

    return RandomErasing(probability)


# --- light ------------------------------------------------------------------------------------------------


def draw_photometric(
    n: int, generator: Generator, jitter: float = PHOTOMETRIC[0], lighting: float = PHOTOMETRIC[1]
) -> Tensor:
    """Draw the numbers ``(N, 7)`` for :func:`distort`: three factors in 1 ± ``jitter`` (brightness, contrast, colour),
    the order of these changes (one of six), and three numbers of noise with standard deviation ``lighting``."""
    factors = _uniform(n, 3, generator) * (2 * jitter) + (1 - jitter)
    order = torch.randint(len(ORDERS), (n, 1), generator=generator).double()
    noise = torch.randn(n, 3, generator=generator, dtype=torch.float64) * lighting
    return torch.cat([factors, order, noise], dim=1)


def photometric(images: Tensor, generator: Generator) -> Tensor:
    """Apply photometric distortion (Howard 2013) to images in 0 … 1; see :func:`distort`."""
    return distort(images, draw_photometric(len(images), generator))


def distort(images: Tensor, light: Tensor) -> Tensor:
    """Change brightness, contrast and colour in the drawn order, then add lighting noise.

    Each change blends the image with black (brightness), its mean grey (contrast) or its greyscale version (colour),
    like PIL's ImageEnhance, and clamps the result to 0 … 1. The noise is along the principal components of ImageNet's
    pixels. Grey images have no colour to change and get no noise.

    Args:
        images: ``(N, C, H, W)``, floating point in 0 … 1, C 1 or 3.
        light: ``(N, 7)``, from :func:`draw_photometric`.
    """
    if not images.is_floating_point() or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images of {images.dtype} with {images.shape[1]} channels cannot be distorted: "
            "they must be floating point in 0 … 1, with 1 or 3 channels"
        )
    coloured = images.shape[1] == 3
    light = light.to(images.device, images.dtype, non_blocking=True)
    order = constant(ORDERS, images.device, torch.int64)[light[:, 3].long()]
    luma = constant(GREY if coloured else (1.0,), images.device, images.dtype)[:, None, None]
    for step in range(3):
        kind = order[:, step]
        factor = light.gather(1, kind[:, None])[:, :, None, None]
        kind = kind[:, None, None, None]
        grey = (images * luma).sum(1, keepdim=True)
        base = torch.where(kind == 1, grey.mean((2, 3), keepdim=True), grey * (kind == 2))
        images = (base + factor * (images - base)).clamp(0, 1)
    if not coloured:
        return images
    vectors = constant(EIGENVECTORS, images.device, images.dtype)
    values = constant(EIGENVALUES, images.device, images.dtype)
    return images + ((light[:, 4:] * values) @ vectors.T)[:, :, None, None]


@lru_cache(maxsize=256)
def constant(values: tuple, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a cached tensor of these numbers on ``device``. Do not write to it."""
    return torch.tensor(values, device=device, dtype=dtype)


def _seeds(n: int, generator: Generator) -> Tensor:
    return torch.randint(2**62, (n,), generator=generator)


def _uniform(n: int, columns: int, generator: Generator) -> Tensor:
    return torch.rand(n, columns, generator=generator, dtype=torch.float64)


def _whole(uniform: Tensor, room: Tensor) -> Tensor:
    """Convert uniform numbers to integers in 0 … room - 1."""
    return torch.minimum((uniform * room).floor(), room - 1).long()


def _reflected(n: int, pad: int, device: torch.device) -> Tensor:
    at = torch.arange(-pad, n + pad, device=device).abs()
    return torch.where(at < n, at, 2 * (n - 1) - at)
