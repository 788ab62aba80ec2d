"""A stage whose learning rate follows straight lines."""

from dataclasses import dataclass

from fastai.callback.core import Callback

from fastcv.learning.schedules import Anneal, Constant, Curve
from fastcv.learning.views import MeasureViews, Views


def triangle(pct_start: float, start: float, end: float) -> Curve:
    """A line from `start` up to 1, then one down to `end`, both factors of the rate.

    factor(t) = start + (1 - start) t / pct_start             for t < pct_start
                1 + (end - 1) (t - pct_start) / (1 - pct_start)   after that

    where t is the step, as a fraction of the stage. With `pct_start` 0 only the second is left.
    """

    def curve(step: int, epoch: int, steps: int, epochs: int) -> tuple[float, None]:
        at = step / (steps * epochs)
        if at < pct_start:
            return start + (1 - start) * at / pct_start, None
        return 1 + (end - 1) * (at - pct_start) / (1 - pct_start), None

    return curve


class RestFirst(Callback):
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


@dataclass(frozen=True, kw_only=True)
class Linear(Constant):
    """A stage whose rate rises to `lr` along a line and falls away along another.

    Args:
        pct_start: fraction of the stage in which the rate rises; 0 starts at the top.
        start: the first rate is lr * start.
        end: the last rate comes to lr * end, which the step after the last one would have.
        first_epochs: epochs in which the net's first child is trained; from then on it rests, and
            nothing is computed for it backwards. None: in all.
        views: seen through which the net's accuracy is measured after the last epoch, beside the
            plain one; None for no such measurement.
    """

    pct_start: float = 0.0
    start: float = 1.0
    end: float = 0.0
    first_epochs: int | None = None
    views: Views | None = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.pct_start < 1:
            raise ValueError(
                f"pct_start must be a fraction from 0 to below 1, got {self.pct_start}"
            )

    def callbacks(self) -> list[Callback]:
        """Anneal along the lines, and do what else the stage says."""
        curve = triangle(self.pct_start, self.start, self.end)
        callbacks: list[Callback] = [Anneal(curve)]
        if self.first_epochs is not None:
            callbacks.append(RestFirst(self.first_epochs))
        if self.views is not None:
            callbacks.append(MeasureViews(self.views))
        return callbacks
