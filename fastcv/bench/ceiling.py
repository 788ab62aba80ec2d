"""The upper limit on this hardware: fastcv's step alone, on batches already on the device."""

from torch import nn

from fastcv.bench.rounds import Clock
from fastcv.bench.stock_fastai import RATE
from fastcv.learning.learner import Learner


class BareTraining:
    """Forward, loss, backward, step, and nothing else.

    Net, loss, optimizer, precision, memory layout and compilation are those of a recipe's Learner.
    It does not use a CUDA graph.

    Args:
        learn: its data are `Synthetic`; its net is trained in place.
        loss: a function of logits and class numbers.
    """

    def __init__(self, learn: Learner, loss: nn.Module):
        learn.create_opt()
        learn("before_fit")  # places the net and sets its memory layout, as a fit does
        self.net, self.loss = learn.model, loss
        self.forward = learn.stepper.net(learn)
        self.optimizer = learn.opt.opt
        for group in self.optimizer.param_groups:
            group["lr"] = RATE
        self.batches = learn.dls.train.dataset
        self.precision = learn.precision

    def __call__(self, clock: Clock) -> None:
        """Train until the round is over."""
        self.net.train()
        for x, y in clock.batches(self.batches):
            with self.precision.scope(x.device):
                logits = self.forward(x)
            self.loss(logits.float(), y).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
