"""Flips, crops and compositions against torch's indexing and torchvision, bit by bit."""

import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from fastcv.augment import (
    Affine,
    CenterCrop,
    ColorJitter,
    HorizontalFlip,
    MixUp,
    Normalize,
    RandomCrop,
    Resampling,
    Rotation,
    VerticalFlip,
    compose,
    crop,
    flip_horizontally,
    flip_vertically,
    pad,
    resample,
)

FORMATS = (torch.contiguous_format, torch.channels_last)


def images(count=12, channels=3, height=10, width=8, dtype=torch.uint8, layout=FORMATS[0]):
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, height, width)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    x = x if dtype == torch.uint8 else (x / 255).to(dtype)
    return x.to(memory_format=layout)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_flips_equal_torch_indexing(dtype, layout):
    x = images(dtype=dtype, layout=layout)
    flipped = torch.arange(12) % 3 == 0
    across, down = flip_horizontally(x, flipped), flip_vertically(x, flipped)
    for i in range(12):
        assert torch.equal(across[i], x[i].flip(2) if flipped[i] else x[i])
        assert torch.equal(down[i], x[i].flip(1) if flipped[i] else x[i])
    for y in (across, down):
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_crop_equals_torch_indexing(dtype, layout):
    x = images(dtype=dtype, layout=layout)
    top, left = torch.arange(12) % 4, torch.arange(12) % 3
    y = crop(x, top, left, (7, 6))
    for i in range(12):
        assert torch.equal(y[i], x[i, :, top[i] : top[i] + 7, left[i] : left[i] + 6])
    assert y.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_pad_equals_torchvision(mode):
    x = images()
    expected = vision.pad(x.float(), 3, padding_mode=mode.replace("zeros", "constant"))
    assert torch.equal(pad(x, 3, mode).float(), expected)


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_random_crop_moves_each_image_by_itself_over_all_offsets(mode):
    # Every pixel of a ramp tells where it came from.
    torch.manual_seed(0)
    ramp = torch.arange(100, dtype=torch.float32).view(1, 1, 10, 10).repeat(600, 1, 1, 1)
    y = RandomCrop(padding=2, padding_mode=mode)(ramp)
    windows = pad(ramp[:1], 2, mode)[0, 0].unfold(0, 10, 1).unfold(1, 10, 1).reshape(25, -1)
    same = (y.view(600, 1, -1) == windows).all(-1)
    assert (same.sum(1) == 1).all()
    counts = same.sum(0)  # about 24 of each
    assert counts.min() > 5
    assert counts.max() < 50


def test_random_crop_to_a_smaller_size_stays_inside():
    y = RandomCrop(padding=0, size=(4, 5))(images().float() + 1)
    assert y.shape == (12, 3, 4, 5)
    assert (y > 0).all()


def test_random_crop_larger_than_the_padded_image_is_refused():
    with pytest.raises(ValueError, match=r"size must fit into the padded image of 10 x 8"):
        RandomCrop(padding=1, size=20)(images())


@pytest.mark.parametrize("size", [6, 7, (5, 8), 9, 12, (13, 4), (10, 8)])
@pytest.mark.parametrize("layout", FORMATS)
def test_center_crop_equals_torchvision(size, layout):
    x = images(layout=layout)
    y = CenterCrop(size=size)(x)
    assert torch.equal(y, vision.center_crop(x, size if isinstance(size, tuple) else [size]))
    assert y.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("flip", [HorizontalFlip, VerticalFlip])
def test_flips_happen_with_their_probability(flip, p):
    torch.manual_seed(1)
    x = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2).repeat(2000, 1, 1, 1)
    share = (flip(p=p)(x) != x).any((1, 2, 3)).float().mean()
    assert share == pytest.approx(p, abs=0.04)  # four standard errors


def test_composed_crops_and_flips_are_exact_on_bytes():
    x = images(count=40)
    torch.manual_seed(3)
    y = compose([RandomCrop(padding=2), HorizontalFlip(), VerticalFlip()])(x)
    torch.manual_seed(3)
    top, left = torch.randint(5, (40,)), torch.randint(5, (40,))
    across, down = torch.rand(40) < 0.5, torch.rand(40) < 0.5
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    for i in range(40):
        window = padded[i, :, top[i] : top[i] + 10, left[i] : left[i] + 8]
        window = window.flip(2) if across[i] else window
        assert torch.equal(y[i], window.flip(1) if down[i] else window)
    assert y.dtype == torch.uint8


