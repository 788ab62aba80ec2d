"""Resampling against torchvision, image by image, with the same parameters."""

import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from fastcv.augment import (
    Affine,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    Rotation,
    affine,
    erase,
    resized_crop,
    rotate,
)
from fastcv.augment.resize import windows

# Float32 coordinates of up to 32 pixels are right to about 4e-6 pixels, and neighbors differ by
# up to 1: values agree to about 1e-5.
CLOSE = 2e-5
FORMATS = (torch.contiguous_format, torch.channels_last)
ANGLES = (-175.0, -60.0, -5.0, 0.1, 3.3, 30.0, 59.0, 91.0)


def images(count=8, channels=3, height=24, width=32, layout=FORMATS[0]):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, channels, height, width, generator=generator)
    return x.to(memory_format=layout)


def assert_read_from_the_same_pixels(y, expected):
    # A place within 1e-5 of the border between two pixels may round to either.
    assert (y == expected).float().mean() > 0.999


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_rotate_equals_torchvision(interpolation, channels, layout):
    x = images(channels=channels, layout=layout)
    y = rotate(x, torch.tensor(ANGLES), interpolation)
    expected = torch.stack(
        [
            vision.rotate(image, angle, interpolation=v2.InterpolationMode(interpolation))
            for image, angle in zip(x, ANGLES, strict=True)
        ]
    )
    if interpolation == "nearest":
        assert_read_from_the_same_pixels(y, expected)
    else:
        assert torch.allclose(y, expected, atol=CLOSE)
    assert y.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_affine_equals_torchvision(interpolation):
    x = images()
    generator = torch.Generator().manual_seed(1)
    translate = torch.randint(-6, 7, (8, 2), generator=generator)
    scale = torch.rand(8, generator=generator) + 0.5
    shear = torch.rand(8, 2, generator=generator) * 60 - 30
    y = affine(x, torch.tensor(ANGLES), translate, scale, shear, interpolation)
    for i in range(8):
        expected = vision.affine(
            x[i],
            angle=ANGLES[i],
            translate=translate[i].tolist(),
            scale=scale[i].item(),
            shear=shear[i].tolist(),
            interpolation=v2.InterpolationMode(interpolation),
        )
        if interpolation == "nearest":
            assert_read_from_the_same_pixels(y[i], expected)
        else:
            assert torch.allclose(y[i], expected, atol=CLOSE)


def test_rotation_draws_evenly_from_its_interval():
    torch.manual_seed(0)
    x = torch.zeros(4000, 1, 2, 2)
    matrix = Rotation(degrees=(30, 60)).matrix(x)
    degrees = torch.rad2deg(torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]))
    assert 30 <= degrees.min() < 30.1
    assert 59.9 < degrees.max() <= 60
    assert degrees.mean() == pytest.approx(45, abs=0.6)  # four standard errors


def test_affine_draws_within_its_settings():
    torch.manual_seed(0)
    x = torch.zeros(2000, 1, 20, 40)
    matrix = Affine(translate=(0.1, 0.2), scale=(0.5, 2.0)).matrix(x)
    scale = 1 / matrix[:, 0, 0]
    moves = -matrix[:, :2, 2] * scale[:, None]
    assert 0.5 <= scale.min() < 0.51
    assert 1.99 < scale.max() <= 2
    assert torch.allclose(moves, moves.round(), atol=1e-4)
    assert moves.round().abs().amax(0).tolist() == [4, 4]


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(8, 8), (24, 32), (40, 17)])
def test_resized_crop_equals_torchvision(size, antialias, layout):
    x = images(layout=layout)
    top = torch.tensor([0, 3, 23, 5, 0, 1, 2, 10])
    left = torch.tensor([0, 7, 31, 2, 0, 9, 30, 11])
    height = torch.tensor([24, 9, 1, 17, 8, 23, 22, 14])
    width = torch.tensor([32, 12, 1, 29, 8, 3, 2, 21])
    y = resized_crop(x, top, left, height, width, size, antialias)
    for i in range(8):
        window = [int(each[i]) for each in (top, left, height, width)]
        expected = vision.resized_crop(x[i], *window, size=list(size), antialias=antialias)
        assert torch.allclose(y[i], expected, atol=CLOSE)
    assert y.is_contiguous(memory_format=layout)


def test_windows_are_spread_as_torchvisions():
    torch.manual_seed(0)
    x = torch.zeros(3000, 3, 40, 60)
    top, left, height, width = (each.double() for each in windows(x, (0.2, 0.9), (0.75, 4 / 3)))
    assert ((top >= 0) & (top + height <= 40) & (left >= 0) & (left + width <= 60)).all()
    theirs = v2.RandomResizedCrop(8, scale=(0.2, 0.9))
    drawn = [theirs.make_params([x[0]]) for _ in range(3000)]
    named = {"top": top, "left": left, "height": height, "width": width}
    for name, ours in named.items():
        expected = torch.tensor([float(each[name]) for each in drawn], dtype=torch.float64)
        error = math.sqrt(2 / 3000) * expected.std()
        assert abs(ours.mean() - expected.mean()) < 4 * error, name
        assert ours.std() == pytest.approx(expected.std().item(), rel=0.08), name


