"""Augmentation that depends on the epoch, told which one it is."""

from fastai.callback.core import Callback

from fastcv.augment.alternating import at_epoch
from fastcv.data.loader import AugmentBatch


class Alternation(Callback):
    """Set the epoch of the training images' augmentation, counted over all stages of a recipe.

    Changes nothing where no part of the augmentation depends on it.
    """

    order, run_valid = 56, False

    def before_train(self) -> None:
        """Tell the epoch, before its first batch is made."""
        epoch = len(self.learn.history.rows)
        transforms = getattr(self.learn.dls.train, "after_batch", None)
        for step in getattr(transforms, "fs", ()):
            if isinstance(step, AugmentBatch):
                step.plain = at_epoch(step.plain, epoch)
