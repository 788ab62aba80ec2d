"""Bytes to floats, and normalization, both in the batch's memory format."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fastcv.recipe.bounds import check_numbers, shown


def memory_format(x: Tensor) -> torch.memory_format:
    """Return the format to keep: channels-last if `x` has that one alone."""
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def to_float(x: Tensor) -> Tensor:
    """Turn bytes into float32 in 0-1; return floats unchanged."""
    return x if x.is_floating_point() else x.to(torch.float32).div_(255)


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """Subtract each channel's mean and divide by its standard deviation.

    Bytes are scaled, shifted and converted in one step, within 1e-6 of doing so one by one.

    Args:
        mean: of each channel, pixels in 0-1; a single number serves any number of channels.
        std: of each channel, pixels in 0-1; as many as `mean`.

    Shape:
        x: (B, C, H, W), uint8, or float in 0-1.
        returns: (B, C, H, W), float32, the memory format of `x`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list):
                raise ValueError(f"{name} must be a number for each channel, got {shown(value)}")
            check_numbers(name, value, len(value))
        if len(self.mean) != len(self.std) or not all(each > 0 for each in self.std):
            raise ValueError(
                f"mean and std must be equally long and std above 0, got {self.mean} and {self.std}"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Normalize a batch."""
        batch, channels, height, width = x.shape
        if len(self.mean) not in (1, channels):
            raise ValueError(
                f"mean and std must have one number or one for each of the {channels} channels, "
                f"got {len(self.mean)}"
            )
        unit = 1.0 if x.is_floating_point() else 255.0
        last = memory_format(x) == torch.channels_last
        columns = width if last else 0
        scale, shift = _scale_and_shift(self.mean, self.std, channels, unit, columns, x.device)
        if last:
            # Rows of pixels against a row of constants: inner loops of W * C steps instead of C.
            rows = x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
            y = rows.to(torch.float32, copy=True).mul_(scale).add_(shift)
            return y.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return x.to(torch.float32, copy=True).mul_(scale).add_(shift)


@lru_cache(maxsize=64)
def _scale_and_shift(
    mean: tuple[float, ...],
    std: tuple[float, ...],
    channels: int,
    unit: float,
    columns: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return constants kept on the device: copying them for each batch would wait for a GPU."""
    means = torch.tensor(mean, dtype=torch.float64).expand(channels)
    stds = torch.tensor(std, dtype=torch.float64).expand(channels)
    scale, shift = (
        constant.repeat(columns) if columns else constant.view(-1, 1, 1)
        for constant in (1 / (stds * unit), -means / stds)
    )
    return scale.to(device, torch.float32), shift.to(device, torch.float32)
