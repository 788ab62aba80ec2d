"""Random batches in place of images: the cost of a training without its data."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from fastai.data.core import DataLoaders
from torch import Tensor


class Repeated:
    """A loader that repeats batches up to an epoch's length."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]], length: int, device: torch.device):
        self.dataset = batches
        self.length = length
        self.device = device

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return islice(cycle(self.dataset), self.length)

    def to(self, device: torch.device) -> None:
        """Do nothing: the batches are already on their device."""


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Data of a recipe without images: random batches on the device."""

    shape: tuple[int, int, int]  # (C, H, W)
    classes: int
    batch_size: int
    batches: int = 8  # different ones; these exceed a processor's cache
    length: int = 400  # batches in an epoch

    def __call__(self, device: torch.device | str | None = None) -> DataLoaders:
        """Draw the batches: pairs of (B, C, H, W) float32, channels-last, and (B,) int64."""
        device = torch.device(device or "cpu")
        generator = torch.Generator().manual_seed(0)
        drawn = []
        for _ in range(self.batches):
            x = torch.randn(self.batch_size, *self.shape, generator=generator)
            y = torch.randint(0, self.classes, (self.batch_size,), generator=generator)
            x = x.to(device).contiguous(memory_format=torch.channels_last)
            drawn.append((x, y.to(device)))
        loaders = [Repeated(drawn, self.length, device) for _ in range(2)]
        dls = DataLoaders(*loaders, device=device)
        dls.vocab = [str(number) for number in range(self.classes)]
        dls.image_shape = self.shape
        return dls
