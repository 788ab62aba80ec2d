"""Apply MixUp and CutMix: mix images and labels within a batch."""

from collections.abc import Callable, Sequence

from fastai.callback.core import Callback
from torch import Tensor


class Mixing(Callback):
    """Mix the training batches; their targets become a probability for each class.

    Args:
        values: MixUp and CutMix values of `fastcv.augment`, applied in turn.
        classes: number of classes.
    """

    order = 9  # before `Precision` lays the images out
    run_valid = False

    def __init__(self, values: Sequence[Callable], classes: int):
        self.values, self.classes = tuple(values), classes

    def before_batch(self) -> None:
        """Mix this batch; the LR finder, too, trains on mixed batches."""
        x, y = self.mixed(self.learn.xb[0], self.learn.yb[0])
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
