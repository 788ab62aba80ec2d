"""Augmentation within a batch, as MixUp and CutMix, and augmentation that depends on the epoch."""

from collections.abc import Callable, Sequence

from fastai.callback.core import Callback
from torch import Tensor

from fastcv import ranks
from fastcv.augment.alternating import at_epoch
from fastcv.augment.part import drawing
from fastcv.data.loader import AugmentBatch, draws_for_part


class Mixing(Callback):
    """Mix the training batches by values of `fastcv.augment` in turn: MixUp, CutMix."""

    order = 9  # before `Precision` lays the images out
    run_valid = False

    def __init__(self, values: Sequence[Callable], classes: int):
        self.values, self.classes = tuple(values), classes

    def before_train(self) -> None:
        """Let a rank get the images that precede its own, as each is mixed with the previous one.

        Raises:
            ValueError: a value of one's own mixes, whose partners are not known.
        """
        if ranks.count() == 1:
            return
        if foreign := [each for each in self.values if not draws_for_part(each)]:
            raise ValueError(
                "on several ranks, batches can be mixed by MixUp and CutMix of fastcv.augment, got "
                f"{foreign[0]}: train with one process, or leave it out"
            )
        self.learn.dl.before = len(self.values)

    def after_train(self) -> None:
        """Leave the loader as it was."""
        if ranks.count() > 1:
            self.learn.dl.before = 0

    def before_batch(self) -> None:
        """Mix this batch; the LR finder, too, trains on mixed batches."""
        part = self.learn.dl.part if ranks.count() > 1 else None
        with drawing(part):
            x, y = self.mixed(self.learn.xb[0], self.learn.yb[0])
        if part is not None:
            x, y = x[part.before :], y[part.before :]
        self.learn.xb, self.learn.yb = (x, *self.learn.xb[1:]), (y,)

    def mixed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mix images and labels.

        Shape:
            x: (B, C, H, W).
            y: (B,) class numbers.
            returns: images like `x`, and (B, classes) probabilities.
        """
        for value in self.values:
            x, y = value(x, y, classes=self.classes)
        return x, y


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
