"""Predictions from several views of an image: mirrored, and moved by a pixel."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class TTA:
    """Ways to look at an image at test time; the logits of all of them are averaged.

    Mirrored and not, each in place, moved up and left, and moved down and right. The views in
    place count as much as the moved ones together.

    Args:
        mirror: whether each view is seen mirrored as well.
        shift: pixels of the moves; what comes in from outside is the image's own mirrored border.
            0 leaves images in place.

    Source: Jordan 2024, arXiv:2404.00498.
    """

    mirror: bool = True
    shift: int = 1

    def __post_init__(self):
        if self.shift < 0:
            raise ValueError(f"shift must be at least 0 pixels, got {self.shift}")

    def __call__(self, net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Average what a net says of each view.

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


def accuracy(
    net: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], views: TTA
) -> float:
    """Fraction of the images whose likeliest class, over all views, is their label.

    Args:
        net: in evaluation mode.
        batches: of images (B, C, H, W) and class numbers (B,).
        views: what to average over.
    """
    right, count = 0, 0
    with torch.inference_mode():
        for x, y in batches:
            predicted = views(net, x.as_subclass(Tensor)).argmax(dim=1)
            right = right + (predicted == y.as_subclass(Tensor)).sum()
            count += len(y)
    return int(right) / count
