"""Gradients clipped by value, as fastai's `GradientClip` clips them by norm."""

import torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientClip


class ClipElements(Callback):
    """Bring every element of the gradient to at most `limit`, whatever its sign."""

    order, run_valid = GradientClip.order, False

    def __init__(self, limit: float):
        self.limit = limit

    def before_step(self) -> None:
        """Clip what the backward pass left."""
        torch.nn.utils.clip_grad_value_(self.learn.model.parameters(), self.limit)
