"""The first layer frozen after some epochs, and its backward pass left out."""

from fastai.callback.core import Callback


class FreezeFirst(Callback):
    """From an epoch on leave the net's first child as it is, and its backward pass out.

    Args:
        epochs: of the fit, in which the first child is still trained.
    """

    order, run_valid = 61, False

    def __init__(self, epochs: int):
        self.epochs = epochs

    def before_fit(self) -> None:
        """Find what of the first child is trained at all."""
        first = next(self.learn.model.children())
        self.trained = [p for p in first.parameters() if p.requires_grad]

    def before_epoch(self) -> None:
        """Train the first child, or don't; a resumed fit finds it right as well."""
        self._train(self.learn.epoch < self.epochs)

    def after_fit(self) -> None:
        """Leave it to be trained by what comes after."""
        self._train(True)

    def _train(self, trained: bool) -> None:
        for parameter in self.trained:
            parameter.requires_grad_(trained)
