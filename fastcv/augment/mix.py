"""Mix images with one another, and their labels with them.

Both values are called as `value(x, y, classes=...)` and return `(x, target)`. The target is a
probability for each class. torch's cross-entropy takes it as it is, with label smoothing too, and
equals the weighted mean of the two labels' losses. Targets can be mixed again, so that MixUp and
CutMix may follow each other; `classes` is needed only for class numbers.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastcv.augment.draws import beta, integers, per_image
from fastcv.augment.erase import rectangles
from fastcv.augment.pixels import to_float
from fastcv.recipe.bounds import check_number


def soft_targets(y: Tensor, classes: int | None) -> Tensor:
    """Turn class numbers (B,) into probabilities (B, classes), float32; return those unchanged.

    Raises:
        ValueError: `y` holds class numbers and `classes` is None.
    """
    if y.ndim == 2:
        return y
    if classes is None:
        raise ValueError("classes must be an integer to mix class numbers, got None: pass it")
    # Not one_hot: it reads the values, and so waits for a GPU.
    target = torch.zeros(len(y), classes, device=y.device)
    return target.scatter_(1, y[:, None].long(), 1.0)


def mix_targets(target: Tensor, weight: Tensor) -> Tensor:
    """Blend each image's probabilities (B, classes), weighted (B,), 0-1, with the previous ones."""
    return torch.lerp(target.roll(1, 0), target, weight[:, None].to(target.dtype))


def mix_images(x: Tensor, weight: Tensor) -> Tensor:
    """Blend each image (B, C, H, W), weighted (B,), 0-1, with the previous one."""
    return torch.lerp(x.roll(1, 0), x, per_image(weight).to(x.dtype))


def paste(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor
) -> tuple[Tensor, Tensor]:
    """Fill each image's rectangle from the previous image.

    Shape:
        x: (B, C, H, W).
        top, left, height, width: (B,), pixels, of rectangles inside the images.
        returns: (B, C, H, W), and the fraction (B,) of each image that is left.
    """
    rows, columns = x.shape[-2:]
    mask = rectangles(top, left, height, width, (rows, columns))
    return torch.where(mask, x.roll(1, 0), x), 1 - height * width / (rows * columns)


@dataclass(frozen=True, kw_only=True)
class _Mixing:
    alpha: float

    changes_labels: ClassVar[bool] = True

    def __post_init__(self):
        check_number("alpha", self.alpha, above=0)

    def __call__(self, x: Tensor, y: Tensor, classes: int | None = None) -> tuple[Tensor, Tensor]:
        """Mix images (B, C, H, W) and their labels, (B,) numbers or (B, classes) probabilities."""
        target = soft_targets(y, classes)
        x, weight = self._mixed(x, beta(self.alpha, x))
        return x, mix_targets(target, weight)


@dataclass(frozen=True, kw_only=True)
class MixUp(_Mixing):
    """Blend each image of a shuffled batch with the previous one, in a random proportion.

    Args:
        alpha: of Beta(alpha, alpha), from which the weight of each image is drawn.

    Source: Zhang et al. 2018, arXiv:1710.09412.
    """

    alpha: float = 0.2

    def _mixed(self, x: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        return mix_images(to_float(x), drawn), drawn


@dataclass(frozen=True, kw_only=True)
class CutMix(_Mixing):
    """Paste a rectangle of the previous image of a shuffled batch into each.

    Args:
        alpha: of Beta(alpha, alpha), from which the fraction of each image that is left is drawn,
            before its rectangle is cut off at the border.

    Source: Yun et al. 2019, arXiv:1905.04899.
    """

    alpha: float = 1.0

    def _mixed(self, x: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = x.shape[-2:]
        half = (1 - drawn).sqrt_() / 2
        row, column = integers(rows, x), integers(columns, x)
        reach_down, reach_across = (half * rows).long(), (half * columns).long()
        top, bottom = (row - reach_down).clamp(min=0), (row + reach_down).clamp(max=rows)
        left = (column - reach_across).clamp(min=0)
        right = (column + reach_across).clamp(max=columns)
        return paste(x, top, left, bottom - top, right - left)
