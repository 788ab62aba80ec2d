"""Mirror every image in every other epoch."""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastcv.augment.flip import flip_horizontally
from fastcv.recipe.bounds import check_whole

# Odd numbers with no pattern in their bits, as hashes mix with: 2^64 / golden ratio, and one more.
_MIXERS = (-0x61C8864680B583EB, -0x3B314601E57A13AD)


@dataclass(frozen=True, kw_only=True)
class AlternatingFlip:
    """Mirror a random half of the images left to right, and the other half in the next epoch.

    Two successive epochs show every image in both orientations, whereas independent draws show half
    of the images twice in the same one. The pixels of an image decide which half it belongs to, so
    that it is the same in every epoch and order. They must not change before, so this comes first
    in `augment`.

    The epoch is part of the value: `at_epoch` returns the value of another epoch, and the Learner
    calls it before each epoch.

    Args:
        seed: decides the halves.
        epoch: counted from 0.

    Source: Jordan 2024, arXiv:2404.00498.
    """

    seed: int = 0
    epoch: int = 0

    moves_pixels: ClassVar[bool] = True

    def __post_init__(self):
        check_whole("seed", self.seed)
        check_whole("epoch", self.epoch)

    def __call__(self, x: Tensor) -> Tensor:
        """Mirror half of a batch."""
        return flip_horizontally(x, self.mirrored(x))

    def mirrored(self, x: Tensor, epoch: Tensor | None = None) -> Tensor:
        """Return whether each image is mirrored in this epoch, or in `epoch`: (B,), bool."""
        # Bytes and their fractions must agree.
        pixels = x.mul(255).round() if x.is_floating_point() else x
        bits = pixels.sum((1, 2, 3), dtype=torch.int64) + _wrapped(self.seed * 1_000_003)
        for mixer in _MIXERS:  # integers overflow, as in any hash
            bits = bits * mixer
            bits = bits ^ (bits >> 32)
        return (bits + (self.epoch if epoch is None else epoch)) % 2 == 1

    def at_epoch(self, epoch: int) -> "AlternatingFlip":
        """Return the value for another epoch."""
        return replace(self, epoch=epoch)

    def reading(self, epoch: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function that reads the epoch from a tensor, int64, at every call.

        A captured graph repeats it, and `epoch` changes between two replays.
        """
        return lambda x: flip_horizontally(x, self.mirrored(x, epoch))


def _wrapped(number: int) -> int:
    """Return what is left of a whole number in 64 bits, with a sign."""
    return (number + 2**63) % 2**64 - 2**63


def at_epoch(augmentation: Callable, epoch: int | Tensor) -> Callable:
    """Return `augmentation`, one or a composition, with all that has an epoch set to `epoch`.

    Of a tensor, they read it at every call, as far as they have a method `reading`.
    """
    if isinstance(epoch, Tensor) and hasattr(augmentation, "reading"):
        return augmentation.reading(epoch)
    if hasattr(augmentation, "at_epoch"):
        return augmentation.at_epoch(epoch)
    parts: Any = getattr(augmentation, "values", None)
    if not is_dataclass(augmentation) or not isinstance(parts, tuple):
        return augmentation
    return replace(augmentation, values=tuple(at_epoch(each, epoch) for each in parts))
