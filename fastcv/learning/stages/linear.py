"""A stage whose learning rate follows straight lines."""

from dataclasses import dataclass

from fastai.callback.core import Callback

from fastcv.learning.callbacks.anneal import Anneal
from fastcv.learning.callbacks.freeze_first import FreezeFirst
from fastcv.learning.callbacks.measure_tta import MeasureTTA
from fastcv.learning.curves import triangle
from fastcv.learning.stages.schedules import Constant
from fastcv.learning.tta import TTA


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
    views: TTA | None = None

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
            callbacks.append(FreezeFirst(self.first_epochs))
        if self.views is not None:
            callbacks.append(MeasureTTA(self.views))
        return callbacks
