"""Rotation, translation, scaling and shear: one resampling for each image.

A matrix here maps a pixel of the result to the place in the input that it is read from, both
measured in pixels from the image's center, x to the right and y down. Applying A and then B is
A @ B.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcv.augment.draws import interval, uniform
from fastcv.augment.pixels import memory_format, to_float
from fastcv.recipe.bounds import check_numbers


def resample(x: Tensor, matrix: Tensor, interpolation: str = "bilinear") -> Tensor:
    """Read each image through its own matrix; outside of it, pixels are black.

    Shape:
        x: (B, C, H, W), float.
        matrix: (B, 3, 3) or (B, 2, 3), output to input pixels from the center.
        returns: (B, C, H, W), the memory format of `x`.
    """
    _, _, height, width = x.shape
    matrix = matrix.to(torch.float32)
    columns = torch.arange(width, device=x.device) - (width - 1) / 2
    rows = torch.arange(height, device=x.device) - (height - 1) / 2
    # grid_sample counts from -1 to 1 over the whole image, borders included. Adding a row's part
    # to a column's needs a tenth of affine_grid's time.
    half = torch.cat((columns.new_full((1, 1), width / 2), columns.new_full((1, 1), height / 2)))
    unit = matrix[:, :2] / half
    across = unit[:, None, :, 0] * columns[:, None]  # (B, W, 2)
    down = unit[:, None, :, 1] * rows[:, None] + unit[:, None, :, 2]  # (B, H, 2)
    grid = across[:, None] + down[:, :, None]  # (B, H, W, 2)
    read = F.grid_sample(
        x, grid.to(x.dtype), mode=interpolation, padding_mode="zeros", align_corners=False
    )
    return read.contiguous(memory_format=memory_format(x))


def precise(parameter: Tensor) -> Tensor:
    """Convert to double precision, as torchvision does, if the device has it."""
    return parameter.to(torch.float32 if parameter.device.type == "mps" else torch.float64)


def affine_matrix(
    degrees: Tensor,
    translate: Tensor | None = None,
    scale: Tensor | None = None,
    shear: Tensor | None = None,
) -> Tensor:
    """Write torchvision's `affine` as matrices.

    Shape:
        degrees: (B,), clockwise.
        translate: (B, 2), pixels to the right and down; None is 0.
        scale: (B,), above 1 enlarges; None is 1.
        shear: (B, 2), degrees along x and along y; None is 0.
        returns: (B, 3, 3).
    """
    angle = torch.deg2rad(precise(degrees))
    real = angle.dtype
    matrix = torch.eye(3, dtype=real, device=degrees.device).repeat(len(degrees), 1, 1)
    # Forward: rotate, shear; its determinant is 1, so that the inverse needs no division.
    lean = torch.zeros(len(angle), 2, dtype=real, device=angle.device)
    if shear is not None:
        lean = torch.deg2rad(shear.to(real))
    tan_x, cos_y = lean[:, 0].tan(), lean[:, 1].cos()
    a = (angle - lean[:, 1]).cos() / cos_y
    b = -(a * tan_x + angle.sin())
    c = (angle - lean[:, 1]).sin() / cos_y
    d = angle.cos() - c * tan_x
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = d, -b, -c, a
    if scale is not None:
        matrix[:, :2, :2] /= scale.to(real)[:, None, None]
    if translate is not None:
        matrix[:, :2, 2:] = -matrix[:, :2, :2] @ translate.to(real)[:, :, None]
    return matrix


def rotate(x: Tensor, degrees: Tensor, interpolation: str = "bilinear") -> Tensor:
    """Turn each image (B, C, H, W) counter-clockwise about its center by its `degrees` (B,)."""
    return resample(x, affine_matrix(-degrees), interpolation)


def affine(
    x: Tensor,
    degrees: Tensor,
    translate: Tensor | None = None,
    scale: Tensor | None = None,
    shear: Tensor | None = None,
    interpolation: str = "bilinear",
) -> Tensor:
    """Shear, scale, turn clockwise and move each image; parameters as in `affine_matrix`."""
    return resample(x, affine_matrix(degrees, translate, scale, shear), interpolation)


def _check_interpolation(interpolation: str) -> None:
    if interpolation not in ("bilinear", "nearest"):
        raise ValueError(f"interpolation must be 'bilinear' or 'nearest', got {interpolation!r}")


class Resampled:
    """What affine augmentations share: a call reads images through the drawn `matrix(x)`."""

    interpolation: str

    def __call__(self, x: Tensor) -> Tensor:
        """Resample a batch."""
        return resample(to_float(x), self.matrix(x), self.interpolation)


@dataclass(frozen=True, kw_only=True)
class Rotation(Resampled):
    """Turn each image about its center by a random angle; black fills the corners.

    Equals torchvision's `rotate(fill=None)`. torchvision's `RandomRotation` differs: it reads the
    nearest pixel by default, and with bilinear reading its `fill=0` darkens the rim twice.

    Args:
        degrees: counter-clockwise (low, high); a number d means (-d, d).
        interpolation: "bilinear" or "nearest".
    """

    degrees: float | tuple[float, float]
    interpolation: str = "bilinear"

    def __post_init__(self):
        interval("degrees", self.degrees)
        _check_interpolation(self.interpolation)

    def matrix(self, x: Tensor) -> Tensor:
        """Draw what a call would: maps (B, 3, 3) from output to input pixels from the center."""
        return affine_matrix(-uniform(*interval("degrees", self.degrees), x))


@dataclass(frozen=True, kw_only=True)
class Affine(Resampled):
    """Turn, move, scale and shear each image at random, as torchvision's `RandomAffine`.

    Args:
        degrees: clockwise (low, high); a number d means (-d, d).
        translate: greatest shift along x and y, fractions 0-1 of width and height; shifts are
            rounded to whole pixels.
        scale: (low, high); None is 1.
        shear: degrees along x, (low, high) or a number d for (-d, d); four numbers are the low and
            high along x, then along y.
        interpolation: "bilinear" or "nearest" (torchvision's default).
    """

    degrees: float | tuple[float, float] = 0.0
    translate: tuple[float, float] | None = None
    scale: tuple[float, float] | None = None
    shear: float | tuple[float, ...] | None = None
    interpolation: str = "bilinear"

    def __post_init__(self):
        interval("degrees", self.degrees)
        _check_interpolation(self.interpolation)
        if self.translate is not None:
            check_numbers("translate", self.translate, 2, least=0, most=1)
        if self.scale is not None:
            check_numbers("scale", self.scale, 2)
            interval("scale", self.scale, least=math.ulp(0.0))
        self._shears()

    def _shears(self) -> tuple[tuple[float, float], tuple[float, float]]:
        shear = 0.0 if self.shear is None else self.shear
        if isinstance(shear, tuple | list) and len(shear) == 4:
            return interval("shear", tuple(shear[:2])), interval("shear", tuple(shear[2:]))
        return interval("shear", shear), (0.0, 0.0)

    def matrix(self, x: Tensor) -> Tensor:
        """Draw what a call would: maps (B, 3, 3) from output to input pixels from the center."""
        degrees = uniform(*interval("degrees", self.degrees), x)
        translate = scale = shear = None
        if self.translate is not None:
            across, down = self.translate[0] * x.shape[-1], self.translate[1] * x.shape[-2]
            moves = (uniform(-across, across, x), uniform(-down, down, x))
            translate = torch.stack(moves, 1).round_()
        if self.scale is not None:
            scale = uniform(*self.scale, x)
        if self.shear is not None:
            shear = torch.stack([uniform(*each, x) for each in self._shears()], 1)
        return affine_matrix(degrees, translate, scale, shear)
