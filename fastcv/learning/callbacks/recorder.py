"""fastai's Recorder and batch counter, which do less at every step and never wait for the device.

Their public attributes stay: `learn.recorder.losses`, `.lrs`, `.values`, `.iters`, the plots,
`learn.smooth_loss`. The smoothed losses are computed when they are read, or once an epoch.
"""

from typing import Any

import torch
from fastai import learner as fastai_learner
from fastai.callback import core
from fastai.callback.tracker import TrackerCallback
from fastai.optimizer import OptimWrapper
from fastai.torch_core import find_bs, to_detach
from torch import Tensor, nn

from fastcv import ranks


class TrainEvalCallback(core.TrainEvalCallback):
    """fastai's, without looking each name up through callback and Learner for every batch.

    It also sets the mode of a loss that is a module, whose class weights count in training only.
    """

    def before_train(self) -> None:
        """Set net and loss to training mode."""
        super().before_train()
        self._set_loss(training=True)

    def before_validate(self) -> None:
        """Set net and loss to evaluation mode."""
        super().before_validate()
        self._set_loss(training=False)

    def _set_loss(self, *, training: bool) -> None:
        if isinstance(self.learn.loss_func, nn.Module):
            self.learn.loss_func.train(training)

    def after_batch(self) -> None:
        """Count the batch."""
        learn = self.learn
        learn.pct_train += 1.0 / (learn.n_iter * learn.n_epoch)
        learn.train_iter += 1


class Recorder(fastai_learner.Recorder):
    """fastai's: losses and rates of each step, loss and metrics of each epoch of the last fit."""

    def __init__(self, *args: Any, **keywords: Any):
        super().__init__(*args, **keywords)
        self.loss, self.smooth_loss = MeanLoss(), SmoothLoss(beta=self.smooth_loss.beta)

    @property
    def losses(self) -> list[Tensor]:
        """The smoothed training loss after each step, on the CPU."""
        return self.smooth_loss.values

    @losses.setter
    def losses(self, values: list[Tensor]) -> None:
        self.smooth_loss.known = [torch.stack(values)] if values else []

    def before_fit(self) -> None:
        """Forget the last fit.

        Raises:
            ValueError: a fastai callback monitors something that will not be recorded.
        """
        super().before_fit()
        columns = self.metric_names[1:-1] if self.add_time else self.metric_names[1:]
        known = [name for name in columns if name == "train_loss" or len(self.learn.dls.valid)]
        for callback in self.learn._grab_cbs(TrackerCallback):
            if callback.monitor not in known:
                raise ValueError(
                    f"{type(callback).__name__}'s monitor must be one of {', '.join(known)}, got "
                    f"{callback.monitor!r}: fastai's names have no valid_ before a metric"
                )

    def after_batch(self) -> None:
        """Record loss and rate of a training batch; measure a validation batch."""
        learn = self.learn
        if not len(learn.yb):
            return
        metrics = self._valid_mets
        if learn.training:
            self.smooth_loss.accumulate(learn)
            self.lrs.append(last_group(learn.opt)["lr"])
            metrics = self._train_mets[1:] if self.train_metrics else ()
        for metric in metrics:
            metric.accumulate(learn)

    def gather(self) -> None:
        """Know what all ranks have measured of the validation images."""
        found = ranks.gathered((float(self.loss.total), self.loss.count))
        self.loss.total, self.loss.count = map(sum, zip(*found, strict=True))


class MeanLoss(fastai_learner.AvgLoss):
    """The mean loss of all images, summed on the device."""

    def accumulate(self, learn: fastai_learner.Learner) -> None:
        """Add a batch."""
        size = find_bs(learn.yb) if ranks.count() == 1 else learn.images[0]
        self.total = self.total + to_detach(learn.loss.mean(), cpu=False) * size
        self.count += size


class SmoothLoss(fastai_learner.AvgSmoothLoss):
    """The exponentially smoothed loss after each step since `reset`; of a rank's own images.

    Attributes:
        known: smoothed losses, up to the last step that was read; a tensor for each reading.
        waiting: losses of the steps after that one, on the device; at most an epoch's.
    """

    def __init__(self, beta: float):
        super().__init__(beta)
        self.reset()  # a Learner may be exported before its first fit

    def reset(self) -> None:
        """Start over."""
        super().reset()
        self.known: list[Tensor] = []
        self.waiting: list[Tensor] = []

    def accumulate(self, learn: fastai_learner.Learner) -> None:
        """Record a step's loss."""
        self.count += 1
        self.waiting.append(learn.loss.detach())

    @property
    def value(self) -> Tensor:
        """The smoothed loss after the last step; NaN before the first."""
        self._smooth()
        return self.val / (1 - self.beta**self.count)

    @property
    def values(self) -> list[Tensor]:
        """The smoothed loss after each step."""
        self._smooth()
        return [loss for losses in self.known for loss in losses.unbind()]

    def state(self) -> tuple[int, Tensor]:
        """Return what a resumed fit needs."""
        self._smooth()
        return self.count, self.val

    def restore(self, state: tuple[int, Tensor]) -> None:
        """Continue from `state`."""
        self.count, self.val = state

    def __getstate__(self) -> dict:
        self._smooth()  # a Learner is saved without the losses of its last fit
        return vars(self) | {"known": []}

    def _smooth(self) -> None:
        """Read the waiting losses from the device at once; smooth them in order, as fastai does."""
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
        self.known.append(smoothed / (1 - self.beta**counts).to(smoothed.dtype))


def last_group(optimizer: fastai_learner.Optimizer | OptimWrapper) -> dict[str, Any]:
    """Return the last parameter group's current settings; `hypers` would copy those of all."""
    wrapped = isinstance(optimizer, OptimWrapper)
    return optimizer.opt.param_groups[-1] if wrapped else optimizer.hypers[-1]
