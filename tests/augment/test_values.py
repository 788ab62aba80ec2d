"""What holds for every augmentation."""

import warnings
from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest
import torch

from fastcv import augment
from fastcv.learning.cuda_graph.capture import CudaGraphs

VALUES = (
    augment.Affine(degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1), shear=5),
    augment.AlternatingFlip(),
    augment.CenterCrop(size=12),
    augment.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
    augment.HorizontalFlip(),
    augment.Gamma(low=0.7, high=1.4),
    augment.Grayscale(p=0.5),
    augment.Normalize(mean=(0.5,), std=(0.25,)),
    augment.RandomCrop(padding=2),
    augment.RandomErasing(p=0.9),
    augment.RandomResizedCrop(size=12),
    augment.Resize(size=12),
    augment.Rotation(degrees=20),
    augment.Sharpness(factor=2.0),
    augment.TrivialAugment(),
    augment.VerticalFlip(),
)
MIXERS = (augment.MixUp(), augment.CutMix())
FIXED = (augment.AlternatingFlip, augment.CenterCrop, augment.Normalize, augment.Resize)
FORMATS = (torch.contiguous_format, torch.channels_last)


def images(channels=3, dtype=torch.float32, layout=FORMATS[0], device="cpu"):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (16, channels, 16, 16), dtype=torch.uint8, generator=generator)
    x = x if dtype == torch.uint8 else x / 255
    return x.to(device).contiguous(memory_format=layout)


def name_of(value):
    return type(value).__name__


def test_every_value_is_tried_here():
    public = {getattr(augment, name) for name in augment.__all__}
    found = {each for each in public if is_dataclass(each)}
    assert found - {augment.Composition, augment.Resampling} == {type(v) for v in VALUES + MIXERS}


@pytest.mark.parametrize("value", VALUES + MIXERS, ids=name_of)
def test_value_prints_as_what_builds_it_and_is_frozen(value):
    assert eval(repr(value), vars(augment)) == value
    assert hash(value) == hash(eval(repr(value), vars(augment)))
    for field in fields(value):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("value", VALUES, ids=name_of)
def test_value_keeps_range_and_format_and_its_input(value, channels, dtype, layout):
    x = images(channels, dtype, layout)
    before = x.clone()
    torch.manual_seed(0)
    y = value(x)
    assert type(y) is torch.Tensor
    assert torch.equal(x, before)
    assert y.shape[:2] == x.shape[:2]
    assert y.is_contiguous(memory_format=layout)
    stays = getattr(value, "moves_pixels", False) or isinstance(value, augment.TrivialAugment)
    assert y.dtype == (dtype if stays else torch.float32)
    if y.is_floating_point() and not isinstance(value, augment.Normalize):
        assert -1e-6 <= y.min() <= y.max() <= 1 + 1e-6
    torch.manual_seed(0)
    assert torch.equal(value(x), y)


@pytest.mark.parametrize("value", VALUES, ids=name_of)
def test_value_draws_anew_and_for_each_image(value):
    x = images()[:1].repeat(64, 1, 1, 1)
    torch.manual_seed(0)
    first, second = value(x), value(x)
    if isinstance(value, FIXED):
        assert torch.equal(first, second)
    else:
        assert not torch.equal(first, second)
        assert (first != first[:1]).flatten(1).any(1).sum() > 5


@pytest.mark.parametrize("value", MIXERS, ids=name_of)
def test_mixer_is_decided_by_the_seed_and_keeps_its_input(value):
    x, y = images(), torch.arange(16) % 4
    before = x.clone()
    torch.manual_seed(0)
    first = value(x, y, classes=4)
    torch.manual_seed(0)
    second = value(x, y, classes=4)
    assert all(torch.equal(*each) for each in zip(first, second, strict=True))
    assert torch.equal(x, before)
    assert first[1].shape == (16, 4)


@pytest.mark.gpu
@pytest.mark.parametrize("value", VALUES, ids=name_of)
def test_value_stays_on_the_gpu_and_never_waits_for_it(value):
    x = images(device="cuda")
    value(x)  # constants are copied once
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():  # torch calls the mode a prototype
            warnings.filterwarnings("ignore", "(?i).*synchronization debug mode.*")
            torch.cuda.set_sync_debug_mode("error")
        assert value(x).is_cuda
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.gpu
@pytest.mark.parametrize("value", VALUES, ids=name_of)
def test_value_in_a_captured_graph_draws_as_it_does_without(value):
    x = images(3, torch.uint8, FORMATS[1], "cuda")
    replay = captured(lambda: value(x))
    torch.cuda.manual_seed(0)
    replayed = [replay().clone() for _ in range(2)]
    torch.cuda.manual_seed(0)
    for each in replayed:
        torch.testing.assert_close(each, value(x))


@pytest.mark.gpu
@pytest.mark.parametrize("value", MIXERS, ids=name_of)
def test_mixer_in_a_captured_graph_draws_as_it_does_without(value):
    x, y = images(device="cuda"), torch.arange(16, device="cuda") % 4
    replay = captured(lambda: value(x, y, classes=4))
    torch.cuda.manual_seed(0)
    replayed = [tuple(each.clone() for each in replay()) for _ in range(2)]
    torch.cuda.manual_seed(0)
    for each in replayed:
        torch.testing.assert_close(each, tuple(value(x, y, classes=4)))


def captured(program):
    graphs = CudaGraphs(torch.device("cuda"))
    graphs.warm_up(program)
    return graphs.capture(program)


# Without a choice, so that they do the same on any device.
CERTAIN = (
    augment.Affine(degrees=(10, 10), translate=(0, 0), scale=(1.1, 1.1), shear=(5, 5)),
    augment.AlternatingFlip(),
    augment.CenterCrop(size=12),
    augment.ColorJitter(brightness=(1.2, 1.2)),
    augment.ColorJitter(contrast=(0.8, 0.8)),
    augment.ColorJitter(saturation=(1.3, 1.3)),
    augment.ColorJitter(hue=(0.1, 0.1)),
    augment.HorizontalFlip(p=1),
    augment.Gamma(low=0.8, high=0.8),
    augment.Grayscale(p=1),
    augment.Normalize(mean=(0.5,), std=(0.25,)),
    augment.Resize(size=12),
    augment.RandomCrop(size=16, padding=0),
    augment.RandomResizedCrop(size=12, scale=(1, 1), ratio=(1, 1)),
    augment.Rotation(degrees=(20, 20)),
    augment.VerticalFlip(p=1),
)


@pytest.mark.parametrize("value", CERTAIN, ids=name_of)
def test_value_without_a_choice_leaves_nothing_to_chance(value):
    x = images(3, torch.uint8, FORMATS[1])
    assert torch.equal(value(x), value(x))


@pytest.mark.gpu
@pytest.mark.parametrize("value", CERTAIN, ids=name_of)
def test_value_in_a_captured_graph_does_what_it_does_on_the_cpu(value):
    x = images(3, torch.uint8, FORMATS[1])
    there = x.cuda()
    found, expected = captured(lambda: value(there))().cpu().float(), value(x).float()
    far = (found - expected).abs() > (1 if value(x).dtype == torch.uint8 else 1e-3)
    assert far.float().mean() < 0.005  # pixels that rounding moved to a neighbor
