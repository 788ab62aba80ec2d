"""Random batches in place of images: the cost of a training without its data."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from fastai.data.core import DataLoaders
from torch import Tensor


def synthetic_batches(
    shape: tuple[int, int, int],
    batch_size: int,
    classes: int,
    device: torch.device,
    count: int = 8,
) -> list[tuple[Tensor, Tensor]]:
    """Draw batches on the device, enough to exceed a processor's cache.

    Shape:
        shape: (C, H, W).
        returns: `count` pairs of (B, C, H, W) float32, channels-last, and (B,) int64.
    """
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        x = torch.randn(batch_size, *shape, generator=generator)
        y = torch.randint(0, classes, (batch_size,), generator=generator)
        x = x.to(device).contiguous(memory_format=torch.channels_last)
        batches.append((x, y.to(device)))
    return batches


class Repeated:
    """A loader that repeats batches up to an epoch's length."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]], length: int, device: torch.device):
        self.dataset = batches
        self.length = length
        self.device = device

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(self.length):
            yield self.dataset[number % len(self.dataset)]

    def to(self, device: torch.device) -> None:
        """Do nothing: the batches are already on their device."""


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Data of a recipe without images: random batches on the device.

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes.
        batch_size: images in a batch.
        batches: number of different batches.
        length: batches in an epoch.
    """

    shape: tuple[int, int, int]
    classes: int
    batch_size: int
    batches: int = 8
    length: int = 400

    def __call__(self, device: torch.device | str | None = None) -> DataLoaders:
        """Draw the batches."""
        device = torch.device(device or "cpu")
        drawn = synthetic_batches(self.shape, self.batch_size, self.classes, device, self.batches)
        loaders = [Repeated(drawn, self.length, device) for _ in range(2)]
        dls = DataLoaders(*loaders, device=device)
        dls.vocab = [str(number) for number in range(self.classes)]
        dls.image_shape = self.shape
        return dls
