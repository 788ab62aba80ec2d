"""Color against torchvision, image by image, with the same factors."""

from itertools import permutations

import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from fastcv.augment import (
    ColorJitter,
    Gamma,
    Grayscale,
    Sharpness,
    adjust_brightness,
    adjust_contrast,
    adjust_gamma,
    adjust_hue,
    adjust_saturation,
    adjust_sharpness,
    grayscale,
    jitter,
)

# A handful of float32 roundings of numbers up to 2.
CLOSE = 2e-6
FACTORS = (0.0, 0.3, 0.9, 1.0, 1.2, 1.7, 2.5, 5.0)
FORMATS = (torch.contiguous_format, torch.channels_last)


def images(channels=3, layout=FORMATS[0], count=8):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, channels, 9, 11, generator=generator)
    x[:, :, 0, 0] = 0.5  # a gray pixel
    x[:, :, 0, 1] = 0.0
    x[:, :, 0, 2] = 1.0
    x[:, :, 1, 0] = torch.tensor([0.7, 0.7, 0.2])[:channels]  # two highest channels
    x[:, :, 1, 1] = torch.tensor([0.2, 0.7, 0.7])[:channels]
    x[:, :, 1, 2] = torch.tensor([0.7, 0.2, 0.7])[:channels]
    return x.to(memory_format=layout)


ADJUSTMENTS = [
    (adjust_brightness, vision.adjust_brightness, FACTORS, CLOSE),
    (adjust_contrast, vision.adjust_contrast, FACTORS, CLOSE),
    (adjust_saturation, vision.adjust_saturation, FACTORS, CLOSE),
    (adjust_sharpness, vision.adjust_sharpness, FACTORS, CLOSE),
    (adjust_gamma, vision.adjust_gamma, FACTORS, CLOSE),
    # The hue is divided by the spread of the channels and multiplied by it again.
    (adjust_hue, vision.adjust_hue, (-0.5, -0.31, -0.1, 0.0, 0.05, 0.2, 0.4, 0.5), 1e-5),
]


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("ours", "theirs", "factors", "bound"), ADJUSTMENTS)
def test_adjustment_equals_torchvision(ours, theirs, factors, bound, channels, layout):
    x = images(channels, layout)
    before = x.clone()
    y = ours(x, torch.tensor(factors))
    expected = torch.stack([theirs(image, each) for image, each in zip(x, factors, strict=True)])
    assert torch.allclose(y, expected, rtol=0, atol=bound)
    assert y.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)


def test_sharpness_leaves_images_without_an_inside():
    x = torch.rand(2, 3, 2, 5)
    assert torch.equal(adjust_sharpness(x, torch.tensor([0.0, 2.0])), x)


@pytest.mark.parametrize("channels", [1, 3])
def test_grayscale_equals_torchvision(channels):
    x = images(channels)
    gray = torch.arange(8) % 2 == 0
    y = grayscale(x, gray)
    for i in range(8):
        expected = vision.rgb_to_grayscale(x[i], channels) if gray[i] else x[i]
        assert torch.allclose(y[i], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_equals_torchvision_in_each_images_own_order(channels):
    x = images(channels)
    steps = (vision.adjust_brightness, vision.adjust_contrast, vision.adjust_saturation)
    orders = list(permutations(range(3)))
    kinds = torch.tensor(orders + orders[:2])
    factors = torch.rand(8, 3, generator=torch.Generator().manual_seed(2)) * 2
    y = jitter(x, kinds, factors)
    for i in range(8):
        expected = x[i]
        for kind, factor in zip(kinds[i].tolist(), factors[i].tolist(), strict=True):
            expected = steps[kind](expected, factor)
        assert torch.allclose(y[i], expected, rtol=0, atol=3 * CLOSE)


def test_color_jitter_draws_factors_in_their_intervals():
    torch.manual_seed(0)
    x = torch.full((4000, 1, 1, 1), 0.5)
    factors = ColorJitter(brightness=0.2)(x).flatten() / 0.5
    assert 0.8 <= factors.min() < 0.801
    assert 1.199 < factors.max() < 1.2 + 1e-6
    assert factors.mean() == pytest.approx(1, abs=0.008)  # four standard errors
    given = ColorJitter(brightness=(0.1, 0.3))(x).flatten() / 0.5
    assert given.min() >= 0.1
    assert given.max() < 0.3 + 1e-6
    assert ColorJitter(brightness=3.0)(x).min() >= 0


def test_color_jitter_orders_each_image_by_itself():
    # Black is all that brightness (0) leaves; contrast (0) makes it flat gray instead.
    torch.manual_seed(0)
    x = images()[:1].repeat(600, 1, 1, 1)
    y = ColorJitter(brightness=(0.5, 0.5), contrast=(3.0, 3.0))(x)
    first = adjust_contrast(adjust_brightness(x, torch.full((600,), 0.5)), torch.full((600,), 3.0))
    second = adjust_brightness(adjust_contrast(x, torch.full((600,), 3.0)), torch.full((600,), 0.5))
    is_first = (y - first).abs().amax((1, 2, 3)) < 1e-5
    is_second = (y - second).abs().amax((1, 2, 3)) < 1e-5
    assert (is_first ^ is_second).all()
    assert is_first.float().mean() == pytest.approx(0.5, abs=0.09)


def test_color_jitter_of_nothing_changes_nothing():
    x = images()
    assert torch.equal(ColorJitter()(x), x)


def test_color_jitter_turns_hue_last():
    x = images()
    torch.manual_seed(1)
    y = ColorJitter(saturation=(0.5, 0.5), hue=(0.25, 0.25))(x)
    expected = adjust_hue(adjust_saturation(x, torch.full((8,), 0.5)), torch.full((8,), 0.25))
    assert torch.allclose(y, expected, atol=1e-6)


def test_gamma_draws_from_its_interval():
    torch.manual_seed(0)
    gamma = Gamma(low=0.5, high=2.0)(torch.full((4000, 1, 1, 1), 0.5)).log2().neg().flatten()
    assert 0.499 < gamma.min() < 0.502
    assert 1.998 < gamma.max() < 2.001


@pytest.mark.parametrize("value", [Grayscale(p=0.3), Sharpness(factor=2.0, p=0.3)])
def test_chance_changes_its_share_of_images(value):
    torch.manual_seed(0)
    x = images(count=2000)
    assert (value(x) != x).any((1, 2, 3)).float().mean() == pytest.approx(0.3, abs=0.042)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: ColorJitter(brightness=-0.1), "brightness must be a number >= 0"),
        (
            lambda: ColorJitter(contrast=(-0.5, 1.0)),
            "contrast must be .* with 0 <= low <= high, got",
        ),
        (
            lambda: ColorJitter(hue=0.6),
            "hue must be .* -0.5 <= low <= high <= 0.5, got",
        ),
        (
            lambda: Gamma(low=2.0, high=1.0),
            "gamma must be .* 0 <= low <= high, got",
        ),
        (lambda: Sharpness(factor=-1.0), "factor must be at least 0"),
        (lambda: ColorJitter(hue=0.1)(torch.rand(1, 2, 4, 4)), "1 or 3 channels, got 2"),
    ],
)
def test_impossible_settings_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        value()
