"""The stages of a training as values: how long, at which rate, over which layers.

A stage is called with a Learner and trains it. It starts with a fresh optimizer, freezes what it
says, and hands fastai's `fit` the callbacks it stands for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientClip
from fastai.learner import Learner

from fastcv.learning.keep_best import KeepBest, StopEarly, check_measured
from fastcv.learning.lr_finder import SUGGESTIONS, find_rates
from fastcv.learning.models import last_children

MONITORS = ("valid_loss", "valid_accuracy", "train_loss", "train_accuracy")

# A curve takes the step, the epoch, the steps of an epoch and the epochs of the stage, all counted
# from 0, and returns a factor of the learning rate and the momentum (None: left as it is).
Curve = Callable[[int, int, int, int], tuple[float, float | None]]


def one_cycle(pct_start: float, div: float, div_final: float, momenta: tuple | None) -> Curve:
    """Half a cosine from 1/div up to 1, then one down to 1/div_final; momenta run against it.

    Source: Smith 2018, arXiv:1803.09820, in the form of fastai's `fit_one_cycle`.
    """

    def curve(step: int, epoch: int, steps: int, epochs: int) -> tuple[float, float | None]:
        position = step / (steps * epochs)
        if position < pct_start:
            at, ends = position / pct_start, (0, 1)
        else:
            at, ends = (position - pct_start) / (1 - pct_start), (1, 2)
        factors = (1 / div, 1.0, 1 / div_final)
        factor = _half_cosine(factors[ends[0]], factors[ends[1]], at)
        if momenta is None:
            return factor, None
        return factor, _half_cosine(momenta[ends[0]], momenta[ends[1]], at)

    return curve


def _half_cosine(start: float, end: float, at: float) -> float:
    return start + (1 + math.cos(math.pi * (1 - at))) * (end - start) / 2


def cosine(period: int | None, per_batch: bool) -> Curve:
    """(1 + cos(pi t / period)) / 2: down in `period` epochs or batches, then up again, and so on.

    Source: torch's CosineAnnealingLR with eta_min 0, in closed form; period None: the whole stage.
    """

    def curve(step: int, epoch: int, steps: int, epochs: int) -> tuple[float, None]:
        time = step if per_batch else epoch
        length = period or (steps * epochs if per_batch else epochs)
        return (1 + math.cos(math.pi * time / length)) / 2, None

    return curve


class Anneal(Callback):
    """Set learning rates and momentum before every batch from a curve."""

    order, run_valid = 60, False
    only_rates = True  # before a batch it leaves the batch as it is: a captured step may follow

    def __init__(self, curve: Curve):
        self.curve = curve

    @property
    def moves_momentum(self) -> bool:
        """Whether the curve gives momentum too."""
        return self.curve(0, 0, 1, 1)[1] is not None

    def before_fit(self) -> None:
        """Remember the rates of the parameter groups: the curve scales them."""
        self.rates = [group["lr"] for group in self.learn.opt.opt.param_groups]

    def before_batch(self) -> None:
        """Set what the curve gives at this step."""
        steps, epoch = self.learn.n_iter, self.learn.epoch
        step = epoch * steps + self.learn.iter
        factor, momentum = self.curve(step, epoch, steps, self.learn.n_epoch)
        for group, rate in zip(self.learn.opt.opt.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
            if momentum is None:
                continue
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


class ReduceOnPlateau(Callback):
    """Multiply the rates by `factor` when `monitor` has not improved for `patience` epochs.

    The rule is torch's ReduceLROnPlateau.
    """

    order, run_valid = 65, False

    def __init__(self, monitor: str, factor: float, patience: int):
        self.monitor, self.factor, self.patience = monitor, factor, patience

    def before_fit(self) -> None:
        """Put torch's scheduler on the stage's optimizer."""
        check_measured(self.learn, self.monitor)
        self.rule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.learn.opt.opt,
            mode="min" if self.monitor.endswith("loss") else "max",
            factor=self.factor,
            patience=self.patience,
        )

    def after_epoch(self) -> None:
        """Show the rule this epoch's value."""
        self.rule.step(self.learn.history.row[self.monitor])

    def state(self) -> dict[str, Any]:
        """What a resumed stage needs."""
        return self.rule.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.rule.load_state_dict(state)


