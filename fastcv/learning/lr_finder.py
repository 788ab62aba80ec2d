"""Learning-rate finder that leaves no trace: a training after it is the training without it.

    found = find_rates(learn)
    found.suggestions["valley"]             # (rate, smoothed loss there)

fastai's own leaves the random states and the loaders advanced and writes into `path`; here the run
happens inside a `snapshot`. A callback that writes or stops on its own stays quiet while
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

from fastcv.learning.snapshot import snapshot

_SKIPPED_END = 5  # steps: the last ones before a stop lie on the cliff; fastai's number
_SMOOTHING = 0.98  # share of the loss that is of the steps before: the Recorder's number
_FEWEST_LOSSES = {"slide": 16, "steep": 2}  # slide compares slopes 15 steps apart; others need 1


class Rates(NamedTuple):
    """What a run of the finder saw.

    Attributes:
        rates: learning rate of each step, of the last parameter group.
        losses: smoothed training loss after each step, all finite.
        suggestions: by the name of the method, the suggested rate and the smoothed loss there.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestions: dict[str, tuple[float, float]]


def largest(rates: Tensor, losses: Tensor, num_it: int) -> tuple[float, tuple[float, float]]:
    """Suggest the rate of the lowest loss: the largest that a cycle should rise to.

    Mostly it is ten times fastai's `minimum`, which is for a rate that stays. A cycle, which soon
    falls from its top, bears more than `valley` suggests. It is sought in the upper half of the
    sweep: a trained net's loss hardly falls, and that of the first few batches may be the lowest by
    chance. Only where it has risen by a tenth there, all rates count.

    Args:
        rates: of the finder's steps, without the first and the last ones.
        losses: after each of these steps.
        num_it: steps of the finder, which tell the half.

    Returns:
        the rate, and the point (rate, loss) of the curve that it stands for.

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

    Step i trains at start_lr * (end_lr / start_lr) ** (i / num_it). The run goes round a training
    set of fewer batches than `num_it`, and ends early at the first loss that is not finite.

    Args:
        learn: any fastai Learner; freezing, callbacks and optimizer are used as they are.
        start_lr: first rate; a sequence gives one for each parameter group.
        end_lr: the rate after the last step, as `start_lr`.
        num_it: steps, at least 6.
        stop_div: stop when the smoothed loss exceeds four times its best.
        lr_mult: the rates are the last parameter group's; the first group's are divided by this,
            and those between are spaced evenly, in ratio.
        suggest_funcs: `largest`, and fastai's methods: `f(rates, losses, num_it) -> rate, point`.

    Raises:
        ValueError: the rates do not grow, or there is too little to learn a suggestion from.
    """
    start, end = np.asarray(start_lr, dtype=float), np.asarray(end_lr, dtype=float)
    if not (np.all(start > 0) and np.all(end > start)):
        raise ValueError(
            f"the rates must grow from above zero, got start_lr={start_lr} and end_lr={end_lr}"
        )
    if num_it < 6:
        raise ValueError(f"num_it must be at least 6 steps, got {num_it}")
    if len(learn.dls.train) == 0:
        raise ValueError("the training set must give at least one batch: lower the batch size")

    sweep = _Sweep(start, end, num_it, stop_div, lr_mult)
    with snapshot(learn), learn.no_logging():
        learn.fit(num_it // len(learn.dls.train) + 1, cbs=sweep)

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
        # `minimum` suggests a tenth of the rate it points at: the loss is read at the suggestion.
        there = np.interp(math.log(rate), np.log(sweep.rates), sweep.losses)
        suggestions[name] = (rate, float(there))
    return Rates(tuple(sweep.rates), tuple(sweep.losses), suggestions)


class _Sweep(Callback):
    """Raises the learning rate step by step and records the smoothed loss."""

    order, run_valid = 60, False  # after the Recorder, where fastai's finder stands
    name = "lr_finder"  # callbacks that must stay quiet look for this attribute of the learner

    def __init__(
        self, start: np.ndarray, end: np.ndarray, steps: int, stop_div: bool, lr_mult: float
    ):
        self.start, self.end, self.steps, self.stop_div = start, end, steps, stop_div
        self.lr_mult = lr_mult
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.average, self.exploded = torch.zeros(()), False

    def before_fit(self):
        self.shares = np.asarray(even_mults(1 / self.lr_mult, 1, len(self.opt.hypers)))

    def before_batch(self):
        grown = (self.end / self.start) ** (self.train_iter / self.steps)
        self.opt.set_hyper("lr", (self.start * grown * self.shares).tolist())

    def after_batch(self):
        # fastai's smoothing, in float32 also where the loss is in half precision.
        self.average = torch.lerp(self.loss.detach().mean().float().cpu(), self.average, _SMOOTHING)
        loss = (self.average / (1 - _SMOOTHING ** (len(self.losses) + 1))).item()
        if not math.isfinite(loss):  # the weights are lost: every later loss is the same
            self.exploded = True
            raise CancelFitException
        self.rates.append(self.opt.hypers[-1]["lr"])
        self.losses.append(loss)
        diverged = self.stop_div and loss > 4 * min(self.losses)
        if diverged or self.train_iter >= self.steps:
            raise CancelFitException

    def before_validate(self):
        raise CancelValidException
