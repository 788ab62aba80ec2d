"""TrivialAugment against torchvision's on uint8, operation by operation."""

import pytest
import torch
from torchvision.transforms import v2

from fastcv.augment import TrivialAugment, trivial, trivial_augment
from fastcv.augment.trivial import BINS, OPERATIONS, SIGNED, magnitudes

FORMATS = (torch.contiguous_format, torch.channels_last)


def images(channels=3, layout=FORMATS[0], count=2 * BINS):
    # Smooth in part, so that histograms are uneven.
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, channels, 24, 40, generator=generator)
    x[:, :, :12] = x[:, :, :12, :1] ** 3 * 0.6 + 0.1
    x[3] = 0.4  # one level, for which AutoContrast and Equalize have nothing to spread
    return (x * 255).to(torch.uint8).to(memory_format=layout)


def torchvisions(image, name, magnitude):
    return v2.TrivialAugmentWide()._apply_image_or_video_transform(
        image, name, magnitude, interpolation=v2.InterpolationMode.NEAREST, fill={type(image): None}
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_torchvision_in_every_bin(name, channels):
    x = images(channels)
    operation = torch.full((2 * BINS,), OPERATIONS.index(name))
    strength = magnitudes(x.device)[operation[0]].repeat(2)
    strength[BINS:] *= -1 if name in SIGNED else 1
    y = trivial_augment(x, operation, strength)
    pairs = zip(x, strength.tolist(), strict=True)
    expected = torch.stack([torchvisions(image, name, magnitude) for image, magnitude in pairs])
    # Levels are cut to whole numbers, and places rounded to the nearest pixel, by sums whose order
    # of rounding differs: rarely, a value just on the edge falls to the other side.
    if name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        assert (y == expected).float().mean() > 0.999
    else:
        assert (y.int() - expected.int()).abs().max() <= 1
        assert (y == expected).float().mean() > 0.999


def test_bins_and_signs_are_torchvisions():
    space = v2.TrivialAugmentWide._AUGMENTATION_SPACE
    assert set(space) == set(OPERATIONS)
    for row, name in zip(magnitudes(torch.device("cpu")), OPERATIONS, strict=True):
        values, signed = space[name]
        expected = values(BINS, 24, 40)
        assert signed == (name in SIGNED)
        assert torch.equal(row, torch.zeros(BINS) if expected is None else expected.float())


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_grouped_and_whole_batches_agree(dtype, layout):
    x = images(layout=layout)
    x = x if dtype == torch.uint8 else x / 255
    before = x.clone()
    generator = torch.Generator().manual_seed(1)
    operation = torch.arange(2 * BINS) % len(OPERATIONS)
    bins = torch.randint(BINS, (2 * BINS,), generator=generator)
    strength = magnitudes(x.device)[operation, bins]
    grouped = trivial_augment(x, operation, strength, grouped=True)
    whole = trivial_augment(x, operation, strength, grouped=False)
    assert torch.equal(grouped, whole)
    assert grouped.dtype == dtype
    assert grouped.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)


def test_bytes_and_floats_give_the_same_levels():
    x = images()
    torch.manual_seed(0)
    from_bytes = TrivialAugment()(x)
    torch.manual_seed(0)
    from_floats = TrivialAugment()(x / 255)
    assert torch.equal(from_bytes, (from_floats * 255).round().to(torch.uint8))


def test_operations_and_bins_are_drawn_evenly(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        trivial, "trivial_augment", lambda x, *parameters: drawn.append(parameters) or x
    )
    torch.manual_seed(0)
    TrivialAugment()(torch.zeros(14000, 1, 1, 1))
    operation, magnitude = drawn[0]
    assert operation.bincount(minlength=14).sub(1000).abs().max() < 130  # four standard errors
    turned = magnitude[operation == OPERATIONS.index("Rotate")]
    assert len(turned.unique()) == 2 * BINS - 1  # the first bin is 0, whichever its sign
    assert (turned < 0).float().mean() == pytest.approx(15 / BINS, abs=0.07)
    posterized = magnitude[operation == OPERATIONS.index("Posterize")]
    assert sorted(posterized.unique().tolist()) == [2, 3, 4, 5, 6, 7, 8]


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        TrivialAugment()(torch.rand(2, 2, 4, 4))
