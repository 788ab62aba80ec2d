"""The batches of a captured step: what is copied for each, and what the graph makes of it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastcv.augment.alternating import at_epoch
from fastcv.data.loader import AugmentBatch, ImageDL
from fastcv.learning.learner import plain

Raw = tuple[Tensor, ...]


class Feed:
    """The batches for a net on `device`: what is copied for each, what the graph makes of it.

    fastcv's own loaders pass the graph the indices of a batch's images if these lie on the device,
    or else their bytes, and the graph decodes and augments them. Other loaders, and augmentation
    that depends on the epoch and cannot read it from a tensor, pass finished batches.

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
            and len(self._epochs()) <= 1
        )
        self.gathers = self.augments and loader.decoded.images.device == self.device
        self._epoch: Tensor | None = None
        if self.augments and self._epochs():
            self._epoch = torch.zeros((), dtype=torch.int64, device=self.device)

    def __iter__(self) -> Iterator[Raw]:
        """Iterate over an epoch in the loader's order, with its random numbers."""
        if not self.augments:
            for batch in self.loader:
                yield tuple(map(plain, batch))
            return
        for epoch in self._epochs() if self._epoch is not None else ():
            self._epoch.fill_(epoch)
        for places in self.loader.places():
            yield (places,) if self.gathers else self.loader.gathered(places)

    def make(self, *raw: Tensor) -> tuple[Tensor, Tensor]:
        """Make the batch that the loader would have made."""
        if not self.augments:
            return raw
        x, y = self.loader.decoded.batch(*raw) if self.gathers else raw
        # Augmentation draws from the device's generator.
        return self.loader.finished(x.to(self.device), self._epoch), y.to(self.device)

    def steps(self) -> list[Any]:
        """Return what the graph does to the images: transforms, and augmentation at epoch 0."""
        if not self.augments:
            return []
        steps = self.loader.after_batch.fs
        return [
            at_epoch(step.plain, 0) if isinstance(step, AugmentBatch) else step for step in steps
        ]

    def captured_tensors(self) -> list[Tensor]:
        """Return the tensors of the loader that the graph reads."""
        decoded = self.loader.decoded if self.gathers else None
        return [] if decoded is None else [decoded.images, decoded.rows, decoded.labels]

    def _epochs(self) -> set[int]:
        """Return the epochs that are set in the augmentations that read theirs from a tensor."""
        parts = [part for value in augmentations(self.loader) for part in _parts(value)]
        return {part.epoch for part in parts if hasattr(part, "reading")}


def augmentations(loader: Any) -> list[Callable]:
    """Return the augmentations of a fastcv loader; none for other loaders."""
    steps = getattr(getattr(loader, "after_batch", None), "fs", ())
    return [step.plain for step in steps if isinstance(step, AugmentBatch)]


def follows_epoch(augmentation: Any) -> bool:
    """Return whether the augmentation, or a part of it, depends on the epoch in Python."""
    parts = _parts(augmentation)
    return any(hasattr(part, "at_epoch") and not hasattr(part, "reading") for part in parts)


def _parts(augmentation: Any) -> Iterator[Any]:
    """Go through an augmentation and all that it is composed of."""
    yield augmentation
    values = getattr(augmentation, "values", None)
    for each in values if isinstance(values, tuple) else ():
        yield from _parts(each)


def is_raw(batch: tuple) -> bool:
    """Return whether a captured step can take the batch: one or two tensors."""
    return len(batch) in (1, 2) and all(isinstance(each, Tensor) for each in batch)
