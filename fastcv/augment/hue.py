"""Turning the hue of images."""

import torch
from torch import Tensor

from fastcv.augment.draws import per_image


def adjust_hue(x: Tensor, factor: Tensor) -> Tensor:
    """Turn hues by `factor` of the color circle; the rest of HSV stays.

    Shape:
        x: (B, C, H, W), float in 0-1; images of one channel have no hue and return as they are.
        factor: (B,), -0.5 to 0.5.
        returns: (B, C, H, W).
    """
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, dim=1)
    high = torch.maximum(torch.maximum(red, green), blue)
    spread = high - torch.minimum(torch.minimum(red, green), blue)  # value times saturation
    # The hue, in parts of the circle from red through green to blue. Gray has any hue.
    sixths = spread.mul(6).masked_fill_(spread == 0, 1.0)
    of_red = (green - blue).div_(sixths)
    of_green = (blue - red).div_(sixths).add_(2 / 6)
    of_blue = (red - green).div_(sixths).add_(4 / 6)
    hue = torch.where(high == red, of_red, torch.where(high == green, of_green, of_blue))
    hue = hue.add_(per_image(factor))
    # A channel falls from the highest value to the lowest as the hue leaves its third of the
    # circle. With k sixths from the opposite end of that third it has fallen by 2 - |k - 2|, kept
    # within 0-1, of the spread.
    y = torch.empty_like(x)
    for channel, start in enumerate((5 / 6, 3 / 6, 1 / 6)):
        fall = hue + start
        fall.sub_(fall.floor()).mul_(6).sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
        torch.sub(high, fall.mul_(spread), out=y[:, channel : channel + 1])
    return y.clamp_(0, 1)
