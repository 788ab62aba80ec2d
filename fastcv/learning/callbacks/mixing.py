"""MixUp and CutMix in a training: images and labels of a batch mixed with one another."""

from collections.abc import Callable, Sequence

from fastai.callback.core import Callback
from torch import Tensor


class Mixing(Callback):
    """Mix the training batches; the loss then gets a probability for each class as its target.

    Args:
        values: MixUp and CutMix values of `fastcv.augment`, applied in turn.
        classes: their number.
    """

    order = 9  # before `Precision` lays the images out
    run_valid = False

    def __init__(self, values: Sequence[Callable], classes: int):
        self.values, self.classes = tuple(values), classes

    def before_batch(self) -> None:
        """Mix this batch; the LR finder sees mixed batches as well."""
        x, y = self.mixed(self.learn.xb[0], self.learn.yb[0])
        self.learn.xb, self.learn.yb = (x, *self.learn.xb[1:]), (y,)

    def mixed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mix images, and class numbers into a probability for each class."""
        for value in self.values:
            x, y = value(x, y, classes=self.classes)
        return x, y
