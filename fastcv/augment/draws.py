"""Random parameters for each image, drawn on the batch's device from torch's global generator.

No draw reads a value back, so nothing here waits for a GPU.
"""

from math import isinf
from numbers import Real

import torch
from torch import Tensor
from torch.distributions import Beta

from fastcv.augment.part import drawn_for
from fastcv.augment.pixels import memory_format
from fastcv.recipe.bounds import WIDEST, check_number, check_numbers, check_whole, shown


def fractions(x: Tensor, *, before: tuple[int, ...] = (), after: tuple[int, ...] = ()) -> Tensor:
    """Draw numbers in [0, 1) for each image of `x`: (*before, B, *after), float32."""
    part = drawn_for()
    if part is None:
        return torch.rand(*before, len(x), *after, device=x.device)
    return part.of(torch.rand(*before, part.count, *after, device=x.device), len(before))


def fractions_like(x: Tensor) -> Tensor:
    """Draw a number in [0, 1) for each pixel of `x`."""
    part = drawn_for()
    if part is None:
        return torch.rand_like(x)
    shape, layout = (part.count, *x.shape[1:]), memory_format(x)
    return part.of(x.new_empty(shape).contiguous(memory_format=layout).uniform_())


def uniform(low: float, high: float, x: Tensor) -> Tensor:
    """Draw a number in [low, high) for each image of `x`: (B,), float32."""
    return fractions(x).mul_(high - low).add_(low)


def integers(count: int, x: Tensor) -> Tensor:
    """Draw one of 0 ... count - 1 for each image of `x`: (B,), int64."""
    part = drawn_for()
    if part is None:
        return torch.randint(count, (len(x),), device=x.device)
    return part.of(torch.randint(count, (part.count,), device=x.device))


def happens(p: float, x: Tensor) -> Tensor:
    """Draw True with probability `p` for each image of `x`: (B,), bool."""
    return fractions(x) < p


def beta(alpha: float, x: Tensor) -> Tensor:
    """Draw a number of Beta(alpha, alpha) for each image of `x`: (B,), float32."""
    part = drawn_for()
    images = len(x) if part is None else part.count
    concentration = torch.full((images,), float(alpha), device=x.device)
    # Checking the arguments would read them back from a GPU.
    drawn = Beta(concentration, concentration, validate_args=False).sample()
    return drawn if part is None else part.of(drawn)


def per_image(parameter: Tensor) -> Tensor:
    """Reshape parameters (B,) to (B, 1, 1, 1), which broadcast to a batch of images."""
    return parameter.view(-1, 1, 1, 1)


def check_probability(p: float) -> None:
    """Raise unless `p` is a probability."""
    if not isinstance(p, Real) or isinstance(p, bool) or not 0 <= p <= 1:
        raise ValueError(f"p must be a probability between 0 and 1, got {shown(p)}")


def interval(
    name: str,
    setting: float | tuple[float, float],
    *,
    center: float = 0.0,
    least: float = float("-inf"),
    most: float = float("inf"),
) -> tuple[float, float]:
    """Read a setting that is (low, high), or a number d for (center - d, center + d).

    Raises:
        ValueError: low is above high, or the interval exceeds `least` ... `most`.
    """
    if isinstance(setting, tuple | list):
        check_numbers(name, setting, 2)
        low, high = setting
    elif not isinstance(setting, Real) or isinstance(setting, bool) or not setting >= 0:
        raise ValueError(f"{name} must be a number >= 0 or (low, high), got {shown(setting)}")
    else:
        check_number(name, setting)
        low, high = max(center - setting, least), center + setting
    if not least <= low <= high <= most:
        # A `least` of the smallest number that is not 0 stands for "above 0".
        lower = "" if isinf(least) else "0 < " if 0 < least < 1e-300 else f"{least:g} <= "
        upper = "" if isinf(most) else f" <= {most:g}"
        raise ValueError(
            f"{name} must be (low, high) with {lower}low <= high{upper}, got {setting}"
        )
    return float(low), float(high)


def pair(name: str, size: int | tuple[int, int]) -> tuple[int, int]:
    """Read a size in pixels: a number for a square, or (height, width)."""
    height, width = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    for pixels in (height, width):
        check_whole(name, pixels, least=1, most=WIDEST)
    return int(height), int(width)
