"""fastcv itself, and fastcv without one of its parts at a time."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from fastai.data.core import DataLoaders

from fastcv.bench.rounds import Clock, Stopwatch
from fastcv.bench.stock_fastai import EPOCHS, RATE
from fastcv.experiment.train import learner
from fastcv.learning.learner import Learner
from fastcv.learning.stages.schedules import OneCycle
from fastcv.recipe.values import Recipe
from fastcv.terminal import Bar


class Terminal(io.StringIO):
    """Takes what a progress bar writes, and says that it moves the bar for somebody."""

    def isatty(self) -> bool:
        """Whether bars move here."""
        return True


class FastTraining:
    """A recipe's Learner with all its callbacks, its bar moving, in one cycle over all layers.

    Args:
        learn: as `fastcv.recipe.learner` gives it.
    """

    def __init__(self, learn: Learner):
        self.learn = learn
        learn.epoch_lines.bar = Bar(Terminal())

    def __call__(self, clock: Clock) -> None:
        """Train until the clock says stop."""
        with self.learn.added_cbs(Stopwatch(clock)):
            OneCycle(epochs=EPOCHS, lr=RATE)(self.learn)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the things that make fastcv fast, and how to do without it.

    Args:
        name: the contender is called "without_NAME".
        says: what the part does, for the table.
        used: whether the recipe's Learner has it on this machine.
        off: gives the recipe without it.
    """

    name: str
    says: str
    used: Callable[[Recipe, Learner], bool]
    off: Callable[[Recipe], Recipe]


def _stepping(recipe: Recipe, **settings: object) -> Recipe:
    return replace(recipe, step=replace(recipe.step, **settings))


PARTS = (
    Part(
        name="cache",
        says="images decoded once, batches gathered whole",
        used=lambda recipe, learn: recipe.data.cache != "off",
        off=lambda recipe: replace(recipe, data=replace(recipe.data, cache="off")),
    ),
    Part(
        name="bf16",
        says="bf16 autocast, else fp32",
        used=lambda recipe, learn: learn.precision.precision == "bf16",
        off=lambda recipe: replace(recipe, precision="fp32"),
    ),
    Part(
        name="channels_last",
        says="channels-last images and weights, else channels first",
        used=lambda recipe, learn: recipe.step.channels_last,
        off=lambda recipe: _stepping(recipe, channels_last=False),
    ),
    Part(
        name="fused_optimizer",
        says="one fused optimizer step, else torch's default",
        used=lambda recipe, learn: recipe.optimizer.fused,
        off=lambda recipe: replace(recipe, optimizer=replace(recipe.optimizer, fused=False)),
    ),
    Part(
        name="compile",
        says="net compiled, else its layers one by one",
        used=lambda recipe, learn: recipe.step.compile,
        off=lambda recipe: _stepping(recipe, compile=False),
    ),
    Part(
        name="graph",
        says="steps replayed from a CUDA graph, else launched by Python",
        used=lambda recipe, learn: learn.stepper.graph is not None,
        off=lambda recipe: _stepping(recipe, graph="off"),
    ),
)


@dataclass(frozen=True)
class Given:
    """A recipe's data slot that hands out loaders which are there already.

    Args:
        dls: the loaders; building them anew for every part would hold the images in memory anew.
    """

    dls: DataLoaders

    def __call__(self, device: torch.device | None = None) -> DataLoaders:
        """Hand them out."""
        return self.dls


def without(
    recipe: Recipe, learn: Learner, device: torch.device, parts: Iterable[Part] = PARTS
) -> dict[str, Learner]:
    """Build a Learner without each part that is used, by the name of the contender.

    Args:
        recipe: with all parts.
        learn: its Learner.
        device: where they train.
        parts: to do without, one at a time.
    """
    learners = {}
    for part in parts:
        if not part.used(recipe, learn):
            continue
        lesser = part.off(recipe)
        if lesser.data == recipe.data:
            lesser = replace(lesser, data=Given(learn.dls))
        learners[f"without_{part.name}"] = learner(lesser, device=device)
    return learners