def test_composed_affine_neighbors_are_one_resampling_by_the_product():
    x = images(count=30, dtype=torch.float32)
    values = (
        Rotation(degrees=20),
        HorizontalFlip(),
        RandomCrop(padding=2),
        VerticalFlip(),
        Affine(degrees=5, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10),
    )
    composed = compose(values)
    assert composed.values == (Resampling(values, "bilinear"),)
    torch.manual_seed(5)
    y = composed(x)
    torch.manual_seed(5)
    product = torch.eye(3, dtype=torch.float64)
    for value in values:
        product = product @ value.matrix(x).double()
    assert torch.allclose(y, resample(x, product), atol=1e-6)


def test_a_merged_resampling_moves_pixels_where_the_steps_in_turn_move_them():
    # A smooth blob far from the frame: one interpolation or five differ little, a wrong order or
    # direction of the product moves the blob by whole pixels.
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    blob = torch.exp(-((rows - 20) ** 2 + (columns - 27) ** 2) / 40).repeat(16, 1, 1, 1)
    values = (
        Rotation(degrees=40),
        RandomCrop(padding=4),
        HorizontalFlip(),
        Affine(degrees=30, scale=(1, 2)),
    )
    torch.manual_seed(5)
    merged = compose(values)(blob)
    torch.manual_seed(5)
    in_turn = blob
    for value in values:
        in_turn = value(in_turn)
    assert (merged - in_turn).abs().max() < 0.03


def test_a_merged_flip_and_crop_equals_the_exact_moves():
    x = images(count=30, dtype=torch.float32)
    still = Rotation(degrees=(0.0, 0.0))
    torch.manual_seed(5)
    merged = compose([RandomCrop(padding=2), HorizontalFlip(), VerticalFlip(), still])(x)
    torch.manual_seed(5)
    exact = compose([RandomCrop(padding=2), HorizontalFlip(), VerticalFlip()])(x)
    # Weights of 1 and 0 up to the rounding of coordinates, about 1e-6 pixels.
    assert torch.allclose(merged, exact, atol=1e-5)


def test_compose_merges_neither_reflections_nor_other_readings_nor_across_color():
    reflected = RandomCrop(padding=2, padding_mode="reflect")
    nearest = Rotation(degrees=5, interpolation="nearest")
    jitter = ColorJitter(brightness=0.2)
    assert compose([reflected, Rotation(degrees=5)]).values == (reflected, Rotation(degrees=5))
    assert compose([Rotation(degrees=5), jitter, HorizontalFlip()]).values == (
        Rotation(degrees=5),
        jitter,
        HorizontalFlip(),
    )
    assert compose([HorizontalFlip(), nearest, Rotation(degrees=5), HorizontalFlip()]).values == (
        Resampling((HorizontalFlip(), nearest), "nearest"),
        Resampling((Rotation(degrees=5), HorizontalFlip()), "bilinear"),
    )


def test_compose_keeps_bytes_only_for_pixel_moves():
    x = images()
    assert compose([RandomCrop(), HorizontalFlip()]).moves_pixels
    assert not compose([HorizontalFlip(), Rotation(degrees=5)]).moves_pixels
    assert compose([])(x) is x
    assert compose([HorizontalFlip(), ColorJitter(contrast=0.1)])(x).dtype == torch.float32


def test_compose_refuses_what_changes_labels():
    with pytest.raises(ValueError, match="augmentations of images alone, got MixUp"):
        compose([HorizontalFlip(), MixUp()])


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_normalize_equals_torchvision(channels, dtype, layout):
    x = images(channels=channels, dtype=dtype, layout=layout)
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    before = x.clone()
    y = Normalize(mean=mean, std=std)(x)
    expected = vision.normalize(vision.to_dtype(x, torch.float32, scale=True), mean, std)
    assert torch.allclose(y, expected, atol=2e-6)  # one rounding less, of numbers up to 3
    assert y.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)


def test_normalize_refuses_other_channels():
    with pytest.raises(ValueError, match="one for each of the 1 channels, got 3"):
        Normalize(mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))(images(channels=1))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: HorizontalFlip(p=1.5), "p must be a probability"),
        (lambda: RandomCrop(padding=-1), "padding must be at least 0"),
        (lambda: RandomCrop(padding_mode="edge"), "must be 'zeros' or 'reflect', got 'edge'"),
        (lambda: CenterCrop(size=0), "size must be at least 1, got 0"),
        (lambda: Normalize(mean=(0.5,), std=(0.0,)), "std above 0"),
    ],
)
def test_impossible_settings_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        value()
