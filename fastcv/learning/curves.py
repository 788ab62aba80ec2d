"""How learning rate and momentum move over a stage, as functions."""

import math
from collections.abc import Callable

from fastai.callback.schedule import sched_cos

# curve(step, epoch, steps an epoch, epochs) -> (factor of the learning rate, momentum or None).
# Step and epoch count from 0 over the stage; None leaves the momentum as it is.
Curve = Callable[[int, int, int, int], tuple[float, float | None]]


def one_cycle(pct_start: float, div: float, div_final: float, momenta: tuple | None) -> Curve:
    """Return half a cosine from 1/div up to 1, then one down to 1/div_final; momenta mirror it.

    Source: Smith 2018, arXiv:1803.09820, in the form of fastai's `fit_one_cycle`.
    """

    def curve(step: int, epoch: int, steps: int, epochs: int) -> tuple[float, float | None]:
        position = step / (steps * epochs)
        if position < pct_start:
            at, ends = position / pct_start, (0, 1)
        else:
            at, ends = (position - pct_start) / (1 - pct_start), (1, 2)
        factors = (1 / div, 1.0, 1 / div_final)
        factor = sched_cos(factors[ends[0]], factors[ends[1]], at)
        if momenta is None:
            return factor, None
        return factor, sched_cos(momenta[ends[0]], momenta[ends[1]], at)

    return curve


def cosine(period: int | None, per_batch: bool) -> Curve:
    """Return (1 + cos(pi t / period)) / 2: down in `period` epochs or batches, then up, and so on.

    Source: torch's CosineAnnealingLR with eta_min 0, in closed form; period None: the whole stage.
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
