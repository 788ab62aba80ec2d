"""TrivialAugment: one random operation of random strength for each image."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fastcv.augment.affine import affine_matrix, precise, resample
from fastcv.augment.color import check_channels, luma
from fastcv.augment.draws import happens, integers, per_image
from fastcv.augment.pixels import memory_format
from fastcv.augment.sharpness import smoothed

BINS = 31
# torchvision's TrivialAugmentWide: name -> the magnitude in the last bin; in the first bin it is 0.
# These magnitudes are negated half of the time.
SIGNED = {
    "ShearX": 0.99,
    "ShearY": 0.99,
    "TranslateX": 32.0,  # pixels
    "TranslateY": 32.0,  # pixels
    "Rotate": 135.0,  # degrees, counter-clockwise
    "Brightness": 0.99,  # added to a factor of 1, as the next three
    "Color": 0.99,
    "Contrast": 0.99,
    "Sharpness": 0.99,
}
UNSIGNED = ("Posterize", "Solarize", "AutoContrast", "Equalize", "Identity")
OPERATIONS = (*SIGNED, *UNSIGNED)


@lru_cache(maxsize=8)
def magnitudes(device: torch.device) -> Tensor:
    """Return magnitudes (operations, bins) of operations in bins, kept on the device."""
    rows = [torch.linspace(0, most, BINS) for most in SIGNED.values()]
    rows.append((8 - torch.arange(BINS) / ((BINS - 1) / 6)).round())  # Posterize: bits
    rows.append(torch.linspace(1, 0, BINS))  # Solarize: fraction of white
    rows += [torch.zeros(BINS)] * 3  # the others have none
    return torch.stack(rows).to(device)


def _is(operation: Tensor, *names: str) -> Tensor:
    found = [operation == OPERATIONS.index(name) for name in names]
    return torch.stack(found).any(0) if len(found) > 1 else found[0]


def _move(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    def where(name: str) -> Tensor:
        return precise(magnitude) * _is(operation, name)

    leaning = torch.stack((where("ShearX"), where("ShearY")), 1)
    matrix = affine_matrix(
        -where("Rotate"),
        translate=torch.stack((where("TranslateX"), where("TranslateY")), 1).trunc_(),
        shear=torch.rad2deg(leaning.atan()),
    )
    # Shears keep the image's upper left corner in place, not its center.
    matrix[:, 0, 2] += leaning[:, 0] * x.shape[-2] / 2
    matrix[:, 1, 2] += leaning[:, 1] * x.shape[-1] / 2
    return resample(x, matrix, "nearest")


def _blend(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Blend with black, the mean gray or the gray copy, by a factor of 1 + magnitude."""
    color = x.shape[1] == 3
    gray = luma(x).floor() if color else x
    mean = gray.mean(dim=(1, 2, 3)) * _is(operation, "Contrast")
    copied = _is(operation, "Color").to(x.dtype)
    target = torch.addcmul(per_image(mean), gray, per_image(copied))
    # One channel has no color to change.
    names = ("Brightness", "Color", "Contrast") if color else ("Brightness", "Contrast")
    change = per_image(magnitude * _is(operation, *names))
    return torch.addcmul(x * (1 + change), target, change, value=-1).clamp_(0, 255).floor_()


