import pytest
import torch

from fastcv.augment import HorizontalFlip, RandomCrop, Rotation, compose
from fastcv.augment.alternating import AlternatingFlip, at_epoch

FORMATS = (torch.contiguous_format, torch.channels_last)


def images(count=400):
    torch.manual_seed(0)
    return torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", FORMATS)
def test_two_successive_epochs_show_every_image_in_both_orientations(dtype, layout):
    x = images() if dtype == torch.uint8 else images() / 255
    x = x.contiguous(memory_format=layout)
    for first in (0, 1, 6):
        one, two = (AlternatingFlip(epoch=epoch)(x) for epoch in (first, first + 1))
        for image, *seen in zip(x, one, two, strict=True):
            places = [
                sum(torch.equal(each, way) for each in seen) for way in (image, image.flip(-1))
            ]
            assert places == [1, 1]
        assert one.dtype == dtype
        assert one.is_contiguous(memory_format=layout)


def test_half_of_the_images_are_mirrored_in_any_epoch():
    assert 0.4 < AlternatingFlip().mirrored(images()).float().mean() < 0.6


def test_an_image_keeps_its_half_in_any_order_and_as_floats():
    x = images()
    mirrored = AlternatingFlip().mirrored(x)
    order = torch.randperm(len(x))
    assert torch.equal(AlternatingFlip().mirrored(x[order]), mirrored[order])
    assert torch.equal(AlternatingFlip().mirrored(x / 255), mirrored)
    assert torch.equal(AlternatingFlip(epoch=2).mirrored(x), mirrored)
    assert torch.equal(AlternatingFlip(epoch=1).mirrored(x), ~mirrored)


def test_nothing_is_drawn():
    x, before = images(), torch.get_rng_state()
    AlternatingFlip()(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_choose_independent_halves():
    x = images()
    halves = torch.stack([AlternatingFlip(seed=seed).mirrored(x) for seed in range(6)]).float()
    agreement = torch.corrcoef(halves) - torch.eye(6)
    assert agreement.abs().max() < 0.25  # five standard deviations of chance


def test_at_epoch_reaches_into_a_composition_and_leaves_the_rest():
    crop, turn = RandomCrop(padding=1), Rotation(degrees=5)
    composed = compose((AlternatingFlip(seed=3), crop, HorizontalFlip(), turn))
    found = at_epoch(composed, 5)
    assert found.values[0] == AlternatingFlip(seed=3, epoch=5)
    assert found.values[1:] == composed.values[1:]
    assert at_epoch(crop, 5) is crop


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_epoch_is_read_from_a_tensor_at_every_call(dtype):
    x = images(40) if dtype == torch.uint8 else images(40) / 255
    epoch = torch.zeros((), dtype=torch.int64)
    composed = compose((AlternatingFlip(seed=3), RandomCrop(padding=0), Rotation(degrees=0)))
    reading = at_epoch(composed, epoch)
    for number in (0, 1, 6):
        epoch.fill_(number)
        torch.testing.assert_close(reading(x), at_epoch(composed, number)(x))
