"""Keep the best weights of a training, and stop when they stay the best for too long."""

from typing import Any

from fastai.callback.core import Callback, CancelFitException


class KeepBest(Callback):
    """Hold the weights of the best epoch in memory and put them back when the fit ends.

    Args:
        monitor: a column of `history`; one that ends in "loss" should fall, any other rise.
        patience: epochs without improvement before the fit is stopped; None never stops it.
    """

    order, run_valid = 66, False

    def __init__(self, monitor: str = "valid_loss", patience: int | None = None):
        self.monitor, self.patience = monitor, patience
        self.sign = 1 if monitor.endswith("loss") else -1

    def before_fit(self) -> None:
        """Forget what an earlier fit found."""
        self.best, self.waited, self.weights = float("inf"), 0, None

    def after_epoch(self) -> None:
        """Keep these weights if they are the best so far; stop after too many that are not."""
        value = self.sign * self.learn.history.row[self.monitor]
        if value < self.best:
            self.best, self.waited = value, 0
            self.weights = {
                name: tensor.detach().clone()
                for name, tensor in self.learn.model.state_dict().items()
            }
            return
        self.waited += 1
        if self.patience is not None and self.waited >= self.patience:
            raise CancelFitException

    def after_fit(self) -> None:
        """Put the best weights back."""
        if self.weights is not None:
            self.learn.model.load_state_dict(self.weights)

    def state(self) -> dict[str, Any]:
        """What a resumed fit needs."""
        return {"best": self.best, "waited": self.waited, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.best, self.waited, self.weights = state["best"], state["waited"], state["weights"]
