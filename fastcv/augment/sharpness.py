"""Sharpen and smooth images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fastcv.augment.draws import check_probability, happens, per_image
from fastcv.augment.pixels import to_float
from fastcv.recipe.bounds import check_number


def smoothed(x: Tensor) -> Tensor:
    """Average inner pixels, weighted 5, with their eight neighbors: (B, C, H - 2, W - 2)."""
    rows = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    return box.add_(x[:, :, 1:-1, 1:-1], alpha=4).div_(13)


def adjust_sharpness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend images, except their border, with a smoothed copy: torchvision's `adjust_sharpness`.

    Shape:
        x: (B, C, H, W), float in 0-1.
        factor: (B,), at least 0: 0 smooths, 1 changes nothing, 2 sharpens.
        returns: (B, C, H, W), in 0-1.
    """
    if min(x.shape[-2:]) <= 2:
        return x
    y = x.clone()
    inner = y[:, :, 1:-1, 1:-1]
    inner.copy_(torch.lerp(smoothed(x), inner, per_image(factor)))
    return y.clamp_(0, 1)


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """Sharpen or smooth images, each with probability `p`: torchvision's `RandomAdjustSharpness`.

    Args:
        factor: 0 smooths, 1 changes nothing, 2 sharpens.
        p: probability of each image, 0-1.
    """

    factor: float
    p: float = 0.5

    def __post_init__(self):
        check_probability(self.p)
        check_number("factor", self.factor, least=0)

    def __call__(self, x: Tensor) -> Tensor:
        """Sharpen some of a batch."""
        factor = 1 + (self.factor - 1) * happens(self.p, x).to(torch.float32)
        return adjust_sharpness(to_float(x), factor)
