"""Random changes at their extremes, against plain loops, and by their frequencies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms import RandAugment, RandomResizedCrop, TrivialAugmentWide
from torchvision.transforms.v2 import functional as V

from polypath.data import augment as A
from polypath.data.config import AugmentConfig


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


# --- pad, crop --------------------------------------------------------------------------------------------


def test_no_padding_changes_nothing(images: Tensor) -> None:
    assert torch.equal(A.pad_and_crop(images, 0, seeded()), images)
    assert not torch.equal(A.pad_and_crop(images, 2, seeded()), images)


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_crops_are_those_of_a_loop(images: Tensor, mode: A.PadMode, kind: torch.dtype) -> None:
    x = images.to(kind)
    out = A.pad_and_crop(x, 3, seeded(5), mode=mode)
    uniform = torch.rand(16, 2, generator=seeded(5), dtype=torch.float64)
    for i, (u, v) in enumerate(uniform.tolist()):
        padded = torch.nn.functional.pad(x[i].float(), (3,) * 4, mode="constant" if mode == "zero" else "reflect")
        top, left = int(u * 7), int(v * 7)
        assert torch.equal(out[i].float(), padded[:, top : top + 12, left : left + 10])
    assert out.dtype == kind


def test_the_two_paddings_differ(images: Tensor) -> None:
    zero, reflect = (A.pad_and_crop(images, 4, seeded(), mode=m) for m in ("zero", "reflect"))
    assert not torch.equal(zero, reflect)


def test_crop_places_are_uniform_and_reach_the_borders() -> None:
    places = A.offsets(torch.rand(20000, 2, generator=seeded(), dtype=torch.float64), (40, 40), (32, 32))
    counts = torch.bincount(places[:, 0] * 9 + places[:, 1], minlength=81)
    assert counts.numel() == 81
    assert (counts - 20000 / 81).abs().max() < 5 * math.sqrt(20000 / 81)
    edge = A.offsets(torch.tensor([[0.0, 1 - 2**-53]], dtype=torch.float64), (40, 40), (32, 32))
    assert edge.tolist() == [[0, 8]]


def test_a_larger_image_is_cropped_without_padding(images: Tensor) -> None:
    out = A.pad_and_crop(images, 0, seeded(), size=6)
    assert out.shape == (16, 3, 6, 6)
    windows = images[0].unfold(1, 6, 1).unfold(2, 6, 1)
    assert any(torch.equal(out[0], windows[:, y, x]) for y in range(7) for x in range(5))


def test_impossible_crops_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="12x10 pixels are too small for crops of 16x16"):
        A.pad_and_crop(images, 0, seeded(), size=16)
    with pytest.raises(ValueError, match="pad = 10: is too large to reflect images of 12x10 pixels"):
        A.pad_images(images, 10, "reflect")
    with pytest.raises(ValueError, match="too small"):
        A.centre_crop(images, 11)


# --- mirror, roll -----------------------------------------------------------------------------------------


def test_mirror_flips_half_of_the_images_completely() -> None:
    x = torch.arange(4.0).expand(10000, 1, 2, 4)
    flipped = (A.mirror(x, seeded())[:, 0, 0, 0] == 3).float()
    assert abs(flipped.mean() - 0.5) < 4 * 0.5 / 100


def test_mirror_where_flips_what_is_marked(images: Tensor) -> None:
    mask = torch.arange(16) % 2 == 0
    out = A.mirror_where(images, mask)
    assert torch.equal(out[mask], images[mask].flip(3))
    assert torch.equal(out[~mask], images[~mask])
    assert not torch.equal(out, images)


def test_roll_never_and_always(images: Tensor) -> None:
    assert torch.equal(A.roll(images, 0.0, seeded()), images)
    out = A.roll(images, 1.0, seeded())
    assert not torch.equal(out, images)
    assert torch.equal(out.flatten(2).sort(-1).values, images.flatten(2).sort(-1).values)


def test_roll_is_torch_roll_image_by_image(images: Tensor) -> None:
    pixels = A.shifts(torch.rand(16, 3, generator=seeded(), dtype=torch.float64), 1.0, (12, 10))
    out = A.roll_by(images, pixels)
    for i, (down, right) in enumerate(pixels.tolist()):
        assert torch.equal(out[i], images[i].roll((down, right), (1, 2)))


def test_rolls_come_with_their_probability_along_one_axis() -> None:
    pixels = A.shifts(torch.rand(30000, 3, generator=seeded(), dtype=torch.float64), 2 / 3, (32, 32))
    assert (pixels == 0).any(1).all()
    moved = (pixels != 0).double().mean(0)  # along each axis 1/3, less the 1/32 that roll by nothing
    assert (moved - 31 / 32 / 3).abs().max() < 0.015
    assert pixels.max() == 31


# --- scale and aspect -------------------------------------------------------------------------------------


def test_resized_crops_agree_with_torchvision() -> None:
    x = torch.randint(0, 256, (6, 3, 40, 50), generator=seeded(), dtype=torch.uint8)
    places = torch.tensor(
        [[0, 0, 40, 50], [3, 4, 8, 8], [10, 20, 30, 11], [0, 49, 1, 1], [5, 5, 20, 20], [1, 2, 9, 40]]
    )
    for kind, tolerance in ((torch.float32, 1e-3), (torch.uint8, 1.0)):
        out = A.crop_and_resize(x.to(kind), places, 16)
        assert out.dtype == kind
        for i, (top, left, height, width) in enumerate(places.tolist()):
            other = V.resized_crop(x[i].to(kind), top, left, height, width, [16, 16], antialias=True)
            assert (out[i].double() - other.double()).abs().max() <= tolerance
    assert not torch.equal(out[0], out[1])


def test_the_whole_image_at_its_own_size_is_itself(images: Tensor) -> None:
    square = images[..., :10, :]
    assert torch.equal(A.random_resized_crop(square, 10, (1.0, 1.0), (1.0, 1.0), seeded()), square)
    assert not torch.equal(A.random_resized_crop(square, 10, (0.08, 1.0), (0.75, 4 / 3), seeded()), square)


def test_boxes_lie_inside_and_keep_area_and_aspect() -> None:
    n, height, width = 5000, 300, 400
    uniform = torch.rand(n, 2 * A.TRIES + 2, generator=seeded(), dtype=torch.float64)
    found = A.boxes(uniform, torch.full((n,), height), torch.full((n,), width), (0.08, 1.0), (3 / 4, 4 / 3)).double()
    top, left, tall, wide = found.unbind(1)
    assert min(top.min(), left.min()) >= 0
    assert (top + tall).max() <= height
    assert (left + wide).max() <= width
    share = tall * wide / (height * width)
    assert share.min() > 0.079
    assert share.max() <= 1.0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        params = [
            RandomResizedCrop.get_params(torch.empty(1, height, width), [0.08, 1.0], [3 / 4, 4 / 3])
            for _ in range(3000)
        ]
    theirs = torch.tensor([p[2] * p[3] / (height * width) for p in params])
    assert abs(share.mean() - theirs.mean()) < 0.02  # the largest do not always fit
    assert abs(share.std() - theirs.std()) < 0.02
    ratio = (wide / tall).log()
    assert ratio.abs().max() < math.log(4 / 3) + 0.02
    ratios = torch.tensor([p[3] / p[2] for p in params]).log()
    assert abs(ratio.mean() - ratios.mean()) < 0.02


def test_boxes_that_never_fit_fall_back_to_the_centre() -> None:
    uniform = torch.rand(3, 2 * A.TRIES + 2, generator=seeded(), dtype=torch.float64)
    heights, widths = torch.tensor([10, 100, 50]), torch.tensor([100, 10, 50])
    found = A.boxes(uniform, heights, widths, (1.0, 1.0), (1.0, 1.0))
    assert found.tolist() == [[0, 45, 10, 10], [45, 0, 10, 10], [0, 0, 50, 50]]


def test_shorter_side_crops_are_those_of_a_resized_image() -> None:
    """A square of 224 out of an image whose shorter side was drawn from 256 … 480: by its share of the shorter side."""
    n, height, width = 5000, 300, 400
    uniform = torch.rand(n, 3, generator=seeded(), dtype=torch.float64)
    heights, widths = torch.full((n,), height), torch.full((n,), width)
    config = AugmentConfig(shorter_side=(256, 480))
    found = A.places(config, uniform, heights, widths, 224)
    top, left, tall, wide = found.unbind(1)
    assert torch.equal(tall, wide)
    drawn = 224 * height / tall
    assert 255 < drawn.min() < 257
    assert 478 < drawn.max() < 482
    assert drawn.mean() == pytest.approx((256 + 480) / 2, abs=3)
    room = (height - tall, width - wide)
    for place, most in zip((top, left), room, strict=True):
        assert place.min() == 0
        assert (place <= most).all()
        assert (place / most).mean() == pytest.approx(0.5, abs=0.02)
    assert abs(torch.corrcoef(torch.stack([drawn, top / room[0]]))[0, 1]) < 0.05
    fixed = A.shorter_side_boxes(uniform, heights, widths, (224, 224), 224)
    assert set(fixed[:, 2].tolist()) == {height}


# --- light ------------------------------------------------------------------------------------------------


def neutral(n: int) -> Tensor:
    return torch.tensor([[1.0, 1.0, 1.0, 0, 0, 0, 0]], dtype=torch.float64).repeat(n, 1)


def test_neutral_light_changes_nothing(images: Tensor) -> None:
    x = images.float() / 255
    assert torch.allclose(A.distort(x, neutral(16)), x, atol=1e-6)
    assert not torch.allclose(A.photometric(x, seeded()), x, atol=1e-2)


@pytest.mark.parametrize(
    ("column", "other"), [(0, V.adjust_brightness), (1, V.adjust_contrast), (2, V.adjust_saturation)]
)
@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_each_change_is_torchvisions(images: Tensor, column: int, other, factor: float) -> None:
    x = images.float() / 255
    light = neutral(16)
    light[:, column] = factor
    assert torch.allclose(A.distort(x, light), other(x, factor), atol=2e-3)  # its luma is rounded to four digits
    assert not torch.allclose(A.distort(x, light), x, atol=1e-2)


def test_the_order_of_changes_matters(images: Tensor) -> None:
    x = images.float() / 255
    light = neutral(16)
    light[:, :3] = torch.tensor([1.5, 0.5, 1.5])
    outs = []
    for order in range(6):
        light[:, 3] = order
        outs.append(A.distort(x, light))
    functions = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation)
    for order, kinds in enumerate(A.ORDERS):
        expected = x
        for kind in kinds:
            expected = functions[kind](expected, (1.5, 0.5, 1.5)[kind])
        assert torch.allclose(outs[order], expected, atol=3e-3)
    assert not torch.allclose(outs[0], outs[5], atol=1e-2)


def test_lighting_noise_shifts_channels_along_the_components() -> None:
    light = neutral(1)
    light[0, 4] = 0.3
    x = torch.full((1, 3, 4, 4), 0.5)
    shift = (A.distort(x, light) - x).mean((2, 3))[0]
    assert torch.allclose(shift, 0.3 * 0.2175 * torch.tensor(A.EIGENVECTORS)[:, 0], atol=1e-6)


def test_draws_of_light_are_in_range_and_independent() -> None:
    light = A.draw_photometric(20000, seeded())
    factors, orders, noise = light[:, :3], light[:, 3], light[:, 4:]
    assert factors.min() >= 0.5
    assert factors.max() < 1.5
    assert (factors.mean(0) - 1).abs().max() < 0.01
    assert (torch.bincount(orders.long(), minlength=6) / 20000 - 1 / 6).abs().max() < 0.012
    assert (noise.std(0) - 0.1).abs().max() < 0.002
    assert (torch.corrcoef(factors.T) - torch.eye(3)).abs().max() < 0.03


def test_jitter_and_lighting_have_the_requested_strength() -> None:
    """Each alone leaves the other neutral, and Howard's distortion is both at their default strengths."""
    for jitter, lighting in ((0.4, 0.1), (0.4, 0.0), (0.0, 0.2)):
        light = A.draw(AugmentConfig(jitter=jitter, lighting=lighting), 20000, seeded()).light
        assert light is not None
        factors, noise = light[:, :3], light[:, 4:]
        assert factors.min().item() == pytest.approx(1 - jitter, abs=1e-3)
        assert factors.max().item() == pytest.approx(1 + jitter, abs=1e-3)
        assert noise.std().item() == pytest.approx(lighting, rel=0.02)
    howard, both = (A.draw(c, 50, seeded()).light for c in (PHOTOMETRIC, AugmentConfig(jitter=0.5, lighting=0.1)))
    assert howard is not None
    assert both is not None
    assert torch.equal(howard, both)
    assert A.draw(AugmentConfig(mirror=True), 8, seeded()).light is None


