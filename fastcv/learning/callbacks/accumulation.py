"""Gradients of several batches accumulated for one step of the optimizer."""

import torch
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.training import GradientAccumulation


class Accumulation(Callback):
    """Let the optimizer step once for `batches` batches, along the mean gradient of their images.

    The last group of an epoch may have fewer batches: it steps at the epoch's end, along the mean
    of those that it has. So no gradient is carried into another epoch, a checkpoint or a stage;
    fastai's GradientAccumulation counts on, and drops what is left when the fit ends.
    """

    order, run_valid = GradientAccumulation.order, False  # before gradients are clipped
    only_rates = True  # leaves the batch itself alone

    def __init__(self, batches: int):
        self.batches = batches

    def before_train(self) -> None:
        """Begin an epoch without a gradient."""
        self.learn.opt.zero_grad()
        self.sizes: list[int] = []

    def before_batch(self) -> None:
        """Let several ranks average the gradients of a group once, with its last batch."""
        learn = self.learn
        learn.reduces = not self._goes_on(len(self.sizes) + 1)

    def after_loss(self) -> None:
        """Weight the batch's mean loss by its images, relative to the first batch of the group."""
        self.sizes.append(self.learn.images[1])
        if self.sizes[-1] != self.sizes[0]:
            self.learn.loss_grad = self.learn.loss_grad * (self.sizes[-1] / self.sizes[0])

    def before_step(self) -> None:
        """Go on to the next batch, or turn the sum of the group's gradients into their mean."""
        learn = self.learn
        if self._goes_on(len(self.sizes)):
            raise CancelBatchException  # the gradients stay
        grads = [each.grad for each in learn.model.parameters() if each.grad is not None]
        torch._foreach_mul_(grads, self.sizes[0] / sum(self.sizes))
        self.sizes.clear()

    def after_fit(self) -> None:
        """Let each batch average its gradients again."""
        self.learn.reduces = True

    def _goes_on(self, count: int) -> bool:
        """Whether a group of `count` batches takes another one."""
        return count < self.batches and self.learn.iter + 1 < self.learn.n_iter
