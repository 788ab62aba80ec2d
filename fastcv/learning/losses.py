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
        _check_weights(self.weights)

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


class BinaryCrossEntropyLoss(nn.Module):
    """torch's binary cross-entropy of logits with the methods that fastai expects of a loss.

    Weights count in training mode only, as those of `CrossEntropyLoss`.

    Args:
        weight: (labels,), what an image that has a label counts, where one without counts 1; None
            for 1.

    Shape:
        logits: (B, labels), any float type; computed in float32.
        targets: (B, labels), 1 where an image has a label; fractions of mixed images.
        returns: scalar, the mean over labels and batch (or (B,) while `reduction` is "none").
    """

    def __init__(self, weight: Tensor | None = None):
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.reduction = "mean"

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss from plain tensors."""
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits.as_subclass(Tensor).float(),
            torch.as_tensor(targets).as_subclass(Tensor).float(),
            pos_weight=self.weight if self.training else None,
            reduction="none",
        )
        return losses.mean(dim=1) if self.reduction == "none" else losses.mean()

    def activation(self, logits: Tensor) -> Tensor:
        """Return the probability of each label, (B, labels)."""
        return logits.float().sigmoid()

    def decodes(self, scores: Tensor) -> Tensor:
        """Return whether each label is likely, (B, labels)."""
        return scores > 0.5


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """Binary cross-entropy of each label, for images with several labels or none.

    Args:
        weights: what an image that has a label counts in training, where one without counts 1:
            "balanced" is images without it / images with it, of the training images, so that both
            weigh the same; or a number for each label, in the order of their names. None: 1. The
            validation loss is not weighted.

    Raises:
        ValueError: `weights` is another word, empty, or holds something else than numbers of 0 or
            more.
    """

    weights: str | tuple[float, ...] | None = None

    def __post_init__(self):
        _check_weights(self.weights)

    @property
    def needs_counts(self) -> bool:
        """Whether it must be called with the training images of each label."""
        return self.weights is not None

    def __call__(
        self, counts: Sequence[int] | None = None, images: int | None = None
    ) -> BinaryCrossEntropyLoss:
        """Build the loss.

        Args:
            counts: training images of each label; needed if there are weights.
            images: of all; needed if they are balanced.

        Raises:
            ValueError: there are weights for another number of labels, or no `counts`.
        """
        if self.weights is None:
            return BinaryCrossEntropyLoss()
        if counts is None or (self.weights == BALANCED and images is None):
            raise ValueError(
                f"a loss with weights={self.weights!r} must be called with the number of training "
                "images and of those of each label: call it with counts=(...), images=..."
            )
        if self.weights == BALANCED:
            with_it = torch.as_tensor(counts, dtype=torch.float64)
            weights = (images - with_it) / with_it.clamp(min=1)
        else:
            weights = torch.tensor(self.weights)
        if len(weights) != len(counts):
            raise ValueError(
                f"weights must have one number for each of {len(counts)} labels, got {len(weights)}"
            )
        return BinaryCrossEntropyLoss(weights.float())


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


def _check_weights(weights: Any) -> None:
    if weights is None or (isinstance(weights, str) and weights == BALANCED):
        return
    if not isinstance(weights, tuple | list) or not weights:
        raise ValueError(
            f"weights must be {BALANCED!r} or a number of 0 or more for each class, got "
            f"{shown(weights)}"
        )
    check_numbers("weights", weights, len(weights), least=0)


def build(loss: Callable[..., Any], dls: DataLoaders) -> Any:
    """Build a recipe's loss for its data; a value that `needs_counts` is called with them.

    Raises:
        ValueError: the loss is for one label an image and the data has several, or the reverse.
    """
    several = getattr(dls, "multi_label", False)
    if several and isinstance(loss, CrossEntropy):
        raise ValueError(
            "loss must be BinaryCrossEntropy() for images with several labels, got CrossEntropy: "
            "set loss=BinaryCrossEntropy()"
        )
    if not several and isinstance(loss, BinaryCrossEntropy):
        raise ValueError(
            "BinaryCrossEntropy needs images with several labels, and these have one: set "
            "loss=CrossEntropy(), or Table(sep=...)"
        )
    if not getattr(loss, "needs_counts", False):
        return loss()
    images = {"images": len(dls.train.dataset)} if several else {}
    return loss(counts=class_counts(dls), **images).to(dls.device)


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
    if labels.ndim == 2:
        return labels.sum(dim=0).long().tolist()
    return torch.bincount(labels, minlength=len(dls.vocab)).tolist()


def _labels(dls: DataLoaders) -> Tensor | None:
    decoded = getattr(dls.train, "decoded", None)
    if decoded is not None:
        return decoded.labels
    parts = getattr(dls.train.dataset, "tls", ())
    if len(parts) < 2:
        return None
    if getattr(dls, "multi_label", False):
        return torch.stack([label.as_subclass(Tensor) for label in parts[-1]])
    return torch.tensor([int(label) for label in parts[-1]])
