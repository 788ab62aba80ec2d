"""The batches of a captured step: what is copied for each, and what the graph makes of it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastcv.data.loader import AugmentBatch, ImageDL
from fastcv.learning.learner import plain

Raw = tuple[Tensor, ...]


class Feed:
    """The batches for a net on `device`: what is copied for each, what the graph makes of it.

    fastcv's own loaders pass the graph the indices of a batch's images if these lie on the device,
    or else their bytes, and the graph decodes and augments them. Other loaders, and augmentation
    that depends on the epoch, pass finished batches.

    Attributes:
        augments: whether the graph makes and augments the batch.
        gathers: whether the graph gets indices of images.
    """

    def __init__(self, loader: Any, device: torch.device):
        # Through a tensor, so that the device has its index.
        self.loader, self.device = loader, torch.empty(0, device=device).device
        self.augments = (
            isinstance(loader, ImageDL)
            and loader.makes_plain_batches
            and not any(follows_epoch(value) for value in augmentations(loader))
        )
        self.gathers = self.augments and loader.decoded.images.device == self.device

    def __iter__(self) -> Iterator[Raw]:
        """Iterate over an epoch in the loader's order, with its random numbers."""
        if not self.augments:
            for batch in self.loader:
                yield tuple(map(plain, batch))
            return
        for places in self.loader.places():
            yield (places,) if self.gathers else self.loader.decoded.batch(places)

    def make(self, *raw: Tensor) -> tuple[Tensor, Tensor]:
        """Make the batch that the loader would have made."""
        if not self.augments:
            return raw
        x, y = self.loader.decoded.batch(*raw) if self.gathers else raw
        # Augmentation draws from the device's generator.
        return self.loader.finished(x.to(self.device)), y.to(self.device)


def augmentations(loader: Any) -> list[Callable]:
    """Return the augmentations of a fastcv loader; none for other loaders."""
    steps = getattr(getattr(loader, "after_batch", None), "fs", ())
    return [step.plain for step in steps if isinstance(step, AugmentBatch)]


def follows_epoch(augmentation: Any) -> bool:
    """Return whether the augmentation, or a part of it, depends on the epoch."""
    parts = getattr(augmentation, "values", None)
    inner = parts if isinstance(parts, tuple) else ()
    return hasattr(augmentation, "at_epoch") or any(follows_epoch(each) for each in inner)


def is_raw(batch: tuple) -> bool:
    """Return whether a captured step can take the batch: one or two tensors."""
    return len(batch) in (1, 2) and all(isinstance(each, Tensor) for each in batch)