PHOTOMETRIC = AugmentConfig(photometric=True)


def test_grey_images_get_light_too() -> None:
    x = torch.rand(8, 1, 5, 5, generator=seeded())
    out = A.photometric(x, seeded(1))
    assert out.shape == x.shape
    assert not torch.allclose(out, x, atol=1e-2)


def test_light_needs_floats(images: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"torch\.uint8 with 3 channels cannot be distorted: they must be floating point"
    ):
        A.photometric(images, seeded())


# --- views ------------------------------------------------------------------------------------------------


def test_ten_crops_are_corners_centre_and_mirrors(images: Tensor) -> None:
    views = A.ten_crop(images, 6).unflatten(0, (16, 10))
    expected = V.ten_crop(images, [6, 6])
    order = [0, 1, 2, 3, 4]
    for ours, theirs in zip(range(10), [*order, *(5 + o for o in (1, 0, 3, 2, 4))], strict=True):
        # torchvision crops the mirrored image: its left corner is our right one, mirrored
        assert torch.equal(views[:, ours], expected[theirs])


def test_views_are_averaged_as_probabilities() -> None:
    logits = torch.randn(6, 5, generator=seeded())
    mean = logits.softmax(-1).reshape(2, 3, 5).mean(1)
    assert torch.allclose(A.average_views(logits, 3).exp(), mean, atol=1e-6)
    assert not torch.allclose(A.average_views(logits, 3), logits.reshape(2, 3, 5).mean(1), atol=1e-2)
    assert A.average_views(logits, 1) is logits
    with pytest.raises(ValueError, match="logits have 6 rows: the number must be a multiple of 4 views"):
        A.average_views(logits, 4)


