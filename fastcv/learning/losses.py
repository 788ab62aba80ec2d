"""Loss functions as values, and the losses they build."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastcv.recipe.bounds import check_number


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """torch's cross-entropy with the methods that fastai expects of a loss.

    Shape:
        logits: (B, classes), any float type; computed in float32.
        targets: (B,) class numbers, or (B, classes) probabilities.
        returns: scalar, the mean over the batch (or (B,) while `reduction` is "none").
    """

    y_int = True  # fastai's MixUp and CutMix then mix losses, as class numbers cannot be mixed

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss from plain tensors, as subclasses cost time."""
        return super().forward(
            logits.as_subclass(Tensor).float(), torch.as_tensor(targets).as_subclass(Tensor)
        )

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
    """

    label_smoothing: float = 0.0

    def __post_init__(self):
        check_number("label_smoothing", self.label_smoothing, least=0, most=1)

    def __call__(self) -> CrossEntropyLoss:
        """Build the loss."""
        return CrossEntropyLoss(label_smoothing=self.label_smoothing)
