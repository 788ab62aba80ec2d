"""Stages by how their learning rate moves."""

from dataclasses import dataclass

from fastai.callback.core import Callback

from fastcv.learning.callbacks.anneal import ReduceOnPlateau
from fastcv.learning.callbacks.monitor import check_monitor
from fastcv.learning.curves import Curve, cosine, one_cycle, triangle
from fastcv.learning.stages.stage import Stage


@dataclass(frozen=True, kw_only=True)
class Constant(Stage):
    """Train at one learning rate."""


@dataclass(frozen=True, kw_only=True)
class OneCycle(Stage):
    """Raise the rate to `lr` and let it fall again, while the momentum does the opposite.

    Args:
        pct_start: fraction of the stage in which the rate rises.
        div: the first rate is lr / div.
        div_final: the last rate is lr / div_final.
        momenta: momentum (or Adam's first beta) at the start, the top and the end; None leaves it.

    Source: Smith 2018, arXiv:1803.09820; fastai's `fit_one_cycle`, with its defaults.
    """

    pct_start: float = 0.25
    div: float = 25.0
    div_final: float = 1e5
    momenta: tuple[float, float, float] | None = (0.95, 0.85, 0.95)

    def curve(self) -> Curve:
        """Return the cycle."""
        return one_cycle(self.pct_start, self.div, self.div_final, self.momenta)


@dataclass(frozen=True, kw_only=True)
class Cosine(Stage):
    """Lower the rate along a cosine, in steps of an epoch or a batch.

    Args:
        per: "epoch" or "batch": how often the rate is set, and the unit of `t_max`.
        t_max: epochs or batches from lr down to 0; after that the rate rises again. None: the
            whole stage.

    Raises:
        ValueError: `per` is neither, or what `Stage` raises.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983; torch's CosineAnnealingLR.
    """

    per: str = "epoch"
    t_max: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.per not in ("epoch", "batch"):
            raise ValueError(f"Cosine's per must be 'epoch' or 'batch', got {self.per!r}")

    def curve(self) -> Curve:
        """Return the cosine."""
        return cosine(self.t_max, self.per == "batch")


@dataclass(frozen=True, kw_only=True)
class Linear(Stage):
    """Raise the rate to `lr` along one line and lower it along another.

    Args:
        pct_start: fraction of the stage in which the rate rises; 0 starts at the top.
        start: the first rate is lr * start.
        end: the rate falls towards lr * end, which the step after the last one would have.

    Raises:
        ValueError: `pct_start` is below 0 or not below 1, or what `Stage` raises.
    """

    pct_start: float = 0.0
    start: float = 1.0
    end: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.pct_start < 1:
            raise ValueError(
                f"pct_start must be a fraction from 0 to below 1, got {self.pct_start}"
            )

    def curve(self) -> Curve:
        """Return the two lines."""
        return triangle(self.pct_start, self.start, self.end)


@dataclass(frozen=True, kw_only=True)
class Plateau(Stage):
    """Cut the rate when a metric stops improving.

    Args:
        patience: epochs without improvement before a cut.
        factor: what a cut multiplies the rate by.
        monitor: a column of metrics.csv. One whose name ends in "loss" should fall, any other rise.

    Raises:
        ValueError: `monitor` cannot be such a column, or what `Stage` raises.

    Source: torch's ReduceLROnPlateau.
    """

    patience: int = 10
    factor: float = 0.1
    monitor: str = "valid_loss"

    def __post_init__(self):
        super().__post_init__()
        check_monitor(self.monitor)

    def _own_callbacks(self) -> list[Callback]:
        cut = ReduceOnPlateau(self.monitor, self.factor, self.patience)
        return [cut, *super()._own_callbacks()]
