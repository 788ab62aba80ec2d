"""The batches of a captured step: what is copied for each, and what the step does to it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastcv.data.loader import AugmentBatch, ImageDL

Raw = tuple[Tensor, ...]


class Feed:
    """Where batches come from, cut in two: what is copied for each, and what a graph does to it.

    Our own loaders give the graph the places of a batch's images, where these lie on the device,
    or else their bytes, and leave the rest to it. Any other loader, and augmentation that follows
    the epoch, gives batches as they are.

    Args:
        loader: of the training images.
        device: where the net is.

    Attributes:
        augments: whether the graph makes the batch, augmentation included.
    """

    def __init__(self, loader: Any, device: torch.device):
        # With its index, as tensors have it.
        self.loader, self.device = loader, torch.empty(0, device=device).device
        self.augments = (
            isinstance(loader, ImageDL)
            and loader.makes_plain_batches
            and not any(follows_epoch(value) for value in augmentations(loader))
        )
        self.gathers = self.augments and loader.decoded.images.device == self.device

    def __iter__(self) -> Iterator[Raw]:
        """Go through an epoch, in the loader's order and with its random numbers."""
        if not self.augments:
            for batch in self.loader:
                yield tuple(map(_plain, batch))
            return
        for places in self.loader.places():
            yield (places,) if self.gathers else self.loader.decoded.batch(places)

    def make(self, *raw: Tensor) -> tuple[Tensor, Tensor]:
        """Make the batch that the loader would have given."""
        if not self.augments:
            return raw
        x, y = self.loader.decoded.batch(*raw) if self.gathers else raw
        # Random numbers of augmentation are the device's.
        return self.loader.finished(x.to(self.device)), y.to(self.device)


def _plain(thing: Any) -> Any:
    return thing.as_subclass(Tensor) if isinstance(thing, Tensor) else thing


def augmentations(loader: Any) -> list[Callable]:
    """What a loader of ours does to plain training images; nothing, if it is another's."""
    steps = getattr(getattr(loader, "after_batch", None), "fs", ())
    return [step.plain for step in steps if isinstance(step, AugmentBatch)]


def follows_epoch(augmentation: Any) -> bool:
    """Whether it, or a part of it, is another one in another epoch."""
    parts = getattr(augmentation, "values", None)
    inner = parts if isinstance(parts, tuple) else ()
    return hasattr(augmentation, "at_epoch") or any(follows_epoch(each) for each in inner)


def is_raw(batch: tuple) -> bool:
    """Whether it is images and labels, or what they are made of: what a captured step can take."""
    return len(batch) in (1, 2) and all(isinstance(each, Tensor) for each in batch)
