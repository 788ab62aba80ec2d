"""Gradients of several batches accumulated for one step of the optimizer."""

import torch
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.training import GradientAccumulation
from fastai.torch_core import find_bs


class Accumulation(Callback):
    """Let the optimizer step once for `batches` batches, along the mean gradient of their images.

    The last group of an epoch may have fewer batches: it steps at the epoch's end, along the mean
    of those that it has. So no gradient is carried into another epoch, a checkpoint or a stage;
    fastai's GradientAccumulation counts on, and drops what is left when the fit ends.
    """

    order, run_valid = GradientAccumulation.order, False  # before gradients are clipped

    def __init__(self, batches: int):
        self.batches = batches

    def before_train(self) -> None:
        """Begin an epoch without a gradient."""
        self.learn.opt.zero_grad()
        self.sizes: list[int] = []

    def after_loss(self) -> None:
        """Weight the batch's mean loss by its images, relative to the first batch of the group."""
        self.sizes.append(find_bs(self.learn.yb))
        if self.sizes[-1] != self.sizes[0]:
            self.learn.loss_grad = self.learn.loss_grad * (self.sizes[-1] / self.sizes[0])

    def before_step(self) -> None:
        """Go on to the next batch, or turn the sum of the group's gradients into their mean."""
        learn = self.learn
        if len(self.sizes) < self.batches and learn.iter + 1 < learn.n_iter:
            raise CancelBatchException  # the gradients stay
        grads = [each.grad for each in learn.model.parameters() if each.grad is not None]
        torch._foreach_mul_(grads, self.sizes[0] / sum(self.sizes))
        self.sizes.clear()
