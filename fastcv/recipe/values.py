"""The recipe: a frozen value, and the numbers its report gives."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastcv.learning.step import Step

# The metrics a run may measure and a report may state, in the order tables show them.
METRICS = (
    "train_accuracy",
    "valid_accuracy",
    "best_valid_accuracy",
    "test_accuracy",
    "best_test_accuracy",
    "train_loss",
    "valid_loss",
    "test_loss",
    "parameters",
)


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a report says of its experiment; None where it gives no number.

    Accuracies are fractions 0-1. `best_...` is the best over the epochs, else the final weights
    count; training numbers are those of the epoch that made them. A measured accuracy is within
    tolerance where it lies at most `tolerance` away; losses are within tolerance at a relative
    difference of `loss_tolerance`; parameters must be equal.

    Args:
        source: where it is said, as "003 table 1".
        tolerance: absolute, a fraction.
        loss_tolerance: relative to the reported loss, a fraction.
    """

    source: str
    train_accuracy: float | None = None
    valid_accuracy: float | None = None
    best_valid_accuracy: float | None = None
    test_accuracy: float | None = None
    best_test_accuracy: float | None = None
    train_loss: float | None = None
    valid_loss: float | None = None
    test_loss: float | None = None
    parameters: int | None = None
    tolerance: float = 0.02
    loss_tolerance: float = 0.25

    def numbers(self) -> dict[str, float]:
        """The numbers the report gives, by the name of their metric."""
        stated = {name: getattr(self, name) for name in METRICS}
        return {name: value for name, value in stated.items() if value is not None}


def _name_of_defining_file() -> str:
    """Name a recipe after the file that makes it, as enum and namedtuple find their module."""
    scope = sys._getframe(2).f_globals  # 0: here, 1: Recipe.__init__ or named, 2: its caller
    return Path(scope.get("__file__", "notebook")).stem


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment: everything that decides its result.

    The slots are callables, so that a new kind of data, net or schedule is a new value:
    `data(device=None)` gives fastai DataLoaders, `model(dls, **keywords)` a fastai Learner, each
    stage of `schedule` takes that Learner and trains it, `optimizer(params, lr)` gives a fastai
    optimizer, `loss()` a loss function.

    Args:
        data: the images, their splits, their augmentation and their batches.
        model: the net, its weights and its parameter groups.
        schedule: the stages of the training, run in order; each starts with a fresh optimizer.
        optimizer: SGD, Adam or AdamW of `fastcv.learning.optimizers`.
        loss: `CrossEntropy(...)` of `fastcv.learning.losses`.
        precision: "fp32", "bf16", or "auto": bf16 where the processor computes it natively.
        step: how a training step is computed (compiled, as a CUDA graph, channels-last), not what.
        seed: of the initial weights, the order of the images and their augmentation.
        reported: what the report says, None for an experiment of one's own.
        name: the file's name, then "/" and the variant's; decides where runs are written.
    """

    data: Callable
    model: Callable
    schedule: tuple[Callable, ...]
    optimizer: Callable
    loss: Callable
    precision: str = "auto"
    step: Step = field(default_factory=Step)
    seed: int = 0
    reported: Reported | None = None
    name: str = field(default_factory=_name_of_defining_file)

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")


def named(**variants: Recipe) -> dict[str, Recipe]:
    """Name each variant after the file that calls this, and itself.

    `variants = named(one_cycle=replace(recipe, ...))` binds a dict of recipes.
    """
    file = _name_of_defining_file()
    return {
        variant: replace(recipe, name=f"{file}/{variant}") for variant, recipe in variants.items()
    }
