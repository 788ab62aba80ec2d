"""The part of a batch that one of several ranks computes.

Random numbers are drawn for the whole batch, and each rank takes those of its own images: they are
the same for any number of ranks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastcv import ranks


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A rank's part of a batch.

    Attributes:
        places: (P,), int64, the images' places in the batch; the first `before` of them belong to
            other ranks, and only serve to be mixed with.
        count: images of the whole batch.
        own: images that count; 0 for a rank without any, which computes one all the same.
        before: how many images precede the rank's own.
    """

    places: Tensor
    count: int
    own: int
    before: int = 0

    def mixed(self) -> "Part":
        """Return the part without the images that precede its own."""
        return replace(self, places=self.places[self.before :], before=0)

    def of(self, drawn: Tensor, axis: int = 0) -> Tensor:
        """Return the part of something that was drawn for the whole batch, along `axis`."""
        return drawn.index_select(axis, self.places.to(drawn.device))


def part_of(count: int, *, before: int = 0, padded: bool = False) -> Part | None:
    """Return this rank's part of a batch of `count` images; None if it has no image.

    The first ranks take one image more where the number does not divide.

    Args:
        count: images of the batch.
        before: images to add before the rank's own; before the first comes the batch's last.
        padded: whether a rank without images computes one that does not count.
    """
    number, together = ranks.rank(), ranks.count()
    each, rest = divmod(count, together)
    first, own = number * each + min(number, rest), each + (number < rest)
    if not own and not padded:
        return None
    start = first if own else 0
    places = torch.arange(start - before, start + max(own, 1)) % count
    return Part(places=places, count=count, own=own, before=before)


_drawing: Part | None = None


@contextmanager
def drawing(part: Part | None) -> Iterator[None]:
    """Draw numbers for the whole batch within the block, and take those of a part."""
    global _drawing
    outer, _drawing = _drawing, part
    try:
        yield
    finally:
        _drawing = outer


def drawn_for() -> Part | None:
    """Return the part that numbers are drawn for; None: for the images at hand."""
    return _drawing
