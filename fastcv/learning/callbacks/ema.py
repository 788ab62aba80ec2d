"""An exponential moving average of the weights, with which a stage validates and ends."""

from dataclasses import dataclass
from itertools import chain, compress
from typing import Any

from fastai.callback.core import Callback
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fastcv.recipe.bounds import check_flags, check_number


@dataclass(frozen=True, kw_only=True)
class EMA:
    """Average the weights over the steps of each stage; validate, and end the stage, with that.

    One of the `callbacks` of a stage or of a recipe. After step t, counted from 1, of a stage

        average = d * average + (1 - d) * weights,  d = min(decay, (1 + t) / (10 + t))

    so that the average spans a tenth of the steps so far at first, and fits short trainings too.
    It begins with the weights that the stage begins with, and holds the running statistics of batch
    norm as well. Training goes on with the plain weights; validation, `EarlyStop`, `TTA` and
    fastai's trackers see the average, and the stage leaves it to the next one and to the run.

    Args:
        decay: what a step keeps of the average, a fraction below 1: 0.999 spans some 1,000 steps.
        warmup: whether d grows to `decay`, as above; if False, it is `decay` from the first step.
            Then a fraction of decay^T of the weights that the stage began with is left after T
            steps, which keeps a net that is fine-tuned on few images near its pretraining.

    Raises:
        ValueError: `decay` is not a fraction below 1.

    Source: Polyak and Juditsky 1992; the growing decay is that of TensorFlow's
    ExponentialMovingAverage.
    """

    decay: float = 0.999
    warmup: bool = True

    def __post_init__(self):
        check_number("decay", self.decay, least=0, below=1)
        check_flags(self, "warmup")

    def __call__(self) -> "WeightAverage":
        """Build the callback."""
        return WeightAverage(self)

    def at(self, step: int) -> float:
        """Return the decay of a step, counted from 1."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay


class WeightAverage(Callback):
    """Average the weights after every step; put the average into the net when it validates.

    The net holds the average from the start of an epoch's validation until its other callbacks but
    the checkpoint have seen the epoch, and from the end of the fit on, unless another callback put
    the weights of an epoch back. Tensors are copied in place, so that a captured step stays valid.

    Args:
        steps: how many steps the average has seen in this fit.
    """

    order, run_valid = 99, True  # after the trackers and before the checkpoint
    steps = 0

    def __init__(self, settings: EMA):
        self.settings = settings
        self._net: list[Tensor] = []
        self._average: list[Tensor] = []
        self._plain: list[Tensor] | None = None  # the net's values while it holds the average

    def before_fit(self) -> None:
        """Begin with the weights as they are.

        Raises:
            ValueError: there are two averages.
        """
        if not self._counts:
            return
        if len(self.learn._grab_cbs(WeightAverage)) > 1:
            raise ValueError(
                "a stage must have one EMA at most, got several: leave it out of the stage's "
                "callbacks or the recipe's"
            )
        net = self.learn.model
        self._net = [each.detach() for each in chain(net.parameters(), net.buffers())]
        self._average = [each.clone() for each in self._net]
        self._plain, self.steps, self._seen = None, 0, self.learn.updates

    def after_batch(self) -> None:
        """Update the average if the weights have changed."""
        if not (self._counts and self.learn.training) or self.learn.updates == self._seen:
            return
        self._seen = self.learn.updates
        self.steps += 1
        floats = [each.is_floating_point() for each in self._net]
        update = get_ema_multi_avg_fn(self.settings.at(self.steps))
        update(list(compress(self._average, floats)), list(compress(self._net, floats)), None)
        for average, now in zip(self._average, self._net, strict=True):
            if not now.is_floating_point():  # batch norm's count of batches
                average.copy_(now)

    def before_validate(self) -> None:
        """Put the average into the net."""
        if self._counts and self.steps and self._plain is None:
            self._plain = [each.clone() for each in self._net]
            _copy(self._average, self._net)

    def after_epoch(self) -> None:
        """Put the plain weights back, to train on."""
        if self._counts and self._plain is not None:
            _copy(self._plain, self._net)
            self._plain = None

    def after_fit(self) -> None:
        """Leave the average in the net, unless the weights of some epoch were put back."""
        if not self._counts:
            return
        if self.learn.history.kept is None:
            _copy(self._average, self._net)
        self._net, self._average = [], []

    def state(self) -> dict[str, Any]:
        """Return what a resumed fit needs."""
        return {"steps": self.steps, "average": self._average}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.steps = state["steps"]
        _copy(state["average"], self._average)

    @property
    def _counts(self) -> bool:
        """Whether this is a fit of the training, not the LR finder's nor a prediction."""
        return self.learn.fitting and not self.learn.borrowed


def _copy(values: list[Tensor], into: list[Tensor]) -> None:
    for value, tensor in zip(values, into, strict=True):
        tensor.copy_(value)
