"""fastcv itself, and fastcv without one of its parts at a time."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from fastai.data.core import DataLoaders
from fastai.optimizer import OptimWrapper

from fastcv.bench.rounds import Clock, Stopwatch
from fastcv.bench.stock_fastai import EPOCHS, RATE
from fastcv.learning.learner import Learner
from fastcv.learning.precision import Precision
from fastcv.learning.schedules import OneCycle
from fastcv.recipe.training import learner
from fastcv.recipe.values import Recipe


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
        learn.epoch_lines.stream = Terminal()
        learn.epoch_lines.live = True

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
        recipe: gives the recipe without it.
        learner: takes it off the Learner.
    """

    name: str
    says: str
    used: Callable[[Recipe, Learner], bool]
    recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe
    learner: Callable[[Learner], None] = lambda learn: None


@dataclass(frozen=True)
class Unfused:
    """A recipe's optimizer as torch has it by default.

    That is parameter by parameter on a CPU, and in lists of parameters on a GPU.

    Args:
        optimizer: fused.
    """

    optimizer: Callable[..., OptimWrapper]

    def __call__(self, params: Iterable, lr: float | slice, **settings: object) -> OptimWrapper:
        """Build the optimizer."""
        built = self.optimizer(params, lr, **settings)
        built.opt.defaults["fused"] = None
        for group in built.opt.param_groups:
            group["fused"] = None
        return built


class ChannelsFirst(Precision):
    """`Precision` with images and weights channels first, torch's default."""

    name = "precision"  # as on every Learner of a recipe

    def before_fit(self) -> None:
        """Lay the weights out channels first, in place."""
        self.learn.model.to(memory_format=torch.contiguous_format)

    def before_batch(self) -> None:
        """Lay the images out channels first: the loader's copy is paid for in either layout."""
        self.learn.xb = tuple(x.contiguous() for x in self.learn.xb)


def _channels_first(learn: Learner) -> None:
    precision = learn.precision.precision
    learn.remove_cb(Precision)
    learn.add_cb(ChannelsFirst(precision))


PARTS = (
    Part(
        name="cache",
        says="images decoded once, batches gathered whole",
        used=lambda recipe, learn: recipe.data.cache != "off",
        recipe=lambda recipe: replace(recipe, data=replace(recipe.data, cache="off")),
    ),
    Part(
        name="bf16",
        says="bf16 autocast, else fp32",
        used=lambda recipe, learn: learn.precision.precision == "bf16",
        recipe=lambda recipe: replace(recipe, precision="fp32"),
    ),
    Part(
        name="channels_last",
        says="channels-last images and weights, else channels first",
        used=lambda recipe, learn: True,
        learner=_channels_first,
    ),
    Part(
        name="fused_optimizer",
        says="one fused optimizer step, else torch's default",
        used=lambda recipe, learn: True,
        recipe=lambda recipe: replace(recipe, optimizer=Unfused(recipe.optimizer)),
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
        lesser = part.recipe(recipe)
        if lesser.data == recipe.data:
            lesser = replace(lesser, data=Given(learn.dls))
        built = learner(lesser, device=device)
        part.learner(built)
        learners[f"without_{part.name}"] = built
    return learners