# --- torchvision's ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_policies_are_torchvisions_and_each_image_has_its_own_seed(images: Tensor, policy: A.Policy) -> None:
    seeds = torch.arange(16) + 100
    changed = A.by_policy(images, seeds, policy)
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    transform = TrivialAugmentWide() if policy == "trivial" else RandAugment()
    with torch.random.fork_rng(devices=[]):
        for i in range(16):
            torch.manual_seed(100 + i)
            assert torch.equal(changed[i], transform(images[i]))
    assert torch.equal(A.by_policy(images[5:9], seeds[5:9], policy), changed[5:9])
    assert not torch.equal(A.by_policy(images, seeds + 16, policy), changed)


def test_policies_take_grey_images_and_none(images: Tensor) -> None:
    assert A.by_policy(images[:, :1], torch.arange(16), "trivial").shape == (16, 1, 12, 10)
    assert A.by_policy(images[:0], torch.arange(0), "rand").shape == (0, 3, 12, 10)


def test_erasing_covers_a_rectangle_by_zeros() -> None:
    images = torch.ones(200, 3, 20, 20)
    found = A.erase(images, torch.arange(200), 0.25)
    erased = (found == 0).flatten(1).any(1)
    assert 30 < int(erased.sum()) < 70
    assert torch.equal(found[~erased], images[~erased])
    hole = found[erased][0, 0] == 0
    rows, columns = hole.any(1), hole.any(0)
    assert torch.equal(hole, rows[:, None] & columns)
    assert 0.01 < float(hole.float().mean()) < 0.4
    assert torch.equal(A.erase(images[:4], torch.arange(4), 0.0), images[:4])


# --- draws ------------------------------------------------------------------------------------------------


def test_draws_are_a_function_of_the_generator_and_can_be_sliced() -> None:
    config = AugmentConfig(pad=4, mirror=True, roll=0.5, scale=(0.1, 1.0), photometric=True, policy="rand", erase=0.1)
    one, same, other = (A.draw(config, 8, seeded(s)) for s in (1, 1, 2))
    for name in ("crop", "mirror", "roll", "box", "light", "policy", "erase"):
        assert torch.equal(getattr(one, name), getattr(same, name))
        assert not torch.equal(getattr(one, name), getattr(other, name))
        assert torch.equal(getattr(one.rows(slice(4, 8)), name), getattr(one, name)[4:])
    assert A.draw(AugmentConfig(), 8, seeded()).mirror is None
