"""A net from scratch whose first layer whitens the training images."""

from dataclasses import dataclass

import torch
from fastai.data.core import DataLoaders
from torch import Tensor

from fastcv import ranks
from fastcv.learning.learner import Learner
from fastcv.learning.models import FromScratch
from fastcv.learning.snapshot import snapshot_rng
from fastcv.recipe.bounds import check_whole


@dataclass(frozen=True, kw_only=True)
class Whitened(FromScratch):
    """A net with random weights whose first layer is set from some training images.

    Args:
        images: number of images; the first ones, neither shuffled nor augmented.
    """

    images: int = 5000

    def __post_init__(self):
        super().__post_init__()
        check_whole("images", self.images, least=1)

    def __call__(self, dls: DataLoaders, **learner_keywords) -> Learner:
        """Build the net as `FromScratch` does, and call its `whiten(images)`.

        Raises:
            ValueError: the net has no `whiten`, or what `FromScratch` raises.
        """
        learn = super().__call__(dls, **learner_keywords)
        if not hasattr(learn.model, "whiten"):
            raise ValueError(
                f"the net must have a method whiten(images), {self.net.__name__} has none: "
                "use FromScratch"
            )
        learn.model.whiten(first_images(dls, self.images))
        return learn


def first_images(dls: DataLoaders, count: int) -> Tensor:
    """Return the first training images as the net sees them, without augmentation.

    No random generator is advanced.

    Returns:
        (N, C, H, W), float, on the device of `dls`; N is `count` or all there are.
    """
    found: list[Tensor] = []
    with snapshot_rng(dls), dls.train.dataset.set_split_idx(1), ranks.alone():
        for batch in dls.train.new(shuffle=False, drop_last=False):
            found.append(batch[0].as_subclass(Tensor))
            if sum(map(len, found)) >= count:
                break
    return torch.cat(found)[:count]
