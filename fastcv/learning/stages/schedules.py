"""The stages of a training as values: how long, at which rate, over which layers.

A stage is called with a Learner and trains it. It starts with a fresh optimizer, freezes what it
says, and hands fastai's `fit` the callbacks it stands for.
"""

from dataclasses import dataclass, field, replace
from numbers import Real

from fastai.callback.core import Callback
from fastai.callback.training import GradientClip
from fastai.learner import Learner

from fastcv.learning.callbacks.anneal import Anneal, ReduceOnPlateau
from fastcv.learning.callbacks.clip import ClipElements
from fastcv.learning.callbacks.keep_best import KeepBest, StopEarly
from fastcv.learning.curves import cosine, one_cycle
from fastcv.learning.lr_finder import SUGGESTIONS, find_rates
from fastcv.learning.models import last_children

MONITORS = ("valid_loss", "valid_accuracy", "train_loss", "train_accuracy")


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
        lr_mult: the first group's rate is lr / lr_mult, and those between lie evenly, in ratio
            (fastai's `slice(lr / lr_mult, lr)`).
        frozen: True trains the head alone, a number n the last n children of the net, False all.
        clip: largest norm of the gradient, None for no limit.
        clip_value: largest magnitude of each element of the gradient, None for no limit.
        early_stop: when to end early; the best weights are then kept.

    Raises:
        ValueError: `epochs` or `lr_mult` is below 1, or `lr` is neither a number nor such a name.
    """

    epochs: int
    lr: float | str
    lr_mult: float = 1.0
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
                "grow towards the head are the head's lr and a lr_mult"
            )
        if self.lr_mult < 1:
            raise ValueError(f"lr_mult must be at least 1, got {self.lr_mult}")

    def __call__(self, learn: Learner) -> None:
        """Train `learn` for this stage."""
        learn.create_opt()
        freeze(learn, self.frozen)
        callbacks = [*self.callbacks(), *self._common_callbacks()]
        learn.fit(self.epochs, lr=learning_rate(learn, self.lr, self.lr_mult), cbs=callbacks)

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


def learning_rate(learn: Learner, lr: float | str, lr_mult: float) -> slice:
    """Make of a stage's `lr` and `lr_mult` what fastai's `fit` takes; a name asks the LR finder."""
    if isinstance(lr, str):
        lr = suggested(learn, lr, lr_mult)
    return slice(lr / lr_mult, lr)


def suggested(learn: Learner, name: str, lr_mult: float) -> float:
    """Ask the LR finder for a rate, or a run that resumes for what it had found."""
    history = getattr(learn, "history", None)
    if history is not None and history.resuming:  # found before the run was stopped
        rates = next(rates for stage, rates in history.found if stage == history.stage)
    else:
        rates = find_rates(learn, lr_mult=lr_mult)
        if history is not None:
            history.found.append((history.stage, rates))
    return rates.suggestions[name][0]
