"""Learning rate and momentum set as a stage goes on: along a curve, or when a metric stalls."""

from typing import Any

import torch
from fastai.callback.core import Callback

from fastcv.learning.callbacks.monitor import check_measured
from fastcv.learning.curves import Curve


class Anneal(Callback):
    """Set learning rates and momentum before every batch from a curve."""

    order, run_valid = 60, False
    only_rates = True  # before a batch it leaves the batch as it is: a captured step may follow

    def __init__(self, curve: Curve):
        self.curve = curve

    @property
    def moves_momentum(self) -> bool:
        """Whether the curve gives momentum too."""
        return self.curve(0, 0, 1, 1)[1] is not None

    def before_fit(self) -> None:
        """Remember the rates of the parameter groups: the curve scales them."""
        self.rates = [group["lr"] for group in self.learn.opt.opt.param_groups]

    def before_batch(self) -> None:
        """Set what the curve gives at this step."""
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

    The rule is torch's ReduceLROnPlateau.
    """

    order, run_valid = 65, False

    def __init__(self, monitor: str, factor: float, patience: int):
        self.monitor, self.factor, self.patience = monitor, factor, patience

    def before_fit(self) -> None:
        """Put torch's scheduler on the stage's optimizer."""
        check_measured(self.learn, self.monitor)
        self.rule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.learn.opt.opt,
            mode="min" if self.monitor.endswith("loss") else "max",
            factor=self.factor,
            patience=self.patience,
        )

    def after_epoch(self) -> None:
        """Show the rule this epoch's value."""
        self.rule.step(self.learn.history.row[self.monitor])

    def state(self) -> dict[str, Any]:
        """What a resumed stage needs."""
        return self.rule.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.rule.load_state_dict(state)
