"""Loss functions as values, and the losses they build."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fastai.data.core import DataLoaders
from torch import Tensor, nn

from fastcv.recipe.bounds import check_number, check_numbers, shown

BALANCED = "balanced"


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """torch's cross-entropy with the methods that fastai expects of a loss.

    Class weights count in training mode only, so that the loss of validation images stays
    comparable; fastcv's Learner switches the mode as it does the net's. The weighted mean divides
    by the number of images, for class numbers as for probabilities, where torch divides by the sum
    of the weights for class numbers: batches of any size, mixed or not, then have the same gradient
    on average.

    Shape:
        logits: (B, classes), any float type; computed in float32.
        targets: (B,) class numbers, or (B, classes) probabilities.
        returns: scalar, the mean over the batch (or (B,) while `reduction` is "none").
    """

    y_int = True  # fastai's MixUp and CutMix then mix losses, as class numbers cannot be mixed

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss from plain tensors, as subclasses cost time."""
        weights = self.weight if self.training else None
        losses = nn.functional.cross_entropy(
            logits.as_subclass(Tensor).float(),
            torch.as_tensor(targets).as_subclass(Tensor),
            weights,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction if weights is None else "none",
        )
        return losses if weights is None or self.reduction == "none" else losses.mean()

    def activation(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes, (B, classes)."""
        return logits.float().softmax(dim=-1)

    def decodes(self, scores: Tensor) -> Tensor:
        """Return the most likely class, (B,)."""
        return scores.argmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross-entropy of logits against class numbers or soft targets.

    Args:
        label_smoothing: fraction of each target that is distributed evenly over all classes.
        weights: what each class counts in training: "balanced" is images / (classes * images of the
            class), as in scikit-learn, of the training images; or a number for each class, in the
            order of their names. None: 1. As in torch, the weight of a class multiplies its term of
            smoothed and mixed targets too. The validation loss is not weighted.

    Raises:
        ValueError: `weights` is another word, empty, or holds something else than numbers of 0 or
            more.
    """

    label_smoothing: float = 0.0
    weights: str | tuple[float, ...] | None = None

    def __post_init__(self):
        check_number("label_smoothing", self.label_smoothing, least=0, most=1)
        if self.weights is None or self.weights == BALANCED:
            return
        if not isinstance(self.weights, tuple | list) or not self.weights:
            raise ValueError(
                f"weights must be {BALANCED!r} or a number of 0 or more for each class, got "
                f"{shown(self.weights)}"
            )
        check_numbers("weights", self.weights, len(self.weights), least=0)

    @property
    def needs_counts(self) -> bool:
        """Whether it must be called with the training images of each class."""
        return self.weights is not None

    def __call__(self, counts: Sequence[int] | None = None) -> CrossEntropyLoss:
        """Build the loss.

        Args:
            counts: training images of each class; needed if there are weights.

        Raises:
            ValueError: there are weights for another number of classes, or no `counts`.
        """
        weights = None
        if self.weights is not None:
            if counts is None:
                raise ValueError(
                    f"a loss with weights={self.weights!r} must be called with the number of "
                    "training images of each class, got none: call it with counts=(...)"
                )
            balanced = self.weights == BALANCED
            weights = balanced_weights(counts) if balanced else torch.tensor(self.weights)
            if len(weights) != len(counts):
                raise ValueError(
                    f"weights must have one number for each of {len(counts)} classes, got "
                    f"{len(weights)}"
                )
        return CrossEntropyLoss(
            weight=None if weights is None else weights.float(),
            label_smoothing=self.label_smoothing,
        )


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """Return images / (classes * images of the class) for each class, float64.

    The mean over all images is 1. Source: scikit-learn's `compute_class_weight`.

    Raises:
        ValueError: a class has no images.
    """
    images = torch.as_tensor(counts, dtype=torch.float64)
    if not images.all():
        raise ValueError(
            f"balanced weights need training images of every class, got none of class number "
            f"{int((images == 0).nonzero()[0])}: add some, or list the weights"
        )
    return images.sum() / (len(images) * images)


def build(loss: Callable[..., Any], dls: DataLoaders) -> Any:
    """Build a recipe's loss for its data; a value that `needs_counts` is called with them."""
    if not getattr(loss, "needs_counts", False):
        return loss()
    return loss(counts=class_counts(dls)).to(dls.device)


def class_counts(dls: DataLoaders) -> list[int]:
    """Count the training images of each class, without reading an image.

    Raises:
        ValueError: the loaders are not fastai's, made of inputs and categories.
    """
    labels = _labels(dls)
    if labels is None:
        raise ValueError(
            "class weights must know the labels of the training images, but the loaders are not "
            "made by Images or a DataBlock: leave weights out, or write a loss of your own"
        )
    return torch.bincount(labels, minlength=len(dls.vocab)).tolist()


def _labels(dls: DataLoaders) -> Tensor | None:
    decoded = getattr(dls.train, "decoded", None)
    if decoded is not None:
        return decoded.labels
    parts = getattr(dls.train.dataset, "tls", ())
    return torch.tensor([int(label) for label in parts[-1]]) if len(parts) > 1 else None