def _sharpen(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Blend all but the border with a smoothed copy, by a factor of 1 + magnitude."""
    if min(x.shape[-2:]) <= 2:
        return x
    y = x.clone()
    inner = y[:, :, 1:-1, 1:-1]
    difference = smoothed(x).round_().sub_(inner)
    inner.add_(difference.mul_(-per_image(magnitude * _is(operation, "Sharpness"))))
    return y.clamp_(0, 255).floor_()


def _posterize(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Keep the highest bits of each level; 8 bits change nothing."""
    bits = torch.where(_is(operation, "Posterize"), magnitude, 8.0)
    step = per_image(torch.exp2(8 - bits.to(x.dtype)))
    return (x / step).floor_().mul_(step)


def _solarize(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Invert levels at and above a threshold; 256 changes nothing."""
    threshold = torch.where(_is(operation, "Solarize"), magnitude * 255, 256.0)
    return torch.where(x >= per_image(threshold), 255 - x, x)


def _autocontrast(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Stretch each channel to 0-255; a channel with a single level stays as it is."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = low == high
    unit = ((high - low) * (1 / 255)).masked_fill_(flat, 1.0)
    stretched = (x - low.masked_fill(flat, 0.0)).div_(unit).clamp_(0, 255).floor_()
    return torch.where(per_image(_is(operation, "AutoContrast")), stretched, x)


def _equalize(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Spread each channel's levels evenly, by Pillow's rule."""
    batch, channels, rows, columns = x.shape
    flat = x.reshape(batch, channels, rows * columns).long()
    counts = torch.zeros(batch, channels, 256, dtype=torch.int64, device=x.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    last = counts.gather(2, flat.amax(2, keepdim=True))  # pixels at the highest level
    step = (rows * columns - last).div(255, rounding_mode="floor")
    below = counts.cumsum(2) - counts
    table = (below + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    level = table.gather(2, flat).view(x.shape).to(x.dtype)
    changed = per_image(_is(operation, "Equalize")) & (step != 0).unsqueeze(3)
    return torch.where(changed, level, x)


# Each takes whole numbers 0-255 in float32, as torchvision's uint8 operations do, and changes only
# the images that drew its operation, so that a whole batch may be passed.
FAMILIES = (
    (_move, ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")),
    (_blend, ("Brightness", "Color", "Contrast")),
    (_sharpen, ("Sharpness",)),
    (_posterize, ("Posterize",)),
    (_solarize, ("Solarize",)),
    (_autocontrast, ("AutoContrast",)),
    (_equalize, ("Equalize",)),
)


def trivial_augment(
    x: Tensor, operation: Tensor, magnitude: Tensor, grouped: bool | None = None
) -> Tensor:
    """Apply a different operation to each image, as torchvision does to uint8 images.

    Args:
        x: images; floats are rounded to whole levels of 1/255.
        operation: index into `OPERATIONS`.
        magnitude: what torchvision passes to the operation, sign included.
        grouped: whether to pick out each operation's images, which waits for the device; otherwise
            every operation runs over the whole batch. None groups on a CPU only. Results are equal.

    Shape:
        x: (B, C, H, W), uint8 or float in 0-1; C is 1 or 3.
        operation: (B,), int64.
        magnitude: (B,), float32.
        returns: (B, C, H, W), the type and memory format of `x`.
    """
    check_channels(x)
    grouped = x.device.type == "cpu" if grouped is None else grouped
    y = x.mul(255).round_() if x.is_floating_point() else x.to(torch.float32, copy=True)
    for apply, names in FAMILIES:
        if grouped:
            rows = _is(operation, *names).nonzero()[:, 0]
            if len(rows):
                y[rows] = apply(y[rows], operation[rows], magnitude[rows])
        else:
            y = apply(y, operation, magnitude)
    y = y.div_(255) if x.is_floating_point() else y.to(x.dtype)
    return y.contiguous(memory_format=memory_format(x))


@dataclass(frozen=True, kw_only=True)
class TrivialAugment:
    """Apply one random operation of random strength to each image, as `TrivialAugmentWide` does.

    Images must have 1 or 3 channels; bytes stay bytes.

    Source: Müller and Hutter 2021, arXiv:2103.10158.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Augment a batch."""
        operation = integers(len(OPERATIONS), x)
        magnitude = magnitudes(x.device)[operation, integers(BINS, x)]
        negated = happens(0.5, x) & (operation < len(SIGNED))
        return trivial_augment(x, operation, torch.where(negated, -magnitude, magnitude))
