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


def _mirror_matrix(flipped: Tensor, axis: int) -> Tensor:
    matrix = torch.eye(3, device=flipped.device).repeat(len(flipped), 1, 1)
    matrix[:, axis, axis] = 1.0 - 2.0 * flipped.to(matrix.dtype)
    return matrix


@dataclass(frozen=True, kw_only=True)
class HorizontalFlip:
    """Mirror images left to right, each with probability `p`.

    Shape:
        x: (B, C, H, W), uint8 or float; returned in the same shape, type and memory format.
    """

    p: float = 0.5

    moves_pixels: ClassVar[bool] = True

    def __post_init__(self):
        check_probability(self.p)

    def __call__(self, x: Tensor) -> Tensor:
        """Mirror some of a batch."""
        return flip_horizontally(x, happens(self.p, x))

    def matrix(self, x: Tensor) -> Tensor:
        """Draw what a call would: maps (B, 3, 3) from output to input pixels from the center."""
        return _mirror_matrix(happens(self.p, x), axis=0)


@dataclass(frozen=True, kw_only=True)
class VerticalFlip:
    """Mirror images top to bottom, each with probability `p`.

    Shape:
        x: (B, C, H, W), uint8 or float; returned in the same shape, type and memory format.
    """

    p: float = 0.5

    moves_pixels: ClassVar[bool] = True

    def __post_init__(self):
        check_probability(self.p)

    def __call__(self, x: Tensor) -> Tensor:
        """Mirror some of a batch."""
        return flip_vertically(x, happens(self.p, x))

    def matrix(self, x: Tensor) -> Tensor:
        """Draw what a call would: maps (B, 3, 3) from output to input pixels from the center."""
        return _mirror_matrix(happens(self.p, x), axis=1)
