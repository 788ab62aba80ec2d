"""Crops: exact pixel moves, on bytes as well as on floats."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcv.augment.draws import integers, pair
from fastcv.augment.pixels import memory_format
from fastcv.recipe.bounds import WIDEST, check_whole


def pad(x: Tensor, padding: int, mode: str = "zeros") -> Tensor:
    """Surround images with `padding` pixels, black or mirrored at the border.

    Shape:
        x: (B, C, H, W), uint8 or float; "reflect" needs H and W above `padding`.
        returns: (B, C, H + 2 * padding, W + 2 * padding), the memory format of `x`.
    """
    if padding == 0:
        return x
    if mode == "zeros":
        return F.pad(x, (padding,) * 4)
    # torch's own reflection refuses bytes.
    for axis in (-2, -1):
        length = x.shape[axis]
        if length <= padding:
            raise ValueError(
                f"padding must be below the image's {length} pixels to reflect it, got {padding}: "
                "lower it, or use padding_mode='zeros'"
            )
        before = x.narrow(axis, 1, padding).flip(axis)
        after = x.narrow(axis, length - padding - 1, padding).flip(axis)
        x = torch.cat((before, x, after), axis)
    return x


def crop(x: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut a different window out of each image.

    Shape:
        x: (B, C, H, W), any type.
        top, left: (B,), int64, first row and column of each window, which lies inside its image.
        size: (height, width) of all windows, pixels.
        returns: (B, C, height, width), the memory format of `x`.
    """
    last = memory_format(x) == torch.channels_last
    windows = x.unfold(2, size[0], 1).unfold(3, size[1], 1)  # (B, C, tops, lefts, height, width)
    # Axes in the order of memory: each window is then copied in runs of whole rows.
    windows = windows.permute((0, 2, 3, 4, 5, 1) if last else (0, 2, 3, 1, 4, 5))
    batch = torch.arange(len(x), device=x.device)
    if x.device.type == "cpu" and x.dtype != torch.bfloat16:
        # With one core, numpy copies these runs in half the time of torch's indexing.
        cut = torch.from_numpy(windows.numpy()[batch.numpy(), top.numpy(), left.numpy()])
    else:
        cut = windows[batch, top, left]
    return cut.permute(0, 3, 1, 2) if last else cut


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """Pad images, then cut a window out of each at a random place.

    Args:
        padding: pixels added on every side.
        size: of the window, pixels: a number or (height, width); None is the size before padding.
        padding_mode: "zeros" (black) or "reflect" (mirrored without repeating the border).

    Raises:
        ValueError: the window is larger than the padded image.
    """

    padding: int = 4
    size: int | tuple[int, int] | None = None
    padding_mode: str = "zeros"

    moves_pixels: ClassVar[bool] = True

    def __post_init__(self):
        check_whole("padding", self.padding, most=WIDEST)
        if self.padding_mode not in ("zeros", "reflect"):
            raise ValueError(
                f"padding_mode must be 'zeros' or 'reflect', got {self.padding_mode!r}"
            )
        if self.size is not None:
            pair("size", self.size)

    def __call__(self, x: Tensor) -> Tensor:
        """Crop a batch."""
        top, left, size = self._draw(x)
        return crop(pad(x, self.padding, self.padding_mode), top, left, size)

    @property
    def mergeable(self) -> bool:
        """Whether this crop is a translation over black, which can merge with a resampling."""
        return self.size is None and self.padding_mode == "zeros"

    def matrix(self, x: Tensor) -> Tensor:
        """Draw what a call would: maps (B, 3, 3) from output to input pixels from the center."""
        top, left, _ = self._draw(x)
        matrix = torch.eye(3, device=x.device).repeat(len(x), 1, 1)
        matrix[:, 0, 2] = left - self.padding
        matrix[:, 1, 2] = top - self.padding
        return matrix

    def _draw(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return the windows' first rows and columns, each (B,), and their size."""
        size = (x.shape[-2], x.shape[-1]) if self.size is None else pair("size", self.size)
        spare = [x.shape[axis - 2] + 2 * self.padding - size[axis] for axis in (0, 1)]
        if min(spare) < 0:
            raise ValueError(
                f"size must fit into the padded image of {x.shape[-2]} x {x.shape[-1]} pixels "
                f"and {self.padding} on each side, got {size[0]} x {size[1]}: lower size, or raise "
                "padding"
            )
        return integers(spare[0] + 1, x), integers(spare[1] + 1, x), size


@dataclass(frozen=True, kw_only=True)
class CenterCrop:
    """Cut the center out of each image; black surrounds an image that is smaller.

    Equals torchvision's `center_crop`, pixel by pixel.

    Args:
        size: of the result, pixels: a number or (height, width).
    """

    size: int | tuple[int, int]

    moves_pixels: ClassVar[bool] = True

    def __post_init__(self):
        pair("size", self.size)

    def __call__(self, x: Tensor) -> Tensor:
        """Crop a batch."""
        height, width = pair("size", self.size)
        if x.shape[-2:] == (height, width):
            return x
        layout = memory_format(x)
        rows, columns = max(height - x.shape[-2], 0), max(width - x.shape[-1], 0)
        if rows or columns:
            x = F.pad(x, (columns // 2, (columns + 1) // 2, rows // 2, (rows + 1) // 2))
        top = round((x.shape[-2] - height) / 2)
        left = round((x.shape[-1] - width) / 2)
        return x[..., top : top + height, left : left + width].contiguous(memory_format=layout)
