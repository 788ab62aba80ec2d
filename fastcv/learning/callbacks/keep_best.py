"""Keep the best weights of a fit, and stop when they have not improved for too long."""

from typing import Any

from fastai.callback.core import Callback, CancelFitException

from fastcv.learning.callbacks.monitor import check_measured
from fastcv.recipe.metrics import should_fall


class KeepBest(Callback):
    """Hold the weights of the best epoch in memory and put them back when the fit ends."""

    order, run_valid = 66, False

    def __init__(self, monitor: str = "valid_loss"):
        self.monitor = monitor
        self.sign = 1 if should_fall(monitor) else -1

    def before_fit(self) -> None:
        """Forget the last fit."""
        check_measured(self.learn, self.monitor)
        self.best, self.best_epoch, self.waited, self.weights = float("inf"), 0, 0, None

    def after_epoch(self) -> None:
        """Keep these weights if they are the best so far."""
        row = self.learn.history.row
        value = self.sign * row[self.monitor]
        self.waited += 1
        if value < self.best:
            self.best, self.best_epoch, self.waited = value, row["epoch"], 0
            weights = self.learn.model.state_dict()
            self.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}

    def after_fit(self) -> None:
        """Put the best weights back."""
        if self.weights is not None:
            self.learn.model.load_state_dict(self.weights)
            self.learn.history.kept = self.best_epoch

    def state(self) -> dict[str, Any]:
        """Return what a resumed fit needs."""
        return {name: getattr(self, name) for name in ("best", "best_epoch", "waited", "weights")}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        for name, value in state.items():
            setattr(self, name, value)


class StopEarly(Callback):
    """End the fit when the best epoch of `keep` is `patience` epochs ago; None never does."""

    order, run_valid = 110, False  # last: others have seen the epoch, the checkpoint is written

    def __init__(self, keep: KeepBest, patience: int | None):
        self.keep, self.patience = keep, patience

    def after_epoch(self) -> None:
        """Stop, and say so."""
        if self.patience is None or self.keep.waited < self.patience:
            return
        if hasattr(self.learn, "epoch_lines"):
            self.learn.epoch_lines.line(
                f"stopped early: {self.keep.monitor} has not improved for {self.keep.waited} "
                f"epochs; the weights are those of epoch {self.keep.best_epoch}"
            )
        raise CancelFitException

    before_epoch = after_epoch  # a resumed fit may have ended already
