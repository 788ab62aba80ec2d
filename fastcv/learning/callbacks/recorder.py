"""fastai's Recorder and batch counter, with less to do at every step and no waiting for a device.

What they offer to a user stays: `learn.recorder.losses`, `.lrs`, `.values`, `.iters`, its plots,
`learn.smooth_loss`. The smoothed losses are worked out when somebody asks, or once an epoch.
"""

from typing import Any

import torch
from fastai import learner as fastai_learner
from fastai.callback import core
from fastai.optimizer import OptimWrapper
from fastai.torch_core import find_bs, to_detach
from torch import Tensor


class TrainEvalCallback(core.TrainEvalCallback):
    """fastai's, counting without a search for each name through callback and Learner."""

    def after_batch(self) -> None:
        """Count the batch."""
        learn = self.learn
        learn.pct_train += 1.0 / (learn.n_iter * learn.n_epoch)
        learn.train_iter += 1


class Recorder(fastai_learner.Recorder):
    """fastai's: losses and rates of the steps, loss and metrics of the epochs of the last fit.

    Args:
        add_time: whether a row ends with the epoch's duration.
        train_metrics: whether the metrics are measured on training batches too.
        valid_metrics: whether they are measured on validation batches.
        beta: share of a smoothed loss that is of the steps before.
    """

    def __init__(
        self,
        add_time: bool = True,
        train_metrics: bool = False,
        valid_metrics: bool = True,
        beta: float = 0.98,
    ):
        super().__init__(add_time, train_metrics, valid_metrics, beta)
        self.loss, self.smooth_loss = MeanLoss(), SmoothLoss(beta=beta)

    @property
    def losses(self) -> list[Tensor]:
        """The smoothed training loss after each step, on the CPU."""
        return self.smooth_loss.values

    @losses.setter
    def losses(self, values: list[Tensor]) -> None:
        self.smooth_loss.known = values

    def after_batch(self) -> None:
        """Take down loss and rate of a training batch; measure one of validation."""
        learn = self.learn
        if not len(learn.yb):
            return
        if not learn.training:
            metrics = self._valid_mets
        else:
            self.smooth_loss.accumulate(learn)
            self.lrs.append(last_group(learn.opt)["lr"])
            metrics = self._train_mets[1:] if self.train_metrics else ()
        for metric in metrics:
            metric.accumulate(learn)


class MeanLoss(fastai_learner.AvgLoss):
    """The mean loss of all images, summed on the device."""

    def accumulate(self, learn: fastai_learner.Learner) -> None:
        """Add a batch."""
        size = find_bs(learn.yb)
        self.total = self.total + to_detach(learn.loss.mean(), cpu=False) * size
        self.count += size


class SmoothLoss(fastai_learner.AvgSmoothLoss):
    """The exponentially smoothed loss, after each step since `reset`.

    Attributes:
        known: smoothed losses, of all steps but those that nobody has asked for yet.
        waiting: losses of the steps behind these, on the device; an epoch's at most.
    """

    def reset(self) -> None:
        """Begin anew."""
        super().reset()
        self.known: list[Tensor] = []
        self.waiting: list[Tensor] = []

    def accumulate(self, learn: fastai_learner.Learner) -> None:
        """Take down a step's loss."""
        self.count += 1
        self.waiting.append(learn.loss.detach())

    @property
    def value(self) -> Tensor:
        """The smoothed loss after the last step; not a number before the first."""
        self._smooth()
        return self.val / (1 - self.beta**self.count)

    @property
    def values(self) -> list[Tensor]:
        """The smoothed loss after each step."""
        self._smooth()
        return self.known

    def __getstate__(self) -> dict:
        self._smooth()  # a Learner is saved without the losses of its last fit
        return vars(self) | {"known": []}

    def _smooth(self) -> None:
        """Read what waits from the device at once, and go through it as fastai does, in order."""
        if not self.waiting:
            return
        means = [loss if loss.ndim == 0 else loss.mean() for loss in self.waiting]
        counts = torch.arange(self.count - len(means) + 1, self.count + 1, dtype=torch.float64)
        self.waiting.clear()
        averages = []
        for loss in torch.stack(means).cpu().unbind():
            self.val = torch.lerp(loss, self.val, self.beta)
            averages.append(self.val)
        smoothed = torch.stack(averages)
        self.known += (smoothed / (1 - self.beta**counts).to(smoothed.dtype)).unbind()


def last_group(optimizer: fastai_learner.Optimizer | OptimWrapper) -> dict[str, Any]:
    """The last parameter group's settings as they are now; `hypers` would copy those of all."""
    wrapped = isinstance(optimizer, OptimWrapper)
    return optimizer.opt.param_groups[-1] if wrapped else optimizer.hypers[-1]
