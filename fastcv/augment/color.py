"""Color, with different factors for each image; functions are named and defined as torchvision's.

Factors (B,) are at least 0, and 1 changes nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fastcv.augment.draws import (
    check_probability,
    fractions,
    happens,
    interval,
    per_image,
    uniform,
)
from fastcv.augment.pixels import to_float

# ITU-R 601 luma, as torchvision rounds it.
LUMA = (0.2989, 0.587, 0.114)


def luma(x: Tensor) -> Tensor:
    """Return the gray values (B, 1, H, W) of images (B, 3, H, W) or (B, 1, H, W)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, dim=1)
    return red.mul(LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    # Not lerp: it is three times slower if its weights and ends are broadcast.
    factor = per_image(factor)
    return x.mul(factor).add_(other * (1 - factor))


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply images (B, C, H, W) by their factors (B,): 0 makes them black."""
    return x.mul(per_image(factor)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend images (B, C, H, W) with their mean gray by factors (B,): 0 leaves that gray alone."""
    mean = luma(x).mean(dim=(1, 2, 3), keepdim=True)
    return _blend(x, mean, factor).clamp_(0, 1)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend images (B, C, H, W) with their gray copies by factors (B,): 0 leaves those alone."""
    return _blend(x, luma(x), factor).clamp_(0, 1)


def adjust_gamma(x: Tensor, gamma: Tensor) -> Tensor:
    """Raise images (B, C, H, W) to powers (B,): above 1 darkens."""
    return x.pow(per_image(gamma))


def grayscale(x: Tensor, gray: Tensor) -> Tensor:
    """Replace the images of `x` (B, C, H, W) where `gray` (B,) is true by their gray copies."""
    return _blend(x, luma(x), 1 - gray.to(x.dtype))


BRIGHTNESS, CONTRAST, SATURATION = range(3)
_ALONE = (adjust_brightness, adjust_contrast, adjust_saturation)


def jitter(x: Tensor, kinds: Tensor, factors: Tensor) -> Tensor:
    """Adjust brightness, contrast and saturation, in a different order for each image.

    All three blend the image with something gray: black, its mean, or its gray copy. So one pass
    per step serves a whole batch, even if its images are adjusted in different kinds.

    Shape:
        x: (B, C, H, W), float in 0-1; C is 1 or 3.
        kinds: (B, steps), int64, `BRIGHTNESS`, `CONTRAST` or `SATURATION` at each step.
        factors: (B, steps), at least 0, for the kind at that step.
        returns: (B, C, H, W), in 0-1.
    """
    y = x.clone()
    for kind, factor in zip(kinds.unbind(1), factors.unbind(1), strict=True):
        gray = luma(y)
        rest = 1 - factor
        mean = gray.mean(dim=(1, 2, 3)) * rest * (kind == CONTRAST)
        copy = gray * per_image(rest * (kind == SATURATION))
        y.mul_(per_image(factor)).add_(copy.add_(per_image(mean))).clamp_(0, 1)
    return y


def adjust_hue(x: Tensor, factor: Tensor) -> Tensor:
    """Turn hues by `factor` of the color circle; saturation and value stay.

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
    # The hue, as a fraction of the circle from red through green to blue. Gray may have any hue.
    sixths = spread.mul(6).masked_fill_(spread == 0, 1.0)
    of_red = (green - blue).div_(sixths)
    of_green = (blue - red).div_(sixths).add_(2 / 6)
    of_blue = (red - green).div_(sixths).add_(4 / 6)
    hue = torch.where(high == red, of_red, torch.where(high == green, of_green, of_blue))
    hue = hue.add_(per_image(factor))
    # A channel falls from the highest value to the lowest as the hue leaves its third of the
    # circle. At k sixths from the opposite end of that third it has fallen by the fraction
    # 2 - |k - 2| of the spread, clamped to 0-1.
    y = torch.empty_like(x)
    for channel, start in enumerate((5 / 6, 3 / 6, 1 / 6)):
        fall = hue + start
        fall.sub_(fall.floor()).mul_(6).sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
        torch.sub(high, fall.mul_(spread), out=y[:, channel : channel + 1])
    return y.clamp_(0, 1)


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue at random, as torchvision's `ColorJitter`.

    Each image has its own factors and its own order of the first three. Hue, which costs as much
    as the others together, comes last; in torchvision its place is random too.
    Images must have 1 or 3 channels.

    Args:
        brightness: factor (low, high), at least 0; a number b means (1 - b, 1 + b).
        contrast: as brightness.
        saturation: as brightness; it leaves images of one channel as they are.
        hue: turn (low, high), fractions -0.5 to 0.5 of the color circle; a number h means (-h, h).
    """

    brightness: float | tuple[float, float] = 0.0
    contrast: float | tuple[float, float] = 0.0
    saturation: float | tuple[float, float] = 0.0
    hue: float | tuple[float, float] = 0.0

    def __post_init__(self):
        self._intervals()
        interval("hue", self.hue, least=-0.5, most=0.5)

    def _intervals(self) -> dict[int, tuple[float, float]]:
        named = {"brightness": self.brightness, "contrast": self.contrast}
        named["saturation"] = self.saturation
        read = [interval(name, each, center=1.0, least=0.0) for name, each in named.items()]
        return {kind: each for kind, each in enumerate(read) if each != (1.0, 1.0)}

    def __call__(self, x: Tensor) -> Tensor:
        """Jitter a batch."""
        check_channels(x)
        x = to_float(x)
        drawn = {kind: uniform(*each, x) for kind, each in self._intervals().items()}
        if len(drawn) == 1:
            ((kind, factor),) = drawn.items()
            x = _ALONE[kind](x, factor)
        elif drawn:
            order = fractions(x, after=(len(drawn),)).argsort(1)
            kinds = torch.stack([torch.full_like(order[:, 0], kind) for kind in drawn], 1)
            factors = torch.stack(tuple(drawn.values()), 1)
            x = jitter(x, kinds.gather(1, order), factors.gather(1, order))
        turn = interval("hue", self.hue, least=-0.5, most=0.5)
        return x if turn == (0.0, 0.0) else adjust_hue(x, uniform(*turn, x))


@dataclass(frozen=True, kw_only=True)
class Gamma:
    """Raise each image to a power drawn from [low, high): above 1 darkens, below 1 lightens.

    Args:
        low: least power, at least 0.
        high: the powers lie below it.
    """

    low: float = 0.5
    high: float = 1.5

    def __post_init__(self):
        interval("gamma", (self.low, self.high), least=0.0)

    def __call__(self, x: Tensor) -> Tensor:
        """Change the gamma of a batch."""
        x = to_float(x)
        return adjust_gamma(x, uniform(self.low, self.high, x))


@dataclass(frozen=True, kw_only=True)
class Grayscale:
    """Turn images of 1 or 3 channels gray; they keep their channels.

    Args:
        p: probability of each image, 0-1.
    """

    p: float = 0.1

    def __post_init__(self):
        check_probability(self.p)

    def __call__(self, x: Tensor) -> Tensor:
        """Make some of a batch gray."""
        check_channels(x)
        return grayscale(to_float(x), happens(self.p, x))


def check_channels(x: Tensor) -> None:
    """Raise unless images have 1 or 3 channels."""
    if x.shape[1] not in (1, 3):
        raise ValueError(
            f"color needs images of 1 or 3 channels, got {x.shape[1]}: leave it out of augment"
        )