class ClipElements(Callback):
    """Bring every element of the gradient to at most `limit`, whatever its sign."""

    order, run_valid = GradientClip.order, False

    def __init__(self, limit: float):
        self.limit = limit

    def before_step(self) -> None:
        """Clip what the backward pass left."""
        torch.nn.utils.clip_grad_value_(self.learn.model.parameters(), self.limit)


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """End the stage when `monitor` has not improved for `patience` epochs; keep the best weights.

    Args:
        patience: epochs without improvement, at least 1; None: never stop, only keep the best
            weights.
        monitor: a column of metrics.csv; one that ends in "loss" should fall, any other rise.
    """

    patience: int | None = None
    monitor: str = "valid_loss"

    def __post_init__(self):
        _check_monitor(self.monitor)
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1 epoch, got {self.patience}")


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A stage at one learning rate; the other stages add what changes it.

    Args:
        epochs: passes over the training images.
        lr: learning rate of the last parameter group; a name (valley, steep, slide, minimum,
            largest) is what the LR finder suggests on the spot: "steep" and "slide" may lie where
            the loss has exploded.
        spread: the first group's rate is lr / spread, and those between lie evenly, in ratio
            (fastai's `slice(lr / spread, lr)`).
        frozen: True trains the head alone, a number n the last n children of the net, False all.
        clip: largest norm of the gradient, None for no limit.
        clip_value: largest magnitude of each element of the gradient, None for no limit.
        early_stop: when to end early; the best weights are then kept.

    Raises:
        ValueError: `epochs` or `spread` is below 1, or `lr` is neither a number nor such a name.
    """

    epochs: int
    lr: float | str
    spread: float = 1.0
    frozen: bool | int = False
    clip: float | None = None
    clip_value: float | None = None
    early_stop: EarlyStop | None = None

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
        names = [suggest.__name__ for suggest in SUGGESTIONS]
        if not isinstance(self.lr, Real) and self.lr not in names:
            raise ValueError(
                f"lr must be a number or one of {', '.join(names)}, got {self.lr!r}: rates that "
                "grow towards the head are the head's lr and a spread"
            )
        if self.spread < 1:
            raise ValueError(f"spread must be at least 1, got {self.spread}")

    def __call__(self, learn: Learner) -> None:
        """Train `learn` for this stage."""
        learn.create_opt()
        freeze(learn, self.frozen)
        callbacks = [*self.callbacks(), *self._common_callbacks()]
        learn.fit(self.epochs, lr=learning_rate(learn, self.lr, self.spread), cbs=callbacks)

    def callbacks(self) -> list[Callback]:
        """What this kind of stage adds to the fit."""
        return []

    def _common_callbacks(self) -> list[Callback]:
        callbacks: list[Callback] = []
        if self.clip is not None:
            callbacks.append(GradientClip(max_norm=self.clip))
        if self.clip_value is not None:
            callbacks.append(ClipElements(self.clip_value))
        if self.early_stop is not None:
            keep = KeepBest(self.early_stop.monitor)
            callbacks += [keep, StopEarly(keep, self.early_stop.patience)]
        return callbacks

    def smoke(self) -> "Constant":
        """The same stage for one epoch."""
        return replace(self, epochs=1)


@dataclass(frozen=True, kw_only=True)
class OneCycle(Constant):
    """A stage whose rate rises to `lr` and falls away, while the momentum does the opposite.

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

    def callbacks(self) -> list[Callback]:
        """Anneal along the cycle."""
        return [Anneal(one_cycle(self.pct_start, self.div, self.div_final, self.momenta))]


@dataclass(frozen=True, kw_only=True)
class Cosine(Constant):
    """A stage whose rate falls along a cosine, set anew every epoch or every batch.

    Args:
        per: "epoch" or "batch": when the rate is set, and the unit of `t_max`.
        t_max: epochs or batches from lr down to 0; after that it rises again. None: the stage.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983; torch's CosineAnnealingLR.
    """

    per: str = field(default="epoch")
    t_max: int | None = None

    def callbacks(self) -> list[Callback]:
        """Anneal along the cosine."""
        if self.per not in ("epoch", "batch"):
            raise ValueError(f"Cosine's per must be 'epoch' or 'batch', got {self.per!r}")
        return [Anneal(cosine(self.t_max, self.per == "batch"))]


@dataclass(frozen=True, kw_only=True)
class Plateau(Constant):
    """A stage whose rate is cut when a metric stops improving.

    Args:
        patience: epochs without improvement before a cut.
        factor: what a cut multiplies the rate by.
        monitor: a column of metrics.csv; one that ends in "loss" should fall, any other rise.

    Source: torch's ReduceLROnPlateau.
    """

    patience: int = 10
    factor: float = 0.1
    monitor: str = "valid_loss"

    def __post_init__(self):
        super().__post_init__()
        _check_monitor(self.monitor)

    def callbacks(self) -> list[Callback]:
        """Cut the rate on a plateau."""
        return [ReduceOnPlateau(self.monitor, self.factor, self.patience)]


def _check_monitor(monitor: str) -> None:
    if monitor not in MONITORS:
        raise ValueError(f"monitor must be one of {', '.join(MONITORS)}, got {monitor!r}")


def freeze(learn: Learner, frozen: bool | int) -> None:
    """Train the head alone (True), the last n children (n), or everything (False)."""
    if frozen is False:
        learn.unfreeze()
    elif frozen is not True:
        last_children(learn, frozen)
    elif len(learn.opt.param_groups) > 1:
        learn.freeze()
    else:
        raise ValueError(
            "a frozen stage must have a net with more than one parameter group, got one group: "
            "use a Pretrained model, or frozen=False"
        )


def learning_rate(learn: Learner, lr: float | str, spread: float) -> slice:
    """Make of a stage's `lr` and `spread` what fastai's `fit` takes; a name asks the LR finder."""
    if isinstance(lr, str):
        lr = suggested(learn, lr, spread)
    return slice(lr / spread, lr)


def suggested(learn: Learner, name: str, spread: float) -> float:
    """Ask the LR finder for a rate, or a run that resumes for what it had found."""
    history = getattr(learn, "history", None)
    if history is not None and history.resuming:  # found before the run was stopped
        rates = next(rates for stage, rates in history.found if stage == history.stage)
    else:
        rates = find_rates(learn, spread=spread)
        if history is not None:
            history.found.append((history.stage, rates))
    return rates.suggestions[name][0]
