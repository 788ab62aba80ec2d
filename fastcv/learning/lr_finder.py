"""An LR finder that leaves no trace: training after it equals training without it.

fastai's own finder advances the random states and the loaders and writes into `path`; this one
runs inside a `snapshot`. A callback that writes files or stops the fit should do nothing while
`hasattr(self.learn, "lr_finder")`, as fastai's own callbacks do.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException, CancelValidException
from fastai.callback.schedule import minimum, slide, steep, valley
from fastai.learner import Learner
from fastcore.basics import even_mults
from torch import Tensor

from fastcv import ranks
from fastcv.learning.snapshot import snapshot

_SKIPPED_END = 5  # last steps before a stop, where the loss explodes; fastai's number
_SMOOTHING = 0.98  # weight of the earlier steps in the smoothed loss; the Recorder's number
_FEWEST_LOSSES = {"slide": 16, "steep": 2}  # slide compares slopes 15 steps apart; others need 1


class Rates(NamedTuple):
    """The curve that the finder measured, and the rates suggested by it.

    Attributes:
        rates: learning rate of each step, of the last parameter group.
        losses: smoothed training loss after each step, all finite.
        suggestions: the suggested rate and the smoothed loss there, by the name of the method.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestions: dict[str, tuple[float, float]]


def largest(rates: Tensor, losses: Tensor, num_it: int) -> tuple[float, tuple[float, float]]:
    """Suggest the rate with the lowest loss: the largest that a cycle should rise to.

    It is usually ten times fastai's `minimum`, which is meant for a constant rate. A cycle leaves
    its top soon, and so tolerates more than `valley` suggests. Only the upper half of the sweep is
    searched: a trained net's loss hardly falls, and the first few batches may have the lowest by
    chance. If the loss has risen by a tenth there, all rates are searched. Rates and losses are
    those of the finder's `num_it` steps without the first and the last ones.

    Returns:
        the rate, and its point (rate, loss) on the curve.

    Source: Smith 2018, arXiv:1803.09820.
    """
    half = num_it // 2 - num_it // 10  # `rates` begins after a tenth of the steps
    upper = losses[half:]
    skipped = half if len(upper) and upper.min() <= 1.1 * losses.min() else 0
    lowest = skipped + int(losses[skipped:].argmin())
    rate, loss = float(rates[lowest]), float(losses[lowest])
    return rate, (rate, loss)


SUGGESTIONS = (valley, steep, slide, minimum, largest)


