"""Resize images, smoothing them where they shrink."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcv.augment.draws import fractions, interval, pair
from fastcv.augment.pixels import memory_format, to_float
from fastcv.recipe.bounds import check_flags, check_numbers

# Windows drawn for each image before its center is taken, as in torchvision.
ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Resize images as torchvision's `resize`: bilinear, smoothed where they shrink.

    Args:
        size: pixels: of the shorter side, or (height, width).
    """

    size: int | tuple[int, int]

    def __post_init__(self):
        pair("size", self.size)

    def __call__(self, x: Tensor) -> Tensor:
        """Resize a batch."""
        x = to_float(x)
        height, width = x.shape[-2:]
        if isinstance(self.size, int):
            shorter = min(height, width)
            size = (int(self.size * height / shorter), int(self.size * width / shorter))
        else:
            size = pair("size", self.size)
        if size == (height, width):
            return x
        resized = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        return resized.contiguous(memory_format=memory_format(x))


def resized_crop(
    x: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    size: tuple[int, int],
    antialias: bool = True,
) -> Tensor:
    """Cut a different window out of each image, and resize all windows to one size.

    Each axis is one matrix product with the weights that torchvision's `resized_crop` uses.

    Shape:
        x: (B, C, H, W), float.
        top, left, height, width: (B,), pixels, of windows inside the images.
        size: (height, width) of the result, pixels.
        returns: (B, C, *size), the memory format of `x`.
    """
    across = _weights(left, width, x.shape[-1], size[1], antialias)  # (B, size[1], W)
    down = _weights(top, height, x.shape[-2], size[0], antialias)  # (B, size[0], H)
    batch, channels, rows, columns = x.shape
    narrowed = x.reshape(batch, channels * rows, columns) @ across.to(x.dtype).mT
    narrowed = narrowed.view(batch, channels, rows, size[1])
    resized = down.to(x.dtype)[:, None] @ narrowed
    return resized.contiguous(memory_format=memory_format(x))


def _weights(start: Tensor, length: Tensor, pixels: int, size: int, antialias: bool) -> Tensor:
    """Return the weights (B, size, pixels) of `pixels` input pixels in each of `size` results."""
    scale = (length / size)[:, None]  # input pixels for each result pixel
    steps = torch.arange(size, device=start.device) + 0.5
    centers = start[:, None] + steps * scale  # (B, size)
    reach = scale.clamp(min=1) if antialias else torch.ones_like(scale)
    places = torch.arange(pixels, device=start.device)
    distance = (places + 0.5 - centers[:, :, None]).abs_().div_(reach[:, :, None])
    inside = (places >= start[:, None]) & (places < (start + length)[:, None])  # (B, pixels)
    weights = distance.neg_().add_(1).clamp_(min=0).mul_(inside[:, None])
    return weights.div_(weights.sum(2, keepdim=True))


def windows(
    x: Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw torchvision's random windows: top, left, height and width, each (B,), int64.

    The first of ten that fits is taken. If none does, the window is the center of the image, as
    large as `ratio` allows.
    """
    rows, columns = x.shape[-2:]
    height, width = draw_rectangles(x, scale, ratio, wide=True)
    fits = (height > 0) & (height <= rows) & (width > 0) & (width <= columns)
    # The center always fits.
    shape = min(max(columns / rows, ratio[0]), ratio[1])
    middle = (min(rows, max(1, round(columns / shape))), min(columns, max(1, round(rows * shape))))
    first = fits.to(torch.uint8).argmax(0, keepdim=True)
    found = fits.any(0)
    height = torch.where(found, height.gather(0, first)[0], middle[0])
    width = torch.where(found, width.gather(0, first)[0], middle[1])
    place = fractions(x, before=(2,))
    top = torch.where(found, (place[0] * (rows - height + 1)).long(), (rows - middle[0]) // 2)
    left = torch.where(found, (place[1] * (columns - width + 1)).long(), (columns - middle[1]) // 2)
    return top, left, height, width


def draw_rectangles(
    x: Tensor, scale: tuple[float, float], ratio: tuple[float, float], wide: bool
) -> tuple[Tensor, Tensor]:
    """Draw heights and widths, each (attempts, B), int64, by area and by ratio of the sides.

    Args:
        x: images (B, C, H, W).
        scale: least and greatest area, fractions of the image.
        ratio: least and greatest ratio of the sides; its logarithm is uniform.
        wide: whether `ratio` is width / height; otherwise it is height / width.
    """
    area = fractions(x, before=(ATTEMPTS,)).mul_(scale[1] - scale[0]).add_(scale[0])
    area = area.mul_(x.shape[-2] * x.shape[-1])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    sides = fractions(x, before=(ATTEMPTS,)).mul_(high - low).add_(low).exp_()
    long, short = (area * sides).sqrt_().round_(), (area / sides).sqrt_().round_()
    return (short.long(), long.long()) if wide else (long.long(), short.long())


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """Cut a window of random area and shape out of each image, and resize it.

    Windows are drawn, and resized (bilinear, smoothed where they shrink), as in torchvision. On a
    GPU whose matrix products are set to TF32, pixels are exact to about 1e-3.

    Args:
        size: of the result, pixels: a number or (height, width).
        scale: least and greatest area of the window, fractions of the image.
        ratio: least and greatest width / height of the window.
        antialias: whether to smooth where the window is larger than the result.
    """

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    antialias: bool = True

    def __post_init__(self):
        pair("size", self.size)
        for name in ("scale", "ratio"):
            check_numbers(name, getattr(self, name), 2)
        interval("scale", self.scale, least=0.0, most=1.0)
        interval("ratio", self.ratio, least=math.ulp(0.0))
        check_flags(self, "antialias")

    def __call__(self, x: Tensor) -> Tensor:
        """Crop and resize a batch."""
        window = windows(x, self.scale, self.ratio)
        return resized_crop(to_float(x), *window, pair("size", self.size), self.antialias)
