"""Stages by how their learning rate moves."""

import math
from dataclasses import dataclass

from fastai.callback.core import Callback
from fastai.callback.schedule import sched_cos

from fastcv.learning.callbacks.anneal import Curve, ReduceOnPlateau
from fastcv.learning.callbacks.monitor import check_monitor
from fastcv.learning.stages.stage import Stage
from fastcv.recipe.bounds import check_number, check_numbers, check_whole, shown, unless_none


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

    def __post_init__(self):
        super().__post_init__()
        check_number("pct_start", self.pct_start, least=0, most=1)
        check_number("div", self.div, above=0)
        check_number("div_final", self.div_final, above=0)
        if self.momenta is not None:
            check_numbers("momenta", self.momenta, 3, least=0, below=1)

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
            raise ValueError(f"Cosine's per must be 'epoch' or 'batch', got {shown(self.per)}")
        unless_none(check_whole, "t_max", self.t_max, least=1)

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
        check_number("pct_start", self.pct_start, least=0, below=1)
        check_number("start", self.start, least=0)
        check_number("end", self.end, least=0)

    def curve(self) -> Curve:
        """Return the two lines."""
        return triangle(self.pct_start, self.start, self.end)


@dataclass(frozen=True, kw_only=True)
class Plateau(Stage):
    """Cut the rate when a metric stops improving.

    Args:
        patience: epochs without improvement before a cut.
        factor: what a cut multiplies the rate by.
        monitor: a column of metrics.csv. One that ends in loss, error, error_rate, deviance or
            perplexity should fall, any other rise.

    Raises:
        ValueError: `monitor` cannot be such a column, or what `Stage` raises.

    Source: torch's ReduceLROnPlateau.
    """

    patience: int = 10
    factor: float = 0.1
    monitor: str = "valid_loss"

    def __post_init__(self):
        super().__post_init__()
        check_whole("patience", self.patience)
        check_number("factor", self.factor, above=0, below=1)
        check_monitor(self.monitor)

    def _own_callbacks(self) -> list[Callback]:
        cut = ReduceOnPlateau(self.monitor, self.factor, self.patience)
        return [cut, *super()._own_callbacks()]


def one_cycle(pct_start: float, div: float, div_final: float, momenta: tuple | None) -> Curve:
    """Return half a cosine from 1/div up to 1, then one down to 1/div_final; momenta mirror it."""
    factors = (1 / div, 1.0, 1 / div_final)

    def curve(step: int, epoch: int, steps: int, epochs: int) -> tuple[float, float | None]:
        position = step / (steps * epochs)
        if position < pct_start:
            at, ends = position / pct_start, slice(0, 2)
        else:
            at, ends = (position - pct_start) / (1 - pct_start), slice(1, 3)
        momentum = None if momenta is None else sched_cos(*momenta[ends], at)
        return sched_cos(*factors[ends], at), momentum

    return curve


def cosine(period: int | None, per_batch: bool) -> Curve:
    """Return (1 + cos(pi t / period)) / 2: down in `period` epochs or batches, then up, and so on.

    It is torch's CosineAnnealingLR with eta_min 0, in closed form; period None: the whole stage.
    """

    def curve(step: int, epoch: int, steps: int, epochs: int) -> tuple[float, None]:
        time = step if per_batch else epoch
        length = period or (steps * epochs if per_batch else epochs)
        return (1 + math.cos(math.pi * time / length)) / 2, None

    return curve


def triangle(pct_start: float, start: float, end: float) -> Curve:
    """Return a line from `start` up to 1, then one down to `end`, both factors of the rate.

    factor(t) = start + (1 - start) t / pct_start             for t < pct_start
                1 + (end - 1) (t - pct_start) / (1 - pct_start)   after that

    where t is the step as a fraction of the stage. With `pct_start` 0 only the second line is left.
    """

    def curve(step: int, epoch: int, steps: int, epochs: int) -> tuple[float, None]:
        at = step / (steps * epochs)
        if at < pct_start:
            return start + (1 - start) * at / pct_start, None
        return 1 + (end - 1) * (at - pct_start) / (1 - pct_start), None

    return curve