def find_rates(
    learn: Learner,
    *,
    start_lr: float | Sequence[float] = 1e-7,
    end_lr: float | Sequence[float] = 10,
    num_it: int = 100,
    stop_div: bool = True,
    lr_mult: float = 1.0,
    suggest_funcs: Sequence[Callable] = SUGGESTIONS,
) -> Rates:
    """Train `learn` with an exponentially growing learning rate, then put everything back.

    Step i trains at start_lr * (end_lr / start_lr) ** (i / num_it). A training set of fewer than
    `num_it` batches is repeated; the run ends early at the first loss that is not finite.

    Of several ranks, the first one does it, alone, and the others learn what it found.

    Args:
        learn: any fastai Learner; its freezing, callbacks and optimizer stay as they are.
        start_lr: first rate; a sequence has one for each parameter group.
        end_lr: the rate after the last step, as `start_lr`.
        num_it: steps, at least 6.
        stop_div: stop when the smoothed loss exceeds four times its best.
        lr_mult: the rates are the last parameter group's; the first group trains at a rate divided
            by this, and those between are spaced evenly, in ratio.
        suggest_funcs: `largest`, and fastai's methods: `f(rates, losses, num_it) -> rate, point`.

    Raises:
        ValueError: the rates do not grow, or there are too few losses for a suggestion.
    """
    start, end = np.asarray(start_lr, dtype=float), np.asarray(end_lr, dtype=float)
    if not (np.all(start > 0) and np.all(end > start)):
        raise ValueError(
            f"the rates must grow from above zero, got start_lr={start_lr} and end_lr={end_lr}"
        )
    if num_it < 6:
        raise ValueError(f"num_it must be at least 6 steps, got {num_it}")
    if len(learn.dls.train) == 0:
        raise ValueError(
            "the training set must hold at least one batch, got none: lower the batch size"
        )

    sweep = _Sweep(start, end, num_it, stop_div, lr_mult)

    def found() -> Rates:
        with snapshot(learn), learn.no_logging():
            learn.fit(num_it // len(learn.dls.train) + 1, cbs=sweep)
        return _suggested(sweep, start_lr, suggest_funcs)

    rates = ranks.by_first(found)
    if ranks.count() > 1 and vars(learn).get("frozen_features"):
        learn.frozen_features.end()  # the others have not computed what the first one may have
    return rates


def _suggested(
    sweep: "_Sweep", start_lr: float | Sequence[float], suggest_funcs: Sequence[Callable]
) -> Rates:
    num_it = sweep.steps
    steps = num_it if sweep.exploded else len(sweep.losses)
    kept = slice(num_it // 10, max(steps - _SKIPPED_END, 0))
    rates, losses = torch.tensor(sweep.rates)[kept], torch.tensor(sweep.losses)[kept]
    suggestions = {}
    for suggest in suggest_funcs:
        name = getattr(suggest, "func", suggest).__name__  # a partial has its function's name
        fewest = _FEWEST_LOSSES.get(name, 1)
        if len(losses) < fewest:
            raise ValueError(
                f"{name} needs at least {fewest} finite losses after the first {num_it // 10} and "
                f"before the last {_SKIPPED_END} of {num_it} steps, got {len(losses)}: raise "
                f"num_it, or lower start_lr (now {start_lr})"
            )
        with warnings.catch_warnings():  # fastai's slide hands a tensor to numpy 2
            warnings.filterwarnings("ignore", "__array_wrap__", DeprecationWarning)
            rate = float(suggest(rates, losses, num_it)[0])
        # `minimum` suggests a tenth of the rate that it points at: read the loss at the suggestion.
        there = np.interp(math.log(rate), np.log(sweep.rates), sweep.losses)
        suggestions[name] = (rate, float(there))
    return Rates(tuple(sweep.rates), tuple(sweep.losses), suggestions)


class _Sweep(Callback):
    """Raises the learning rate step by step and records the smoothed loss."""

    order, run_valid = 60, False  # after the Recorder, where fastai's finder stands
    only_rates = True
    name = "lr_finder"  # callbacks that must stay quiet look for this attribute of the learner

    def __init__(
        self, start: np.ndarray, end: np.ndarray, steps: int, stop_div: bool, lr_mult: float
    ):
        self.start, self.end, self.steps, self.stop_div = start, end, steps, stop_div
        self.lr_mult = lr_mult
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.average, self.exploded = torch.zeros(()), False

    @property
    def done(self) -> float:
        """The fraction of the steps that were made."""
        return len(self.losses) / self.steps

    def before_fit(self):
        self.shares = np.asarray(even_mults(1 / self.lr_mult, 1, len(self.opt.hypers)))

    def before_batch(self):
        grown = (self.end / self.start) ** (self.train_iter / self.steps)
        self.opt.set_hyper("lr", (self.start * grown * self.shares).tolist())

    def after_batch(self):
        # fastai's smoothing, in float32 also where the loss is in half precision.
        self.average = torch.lerp(self.loss.detach().mean().float().cpu(), self.average, _SMOOTHING)
        loss = (self.average / (1 - _SMOOTHING ** (len(self.losses) + 1))).item()
        if not math.isfinite(loss):  # the weights are lost, and every later loss with them
            self.exploded = True
            raise CancelFitException
        self.rates.append(self.opt.hypers[-1]["lr"])
        self.losses.append(loss)
        diverged = self.stop_div and loss > 4 * min(self.losses)
        if diverged or self.train_iter >= self.steps:
            raise CancelFitException

    def before_validate(self):
        raise CancelValidException
