"""Augmentation that depends on the epoch."""

from fastai.callback.core import Callback

from fastcv.augment.alternating import at_epoch
from fastcv.data.loader import AugmentBatch


class Alternation(Callback):
    """Set the epoch, counted over all stages, of the training images' augmentation.

    Augmentation that does not depend on the epoch stays as it is.
    """

    order, run_valid = 56, False

    def before_train(self) -> None:
        """Set the epoch before its first batch is made."""
        epoch = len(self.learn.history.rows)
        transforms = getattr(self.learn.dls.train, "after_batch", None)
        for step in getattr(transforms, "fs", ()):
            if isinstance(step, AugmentBatch):
                step.plain = at_epoch(step.plain, epoch)
