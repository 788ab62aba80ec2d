"""Test-time augmentation: predictions averaged over an image's views, mirrored and shifted."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from fastai.callback.core import Callback
from torch import Tensor
from torch.nn import functional as F

from fastcv import ranks
from fastcv.data.loader import shared
from fastcv.recipe.bounds import WIDEST, check_flags, check_whole


@dataclass(frozen=True, kw_only=True)
class TTA:
    """Measure the accuracy with test-time augmentation too, when a stage's last epoch is done.

    One of the `callbacks` of a stage. `predict` averages the logits of all views: the image and its
    mirror image, each in place, shifted up and left, and shifted down and right. The views in place
    weigh as much as the shifted ones together. A stage that stops early measures nothing.

    Args:
        mirror: whether each view is also seen mirrored.
        shift: pixels of the shifts; what comes in from outside is the image's own mirrored border.
            0 leaves images in place.

    Source: Jordan 2024, arXiv:2404.00498.
    """

    mirror: bool = True
    shift: int = 1

    def __post_init__(self):
        check_flags(self, "mirror")
        check_whole("shift", self.shift, most=WIDEST)

    def __call__(self) -> "MeasureTTA":
        """Build the callback."""
        return MeasureTTA(self)

    def predict(self, net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Average a net's logits over the views.

        Shape:
            x: (B, C, H, W), as the net takes them.
            returns: (B, classes) logits, float32.
        """
        logits = self._both(net, x)
        if not self.shift:
            return logits
        height, width = x.shape[-2:]
        padded = F.pad(x, (self.shift,) * 4, mode="reflect")
        for place in (0, 2 * self.shift):
            moved = padded[..., place : place + height, place : place + width]
            logits = logits + self._both(net, moved) / 2
        return logits / 2

    def _both(self, net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if x.is_cuda or x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        logits = net(x).float()
        return (logits + net(x.flip(-1)).float()) / 2 if self.mirror else logits


class MeasureTTA(Callback):
    """After the last epoch, measure the accuracy with test-time augmentation.

    It is measured on the images of the last loader: the test set, or the validation set where
    there is no other, and becomes "tta_accuracy" in the epoch's row.
    """

    order, run_valid = 54, True  # before History writes the row

    def __init__(self, tta: TTA):
        self.tta = tta

    def after_epoch(self) -> None:
        """Measure once, at the end."""
        learn = self.learn
        if learn.epoch + 1 < learn.n_epoch or learn.borrowed:
            return
        learn.model.eval()
        with learn.precision.scope(learn.dls.device):
            loader = learn.dls.loaders[-1]
            batches = shared(loader)
            if hasattr(learn, "epoch_lines"):
                batches = learn.epoch_lines.over(batches, "TTA", len(loader))
            ranks.copy_from(0, learn.model.buffers())
            measured = accuracy(learn.model, batches, self.tta)
        learn.history.also["tta_accuracy"] = measured


def accuracy(
    net: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], tta: TTA
) -> float:
    """Return the fraction of images whose most likely class, averaged over the views, is right.

    Args:
        net: in evaluation mode.
        batches: of images (B, C, H, W) and class numbers (B,); of several labels an image,
            (B, classes), all of which must be right at a probability of 0.5.
        tta: the views.
    """
    right, count = 0, 0
    with torch.inference_mode():
        for x, y in batches:
            logits, y = tta.predict(net, x.as_subclass(Tensor)), y.as_subclass(Tensor)
            hits = logits.argmax(dim=1) == y if y.ndim == 1 else ((logits > 0) == (y > 0)).all(1)
            right = right + hits.sum()
            count += len(y)
    found = ranks.gathered((int(right), count))
    return sum(each[0] for each in found) / sum(each[1] for each in found)
