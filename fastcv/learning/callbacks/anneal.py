"""Change learning rate and momentum during a stage: along a curve, or when a metric stalls."""

from collections.abc import Callable
from typing import Any

import torch
from fastai.callback.core import Callback

from fastcv.learning.callbacks.monitor import check_measured
from fastcv.recipe.metrics import should_fall

# curve(step, epoch, steps an epoch, epochs) -> (factor of the learning rate, momentum or None).
# Step and epoch count from 0 over the stage; None leaves the momentum as it is.
Curve = Callable[[int, int, int, int], tuple[float, float | None]]


class Anneal(Callback):
    """Set learning rates and momentum along a curve before every batch."""

    order, run_valid = 60, False
    only_rates = True  # leaves the batch alone, so that a captured step may follow

    def __init__(self, curve: Curve):
        self.curve = curve

    @property
    def moves_momentum(self) -> bool:
        """Whether the curve also sets the momentum."""
        return self.curve(0, 0, 1, 1)[1] is not None

    def before_fit(self) -> None:
        """Remember the rates of the parameter groups, which the curve scales."""
        self.rates = [group["lr"] for group in self.learn.opt.opt.param_groups]

    def before_batch(self) -> None:
        """Set this step's rates and momentum."""
        steps, epoch = self.learn.n_iter, self.learn.epoch
        step = epoch * steps + self.learn.iter
        factor, momentum = self.curve(step, epoch, steps, self.learn.n_epoch)
        for group, rate in zip(self.learn.opt.opt.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
            if momentum is None:
                continue
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


class ReduceOnPlateau(Callback):
    """Multiply the rates by `factor` when `monitor` has not improved for `patience` epochs.

    Source: torch's ReduceLROnPlateau, which decides.
    """

    order, run_valid = 65, False

    def __init__(self, monitor: str, factor: float, patience: int):
        self.monitor, self.factor, self.patience = monitor, factor, patience

    def before_fit(self) -> None:
        """Attach torch's scheduler to the stage's optimizer."""
        check_measured(self.learn, self.monitor)
        self.rule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.learn.opt.opt,
            mode="min" if should_fall(self.monitor) else "max",
            factor=self.factor,
            patience=self.patience,
        )

    def after_epoch(self) -> None:
        """Pass this epoch's value on to the scheduler."""
        self.rule.step(self.learn.history.row[self.monitor])

    def state(self) -> dict[str, Any]:
        """Return what a resumed stage needs."""
        return self.rule.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.rule.load_state_dict(state)
