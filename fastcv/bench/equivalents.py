"""A recipe's images, augmentation and optimizer in terms of torchvision, torch and fastai.

The equivalents draw other random numbers but do the same work: the same kinds of augmentation at
the same strength, the same normalization, the same optimizer.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from fastai import optimizer as fastai_optimizers
from fastai.vision import augment as fastai_augment
from fastai.vision.augment import PadMode
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from fastcv.augment import ColorJitter, HorizontalFlip, RandomCrop, RandomResizedCrop, Rotation
from fastcv.augment.draws import interval, pair
from fastcv.data.images import Images
from fastcv.learning.optimizers import SGD, Adam, AdamW

KNOWN = (RandomCrop, HorizontalFlip, Rotation, ColorJitter, RandomResizedCrop)
BILINEAR = InterpolationMode.BILINEAR


def check(data: Callable, optimizer: Callable) -> None:
    """Check that torchvision and fastai can do what the recipe does.

    Raises:
        ValueError: they cannot; names what they lack.
    """
    if not isinstance(data, Images):
        raise ValueError(f"bench measures recipes whose data are Images, got {data!r}")
    for each in data.augment:
        if type(each) not in KNOWN:
            names = ", ".join(kind.__name__ for kind in KNOWN)
            raise ValueError(
                f"bench compares augmentations that torchvision and fastai also have ({names}), "
                f"got {type(each).__name__}: take another recipe or leave it out of data.augment"
            )
    if not isinstance(optimizer, SGD | Adam | AdamW):
        raise ValueError(f"bench compares SGD, Adam and AdamW, got {optimizer!r}")


def torchvision_transform(data: Images, *, resized: bool) -> transforms.Compose:
    """Build the transform from a Pillow image to a normalized tensor, as in torchvision's examples.

    `resized` says whether images are already squares of the right size.
    """
    side = size = data.resize or data.size
    steps = [] if resized else [transforms.Resize(side), transforms.CenterCrop(side)]
    for each in data.augment:
        steps.append(_of_torchvision(each, size))
        if getattr(each, "size", None) is not None:
            size = pair("size", each.size)[0]
    if size != data.size:
        steps.append(transforms.CenterCrop(data.size))
    steps.append(transforms.ToTensor())
    if data.normalize is not None:
        steps.append(transforms.Normalize(data.normalize.mean, data.normalize.std))
    return transforms.Compose(steps)


def _of_torchvision(each: Callable, size: int) -> Callable:
    if isinstance(each, RandomCrop):
        mode = "constant" if each.padding_mode == "zeros" else each.padding_mode
        window = size if each.size is None else each.size
        return transforms.RandomCrop(window, padding=each.padding, padding_mode=mode)
    if isinstance(each, HorizontalFlip):
        return transforms.RandomHorizontalFlip(each.p)
    if isinstance(each, Rotation):
        mode = BILINEAR if each.interpolation == "bilinear" else InterpolationMode.NEAREST
        return transforms.RandomRotation(interval("degrees", each.degrees), mode)
    if isinstance(each, ColorJitter):
        return transforms.ColorJitter(each.brightness, each.contrast, each.saturation, each.hue)
    return transforms.RandomResizedCrop(each.size, each.scale, each.ratio, BILINEAR)


def fastai_transforms(data: Images, *, resized: bool) -> tuple[list, list]:
    """Build the item and batch transforms that fastai's users would choose.

    Crops work on images, where fastai has padded crops; rotations and colors on batches, composed
    as in `aug_transforms`. Flipping an image is cheaper than flipping a batch, unless a rotation
    resamples the batch anyway. `resized` says whether images are already squares of the right size.
    """
    side = size = data.resize or data.size
    turns = any(isinstance(each, Rotation) for each in data.augment)
    items = [] if resized else [fastai_augment.Resize(side)]
    batches = []
    for each in data.augment:
        if isinstance(each, RandomCrop):
            mode = PadMode.Zeros if each.padding_mode == "zeros" else PadMode.Reflection
            if each.padding:
                items.append(fastai_augment.CropPad(size + 2 * each.padding, pad_mode=mode))
            size = size if each.size is None else pair("size", each.size)[0]
            items.append(fastai_augment.RandomCrop(size))
        elif isinstance(each, RandomResizedCrop):
            size = pair("size", each.size)[0]
            low, high = each.scale
            scale = {"min_scale": low, "max_scale": high}
            items.append(fastai_augment.RandomResizedCrop(size, ratio=each.ratio, **scale))
        elif isinstance(each, HorizontalFlip) and turns:
            batches.append(fastai_augment.Flip(p=each.p))
        elif isinstance(each, HorizontalFlip):
            items.append(fastai_augment.FlipItem(p=each.p))
        elif isinstance(each, Rotation):
            most = max(abs(end) for end in interval("degrees", each.degrees))
            batches.append(fastai_augment.Rotate(max_deg=most, p=1.0, pad_mode=PadMode.Zeros))
        else:
            batches += _lighting(each)
    if size != data.size:
        items.append(fastai_augment.CropPad(data.size))
    for place, item in enumerate(items):
        item.order = 1 + place / 100  # fastai sorts by it: the order of the recipe
    batches = fastai_augment.setup_aug_tfms(batches)
    if data.normalize is not None:
        statistics = data.normalize.mean, data.normalize.std
        batches.append(fastai_augment.Normalize.from_stats(*statistics, cuda=False))
    return items, batches


def _lighting(jitter: ColorJitter) -> list:
    found = []
    for name, kind in (
        ("brightness", fastai_augment.Brightness),
        ("contrast", fastai_augment.Contrast),
        ("saturation", fastai_augment.Saturation),
    ):
        most = max(abs(end - 1) for end in interval(name, getattr(jitter, name), center=1.0))
        if most:
            found.append(kind(max_lighting=min(most, 0.99), p=1.0))
    turn = max(abs(end) for end in interval("hue", jitter.hue))
    return [*found, fastai_augment.Hue(max_hue=turn, p=1.0)] if turn else found


def torch_optimizer(optimizer: Callable) -> Callable[..., torch.optim.Optimizer]:
    """Return torch's optimizer of that name, with its defaults: `fused` is not set."""
    settings = dataclasses.asdict(optimizer)
    del settings["fused"]
    return partial(getattr(torch.optim, type(optimizer).__name__), **settings)


def fastai_optimizer(optimizer: Callable) -> Callable:
    """Return fastai's optimizer of that kind; it has plain momentum only, and no Nesterov."""
    decay = {"wd": optimizer.weight_decay, "decouple_wd": isinstance(optimizer, AdamW)}
    if isinstance(optimizer, SGD):
        return partial(fastai_optimizers.SGD, mom=optimizer.momentum, **decay)
    first, second = optimizer.betas
    return partial(fastai_optimizers.Adam, mom=first, sqr_mom=second, eps=optimizer.eps, **decay)