@pytest.mark.parametrize("shape", [(10, 90), (90, 10), (30, 31)])
def test_windows_that_never_fit_are_the_middle_as_torchvisions(shape):
    x = torch.zeros(2, 3, *shape)
    # No window of twice the image's area fits.
    window = [int(each[0]) for each in windows(x, (2.0, 2.0), (0.75, 4 / 3))]
    theirs = v2.RandomResizedCrop(8)
    theirs.scale = (2.0, 2.0)
    expected = theirs.make_params([x[0]])
    assert window == [expected[name] for name in ("top", "left", "height", "width")]


@pytest.mark.parametrize("size", [12, 40, (9, 50), (24, 32)])
@pytest.mark.parametrize("layout", FORMATS)
def test_resize_equals_torchvision(size, layout):
    x = images(layout=layout)
    y = Resize(size=size)(x)
    expected = vision.resize(x, size if isinstance(size, tuple) else [size])
    assert torch.allclose(y, expected, atol=1e-6)
    assert y.is_contiguous(memory_format=layout)


def test_random_resized_crop_of_bytes_gives_floats_of_its_size():
    x = (images() * 255).to(torch.uint8)
    y = RandomResizedCrop(size=(10, 12))(x)
    assert y.shape == (8, 3, 10, 12)
    assert y.dtype == torch.float32
    assert 0 <= y.min() <= y.max() <= 1 + 1e-6


def test_erase_equals_torchvision():
    x = images()
    top, left = torch.arange(8), torch.arange(8) * 2
    height, width = torch.arange(8) + 2, torch.arange(8) + 1
    value = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    y = erase(x, top, left, height, width, value)
    for i in range(8):
        i_, j, h, w = (int(each[i]) for each in (top, left, height, width))
        assert torch.equal(y[i], vision.erase(x[i], i_, j, h, w, value[0]))


@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_random_erasing_erases_as_often_and_as_much_as_torchvisions(p):
    torch.manual_seed(0)
    x = torch.ones(3000, 1, 20, 30)
    erased = RandomErasing(p=p)(x) == 0
    areas = erased.float().mean((1, 2, 3))
    assert (areas > 0).float().mean() == pytest.approx(p, abs=0.04)
    theirs = v2.RandomErasing(p=p)
    expected = torch.stack([theirs(image) for image in x[:1500]]) == 0
    expected = expected.float().mean((1, 2, 3))
    error = 4 * math.sqrt(3 / 3000) * (expected.std() + 1e-9)
    assert abs(areas.mean() - expected.mean()) < error
    rows = erased.float().mean((0, 1, 3))  # which rows: the middle more often than the border
    if p:
        assert rows[10] > 1.5 * rows[0]
        assert rows[0] == pytest.approx(rows[-1].item(), rel=0.3)


def test_random_erasing_counts_height_by_width_and_skips_what_does_not_fit():
    torch.manual_seed(0)
    x = torch.ones(200, 1, 30, 30)
    erased = RandomErasing(p=1.0, scale=(0.1, 0.1), ratio=(0.2, 0.25))(x)[:, 0] == 0
    height, width = erased.any(2).sum(1), erased.any(1).sum(1)
    # Sides of an area of 90: sqrt(90 r) and sqrt(90 / r).
    assert set(height.tolist()) == {4, 5}
    assert set(width.tolist()) == {19, 20, 21}
    flat = RandomErasing(p=1.0, scale=(0.5, 0.5), ratio=(0.1, 0.1))  # 7 x 67
    tall = RandomErasing(p=1.0, scale=(0.5, 0.5), ratio=(10.0, 10.0))
    assert torch.equal(flat(x), x)
    assert torch.equal(tall(x), x)


def test_random_erasing_fills_with_its_value():
    x = torch.full((50, 3, 16, 16), 2.0)
    y = RandomErasing(p=1.0, value=(0.1, 0.2, 0.3))(x)
    assert torch.equal(y.unique(), torch.tensor([0.1, 0.2, 0.3, 2.0]))
    noise = RandomErasing(p=1.0, value="random")(x)
    filled = noise[noise != 2]
    assert filled.unique().numel() > 0.99 * filled.numel()
    assert 0 <= filled.min() <= filled.max() < 1
    with pytest.raises(ValueError, match="one for each of the 3 channels, got 2"):
        RandomErasing(value=(0.1, 0.2))(x)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: Rotation(degrees=-3), "degrees must be a number >= 0 or"),
        (
            lambda: Rotation(degrees=(60, 30)),
            "degrees must be .* with low <= high, got",
        ),
        (lambda: Rotation(degrees=3, interpolation="cubic"), "'bilinear' or 'nearest'"),
        (lambda: Affine(translate=(0.1, 2.0)), "each of translate must be a fraction from 0 to 1"),
        (lambda: Affine(scale=(0.0, 1.0)), r"scale must be \(low, high\) with 0 < low"),
        (lambda: RandomResizedCrop(size=8, scale=(0.5, 1.5)), "low <= high <= 1, got"),
        (lambda: RandomErasing(value="noise"), "value must be numbers"),
    ],
)
def test_impossible_settings_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        value()


@pytest.mark.parametrize("ratio", [0.1, 10.0])
def test_window_that_fits_nowhere_has_a_pixel_at_least(ratio):
    window = windows(images(height=4, width=4), (0.9, 1.0), (ratio, ratio))
    assert min(each.min() for each in window[2:]) == 1
    crop = RandomResizedCrop(size=4, ratio=(ratio, ratio), scale=(0.9, 1.0))
    assert crop(images(height=4, width=4)).isfinite().all()
