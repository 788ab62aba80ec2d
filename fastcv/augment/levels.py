"""torchvision's uint8 operations, on whole numbers 0-255 in float32.

Every function takes and returns images (B, C, H, W). Its parameters (B,) have a value that changes
nothing, so that a whole batch can be passed if only some of its images are to change.
"""

import torch
from torch import Tensor

from fastcv.augment.color import luma
from fastcv.augment.draws import per_image
from fastcv.augment.sharpness import smoothed


def blend(x: Tensor, target: Tensor, change: Tensor) -> Tensor:
    """Blend with `target`, which broadcasts to `x`, by the factor 1 + `change`."""
    change = per_image(change)
    return torch.addcmul(x * (1 + change), target, change, value=-1).clamp_(0, 255).floor_()


def whole_luma(x: Tensor) -> Tensor:
    """Return the gray values, (B, 1, H, W)."""
    return luma(x).floor() if x.shape[1] == 3 else x


def sharpen(x: Tensor, change: Tensor) -> Tensor:
    """Blend all but the border with a smoothed copy, by the factor 1 + `change`."""
    if min(x.shape[-2:]) <= 2:
        return x
    y = x.clone()
    inner = y[:, :, 1:-1, 1:-1]
    difference = smoothed(x).round_().sub_(inner)
    inner.add_(difference.mul_(-per_image(change)))
    return y.clamp_(0, 255).floor_()


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` of each level; 8 bits change nothing."""
    step = per_image(torch.exp2(8 - bits.to(x.dtype)))
    return (x / step).floor_().mul_(step)


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Invert levels at and above the threshold; 256 changes nothing."""
    return torch.where(x >= per_image(threshold), 255 - x, x)


def autocontrast(x: Tensor) -> Tensor:
    """Stretch each channel to 0-255; a channel with a single level stays as it is."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = low == high
    unit = ((high - low) * (1 / 255)).masked_fill_(flat, 1.0)
    return (x - low.masked_fill(flat, 0.0)).div_(unit).clamp_(0, 255).floor_()


def equalize(x: Tensor) -> Tensor:
    """Spread each channel's levels evenly, by Pillow's rule."""
    batch, channels, rows, columns = x.shape
    flat = x.reshape(batch, channels, rows * columns).long()
    counts = torch.zeros(batch, channels, 256, dtype=torch.int64, device=x.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    last = counts.gather(2, flat.amax(2, keepdim=True))  # pixels at the highest level
    step = (rows * columns - last).div(255, rounding_mode="floor")
    below = counts.cumsum(2) - counts
    table = (below + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    spread = table.gather(2, flat).view(x.shape).to(x.dtype)
    return torch.where((step == 0).unsqueeze(3), x, spread)
