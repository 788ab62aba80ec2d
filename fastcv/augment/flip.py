"""Mirror images: exact pixel moves, on bytes as well as on floats."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastcv.augment.draws import check_probability, happens, per_image


def flip_horizontally(x: Tensor, flipped: Tensor) -> Tensor:
    """Mirror the images of `x` (B, C, H, W) left to right where `flipped` (B,) is true."""
    return _choose(x, x.flip(-1), flipped)


def flip_vertically(x: Tensor, flipped: Tensor) -> Tensor:
    """Mirror the images of `x` (B, C, H, W) top to bottom where `flipped` (B,) is true."""
    return _choose(x, x.flip(-2), flipped)


def _choose(x: Tensor, mirrored: Tensor, flipped: Tensor) -> Tensor:
    if x.is_floating_point():
        # With weights of 0 and 1 lerp is exact, and on a CPU takes half the time of torch.where.
        return torch.lerp(x, mirrored, per_image(flipped).to(x.dtype))
    # Bytes: x ^ ((x ^ mirrored) & mask) needs a third of torch.where's time.
    mask = per_image(flipped).to(x.dtype).neg_()
    return mirrored.bitwise_xor_(x).bitwise_and_(mask).bitwise_xor_(x)


@dataclass(frozen=True, kw_only=True)
class _Flip:
    p: float = 0.5

    moves_pixels: ClassVar[bool] = True
    axis: ClassVar[int]  # 0 is x, 1 is y

    def __post_init__(self):
        check_probability(self.p)

    def __call__(self, x: Tensor) -> Tensor:
        """Mirror some of a batch."""
        return _choose(x, x.flip(-1 - self.axis), happens(self.p, x))

    def matrix(self, x: Tensor) -> Tensor:
        """Draw what a call would: maps (B, 3, 3) from output to input pixels from the center."""
        matrix = torch.eye(3, device=x.device).repeat(len(x), 1, 1)
        matrix[:, self.axis, self.axis] = 1.0 - 2.0 * happens(self.p, x).to(matrix.dtype)
        return matrix


@dataclass(frozen=True, kw_only=True)
class HorizontalFlip(_Flip):
    """Mirror images left to right.

    Args:
        p: probability of each image, 0-1.
    """

    axis: ClassVar[int] = 0


@dataclass(frozen=True, kw_only=True)
class VerticalFlip(_Flip):
    """Mirror images top to bottom.

    Args:
        p: probability of each image, 0-1.
    """

    axis: ClassVar[int] = 1
